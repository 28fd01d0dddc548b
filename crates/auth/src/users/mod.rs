//! People with an account: how they prove who they are. What they may do is their roles'.

mod store;
mod totp;

use jiff::Timestamp;

use super::passwords;
use base::error::{Error, Result};
use base::id::UserId;
use base::keyring::Keyring;
use base::name::{Email, PersonName};
use base::page::{Page, PageRequest};
use base::secret::Secret;
use base::store::{Session, Tx};

pub use totp::Enrolment;

/// A person with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their address, which is also what they sign in with.
    pub email: String,
    /// What they are called, if they said.
    pub display_name: Option<String>,
    /// They may do what concerns the whole installation.
    pub is_administrator: bool,
}

impl User {
    /// What to call them.
    pub fn name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.email)
    }
}

/// An account, as its owner and administrators see it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose it is.
    pub user: User,
    /// Since when.
    pub created_at: Timestamp,
    /// It has a password.
    pub has_password: bool,
    /// An identity provider vouches for them.
    pub is_vouched_for: bool,
    /// Signing in takes a code of an authenticator too.
    pub has_totp: bool,
    /// Recovery codes that were not used yet.
    pub recovery_codes: i64,
    /// Nobody signs in to it since then.
    pub disabled_at: Option<Timestamp>,
}

/// Whether anybody has an account.
pub async fn exist(session: &Session) -> Result<bool> {
    store::exist(session).await
}

/// Makes an account. `password` is none for who signs in with an identity provider only.
///
/// # Errors
/// [`Error::Conflict`] when the address has an account; [`Error::Invalid`] when the password is weak.
pub async fn create(
    tx: &Tx,
    now: Timestamp,
    email: &Email,
    name: &PersonName,
    password_hash: Option<&str>,
    is_administrator: bool,
) -> Result<User> {
    let user = User {
        id: UserId::generate(now),
        email: email.as_str().to_owned(),
        display_name: Some(name.as_str().to_owned()),
        is_administrator,
    };
    if !store::insert(tx, &user, password_hash, now).await? {
        return Err(Error::conflict(
            format!("{} already has an account", user.email),
            "Sign in, or ask an administrator for a password reset link.",
        ));
    }
    Ok(user)
}

/// The hash of a password that this person may have. It takes a while: no transaction may be open.
///
/// # Errors
/// [`Error::Invalid`] when it is weak.
pub async fn hash_password(password: &Secret, email: &str, name: Option<&str>) -> Result<String> {
    let mut words: Vec<&str> = email.split(['@', '.', '+', '-']).filter(|word| word.len() > 2).collect();
    words.push(email);
    words.extend(name.into_iter().flat_map(str::split_whitespace));
    passwords::hash(password, &words).await
}

/// Gives an account a password.
pub async fn set_password(session: &Session, user: UserId, password_hash: &str) -> Result<()> {
    store::set_password(session, user, password_hash).await
}

/// What a password has proven.
#[derive(Debug)]
pub enum Proven {
    /// Everything: this is them.
    All(User),
    /// A code of their authenticator is still to come.
    Password(User),
}

/// Whom this address and password belong to; `None`, after the same time, for anybody else.
pub async fn check_password(session: &Session, email: &str, password: &Secret) -> Result<Option<Proven>> {
    let found = store::by_email(session, email).await?;
    let hash = found.as_ref().and_then(|found| found.password_hash.as_deref());
    if !passwords::verify(password, hash).await? {
        return Ok(None);
    }
    Ok(found.filter(|found| !found.is_disabled).map(|found| match found.has_totp {
        true => Proven::Password(found.user),
        false => Proven::All(found.user),
    }))
}

/// Whether this is the password of an account that is asked for it again.
pub async fn is_password(session: &Session, user: UserId, password: &Secret) -> Result<bool> {
    let hash = store::password_hash(session, user).await?;
    passwords::verify(password, hash.as_deref()).await
}

/// Whether this is a code of the user's authenticator, or one of their recovery codes; each is good once.
pub async fn check_second_factor(tx: &Tx, keyring: &Keyring, now: Timestamp, user: UserId, code: &str) -> Result<bool> {
    let code: String = code.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').collect();
    if code.len() == totp::DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return totp::check(tx, keyring, now, user, &code).await;
    }
    store::use_recovery_code(tx, user, &base::secret::hash(&code.to_ascii_lowercase()), now).await
}

/// Begins to give an account an authenticator: it counts once a code has shown that it works.
///
/// # Errors
/// [`Error::Conflict`] when it has one.
pub async fn begin_totp(tx: &Tx, keyring: &Keyring, user: &User, issuer: &str) -> Result<Enrolment> {
    totp::begin(tx, keyring, user, issuer).await
}

