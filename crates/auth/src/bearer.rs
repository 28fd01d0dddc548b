//! Bearer tokens: what a request to the API carries, whichever kind it is.

use jiff::Timestamp;

use super::oauth::grants;
use super::signing::{Signer, Token};
use super::{Credential, Principal, service_tokens};
use base::error::{Error, Result};
use base::store::Session;

/// A token that is good.
#[derive(Debug)]
pub struct Accepted {
    /// Whom it stands for.
    pub principal: Principal,
    /// Its last use was recorded more than a minute ago.
    pub use_is_stale: bool,
}

/// Whom a bearer token stands for.
///
/// # Errors
/// [`Error::Unauthenticated`], the same for every token that is not good, whatever the reason.
pub async fn authenticate(session: &Session, signer: &Signer, token: &str, now: Timestamp) -> Result<Accepted> {
    let accepted = match signer.verify(token).as_deref() {
        Some(Token::Service(claims)) => service_tokens::authenticate(session, claims, now).await?,
        Some(Token::Access(claims)) => grants::authenticate(session, claims, now).await?,
        None => None,
    };
    accepted.ok_or_else(|| {
        signer.forget(token);
        Error::Unauthenticated("Missing or invalid authorization token.".into())
    })
}

/// Records that a credential was used, once a minute at most however often it is.
pub async fn record_use(session: &Session, credential: &Credential, now: Timestamp) -> Result<()> {
    match credential {
        Credential::ServiceToken { id, .. } => service_tokens::record_use(session, *id, now).await,
        Credential::Integration { id, .. } => grants::record_use(session, *id, now).await,
        Credential::Session { .. } => Ok(()),
    }
}
