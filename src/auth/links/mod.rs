//! Links that set an account's password: the first account's, which the server prints, and those
//! that an administrator makes for who has lost theirs. Each is good once.

mod store;

use jiff::{SignedDuration, Timestamp};

use super::users::User;
use crate::base::error::{Error, Result};
use crate::base::id::{AccountLinkId, UserId};
use crate::base::secret::{Secret, hash, random_text};
use crate::base::store::{Session, Tx};

/// The set-up link: until the next start, or this long.
const SET_UP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A link that sets a new password.
const RESET: SignedDuration = SignedDuration::from_hours(24);

/// A new link for the first account; the one before is good no more.
pub async fn make_set_up(tx: &Tx, now: Timestamp) -> Result<Secret> {
    store::remove_set_up(tx).await?;
    make(tx, now, "set_up", None, SET_UP).await
}

/// A new link that sets a user's password; the one before is good no more.
pub async fn make_reset(tx: &Tx, now: Timestamp, user: UserId) -> Result<Secret> {
    store::remove_reset(tx, user).await?;
    make(tx, now, "reset_password", Some(user), RESET).await
}

async fn make(tx: &Tx, now: Timestamp, purpose: &str, user: Option<UserId>, good: SignedDuration) -> Result<Secret> {
    let token = Secret::new(random_text::<24>());
    let expires_at = now.checked_add(good).map_err(Error::internal)?;
    store::insert(tx, AccountLinkId::generate(now), purpose, user, &hash(token.expose()), now, expires_at).await?;
    Ok(token)
}

/// Whether this is the set-up link.
pub async fn is_set_up(session: &Session, now: Timestamp, token: &str) -> Result<bool> {
    store::is_set_up(session, now, &hash(token)).await
}

/// Uses the set-up link up.
///
/// # Errors
/// [`Error::NotFound`] when it is none, or no more.
pub async fn take_set_up(tx: &Tx, now: Timestamp, token: &str) -> Result<()> {
    if store::take_set_up(tx, now, &hash(token)).await? { Ok(()) } else { Err(gone()) }
}

/// Whose password this link sets, if it is good.
pub async fn find_reset(session: &Session, now: Timestamp, token: &str) -> Result<Option<User>> {
    store::find_reset(session, now, &hash(token)).await
}

/// Uses a link up that sets a password.
///
/// # Errors
/// [`Error::NotFound`] when it is none, or no more.
pub async fn take_reset(tx: &Tx, now: Timestamp, token: &str) -> Result<UserId> {
    store::take_reset(tx, now, &hash(token)).await?.ok_or_else(gone)
}

/// Forgets links that are over.
pub async fn forget_expired(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_expired(session, now).await
}

/// The token itself is in no message.
fn gone() -> Error {
    Error::not_found("link", "in this address")
}
