//! Grants: each is one authorization of an integration, the family of the tokens that came of one
//! consent. What is taken for stolen ends the whole family.
//!
//! A grant's row is locked before anything of it is looked at, so that of two who use the same code
//! or refresh token one comes second, whatever process it comes to.

mod store;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Scopes;
use super::clients::Client;
use crate::signing::{AccessClaims, Signer, Token};
use crate::{Accepted, Principal};
use base::error::{Error, Result};
use base::id::{GrantId, IntegrationId, OauthClientId, UserId, WorkspaceId};
use base::keyring::Keyring;
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

/// How long a code is good; RFC 6749 (section 4.1.2) has ten minutes at most.
const CODE: SignedDuration = SignedDuration::from_mins(2);
/// How long an access token is good.
pub const ACCESS: SignedDuration = SignedDuration::from_hours(1);
/// How long a refresh token is good.
const REFRESH: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long after its use a refresh token still gives the same next one, for clients whose answer was lost and for
/// those that refresh twice at once (RFC 9700, section 4.14.2).
pub const REFRESH_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long a code is remembered after its end, so that one who comes late with it ends the grant.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// What somebody has agreed to, as far as the code has to remember it.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// What the application may do.
    pub scopes: Scopes,
    /// Where the code is sent; whoever brings it names the same address.
    pub redirect_uri: String,
    /// S256 of RFC 7636, if the application sent one.
    pub code_challenge: Option<String>,
}

/// Who signs access tokens, in whose name and for whom.
#[derive(Clone, Copy)]
pub struct Issuer<'a> {
    /// The keys.
    pub signer: &'a Signer,
    /// The authorization server's address.
    pub issuer: &'a str,
    /// The API's address.
    pub audience: &'a str,
}

/// What an application gets.
#[derive(Debug)]
pub struct Tokens {
    /// For the API.
    pub access_token: Secret,
    /// For new tokens, where the person has agreed to that.
    pub refresh_token: Option<Secret>,
    /// What the access token is good for.
    pub scopes: Scopes,
}

/// Why an application gets nothing. What was found out by then is to be committed all the same: a
/// code or token that comes a second time has ended its grant.
#[derive(Debug)]
pub enum Refused {
    /// The code or refresh token is not good, or not for this application.
    Grant(&'static str),
    /// It came a second time, which has ended its grant.
    Replay {
        /// What that means.
        why: &'static str,
        /// The application as it acted for the user, if they are in the workspace still.
        acting: Option<Box<Principal>>,
    },
    /// It is not good for these scopes.
    Scope,
}

/// Either of the two.
pub type Outcome = Result<std::result::Result<Tokens, Refused>>;

/// What an application may be told about a token of its own.
#[derive(Debug)]
pub struct Introspection {
    /// What it is good for.
    pub scopes: Scopes,
    /// Whose application.
    pub client: OauthClientId,
    /// For whom it acts.
    pub subject: Subject,
    /// An access token, or a refresh token.
    pub is_access: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
}

/// For whom an application acts, and where.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The user.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// The workspace.
    pub workspace: WorkspaceId,
}

/// Begins a grant; the code is for the application, once.
pub async fn begin(tx: &Tx, now: Timestamp, integration: IntegrationId, agreed: &Authorization) -> Result<Secret> {
    let (grant, code) = (GrantId::generate(now), Secret::new(random_text::<32>()));
    store::insert_grant(tx, grant, integration, agreed.scopes, now).await?;
    store::insert_code(tx, &hash(code.expose()), grant, agreed, now + CODE).await?;
    Ok(code)
}

