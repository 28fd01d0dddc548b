//! Service tokens: signed JWTs whose row, found by the hash of their random `jti`, decides about
//! revocation and expiry.

mod store;

use jiff::Timestamp;

use super::Principal;
use super::signing::{Claims, Signer, workspace_subject};
use crate::base::error::{Error, Result};
use crate::base::id::{ServiceTokenId, WorkspaceId};
use crate::base::secret::{Secret, hash, random_text};
use crate::base::store::{Session, Tx};

/// Makes a service token of a workspace. Its value is in the answer and nowhere else.
pub async fn create(
    tx: &Tx,
    signer: &Signer,
    workspace: WorkspaceId,
    name: &str,
    now: Timestamp,
) -> Result<(ServiceTokenId, Secret)> {
    let id = ServiceTokenId::generate(now);
    let claims = Claims { sub: workspace_subject(workspace), jti: random_text::<24>(), iat: now.as_second() };
    let value = signer.sign(&claims)?;
    let text = value.expose();
    let hint = format!("{}…{}", &text[..6], &text[text.len() - 4..]);
    store::insert(tx, id, workspace, name, &hash(&claims.jti), &hint, now).await?;
    Ok((id, value))
}

/// Whom a bearer token stands for.
///
/// # Errors
/// [`Error::Unauthenticated`], the same for every token that is not good, whatever the reason.
pub async fn authenticate(session: &Session, signer: &Signer, token: &str, now: Timestamp) -> Result<Principal> {
    let refused = || Error::Unauthenticated("Missing or invalid authorization token.".into());
    let claims = signer.verify(token).ok_or_else(refused)?;
    let row = store::find_valid(session, &hash(&claims.jti), now).await?.ok_or_else(refused)?;
    let principal = Principal { workspace: row.workspace, token: row.id };
    if claims.sub != workspace_subject(principal.workspace) {
        return Err(refused());
    }
    Ok(principal)
}

/// Ends a token at once, in every process.
pub async fn revoke(tx: &Tx, id: ServiceTokenId, now: Timestamp) -> Result<()> {
    store::revoke(tx, id, now).await
}
