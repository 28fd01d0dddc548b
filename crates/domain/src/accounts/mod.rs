//! Accounts: what their owners and administrators change about them. It concerns the whole
//! installation, so it is recorded in that part of the audit log.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{self, Asker, Change, Refusal, Resource};
use crate::{integrations, members};
use auth::provider::Vouched;
use auth::users::{self, Account, User};
use auth::{Origin, links, sessions};
use base::error::{Error, Result};
use base::id::{SessionId, UserId};
use base::keyring::Keyring;
use base::name::{Email, PersonName};
use base::secret::Secret;
use base::store::Tx;

/// What an attempt to sign in is called in the audit log.
const SIGN_IN: &str = "sign_in";
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
    let asker = Asker::of(&user, origin);
    let made = json!({ "email": user.email, "isAdministrator": is_administrator });
    record(tx, &asker, now, "create_account", &user, None, Some(made)).await?;
    Ok(user)
}

/// The account of whom an identity provider vouches for: the one that it vouched for before, or the
/// one with their address, which it vouches for from now on, or a new one for who was invited. An
/// account that is there already is theirs when they have signed in to it: anybody who was given an
/// invitation may have made it, and would keep it. `is_open`: nobody with this address needs to be
/// invited.
///
/// # Errors
/// [`Error::Rejected`] for an account that is kept out, and for whom there is none and may be none;
/// [`Error::Conflict`] when somebody else of the provider has the account.
pub async fn admit(
    tx: &Tx,
    now: Timestamp,
    vouched: &Vouched,
    is_open: bool,
    signed_in: Option<UserId>,
    origin: &Origin,
) -> Result<Account> {
    let Vouched { issuer, subject, email, name } = vouched;
    let user = match users::by_identity(tx, issuer, subject).await? {
        Some(user) => user,
        None => {
            let user = account_of(tx, now, email.as_ref(), name.as_deref(), is_open, signed_in, origin).await?;
            users::add_identity(tx, now, issuer, subject, user.id).await?;
            let asker = Asker::of(&user, origin);
            let shown = json!({ "issuer": issuer, "subject": subject });
            record(tx, &asker, now, "connect_provider", &user, None, Some(shown)).await?;
            user.id
        }
    };
    let account = users::get(tx, user).await?;
    if account.disabled_at.is_some() {
        return Err(Error::rejected("this account is disabled", "Ask an administrator of this server."));
    }
    Ok(account)
}

/// The account with this address, or a new one if there may be one.
async fn account_of(
    tx: &Tx,
    now: Timestamp,
    email: Option<&Email>,
    name: Option<&str>,
    is_open: bool,
    signed_in: Option<UserId>,
    origin: &Origin,
) -> Result<User> {
    let email = email.ok_or_else(|| {
        Error::rejected(
            "your identity provider did not confirm a verified email address",
            "Verify your email address there, or sign in with a password.",
        )
    })?;
    match users::find(tx, email.as_str()).await? {
        Some(user) if signed_in == Some(user.id) => return Ok(user),
        Some(_) => {
            return Err(Error::conflict(
                format!("{} already has an account", email.as_str()),
                "Sign in with its password, then connect the identity provider in your account settings. If you did not \
                 create this account, ask an administrator of this server for a password reset link.",
            ));
        }
        None => {}
    }
    if !users::exist(tx).await? {
        return Err(Error::rejected(
            "there is no account yet",
            "Create the first account with the link that this server prints when it starts.",
        ));
    }
    if !is_open && !members::is_invited(tx, now, email).await? {
        return Err(Error::rejected(
            format!("there is no account for {}", email.as_str()),
            "Ask for an invitation to a workspace.",
        ));
    }
    let name = PersonName::parse(name.unwrap_or_default()).or_else(|_| PersonName::parse(email.as_str()))?;
    create(tx, now, email, &name, None, false, origin).await
}

/// Changes what who asks is called.
///
/// # Errors
/// [`Error::Internal`] when nobody asks.
pub async fn rename(tx: &Tx, asker: &Asker, now: Timestamp, name: &PersonName) -> Result<()> {
    let user = owner(asker)?;
    users::rename(tx, user.id, name).await?;
    let (before, after) = (json!({ "name": user.display_name }), json!({ "name": name.as_str() }));
    record(tx, asker, now, "change_name", user, Some(before), Some(after)).await
}