/// Gives tokens for a code. `redirect_uri` is the address that it was sent to, `verifier` what the
/// challenge was made of.
pub async fn exchange(
    tx: &Tx,
    issuer: Issuer<'_>,
    now: Timestamp,
    client: &Client,
    code: &str,
    redirect_uri: Option<&str>,
    verifier: Option<&str>,
) -> Outcome {
    let Some(found) = store::lock_code(tx, &hash(code)).await? else {
        return Ok(Err(Refused::Grant("the code is unknown or was revoked")));
    };
    if found.client != client.id {
        return Ok(Err(Refused::Grant("the code was issued to another client")));
    }
    if found.is_used {
        let acting = end(tx, found.grant).await?.map(Box::new);
        return Ok(Err(Refused::Replay {
            why: "the code was already used; all tokens issued for it are revoked",
            acting,
        }));
    }
    if found.expires_at <= now {
        return Ok(Err(Refused::Grant("the code has expired")));
    }
    // Where there is no choice, it may be left out here as it may be in the question.
    if client.redirect(redirect_uri).as_deref() != Some(found.redirect_uri.as_str()) {
        return Ok(Err(Refused::Grant("redirect_uri differs from the one in the authorization request")));
    }
    match (&found.code_challenge, verifier) {
        (Some(challenge), Some(verifier)) if is_made_of(challenge, verifier) => {}
        (None, None) if !client.is_public => {}
        (Some(_), None) => return Ok(Err(Refused::Grant("code_verifier is missing"))),
        // RFC 9700, section 4.8.2: a challenge that somebody has taken out of the request.
        (None, _) => return Ok(Err(Refused::Grant("the authorization request had no code_challenge"))),
        (Some(_), Some(_)) => return Ok(Err(Refused::Grant("code_verifier does not match the code_challenge"))),
    }
    store::spend_code(tx, &hash(code), now).await?;
    let refresh = found.scopes.offline.then(|| refresh_token(&random_text::<32>()));
    if let Some(token) = &refresh {
        insert_refresh(tx, now, found.grant, found.scopes, token).await?;
    }
    issue(tx, issuer, now, &client.id, found.grant, found.scopes, refresh).await
}

/// Gives new tokens for a refresh token, which is spent by that; for fewer scopes, if they are given. Within
/// [`REFRESH_GRACE`], and until its successor is used, a spent one gives that successor again.
pub async fn refresh(
    tx: &Tx,
    keyring: &Keyring,
    issuer: Issuer<'_>,
    now: Timestamp,
    client: &Client,
    token: &str,
    scopes: Option<Scopes>,
) -> Outcome {
    let Some(found) = store::lock_refresh(tx, &hash(token)).await? else {
        return Ok(Err(Refused::Grant("the refresh token is unknown or was revoked")));
    };
    if found.client != client.id {
        return Ok(Err(Refused::Grant("the refresh token was issued to another client")));
    }
    let successor = successor(keyring, token);
    if let Some(used_at) = found.used_at
        && !is_repetition(tx, now, used_at, &successor).await?
    {
        let why = "the refresh token was already used; all tokens of this consent are revoked";
        return Ok(Err(Refused::Replay { why, acting: end(tx, found.grant).await?.map(Box::new) }));
    }
    if found.expires_at <= now {
        return Ok(Err(Refused::Grant("the refresh token has expired")));
    }
    let wanted = scopes.unwrap_or(found.scopes);
    if !wanted.are_within(found.scopes) || !wanted.reach_something() {
        return Ok(Err(Refused::Scope));
    }
    if found.used_at.is_none() {
        store::spend_refresh(tx, &hash(token), now).await?;
        // RFC 6749, section 6: the new refresh token is good for what the old one was.
        insert_refresh(tx, now, found.grant, found.scopes, &successor).await?;
    }
    issue(tx, issuer, now, &client.id, found.grant, wanted, Some(successor)).await
}

/// The refresh token that follows `token`. Derived, so that it can be given again while only hashes are stored.
fn successor(keyring: &Keyring, token: &str) -> Secret {
    refresh_token(keyring.derive(&format!("the refresh token after {token}")).expose())
}

/// Whether a spent refresh token comes again because its answer did not arrive, and not because two have it: whoever
/// has used the successor did get the answer.
async fn is_repetition(tx: &Tx, now: Timestamp, used_at: Timestamp, successor: &Secret) -> Result<bool> {
    // Absolute: a clock that was set back must not make the grace longer.
    if now.duration_since(used_at).abs() > REFRESH_GRACE {
        return Ok(false);
    }
    let next = store::lock_refresh(tx, &hash(successor.expose())).await?;
    Ok(next.is_some_and(|next| next.used_at.is_none()))
}

/// Whether the challenge is S256 of the verifier (RFC 7636, section 4.6).
fn is_made_of(challenge: &str, verifier: &str) -> bool {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)).as_bytes().ct_eq(challenge.as_bytes()).into()
}

fn refresh_token(secret: &str) -> Secret {
    Secret::new(format!("howdah_rt_{secret}"))
}

async fn insert_refresh(tx: &Tx, now: Timestamp, grant: GrantId, scopes: Scopes, token: &Secret) -> Result<()> {
    store::insert_refresh(tx, &hash(token.expose()), grant, scopes, now, now + REFRESH).await
}

