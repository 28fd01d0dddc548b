//! Accounts: what their owners and administrators change about them. It concerns the whole
//! installation, so it is recorded in that part of the audit log.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::auth::users::{self, User};
use crate::auth::{Origin, links, sessions};
use crate::base::error::{Error, Result};
use crate::base::id::{SessionId, UserId};
use crate::base::keyring::Keyring;
use crate::base::name::{Email, PersonName};
use crate::base::secret::Secret;
use crate::base::store::Tx;
use crate::domain::audit::{self, Asker, Change, Refusal, Resource};

/// What an attempt to sign in is called in the audit log.
const SIGN_IN: &str = "sign_in";
/// How often it is said that there are too many of them.
const TOLD: SignedDuration = SignedDuration::from_hours(1);
/// The status of the answer to one attempt too many.
const TOO_MANY: u16 = 429;

/// Makes an account; its owner has shown by a link that they may.
///
/// # Errors
/// Those of [`users::create`].
pub async fn create(
    tx: &Tx,
    now: Timestamp,
    email: &Email,
    name: &PersonName,
    password_hash: Option<&str>,
    is_administrator: bool,
    origin: &Origin,
) -> Result<User> {
    let user = users::create(tx, now, email, name, password_hash, is_administrator).await?;
    let asker = Asker { user: Some(user.clone()), origin: origin.clone() };
    let made = json!({ "email": user.email, "isAdministrator": is_administrator });
    record(tx, &asker, now, "create_account", &user, None, Some(made)).await?;
    Ok(user)
}

/// Makes a link that lets a user choose another password; the one before is good no more.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user.
pub async fn make_reset_link(tx: &Tx, asker: &Asker, now: Timestamp, user: UserId) -> Result<Secret> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    let token = links::make_reset(tx, now, user).await?;
    record(tx, asker, now, "make_reset_link", &account.user, None, None).await?;
    Ok(token)
}

/// Gives whoever has such a link the password that they chose. They are signed out everywhere.
///
/// # Errors
/// [`Error::NotFound`] when the link is not, or no more, good.
pub async fn reset_password(tx: &Tx, now: Timestamp, link: &str, password_hash: &str, origin: &Origin) -> Result<()> {
    let user = links::take_reset(tx, now, link).await?;
    let user = users::get(tx, user).await?.user;
    users::set_password(tx, user.id, password_hash).await?;
    sessions::end_others(tx, user.id, None).await?;
    let asker = Asker { user: Some(user.clone()), origin: origin.clone() };
    record(tx, &asker, now, "reset_password", &user, None, None).await
}

/// Gives who asks another password. Their other browsers are signed out.
///
/// # Errors
/// [`Error::Internal`] when nobody asks.
pub async fn change_password(
    tx: &Tx,
    asker: &Asker,
    now: Timestamp,
    password_hash: &str,
    session: SessionId,
) -> Result<()> {
    let user = owner(asker)?;
    users::set_password(tx, user.id, password_hash).await?;
    sessions::end_others(tx, user.id, Some(session)).await?;
    record(tx, asker, now, "change_password", user, None, None).await
}

/// Keeps a user out: they are signed out everywhere, and cannot sign in.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user;
/// [`Error::Conflict`] for the last administrator.
pub async fn disable(tx: &Tx, asker: &Asker, now: Timestamp, user: UserId) -> Result<()> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    users::set_disabled(tx, now, user, true).await?;
    sessions::end_others(tx, user, None).await?;
    record(tx, asker, now, "disable_account", &account.user, None, None).await
}

/// Lets a user in again.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user.
pub async fn enable(tx: &Tx, asker: &Asker, now: Timestamp, user: UserId) -> Result<()> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    users::set_disabled(tx, now, user, false).await?;
    record(tx, asker, now, "enable_account", &account.user, None, None).await
}

/// Makes a user an administrator, or none any more.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user;
/// [`Error::Conflict`] for the last administrator.
pub async fn set_administrator(
    tx: &Tx,
    asker: &Asker,
    now: Timestamp,
    user: UserId,
    is_administrator: bool,
) -> Result<()> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    users::set_administrator(tx, user, is_administrator).await?;
    let shown = |is_administrator: bool| Some(json!({ "isAdministrator": is_administrator }));
    let (before, after) = (shown(account.user.is_administrator), shown(is_administrator));
    record(tx, asker, now, "set_administrator", &account.user, before, after).await
}

