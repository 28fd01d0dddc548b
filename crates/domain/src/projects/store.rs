//! The SQL of projects.

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Filter, Project, ProjectChange};
use auth::Scope;
use base::error::{Error, Result};
use base::id::{ProjectId, WorkspaceId};
use base::name::{LogicalId, ProjectName};
use base::page::PageRequest;
use base::store::{Conditions, Session, Tx};

const SELECT: &str = "SELECT p.id,
        p.name,
        p.logical_id,
        coalesce((SELECT d.region
                    FROM databases d
                   WHERE d.project_id = p.id AND d.is_default AND d.deleted_at IS NULL), p.region) AS region,
        p.created_at,
        p.workspace_id,
        w.name AS workspace_name,
        p.delete_protection,
        p.backup_retention_days
   FROM projects p
   JOIN workspaces w ON w.id = p.workspace_id
  WHERE p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2)) AND p.deleted_at IS NULL";

pub(super) async fn insert(
    tx: &Tx,
    workspace: WorkspaceId,
    id: ProjectId,
    name: &ProjectName,
    logical_id: Option<&LogicalId>,
    region: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO projects (id, workspace_id, name, logical_id, region, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .await?;
    let logical_id = logical_id.map(LogicalId::as_str);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&id.uuid(), &workspace.uuid(), &name.as_str(), &logical_id, &region, &now];
    match tx.execute(&statement, &values).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            let logical_id = logical_id.unwrap_or_default();
            Err(Error::conflict(
                format!("logicalId: another project of this workspace has the logical ID {logical_id:?}"),
                format!("Use that project (GET /v1/projects?logicalId={logical_id}), or choose another logical ID."),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// Nothing happens when the caller has no such project.
pub(super) async fn update(tx: &Tx, scope: &Scope, id: ProjectId, change: &ProjectChange) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE projects
                SET name = coalesce($4, name),
                    settings = coalesce($5::text::json, settings),
                    delete_protection = coalesce($6, delete_protection),
                    backup_retention_days = CASE WHEN $7 THEN $8 ELSE backup_retention_days END
              WHERE workspace_id = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2)) AND id = $3 AND deleted_at IS NULL",
        )
        .await?;
    let name = change.name.as_ref().map(ProjectName::as_str);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &scope.workspace,
        &scope.projects,
        &id.uuid(),
        &name,
        &change.settings,
        &change.delete_protection,
        &change.backup_retention_days.is_some(),
        &change.backup_retention_days.flatten(),
    ];
    tx.execute(&statement, &values).await?;
    Ok(())
}

/// False when the project is not what it was any more: deleted, or in a third workspace.
pub(super) async fn set_workspace(tx: &Tx, project: &Project, recipient: WorkspaceId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE projects SET workspace_id = $3 WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL",
        )
        .await?;
    match tx.execute(&statement, &[&project.workspace.uuid(), &project.id.uuid(), &recipient.uuid()]).await {
        Ok(count) => Ok(count == 1),
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Err(Error::conflict(
            format!(
                "logicalId: another project of the recipient's workspace has the logical ID {:?}",
                project.logical_id.as_deref().unwrap_or_default()
            ),
            "Ask the recipient to delete that project first.",
        )),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn get(session: &Session, scope: &Scope, id: ProjectId) -> Result<Option<Project>> {
    let statement = session.prepare_cached(&format!("{SELECT} AND p.id = $3")).await?;
    Ok(session.query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?.as_ref().map(read))
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    filter: &Filter,
    page: PageRequest<ProjectId>,
) -> Result<Vec<Project>> {
    let (after, limit) = (page.after.map_or(Uuid::nil(), |id| id.uuid()), i64::from(page.limit) + 1);
    let logical_id = filter.logical_id.as_ref().map(LogicalId::as_str);
    let mut wanted = Conditions::of([&scope.workspace, &scope.projects, &after, &limit]);
    wanted.add("p.logical_id = $?", logical_id.as_ref());
    // No pattern: what is looked for may have any character in it.
    wanted.add("position(lower($?) IN lower(p.name)) > 0", filter.name_contains.as_ref());
    let statement =
        session.prepare_cached(&format!("{SELECT} AND p.id > $3 {} ORDER BY p.id LIMIT $4", wanted.sql())).await?;
    let rows = session.query(&statement, wanted.values()).await?;
    Ok(rows.iter().map(read).collect())
}

pub(super) async fn mark_deleted(tx: &Tx, scope: &Scope, id: ProjectId, now: Timestamp) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE projects
                SET deleted_at = $4
              WHERE workspace_id = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2)) AND id = $3 AND deleted_at IS NULL",
        )
        .await?;
    Ok(tx.execute(&statement, &[&scope.workspace, &scope.projects, &id.uuid(), &now]).await? == 1)
}

pub(super) async fn hold(tx: &Tx, id: ProjectId) -> Result<()> {
    let lock = tx.prepare_cached("SELECT FROM projects WHERE id = $1 FOR UPDATE").await?;
    tx.execute(&lock, &[&id.uuid()]).await?;
    Ok(())
}

/// The lock orders the deletes of a project's last two databases: the later one sees the earlier.
pub(super) async fn remove_if_empty(tx: &Tx, id: ProjectId) -> Result<()> {
    hold(tx, id).await?;
    let statement = tx
        .prepare_cached(
            "DELETE FROM projects p
              WHERE p.id = $1
                AND p.deleted_at IS NOT NULL
                AND NOT EXISTS (SELECT FROM databases d WHERE d.project_id = p.id)",
        )
        .await?;
    tx.execute(&statement, &[&id.uuid()]).await?;
    Ok(())
}

fn read(row: &Row) -> Project {
    Project {
        id: row.get::<_, Uuid>("id").into(),
        name: row.get("name"),
        logical_id: row.get("logical_id"),
        default_region: row.get("region"),
        created_at: row.get("created_at"),
        workspace: row.get::<_, Uuid>("workspace_id").into(),
        workspace_name: row.get("workspace_name"),
        delete_protection: row.get("delete_protection"),
        backup_retention_days: row.get("backup_retention_days"),
    }
}