/// Signs who asks out in one browser.
///
/// # Errors
/// [`Error::NotFound`] when they have no such session.
pub async fn end_session(tx: &Tx, asker: &Asker, now: Timestamp, session: SessionId) -> Result<()> {
    let user = owner(asker)?;
    sessions::end(tx, user.id, session).await?;
    record(tx, asker, now, "end_session", user, None, None).await
}

/// Signs who asks out in every browser but this one.
///
/// # Errors
/// [`Error::Internal`] when nobody asks.
pub async fn end_other_sessions(tx: &Tx, asker: &Asker, now: Timestamp, session: SessionId) -> Result<()> {
    let user = owner(asker)?;
    sessions::end_others(tx, user.id, Some(session)).await?;
    record(tx, asker, now, "end_sessions", user, None, None).await
}

/// Records that somebody has signed in with a recovery code: whoever did not do that should hear of it.
pub async fn record_recovery_code(tx: &Tx, origin: &Origin, now: Timestamp, user: &User) -> Result<()> {
    let asker = Asker::of(user, origin);
    record(tx, &asker, now, "use_recovery_code", user, None, None).await
}

/// Lets no identity provider vouch for who asks any more.
///
/// # Errors
/// [`Error::Conflict`] when there would be no way left to sign in.
pub async fn disconnect_provider(tx: &Tx, asker: &Asker, now: Timestamp) -> Result<()> {
    let user = owner(asker)?;
    users::remove_identities(tx, user.id).await?;
    record(tx, asker, now, "disconnect_provider", user, None, None).await
}

/// Makes a link that lets a user choose another password, and says until when it is good; the one before is
/// good no more.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user.
pub async fn make_reset_link(tx: &Tx, asker: &Asker, now: Timestamp, user: UserId) -> Result<(Secret, Timestamp)> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    let made = links::make_reset(tx, now, user).await?;
    record(tx, asker, now, "make_reset_link", &account.user, None, None).await?;
    Ok(made)
}

/// Gives whoever has such a link the password that they chose. They are signed out everywhere, and applications
/// ask them anew: somebody else may have had the account.
///
/// # Errors
/// [`Error::NotFound`] when the link is not, or no more, good.
pub async fn reset_password(tx: &Tx, now: Timestamp, link: &str, password_hash: &str, origin: &Origin) -> Result<()> {
    let user = links::take_reset(tx, now, link).await?;
    let user = users::get(tx, user).await?.user;
    users::set_password(tx, user.id, password_hash).await?;
    sessions::end_others(tx, user.id, None).await?;
    integrations::remove_all_of(tx, user.id).await?;
    let asker = Asker::of(&user, origin);
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
    links::forget_resets(tx, user.id).await?;
    sessions::end_others(tx, user.id, Some(session)).await?;
    record(tx, asker, now, "change_password", user, None, None).await
}

/// Keeps a user out: they are signed out everywhere, and cannot sign in. What they let applications do, the
/// invitations that they have made and the links for a new password that they have end for good.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator; [`Error::NotFound`] when there is no such user;
/// [`Error::Conflict`] for the last administrator.
pub async fn disable(tx: &Tx, asker: &Asker, now: Timestamp, user: UserId) -> Result<()> {
    asker.may_administer()?;
    let account = users::get(tx, user).await?;
    users::set_disabled(tx, now, user, true).await?;
    sessions::end_others(tx, user, None).await?;
    integrations::remove_all_of(tx, user).await?;
    members::withdraw_all_of(tx, user).await?;
    links::forget_resets(tx, user).await?;
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
        return Err(Error::conflict("two-factor authentication is already on", "Turn it off first."));
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
        return Err(Error::rejected("two-factor authentication is off", "Turn it on first to get recovery codes."));
    }
    let codes = users::renew_recovery_codes(tx, user.id).await?;
    record(tx, asker, now, "renew_recovery_codes", user, None, None).await?;
    Ok(codes)
}

/// Records that somebody tries to sign in faster than they may: to this account, where there is one. What
/// they typed is not recorded, since it may be a password in the wrong field.
pub async fn record_too_many_sign_ins(tx: &Tx, origin: &Origin, now: Timestamp, account: Option<&User>) -> Result<()> {
    let refusal = Refusal {
        action: SIGN_IN.to_owned(),
        status: TOO_MANY,
        reason: match account {
            Some(_) => "too many attempts to sign in to this account".to_owned(),
            None => "too many attempts to sign in from this IP address".to_owned(),
        },
        resource: account.map(resource),
        project: None,
    };
    let asker = Asker { user: None, origin: origin.clone() };
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