/// Turns the authenticator of who asks on, and gives the recovery codes, once. Their other browsers are
/// signed out.
///
/// # Errors
/// [`Error::Conflict`] when there is one already; [`Error::Invalid`] when the code is not the authenticator's.
pub async fn add_authenticator(
    tx: &Tx,
    keyring: &Keyring,
    asker: &Asker,
    now: Timestamp,
    code: &str,
    session: SessionId,
) -> Result<Vec<Secret>> {
    let user = owner(asker)?;
    if users::get(tx, user.id).await?.has_totp {
        return Err(Error::conflict("there is an authenticator already", "Remove it first."));
    }
    let codes = users::confirm_totp(tx, keyring, now, user.id, code).await?;
    sessions::end_others(tx, user.id, Some(session)).await?;
    record(tx, asker, now, "add_authenticator", user, None, None).await?;
    Ok(codes)
}

/// Takes the authenticator of who asks away, with the recovery codes.
///
/// # Errors
/// [`Error::Internal`] when nobody asks.
pub async fn remove_authenticator(tx: &Tx, asker: &Asker, now: Timestamp) -> Result<()> {
    let user = owner(asker)?;
    users::remove_totp(tx, user.id).await?;
    record(tx, asker, now, "remove_authenticator", user, None, None).await
}

/// Gives who asks new recovery codes; those of before are good no more.
///
/// # Errors
/// [`Error::Rejected`] when there is no authenticator.
pub async fn renew_recovery_codes(tx: &Tx, asker: &Asker, now: Timestamp) -> Result<Vec<Secret>> {
    let user = owner(asker)?;
    if !users::get(tx, user.id).await?.has_totp {
        return Err(Error::rejected("there is no authenticator", "Recovery codes stand in for one: add it first."));
    }
    let codes = users::renew_recovery_codes(tx, user.id).await?;
    record(tx, asker, now, "renew_recovery_codes", user, None, None).await?;
    Ok(codes)
}

/// Lets an identity provider, which knows a user under this subject, vouch for them.
///
/// # Errors
/// Those of [`users::add_identity`].
pub async fn add_identity(
    tx: &Tx,
    now: Timestamp,
    issuer: &str,
    subject: &str,
    user: UserId,
    origin: &Origin,
) -> Result<()> {
    users::add_identity(tx, now, issuer, subject, user).await?;
    let user = users::get(tx, user).await?.user;
    let asker = Asker { user: Some(user.clone()), origin: origin.clone() };
    record(tx, &asker, now, "add_identity", &user, None, Some(json!({ "issuer": issuer, "subject": subject }))).await
}

/// Lets no identity provider vouch for who asks any more.
///
/// # Errors
/// Those of [`users::remove_identities`].
pub async fn remove_identities(tx: &Tx, asker: &Asker, now: Timestamp) -> Result<()> {
    let user = owner(asker)?;
    users::remove_identities(tx, user.id).await?;
    record(tx, asker, now, "remove_identities", user, None, None).await
}

/// Records that somebody tries to sign in faster than they may, unless that was recorded within the last
/// hour: of the account with this address, or else of where they come from. What they typed is not recorded
/// where there is no such account, since it may be a password in the wrong field.
pub async fn record_too_many_sign_ins(tx: &Tx, origin: &Origin, now: Timestamp, email: &str) -> Result<()> {
    let account = users::by_email(tx, email).await?;
    let refusal = Refusal {
        action: SIGN_IN.to_owned(),
        status: TOO_MANY,
        reason: match account {
            Some(_) => "There were too many attempts to sign in to this account.".to_owned(),
            None => "There were too many attempts to sign in from this address.".to_owned(),
        },
        resource: account.as_ref().map(resource),
        project: None,
    };
    let asker = Asker { user: None, origin: origin.clone() };
    if audit::was_refused_since(tx, &asker, now - TOLD, &refusal).await? {
        return Ok(());
    }
    audit::record_refusal_for_installation(tx, &asker, now, refusal).await
}

fn owner(asker: &Asker) -> Result<&User> {
    asker.user.as_ref().ok_or_else(|| Error::internal("nobody asks for a change of their account"))
}

fn resource(user: &User) -> Resource {
    Resource::new("user", user.id, &user.email)
}

async fn record(
    tx: &Tx,
    asker: &Asker,
    now: Timestamp,
    action: &'static str,
    user: &User,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<()> {
    let change = Change { action, resource: resource(user), project: None, before, after };
    audit::record_for_installation(tx, asker, now, change).await
}
