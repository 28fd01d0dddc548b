//! The SQL of service tokens as credentials.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{Accepted, Limits, Principal};
use base::error::Result;
use base::id::{ProjectId, ServiceTokenId, WorkspaceId};
use base::name::TokenName;
use base::store::{Session, Tx};

#[expect(clippy::too_many_arguments, reason = "one for each column")]
pub(super) async fn insert(
    tx: &Tx,
    id: ServiceTokenId,
    workspace: WorkspaceId,
    name: &TokenName,
    token_hash: &[u8],
    value_hint: &str,
    limits: &Limits,
    now: Timestamp,
) -> Result<()> {
    let projects: Option<Vec<Uuid>> =
        limits.projects.as_ref().map(|projects| projects.iter().map(ProjectId::uuid).collect());
    let statement = tx
        .prepare_cached(
            "INSERT INTO service_tokens
                    (id, workspace_id, name, token_hash, value_hint, created_at, expires_at, read_only, project_ids)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .await?;
    tx.execute(
        &statement,
        &[
            &id.uuid(),
            &workspace.uuid(),
            &name.as_str(),
            &token_hash,
            &value_hint,
            &now,
            &limits.expires_at,
            &limits.read_only,
            &projects,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn find_valid(session: &Session, token_hash: &[u8], now: Timestamp) -> Result<Option<Accepted>> {
    let statement = session
        .prepare_cached(
            "SELECT id,
                    workspace_id,
                    name,
                    expires_at,
                    read_only,
                    project_ids,
                    last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute' AS use_is_stale
               FROM service_tokens
              WHERE token_hash = $1
                AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > $2)",
        )
        .await?;
    let row = session.query_opt(&statement, &[&token_hash, &now]).await?;
    Ok(row.map(|row| {
        let projects: Option<Vec<Uuid>> = row.get("project_ids");
        let limits = Limits {
            read_only: row.get("read_only"),
            projects: projects.map(|projects| projects.into_iter().map(ProjectId::from).collect()),
            expires_at: row.get("expires_at"),
        };
        let (workspace, token) = (row.get::<_, Uuid>("workspace_id").into(), row.get::<_, Uuid>("id").into());
        Accepted {
            principal: Principal::of_service_token(workspace, token, row.get("name"), limits),
            use_is_stale: row.get("use_is_stale"),
        }
    }))
}

pub(super) async fn record_use(session: &Session, id: ServiceTokenId, now: Timestamp) -> Result<()> {
    let statement = session
        .prepare_cached(
            "UPDATE service_tokens
                SET last_used_at = $2
              WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')",
        )
        .await?;
    session.execute(&statement, &[&id.uuid(), &now]).await?;
    Ok(())
}
