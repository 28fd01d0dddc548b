//! The gateway's certificate: the operator's own, or one that the installation's certificate authority
//! issues.
//!
//! The authority is in the table `keys`, its key encrypted under the master key, so that clients trust it
//! for as long as the installation lives, also after a recovery. It is valid for ten years. Two years before
//! its end the next one is made, and `/v1/ca.pem` has both, so that clients can fetch the new one while the
//! old one still signs. The new one signs when the old one would end before the certificate does: 13 months
//! before its end.
//!
//! The certificate itself is in memory only. Each start issues one for the names of now, and a running
//! Howdah issues the next one when a third of its life is left.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::tls_files::{Files, Given};
use crate::config::Serve;
use crate::metadata;
use base::error::{Error, Result, describe};
use base::keyring::Keyring;
use base::secret::random_hex;
use base::store::{Store, Tx};
use domain::app::{App, PublicAddresses};
use gateway::authority::{Authority, LEAF_LIFE, Leaf, Validity};
use gateway::tls::{self, Tls};

const AUTHORITY: &str = "certificate authority";
/// What earlier versions kept: a certificate that signed itself, for the names of the first start.
const SELF_SIGNED: &str = "gateway certificate";
/// How long before its end an authority gets a successor.
const SUCCESSION: SignedDuration = SignedDuration::from_hours(24 * 730);
/// How often to check whether something has to be renewed.
const ROUND: Duration = Duration::from_secs(3600);
/// How often to check whether the operator's files have changed.
const ROUND_OF_FILES: Duration = Duration::from_secs(60);

/// What the gateway serves with, and what clients verify it by.
pub struct Certificate {
    /// The certificate and its key.
    pub tls: watch::Receiver<Tls>,
    /// The authorities' certificates as PEM; `None` where the operator has given a certificate.
    pub authorities: Option<watch::Receiver<String>>,
    /// Replaces them in time.
    pub renewal: Renewal,
}

/// Replaces the gateway's certificate while Howdah runs.
#[derive(Clone)]
pub enum Renewal {
    /// Howdah's authority issues it.
    Issued(Arc<Issued>),
    /// The operator gives it.
    Given(Arc<Given>),
}

/// A certificate that Howdah's authority issues, and the authorities that clients need.
pub struct Issued {
    names: Vec<String>,
    valid: Mutex<Validity>,
    tls: watch::Sender<Tls>,
    authorities: watch::Sender<String>,
}

impl Certificate {
    /// The one that the operator has given.
    pub(super) fn given(files: Files) -> Result<Self> {
        let (given, tls) = Given::new(files)?;
        Ok(Self { tls, authorities: None, renewal: Renewal::Given(Arc::new(given)) })
    }

    /// One for these names, which the installation's authority issues.
    pub async fn issued(store: &Store, keyring: &Keyring, names: Vec<String>, now: Timestamp) -> Result<Self> {
        let authorities = Authorities::load(store, keyring, now).await?;
        let (tls, valid) = authorities.issue(&names, now)?;
        let (tls, new_sessions) = watch::channel(tls);
        let (published, clients) = watch::channel(authorities.pem(now));
        let issued = Issued { names, valid: Mutex::new(valid), tls, authorities: published };
        Ok(Self { tls: new_sessions, authorities: Some(clients), renewal: Renewal::Issued(Arc::new(issued)) })
    }
}

impl Renewal {
    /// Renews what is due until the tasks stop.
    pub(super) async fn keep(self, app: Arc<App>) {
        let round = match &self {
            Self::Issued(_) => ROUND,
            Self::Given(_) => ROUND_OF_FILES,
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(round) => {}
                () = app.tasks.stopping() => return,
            }
            let looked = match &self {
                Self::Issued(issued) => issued.look(&app.store, &app.keyring, app.clock.now()).await,
                Self::Given(given) => given.look(),
            };
            if let Err(error) = looked {
                tracing::warn!(
                    error = %describe(&error),
                    "could not renew the gateway's certificate; the gateway keeps the current certificate, and Howdah retries"
                );
            }
        }
    }
}

