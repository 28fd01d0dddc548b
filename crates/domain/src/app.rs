//! The parts of Howdah that a request can use. The engine is not one of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use std::time::Duration;

use jiff::SignedDuration;

use tokio::sync::{broadcast, watch};

use crate::limits::Quotas;
use crate::mail::Outbox;
use crate::regions::Regions;
use auth::provider::Provider;
use auth::signing::Signer;
use base::clock::Clock;
use base::disk::{Disk, Level};
use base::error::{Error, Result};
use base::health::Health;
use base::id::WorkflowId;
use base::keyring::Keyring;
use base::name::TENANT_DATABASE;
use base::network::{Network, is_this_machine};
use base::store::{Announcement, Channel, Store};
use base::tasks::Tasks;

/// How long a create waits for its workflow before it answers with what is true by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// The parts of Howdah that a request can use.
pub struct App {
    /// The metadata store.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Signs and checks tokens.
    pub signer: Signer,
    /// Encrypts what must be read again.
    pub keyring: Keyring,
    /// The regions of this installation.
    pub regions: Regions,
    /// The addresses that customers are given.
    pub public: PublicAddresses,
    /// Certificates of the authority that issues the gateway's certificate, as PEM; `None` where the
    /// operator has given a certificate.
    pub authorities: Option<watch::Receiver<String>>,
    /// Backups are started without anybody asking.
    pub scheduled_backups: bool,
    /// How long a deleted database can be restored; zero: not at all.
    pub undelete: SignedDuration,
    /// Proxies that are believed when they say where a request comes from.
    pub trusted_proxies: Vec<Network>,
    /// An identity provider that people may sign in with.
    pub provider: Option<Provider>,
    /// Whether applications may register themselves.
    pub client_registration: bool,
    /// Whether there is a mail server.
    pub mail: bool,
    /// How fast requests may come.
    pub rates: Rates,
    /// How much a workspace may have, unless it has limits of its own.
    pub quotas: Quotas,
    /// The metadata that is Howdah's to keep could not be backed up when that was last tried.
    pub metadata_at_risk: AtomicBool,
    /// Whether the private metadata instance runs.
    pub health: Arc<Health>,
    /// The disks that Howdah writes to: that of the data directory first.
    pub disks: Vec<Arc<Disk>>,
    /// Background work that shutdown waits for.
    pub tasks: Tasks,
}

impl App {
    /// Where mail to people is written; `None` where there is no mail server.
    pub fn outbox(&self) -> Option<Outbox<'_>> {
        self.mail.then(|| Outbox::new(&self.keyring, &self.public.api))
    }

    /// Whether clients need Howdah's CA certificate to verify the gateway: strings say `sslmode=require`, and
    /// Howdah's own authority issues the gateway's certificate.
    pub fn needs_ca(&self) -> bool {
        self.authorities.is_some() && !is_this_machine(&self.public.gateway_host)
    }

    /// Whether there is room for a new database on the disk of the data directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is not.
    pub fn check_room(&self) -> Result<()> {
        match self.level() {
            Level::Plenty | Level::Low => Ok(()),
            Level::Scarce | Level::Critical | Level::Exhausted => {
                let message = "no database can be created: the server's disk is almost full; try again when the \
                               operator has freed space, or delete databases";
                Err(Error::Unavailable { message: message.into(), cause: None })
            }
        }
    }

    /// How tight it is on the disk of the data directory.
    pub fn level(&self) -> Level {
        self.disks.first().map_or(Level::Plenty, |disk| disk.level())
    }

    /// Waits a short while for the workflow that a create has started, so that the answer can
    /// say `ready`. Whether it has ended by then or not, the answer says what is true.
    ///
    /// `announcements` must have been subscribed before the create committed.
    pub async fn settle(
        &self,
        announcements: &mut broadcast::Receiver<Announcement>,
        workflow: WorkflowId,
    ) -> Result<()> {
        queue::wait(&self.store, announcements, workflow, PATIENCE).await.map(drop)
    }

    /// Waits a short while until this announcement of a committed change has come back to this
    /// process, and so to the gateway.
    ///
    /// `announcements` must have been subscribed before the change committed.
    pub async fn hear(&self, announcements: &mut broadcast::Receiver<Announcement>, channel: Channel, bare_id: &str) {
        let heard = async {
            while let Ok(announcement) = announcements.recv().await {
                match announcement {
                    Announcement::Of(on, id) if on == channel && id == bare_id => return,
                    Announcement::Of(..) => {}
                    Announcement::Missed => return,
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, heard).await;
    }
}

/// How fast requests may come; `None`: as fast as they can.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// With one token.
    pub token: Option<Rate>,
    /// From one address, whatever their tokens.
    pub address: Option<Rate>,
}

/// A limit on how fast things may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

/// The addresses that customers are given.
#[derive(Clone, Debug)]
pub struct PublicAddresses {
    /// The API's base, without a slash at the end.
    pub api: String,
    /// The authorization server's, which is its name in OAuth, too: the issuer.
    pub auth: String,
    /// The gateway's host; an IPv6 address stands without brackets.
    pub gateway_host: String,
    /// The gateway's port.
    pub gateway_port: u16,
}

impl PublicAddresses {
    /// The string that `psql` and every driver take.
    pub fn connection_string(&self, user: &str, password: &str) -> String {
        let (port, sslmode) = (self.gateway_port, self.sslmode());
        let host = match &self.gateway_host {
            address if address.contains(':') => format!("[{address}]"),
            host => host.clone(),
        };
        format!("postgres://{user}:{password}@{host}:{port}/{TENANT_DATABASE}?sslmode={sslmode}")
    }

    /// Where an identity provider sends people back to: it must know this address.
    pub fn sign_in_callback(&self) -> String {
        format!("{}/console/sign-in/provider/callback", self.api)
    }

    /// `disable` while the gateway's public address is a loopback one, since some drivers verify
    /// certificates under `require` and nothing leaves the machine; `require` otherwise.
    pub fn sslmode(&self) -> &'static str {
        if is_this_machine(&self.gateway_host) { "disable" } else { "require" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_tls() {
        let at = |host: &str| PublicAddresses {
            api: String::new(),
            auth: String::new(),
            gateway_host: host.into(),
            gateway_port: 1,
        };
        assert_eq!(at("127.0.0.1").sslmode(), "disable");
        assert_eq!(at("localhost").sslmode(), "disable");
        assert_eq!(at("::1").sslmode(), "disable");
        assert_eq!(at("10.0.0.1").sslmode(), "require");
        assert_eq!(at("db.example.com").sslmode(), "require");
    }

    #[test]
    fn an_ipv6_address_has_brackets_in_a_connection_string() {
        let at = |host: &str| PublicAddresses {
            api: String::new(),
            auth: String::new(),
            gateway_host: host.into(),
            gateway_port: 7,
        };
        assert_eq!(at("::1").connection_string("u", "p"), "postgres://u:p@[::1]:7/postgres?sslmode=disable");
        assert_eq!(at("localhost").connection_string("u", "p"), "postgres://u:p@localhost:7/postgres?sslmode=disable");
    }
}
