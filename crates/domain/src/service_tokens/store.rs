//! The SQL of service tokens as things that a workspace has.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::ServiceToken;
use auth::{Limits, Principal};
use base::error::Result;
use base::id::{ProjectId, ServiceTokenId};
use base::page::PageRequest;
use base::store::{Session, Tx};

const SELECT: &str = "SELECT id, name, value_hint, created_at, expires_at, last_used_at, read_only, project_ids
   FROM service_tokens
  WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id = $2) AND revoked_at IS NULL";

pub(super) async fn get(session: &Session, actor: &Principal, id: ServiceTokenId) -> Result<Option<ServiceToken>> {
    let statement = session.prepare_cached(&format!("{SELECT} AND id = $3")).await?;
    let only = actor.only_token().map(|id| id.uuid());
    let row = session.query_opt(&statement, &[&actor.workspace().uuid(), &only, &id.uuid()]).await?;
    Ok(row.as_ref().map(read))
}

pub(super) async fn list(
    session: &Session,
    actor: &Principal,
    page: PageRequest<ServiceTokenId>,
) -> Result<Vec<ServiceToken>> {
    let statement = session
        .prepare_cached(&format!("{SELECT} AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4"))
        .await?;
    let (only, after) = (actor.only_token().map(|id| id.uuid()), page.after.map(|id| id.uuid()));
    let limit = i64::from(page.limit) + 1;
    let rows = session.query(&statement, &[&actor.workspace().uuid(), &only, &after, &limit]).await?;
    Ok(rows.iter().map(read).collect())
}

/// Whether another token may do everything, for ever. The lock orders revocations: the later one sees the
/// earlier.
pub(super) async fn has_another_unlimited(tx: &Tx, actor: &Principal, id: ServiceTokenId) -> Result<bool> {
    let lock = tx.prepare_cached("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE").await?;
    let statement = tx
        .prepare_cached(
            "SELECT
               FROM service_tokens
              WHERE workspace_id = $1
                AND id <> $2
                AND revoked_at IS NULL
                AND expires_at IS NULL
                AND NOT read_only
                AND project_ids IS NULL
              LIMIT 1",
        )
        .await?;
    let workspace = actor.workspace().uuid();
    tx.query(&lock, &[&workspace]).await?;
    Ok(tx.query_opt(&statement, &[&workspace, &id.uuid()]).await?.is_some())
}

pub(super) async fn revoke(tx: &Tx, id: ServiceTokenId, now: Timestamp) -> Result<bool> {
    let statement =
        tx.prepare_cached("UPDATE service_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL").await?;
    Ok(tx.execute(&statement, &[&id.uuid(), &now]).await? == 1)
}

fn read(row: &Row) -> ServiceToken {
    let projects: Option<Vec<Uuid>> = row.get("project_ids");
    ServiceToken {
        id: row.get::<_, Uuid>("id").into(),
        name: row.get("name"),
        value_hint: row.get("value_hint"),
        created_at: row.get("created_at"),
        last_used_at: row.get("last_used_at"),
        limits: Limits {
            read_only: row.get("read_only"),
            projects: projects.map(|projects| projects.into_iter().map(ProjectId::from).collect()),
            expires_at: row.get("expires_at"),
        },
    }
}