impl Issued {
    /// Renews what is due at this time.
    pub async fn look(&self, store: &Store, keyring: &Keyring, now: Timestamp) -> Result<()> {
        let authorities = Authorities::load(store, keyring, now).await?;
        let published = authorities.pem(now);
        self.authorities.send_if_modified(|before| {
            let changes = *before != published;
            *before = published;
            changes
        });
        let valid = *self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        let life = valid.until.duration_since(valid.from);
        let is_fresh = valid.contains(now) && valid.until.duration_since(now) > life / 3;
        if !is_fresh {
            let (tls, valid) = authorities.issue(&self.names, now)?;
            self.tls.send_replace(tls);
            *self.valid.lock().unwrap_or_else(PoisonError::into_inner) = valid;
        }
        Ok(())
    }
}

/// The installation's authorities, oldest first.
struct Authorities(Vec<Authority>);

impl Authorities {
    /// Reads them; makes the first one, and the next one when it is time.
    async fn load(store: &Store, keyring: &Keyring, now: Timestamp) -> Result<Self> {
        let tx = store.begin().await?;
        // Another process that makes one meanwhile is waited for.
        tx.batch_execute("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE").await?;
        let mut authorities = Self::read(&tx, keyring).await?;
        if authorities.need_successor(now) {
            let made = make(&tx, keyring, now).await?;
            match authorities.signer(now) {
                Some(signer) => tracing::warn!(
                    until = %signer.valid().until,
                    "created a new certificate authority, because the current one expires; clients that verify the \
                     gateway's certificate need the new /v1/ca.pem within {} days",
                    signer.valid().until.duration_since(now + LEAF_LIFE).as_hours() / 24
                ),
                None => tracing::info!("created the certificate authority of this installation"),
            }
            authorities.0.push(made);
        }
        let replaced = tx.execute("DELETE FROM keys WHERE purpose = $1", &[&SELF_SIGNED]).await?;
        tx.commit().await?;
        if replaced > 0 {
            tracing::warn!(
                "replaced the gateway's self-signed certificate with one from this installation's certificate \
                 authority; clients that trusted the old certificate need /v1/ca.pem (docs/connecting.md)"
            );
        }
        Ok(authorities)
    }

    async fn read(tx: &Tx, keyring: &Keyring) -> Result<Self> {
        let select = "SELECT sealed, public FROM keys WHERE purpose = $1 ORDER BY created_at, key_id";
        let mut authorities = Vec::new();
        for row in tx.query(select, &[&AUTHORITY]).await? {
            let key = keyring.open(AUTHORITY, row.get("sealed"))?;
            let key = std::str::from_utf8(&key).map_err(Error::internal)?;
            authorities.push(Authority::read(row.get("public"), key)?);
        }
        Ok(Self(authorities))
    }

    /// Whether none of them is valid now and for long enough. One whose time has not come was made under a
    /// clock that was wrong.
    fn need_successor(&self, now: Timestamp) -> bool {
        let lasts = |valid: Validity| valid.contains(now) && valid.contains(now + SUCCESSION);
        !self.0.iter().any(|authority| lasts(authority.valid()))
    }

    /// The one that clients have had the most time to fetch, of those that outlive what they issue now.
    fn signer(&self, now: Timestamp) -> Option<&Authority> {
        let fits = |valid: Validity| valid.contains(now) && valid.contains(now + LEAF_LIFE);
        self.0.iter().filter(|authority| fits(authority.valid())).min_by_key(|authority| authority.valid().from)
    }

    fn issue(&self, names: &[String], now: Timestamp) -> Result<(Tls, Validity)> {
        let signer = self.signer(now).ok_or_else(|| Error::internal("no certificate authority is valid"))?;
        let Leaf { pem, key, valid } = signer.issue(names, now)?;
        tracing::info!(names = names.join(","), until = %valid.until, "issued the gateway's certificate");
        Ok((tls::server_config(&pem, key.expose())?, valid))
    }

