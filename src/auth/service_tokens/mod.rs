//! Service tokens as credentials: signed JWTs whose row, found by the hash of their random `jti`,
//! decides at every request about revocation, expiry and limits.

mod store;

use jiff::Timestamp;

use super::signing::{Claims, Signer, workspace_subject};
use super::{Limits, Principal};
use crate::base::error::{Error, Result};
use crate::base::id::{ServiceTokenId, WorkspaceId};
use crate::base::name::TokenName;
use crate::base::secret::{Secret, hash, random_text};
use crate::base::store::{Session, Tx};

/// A token as it is when it is made: the one time that its value is known.
#[derive(Debug)]
pub struct Issued {
    /// Its id.
    pub id: ServiceTokenId,
    /// What a request carries.
    pub value: Secret,
}

/// Makes a token of a workspace; whoever asks was allowed to.
pub async fn issue(
    tx: &Tx,
    signer: &Signer,
    now: Timestamp,
    workspace: WorkspaceId,
    name: &TokenName,
    limits: &Limits,
) -> Result<Issued> {
    let claims = Claims { sub: workspace_subject(workspace), jti: random_text::<24>(), iat: now.as_second() };
    let issued = Issued { id: ServiceTokenId::generate(now), value: signer.sign(&claims)? };
    let text = issued.value.expose();
    let hint = format!("{}…{}", &text[..6], &text[text.len() - 4..]);
    store::insert(tx, issued.id, workspace, name, &hash(&claims.jti), &hint, limits, now).await?;
    Ok(issued)
}

/// A token that is good.
#[derive(Debug)]
pub struct Accepted {
    /// The token.
    pub token: ServiceTokenId,
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
    let refused = || Error::Unauthenticated("Missing or invalid authorization token.".into());
    let claims = signer.verify(token).ok_or_else(refused)?;
    let accepted = store::find_valid(session, &hash(&claims.jti), now).await?;
    accepted.filter(|accepted| claims.sub == workspace_subject(accepted.principal.workspace())).ok_or_else(|| {
        signer.forget(token);
        refused()
    })
}

/// Records that a token was used, once a minute at most however often it is.
pub async fn record_use(session: &Session, id: ServiceTokenId, now: Timestamp) -> Result<()> {
    store::record_use(session, id, now).await
}
