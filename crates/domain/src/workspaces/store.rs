//! The SQL of workspaces.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Left, Workspace};
use base::error::Result;
use base::id::WorkspaceId;
use base::page::PageRequest;
use base::store::{Session, Tx};

pub(super) async fn insert(tx: &Tx, workspace: &Workspace) -> Result<()> {
    tx.execute(
        "INSERT INTO workspaces (id, name, created_at) VALUES ($1, $2, $3)",
        &[&workspace.id.uuid(), &workspace.name, &workspace.created_at],
    )
    .await?;
    Ok(())
}

pub(super) async fn rename(tx: &Tx, id: WorkspaceId, name: &str) -> Result<()> {
    tx.execute("UPDATE workspaces SET name = $2 WHERE id = $1", &[&id.uuid(), &name]).await?;
    Ok(())
}

pub(super) async fn get(session: &Session, id: WorkspaceId) -> Result<Option<Workspace>> {
    let statement = session
        .prepare_cached("SELECT id, name, created_at, backup_retention_days FROM workspaces WHERE id = $1")
        .await?;
    Ok(session.query_opt(&statement, &[&id.uuid()]).await?.as_ref().map(read))
}

/// The workspace, which nobody changes, refers to anew or deletes until the transaction ends.
pub(super) async fn hold(tx: &Tx, id: WorkspaceId) -> Result<Option<Workspace>> {
    let select = "SELECT id, name, created_at, backup_retention_days FROM workspaces WHERE id = $1 FOR UPDATE";
    Ok(tx.query_opt(select, &[&id.uuid()]).await?.as_ref().map(read))
}

/// A statement after the lock, so that it sees what the one who had it before has committed.
pub(super) async fn left(tx: &Tx, id: WorkspaceId) -> Result<Left> {
    let row = tx
        .query_one(
            "SELECT (SELECT count(*) FROM projects WHERE workspace_id = $1 AND deleted_at IS NULL) AS projects,
                    (SELECT count(*) FROM projects WHERE workspace_id = $1 AND deleted_at IS NOT NULL)
                        AS deleted_projects,
                    count(*) AS kept,
                    max(forget_at) AS kept_until
               FROM databases
              WHERE workspace_id = $1 AND deleted_at IS NOT NULL AND forget_at > now()",
            &[&id.uuid()],
        )
        .await?;
    Ok(Left {
        projects: row.get("projects"),
        deleted_projects: row.get("deleted_projects"),
        kept: row.get("kept"),
        kept_until: row.get("kept_until"),
    })
}

/// With it goes whatever refers to it and may: tokens, members, invitations, applications, integrations, limits.
pub(super) async fn delete(tx: &Tx, workspace: &Workspace, now: Timestamp) -> Result<()> {
    let id = workspace.id.uuid();
    tx.execute(
        "INSERT INTO deleted_workspaces (id, name, deleted_at) VALUES ($1, $2, $3)",
        &[&id, &workspace.name, &now],
    )
    .await?;
    tx.execute("DELETE FROM workspaces WHERE id = $1", &[&id]).await?;
    Ok(())
}

pub(super) async fn set_backup_retention(tx: &Tx, id: WorkspaceId, days: Option<i32>) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE workspaces SET backup_retention_days = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid(), &days]).await?;
    Ok(())
}

pub(super) async fn list(
    session: &Session,
    reachable: WorkspaceId,
    page: PageRequest<WorkspaceId>,
) -> Result<Vec<Workspace>> {
    let statement = session
        .prepare_cached(
            "SELECT id, name, created_at, backup_retention_days
               FROM workspaces
              WHERE id = $1 AND ($2::uuid IS NULL OR id > $2)
              ORDER BY id
              LIMIT $3",
        )
        .await?;
    let after = page.after.map(|id| id.uuid());
    let rows = session.query(&statement, &[&reachable.uuid(), &after, &(i64::from(page.limit) + 1)]).await?;
    Ok(rows.iter().map(read).collect())
}

pub(super) async fn first(session: &Session) -> Result<Option<WorkspaceId>> {
    let row = session.query_opt("SELECT id FROM workspaces ORDER BY id LIMIT 1", &[]).await?;
    Ok(row.map(|row| row.get::<_, uuid::Uuid>("id").into()))
}

fn read(row: &Row) -> Workspace {
    Workspace {
        id: row.get::<_, Uuid>("id").into(),
        name: row.get("name"),
        created_at: row.get("created_at"),
        backup_retention_days: row.get("backup_retention_days"),
    }
}