    /// The certificates of those that have not ended, the one that signs first: some clients read one only.
    fn pem(&self, now: Timestamp) -> String {
        let signs = self.signer(now).map(Authority::pem);
        let lasting = self.0.iter().filter(|authority| now < authority.valid().until).map(Authority::pem);
        let others = lasting.filter(|pem| Some(*pem) != signs);
        signs.into_iter().chain(others).collect()
    }
}

async fn make(tx: &Tx, keyring: &Keyring, now: Timestamp) -> Result<Authority> {
    let id = random_hex::<8>();
    let installation = metadata::installation(tx).await?;
    let of = installation.map_or_else(|| "this machine".to_owned(), |installation| installation.to_string());
    // Its name is its own: clients may have several of one installation.
    let (authority, key) = Authority::make(&format!("Howdah CA of {of} {id}"), now)?;
    tx.execute(
        "INSERT INTO keys (purpose, key_id, sealed, public, created_at) VALUES ($1, $2, $3, $4, $5)",
        &[&AUTHORITY, &id, &keyring.seal(AUTHORITY, key.expose().as_bytes())?, &authority.pem(), &now],
    )
    .await?;
    Ok(authority)
}

/// The names that a certificate of Howdah's own is for. The first is the one that clients are given.
pub(super) fn names(config: &Serve) -> Vec<String> {
    let public = config.public_gateway.as_ref().map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    let own = Some(config.gateway.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    let mut names: Vec<String> = public.into_iter().chain(own.map(|ip| ip.to_string())).collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Warns when clients elsewhere will meet a certificate that they do not trust by themselves.
pub(super) fn warn_of_own(public: &PublicAddresses) {
    tracing::warn!(
        gateway = public.gateway_host,
        "the gateway's certificate is issued by Howdah's certificate authority: clients that verify it, such as node \
         pg, need {}/v1/ca.pem (docs/connecting.md); to use another certificate, set --tls-cert",
        public.api
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(day: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + DAY * i32::try_from(day).unwrap()
    }

    fn made(days: &[i64]) -> Authorities {
        Authorities(days.iter().map(|day| Authority::make(&format!("day {day}"), at(*day)).unwrap().0).collect())
    }

    #[test]
    fn an_authority_gets_a_successor_two_years_before_its_end() {
        assert!(made(&[]).need_successor(at(0)));
        let one = made(&[0]);
        // Ten years from the day before it was made.
        assert!(!one.need_successor(at(3649 - 731)));
        assert!(one.need_successor(at(3649 - 730)));
        assert!(one.need_successor(at(5000)));
    }

    #[test]
    fn a_successor_is_published_at_once_and_signs_when_the_first_would_end_too_early() {
        let both = made(&[0, 2919]);
        let (first, second) = (both.0[0].pem(), both.0[1].pem());
        assert_eq!(both.pem(at(2919)), format!("{first}{second}"), "the one that signs comes first");
        assert_eq!(both.signer(at(3649 - 398)).unwrap().pem(), first);
        assert_eq!(both.signer(at(3649 - 397)).unwrap().pem(), second);
        assert_eq!(both.pem(at(3649 - 397)), format!("{second}{first}"));
        assert_eq!(both.pem(at(3649)), second, "an authority that has ended is not published");
    }

    #[test]
    fn an_authority_made_under_a_clock_that_was_ahead_does_not_sign() {
        let ahead = made(&[4000]);
        assert!(ahead.need_successor(at(0)) && ahead.signer(at(0)).is_none());
        let mended = made(&[4000, 0]);
        assert!(!mended.need_successor(at(0)));
        assert_eq!(mended.signer(at(0)).unwrap().pem(), mended.0[1].pem());
    }
}
