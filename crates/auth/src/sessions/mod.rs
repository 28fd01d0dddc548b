//! Browsers in which somebody has signed in. The cookie's value is known to the browser alone; its
//! hash finds the row, which decides at every request.

mod store;
pub mod ticket;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

use super::Origin;
use super::users::User;
use base::error::{Error, Result};
use base::id::{SessionId, UserId};
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

/// A session that nobody uses ends after so long.
const IDLE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Every session ends after so long.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(60 * 24);
/// A browser's description is kept up to so many characters.
const USER_AGENT: usize = 300;

/// Whoever sends a session's cookie.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub id: SessionId,
    /// The user.
    pub user: User,
    /// When they signed in.
    pub since: Timestamp,
    /// Its last use was recorded more than a minute ago.
    pub use_is_stale: bool,
}

/// A session as its owner sees it.
#[derive(Clone, Debug)]
pub struct SignedInBrowser {
    /// Its id.
    pub id: SessionId,
    /// When they signed in.
    pub since: Timestamp,
    /// When it was used last, to the minute.
    pub last_used_at: Timestamp,
    /// From where they signed in.
    pub address: Option<String>,
    /// What the browser said it is.
    pub user_agent: Option<String>,
}

/// Begins a session; the value is the cookie's. Signing in always begins a new one.
pub async fn begin(tx: &Tx, now: Timestamp, user: UserId, origin: &Origin, user_agent: Option<&str>) -> Result<Secret> {
    let cookie = Secret::new(random_text::<32>());
    let user_agent: Option<String> = user_agent.map(|text| text.chars().take(USER_AGENT).collect());
    let expires_at = now.checked_add(LONGEST).map_err(Error::internal)?;
    store::insert(tx, SessionId::generate(now), user, &hash(cookie.expose()), now, expires_at, origin, user_agent)
        .await?;
    Ok(cookie)
}

/// Who sends this cookie; `None` for one that is not, or no more, a session's.
pub async fn find(session: &Session, now: Timestamp, cookie: &str) -> Result<Option<SignedIn>> {
    let idle_since = now.checked_sub(IDLE).map_err(Error::internal)?;
    store::find(session, &hash(cookie), now, idle_since).await
}

/// What a form that changes something carries beside the cookie, so that no other site can send it:
/// an HMAC under the cookie's value, which no other site knows.
pub fn form_token(cookie: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(cookie.as_bytes()).expect("a key of any length");
    mac.update(b"forms of the console");
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Records that a session is in use, once a minute at most.
pub async fn record_use(session: &Session, id: SessionId, now: Timestamp) -> Result<()> {
    store::record_use(session, id, now).await
}

/// A user's sessions, newest first.
pub async fn list(session: &Session, now: Timestamp, user: UserId) -> Result<Vec<SignedInBrowser>> {
    let idle_since = now.checked_sub(IDLE).map_err(Error::internal)?;
    store::list(session, user, now, idle_since).await
}

/// Ends one session of a user.
///
/// # Errors
/// [`Error::NotFound`] when the user has no such session.
pub async fn end(session: &Session, user: UserId, id: SessionId) -> Result<()> {
    if store::end(session, user, id).await? { Ok(()) } else { Err(Error::not_found("session", id)) }
}

/// Ends all sessions of a user but the one that is kept.
pub async fn end_others(session: &Session, user: UserId, kept: Option<SessionId>) -> Result<()> {
    store::end_others(session, user, kept).await
}

/// Forgets sessions that are over.
pub async fn forget_ended(session: &Session, now: Timestamp) -> Result<()> {
    let idle_since = now.checked_sub(IDLE).map_err(Error::internal)?;
    store::forget_ended(session, now, idle_since).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forms_token_is_the_cookies_own() {
        assert_eq!(form_token("a"), form_token("a"));
        assert_ne!(form_token("a"), form_token("b"));
        assert_eq!(form_token("a").len(), 64);
    }
}
