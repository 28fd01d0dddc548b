//! Service tokens as credentials: signed JWTs whose row, found by the hash of their random `jti`,
//! decides at every request about revocation, expiry and limits.

mod store;

use jiff::Timestamp;

use super::signing::{ServiceClaims, Signer, workspace_subject};
use super::{Accepted, Limits};
use base::error::Result;
use base::id::{ServiceTokenId, WorkspaceId};
use base::name::TokenName;
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

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
    let claims = ServiceClaims { sub: workspace_subject(workspace), jti: random_text::<24>(), iat: now.as_second() };
    let issued = Issued { id: ServiceTokenId::generate(now), value: signer.sign_service_token(&claims)? };
    let text = issued.value.expose();
    let hint = format!("{}…{}", &text[..6], &text[text.len() - 4..]);
    store::insert(tx, issued.id, workspace, name, &hash(&claims.jti), &hint, limits, now).await?;
    Ok(issued)
}

/// Whom a service token stands for; `None` when it is over or was revoked.
pub(super) async fn authenticate(
    session: &Session,
    claims: &ServiceClaims,
    now: Timestamp,
) -> Result<Option<Accepted>> {
    let accepted = store::find_valid(session, &hash(&claims.jti), now).await?;
    Ok(accepted.filter(|accepted| claims.sub == workspace_subject(accepted.principal.workspace())))
}

/// Records that a token was used, once a minute at most however often it is.
pub(super) async fn record_use(session: &Session, id: ServiceTokenId, now: Timestamp) -> Result<()> {
    store::record_use(session, id, now).await
}
