//! Attempts to prove who one is, by a password or by a code, and how many there may be. They are
//! counted in the metadata store by its own clock: for every process that shares it, and over a
//! restart. What somebody tries is counted in the same way whether the account exists or not.
//!
//! An attempt is taken before it is looked at, so that many at once are not more than the limit, and
//! given back when it was right: those that failed count. Whoever knows an address can use up the
//! attempts that its account has from everywhere; they do not keep its owner out for that, who has
//! attempts of their own where they have signed in before.

mod store;

use std::time::Duration;

use super::Origin;
use super::users::User;
use base::error::Result;
use base::network::Network;
use base::secret::hash;
use base::store::{Session, Tx};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A password.
    Password,
    /// A code of an authenticator, or one that stands in for it. Six digits are few, and whoever tries
    /// them has the password.
    Code,
}

/// So many at once, then one each period.
#[derive(Clone, Copy, Debug)]
struct Limit {
    burst: u32,
    period: Duration,
}

impl Limit {
    const fn new(burst: u32, seconds: u64) -> Self {
        Self { burst, period: Duration::from_secs(seconds) }
    }
}

/// One account from one network.
const HERE: Limit = Limit::new(10, 30);
/// One network, whatever the account: people share addresses.
const NETWORK: Limit = Limit::new(100, 5);
/// Links for a new password that are mailed to one account, from wherever they are asked for.
const RESETS_OF_ACCOUNT: Limit = Limit::new(3, 20 * 60);
/// The same for one network.
const RESETS_OF_NETWORK: Limit = Limit::new(10, 60);
/// Invitations that are mailed to one address, whoever invites.
const INVITATIONS_TO_ADDRESS: Limit = Limit::new(3, 3600);
/// Invitations that are mailed for one user.
const INVITATIONS_BY_USER: Limit = Limit::new(50, 60);
/// How often somebody is told that there are too many.
const TOLD: Limit = Limit::new(1, 3600);

impl Proof {
    /// One account from everywhere.
    const fn everywhere(self) -> Limit {
        match self {
            Self::Password => Limit::new(100, 10),
            Self::Code => Limit::new(20, 60),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
        }
    }
}

/// An attempt that is counted until it is given back.
#[derive(Debug)]
pub struct Attempt {
    counters: Vec<(Vec<u8>, Limit)>,
}

/// An attempt that is one too many.
#[derive(Clone, Debug)]
pub struct TooMany {
    /// In so many seconds there may be another.
    pub seconds: u64,
    /// There are too many to this account, rather than from this network.
    pub of_account: bool,
    /// Counts how often somebody is told.
    told: Vec<u8>,
}

/// Takes an attempt to sign in to this account from where this request comes from, before it is known
/// whether there is such an account. When the inner result is an error, nothing may be committed.
pub async fn take(tx: &Tx, proof: Proof, account: &str, origin: &Origin) -> Result<Result<Attempt, TooMany>> {
    let account = account.trim().to_lowercase();
    let kind = proof.name();
    let network = network(origin);
    let place = place(&account, &network);
    // In one order everywhere, so that no two wait for each other.
    let mut counters = vec![(hash(&format!("{kind} here\n{account}\n{network}")), HERE)];
    if !store::is_known(tx, &place).await? {
        counters.push((hash(&format!("{kind} everywhere\n{account}")), proof.everywhere()));
    }
    let of_account = counters.len();
    counters.push((hash(&format!("network\n{network}")), NETWORK));
    let taken = take_each(tx, &counters, of_account, &account, &network).await?;
    Ok(taken.map(|()| Attempt { counters }))
}

/// Takes one of each counter, of which the first so many are the account's.
async fn take_each(
    tx: &Tx,
    counters: &[(Vec<u8>, Limit)],
    of_account: usize,
    account: &str,
    network: &str,
) -> Result<Result<(), TooMany>> {
    for (index, (counter, limit)) in counters.iter().enumerate() {
        if let Some(seconds) = store::take(tx, counter, *limit).await? {
            let of_account = index < of_account;
            let about = if of_account { format!("account\n{account}") } else { format!("network\n{network}") };
            return Ok(Err(TooMany { seconds, of_account, told: hash(&format!("told of {about}")) }));
        }
    }
    Ok(Ok(()))
}

/// Whether nobody was told in the last hour that there are too many attempts; it counts as told now.
pub async fn is_news(tx: &Tx, too_many: &TooMany) -> Result<bool> {
    Ok(store::take(tx, &too_many.told, TOLD).await?.is_none())
}

/// Takes a link for a new password that somebody asks to be mailed, whether there is such an account or not.
/// When the inner result is an error, nothing may be committed.
pub async fn take_reset(tx: &Tx, account: &str, origin: &Origin) -> Result<Result<(), TooMany>> {
    let (account, network) = (account.trim().to_lowercase(), network(origin));
    let counters = [
        (hash(&format!("reset\n{account}")), RESETS_OF_ACCOUNT),
        (hash(&format!("resets\n{network}")), RESETS_OF_NETWORK),
    ];
    take_each(tx, &counters, 1, &account, &network).await
}

/// Takes an invitation that is mailed. False when this address gets too many, or this user sends too many.
pub async fn take_invitation(tx: &Tx, by: &User, to: &str) -> Result<bool> {
    let by = hash(&format!("invitations by\n{}", by.id));
    let to = hash(&format!("invitations to\n{}", to.trim().to_lowercase()));
    Ok(store::take(tx, &by, INVITATIONS_BY_USER).await?.is_none()
        && store::take(tx, &to, INVITATIONS_TO_ADDRESS).await?.is_none())
}

/// Gives an attempt back that was right.
pub async fn give_back(session: &Session, attempt: &Attempt) -> Result<()> {
    for (counter, limit) in &attempt.counters {
        store::give_back(session, counter, *limit).await?;
    }
    Ok(())
}

/// Remembers for 30 days that somebody has shown here who they are.
pub async fn remember(session: &Session, user: &User, origin: &Origin) -> Result<()> {
    store::remember(session, &place(&user.email.to_lowercase(), &network(origin))).await
}

/// Forgets what says nothing any more.
pub async fn forget_expired(session: &Session) -> Result<()> {
    store::forget_expired(session).await
}

/// What a request comes from, as one party has it; those whose address is not known are one.
fn network(origin: &Origin) -> String {
    origin.address.map_or_else(String::new, |address| Network::of_one_party(address).to_string())
}

fn place(account: &str, network: &str) -> Vec<u8> {
    hash(&format!("place\n{account}\n{network}"))
}