/// What [`begin_totp`] made, until it was confirmed.
pub async fn pending_totp(
    session: &Session,
    keyring: &Keyring,
    user: &User,
    issuer: &str,
) -> Result<Option<Enrolment>> {
    totp::pending(session, keyring, user, issuer).await
}

/// Turns the authenticator on, and gives the recovery codes, once.
///
/// # Errors
/// [`Error::Invalid`] when the code is not the authenticator's.
pub async fn confirm_totp(tx: &Tx, keyring: &Keyring, now: Timestamp, user: UserId, code: &str) -> Result<Vec<Secret>> {
    totp::confirm(tx, keyring, now, user, code).await?;
    renew_recovery_codes(tx, user).await
}

/// New recovery codes; those of before are good no more.
pub async fn renew_recovery_codes(tx: &Tx, user: UserId) -> Result<Vec<Secret>> {
    let codes: Vec<Secret> = (0..10).map(|_| Secret::new(totp::recovery_code())).collect();
    let hashes = codes.iter().map(|code| base::secret::hash(&code.expose().replace('-', ""))).collect();
    store::replace_recovery_codes(tx, user, hashes).await?;
    Ok(codes)
}

/// Takes the authenticator and the recovery codes away.
pub async fn remove_totp(tx: &Tx, user: UserId) -> Result<()> {
    store::remove_totp(tx, user).await
}

/// The account of a user.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub async fn get(session: &Session, user: UserId) -> Result<Account> {
    store::get(session, user).await?.ok_or_else(|| Error::not_found("user", user))
}

/// All accounts, oldest first.
pub async fn list(session: &Session, page: PageRequest<UserId>) -> Result<Page<Account>> {
    let rows = store::list(session, page).await?;
    Ok(Page::cut(rows, page.limit, |account| account.user.id.bare()))
}

/// Changes what a user is called.
pub async fn rename(session: &Session, user: UserId, name: &PersonName) -> Result<()> {
    store::rename(session, user, name.as_str()).await
}

/// Keeps a user out, or lets them in again. The last administrator stays.
///
/// # Errors
/// [`Error::Conflict`] for the last administrator.
pub async fn set_disabled(tx: &Tx, now: Timestamp, user: UserId, disabled: bool) -> Result<()> {
    if disabled && !store::has_another_administrator(tx, user).await? {
        return Err(Error::conflict("this is the last administrator", "Make another account an administrator first."));
    }
    store::set_disabled(tx, user, disabled.then_some(now)).await
}

/// Makes a user an administrator, or none any more. There is always one.
///
/// # Errors
/// [`Error::Conflict`] for the last one.
pub async fn set_administrator(tx: &Tx, user: UserId, is_administrator: bool) -> Result<()> {
    if !is_administrator && !store::has_another_administrator(tx, user).await? {
        return Err(Error::conflict("this is the last administrator", "Make another account an administrator first."));
    }
    store::set_administrator(tx, user, is_administrator).await
}

/// The user with this address, unless they are kept out.
pub async fn by_email(session: &Session, email: &str) -> Result<Option<User>> {
    Ok(store::by_email(session, email).await?.filter(|found| !found.is_disabled).map(|found| found.user))
}

/// The user with this address, kept out or not.
pub async fn find(session: &Session, email: &str) -> Result<Option<User>> {
    Ok(store::by_email(session, email).await?.map(|found| found.user))
}

/// Whose account an identity provider vouches for under this subject, kept out or not.
pub async fn by_identity(session: &Session, issuer: &str, subject: &str) -> Result<Option<UserId>> {
    store::by_identity(session, issuer, subject).await
}

/// Records that an identity provider vouches for a user under this subject.
///
/// # Errors
/// [`Error::Conflict`] when it vouches for them under another: what was one person's address may
/// have become another's.
pub async fn add_identity(tx: &Tx, now: Timestamp, issuer: &str, subject: &str, user: UserId) -> Result<()> {
    if store::has_identity(tx, issuer, user).await? {
        return Err(Error::conflict(
            "the account with this email address belongs to another user of this identity provider",
            "Ask an administrator of this server. The account may belong to a previous owner of the address.",
        ));
    }
    store::add_identity(tx, issuer, subject, user, now).await
}

/// Lets no identity provider vouch for a user any more.
///
/// # Errors
/// [`Error::Conflict`] when there would be no way left to sign in.
pub async fn remove_identities(tx: &Tx, user: UserId) -> Result<()> {
    if !get(tx, user).await?.has_password {
        return Err(Error::conflict("this is the only way to sign in", "Set a password first."));
    }
    store::remove_identities(tx, user).await
}
