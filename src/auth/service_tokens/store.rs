//! The SQL of service tokens.

use jiff::Timestamp;
use uuid::Uuid;

use crate::base::error::Result;
use crate::base::id::{ServiceTokenId, WorkspaceId};
use crate::base::store::{Session, Tx};

pub(super) struct Row {
    pub(super) id: ServiceTokenId,
    pub(super) workspace: WorkspaceId,
}

pub(super) async fn insert(
    tx: &Tx,
    id: ServiceTokenId,
    workspace: WorkspaceId,
    name: &str,
    token_hash: &[u8],
    value_hint: &str,
    now: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO service_tokens (id, workspace_id, name, token_hash, value_hint, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[&id.uuid(), &workspace.uuid(), &name, &token_hash, &value_hint, &now],
    )
    .await?;
    Ok(())
}

pub(super) async fn find_valid(session: &Session, token_hash: &[u8], now: Timestamp) -> Result<Option<Row>> {
    let statement = session
        .prepare_cached(
            "SELECT id, workspace_id
               FROM service_tokens
              WHERE token_hash = $1
                AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > $2)",
        )
        .await?;
    let row = session.query_opt(&statement, &[&token_hash, &now]).await?;
    Ok(row.map(|row| Row { id: row.get::<_, Uuid>("id").into(), workspace: row.get::<_, Uuid>("workspace_id").into() }))
}

pub(super) async fn revoke(tx: &Tx, id: ServiceTokenId, now: Timestamp) -> Result<()> {
    tx.execute("UPDATE service_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", &[&id.uuid(), &now])
        .await?;
    Ok(())
}