async fn issue(
    tx: &Tx,
    issuer: Issuer<'_>,
    now: Timestamp,
    client: &OauthClientId,
    grant: GrantId,
    scopes: Scopes,
    refresh_token: Option<Secret>,
) -> Outcome {
    let Some(subject) = store::subject(tx, grant).await? else {
        return Ok(Err(Refused::Grant("the user is no longer a member of the workspace")));
    };
    let expires_at = now + ACCESS;
    let claims = AccessClaims {
        iss: issuer.issuer.to_owned(),
        sub: subject.user.to_string(),
        aud: issuer.audience.to_owned(),
        client_id: client.bare().to_owned(),
        workspace_id: subject.workspace.bare(),
        email: subject.email,
        scope: scopes.to_string(),
        jti: random_text::<24>(),
        iat: now.as_second(),
        exp: expires_at.as_second(),
    };
    store::insert_access(tx, &hash(&claims.jti), grant, scopes, now, expires_at).await?;
    Ok(Ok(Tokens { access_token: issuer.signer.sign_access_token(&claims)?, refresh_token, scopes }))
}

/// Whom an access token stands for: its application acts for the user, in their role of now. `None` when
/// it is over, was revoked, or the user is in the workspace no more.
pub async fn authenticate(session: &Session, claims: &AccessClaims, now: Timestamp) -> Result<Option<Accepted>> {
    let accepted = store::find_valid(session, &hash(&claims.jti), now).await?;
    Ok(accepted.filter(|accepted| is_about(claims, &accepted.principal)))
}

fn is_about(claims: &AccessClaims, principal: &Principal) -> bool {
    claims.workspace_id == principal.workspace().bare()
        && principal.user().is_some_and(|user| user.id.to_string() == claims.sub)
}

/// Records that an integration was used, once a minute at most.
pub async fn record_use(session: &Session, integration: IntegrationId, now: Timestamp) -> Result<()> {
    store::record_use(session, integration, now).await
}

/// Ends a grant; the application as it acted for the user, if they are in the workspace still.
async fn end(tx: &Tx, grant: GrantId) -> Result<Option<Principal>> {
    let acting = store::acting(tx, grant).await?;
    store::end(tx, grant).await?;
    Ok(acting)
}

/// Ends a token of this application (RFC 7009): an access token alone, a refresh token with everything
/// that came of its consent, and then it answers how the application acted for the user. An unknown one is
/// over already.
///
/// # Errors
/// [`Error::Forbidden`] when it was given to another application.
pub async fn revoke(tx: &Tx, signer: &Signer, client: &Client, token: &str) -> Result<Option<Principal>> {
    let check = |owner: OauthClientId| {
        if owner == client.id {
            return Ok(());
        }
        Err(Error::forbidden(
            "the token was issued to another client",
            "Revoke only tokens that were issued to this client.",
        ))
    };
    match signer.verify(token).as_deref() {
        Some(Token::Access(claims)) => {
            let token_hash = hash(&claims.jti);
            if let Some(owner) = store::owner_of_access(tx, &token_hash).await? {
                check(owner)?;
                store::remove_access(tx, &token_hash).await?;
            }
            signer.forget(token);
        }
        Some(Token::Service(_)) => signer.forget(token),
        None => {
            if let Some(found) = store::lock_refresh(tx, &hash(token)).await? {
                check(found.client)?;
                return end(tx, found.grant).await;
            }
        }
    }
    Ok(None)
}

/// What a token is worth (RFC 7662); `None` for one that is worth nothing, and for those of others.
pub async fn introspect(
    session: &Session,
    signer: &Signer,
    client: &Client,
    now: Timestamp,
    token: &str,
) -> Result<Option<Introspection>> {
    let found = match signer.verify(token).as_deref() {
        Some(Token::Access(claims)) => store::introspect_access(session, &hash(&claims.jti), now).await?,
        Some(Token::Service(_)) => None,
        None => store::introspect_refresh(session, &hash(token), now).await?,
    };
    if found.is_none() {
        signer.forget(token);
    }
    Ok(found.filter(|found| found.client == client.id))
}

/// Forgets what is over.
pub async fn forget_expired(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_expired(session, now, now - REMEMBERED).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_made_of_its_verifier() {
        // RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_made_of(challenge, verifier));
        assert!(!is_made_of(challenge, challenge));
        assert!(!is_made_of(verifier, verifier), "the plain method is refused");
    }
}
