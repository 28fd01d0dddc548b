//! Links that set an account's password: the first account's, which the server prints, and those
//! that an administrator makes for who has lost theirs. Each is good once.

mod store;

use jiff::{SignedDuration, Timestamp};

use super::users::User;
use base::error::{Error, Result};
use base::id::{AccountLinkId, UserId};
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

/// The set-up link: until the next start, or this long.
const SET_UP: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A link that sets a new password, made by an administrator.
const RESET: SignedDuration = SignedDuration::from_hours(24);
/// The same, asked for by somebody who says that the account is theirs.
const ASKED: SignedDuration = SignedDuration::from_hours(1);

/// A new link for the first account; the one before is good no more.
pub async fn make_set_up(tx: &Tx, now: Timestamp) -> Result<Secret> {
    store::remove_set_up(tx).await?;
    make(tx, now, "set_up", None, SET_UP).await.map(|(token, _)| token)
}

/// A new link that sets a user's password, and until when it is good; those before are good no more.
pub async fn make_reset(tx: &Tx, now: Timestamp, user: UserId) -> Result<(Secret, Timestamp)> {
    store::remove_resets(tx, user).await?;
    make(tx, now, "reset_password", Some(user), RESET).await
}

/// The same for whoever asks for it without having signed in: it is for the account's owner alone to read.
/// Those before stay good, since anybody can ask.
pub async fn ask_for_reset(tx: &Tx, now: Timestamp, user: UserId) -> Result<(Secret, Timestamp)> {
    make(tx, now, "reset_password", Some(user), ASKED).await
}

/// No link sets this user's password any more.
pub async fn forget_resets(tx: &Tx, user: UserId) -> Result<()> {
    store::remove_resets(tx, user).await
}

async fn make(
    tx: &Tx,
    now: Timestamp,
    purpose: &str,
    user: Option<UserId>,
    good: SignedDuration,
) -> Result<(Secret, Timestamp)> {
    let token = Secret::new(random_text::<24>());
    let expires_at = now.checked_add(good).map_err(Error::internal)?;
    store::insert(tx, AccountLinkId::generate(now), purpose, user, &hash(token.expose()), now, expires_at).await?;
    Ok((token, expires_at))
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

/// Uses a link up that sets a password, and with it all others that set this one.
///
/// # Errors
/// [`Error::NotFound`] when it is none, or no more.
pub async fn take_reset(tx: &Tx, now: Timestamp, token: &str) -> Result<UserId> {
    let user = store::take_reset(tx, now, &hash(token)).await?.ok_or_else(gone)?;
    store::remove_resets(tx, user).await?;
    Ok(user)
}

/// Forgets links that are over.
pub async fn forget_expired(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_expired(session, now).await
}

/// The token itself is in no message.
fn gone() -> Error {
    Error::not_found("link", "in this address")
}
