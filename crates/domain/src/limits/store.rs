//! The SQL of limits.

use tokio_postgres::Row;

use super::{Quota, Quotas, Standing};
use base::error::Result;
use base::id::{DatabaseId, WorkspaceId};
use base::store::{Session, Tx};

/// A workspace's own limits `l`, if it has any.
const OWN: &str = "l.projects, l.databases, l.connections_per_database
   FROM workspaces w
   LEFT JOIN workspace_limits l ON l.workspace_id = w.id
  WHERE w.id = $1";

/// What holds for a workspace. It is locked against others that ask the same, and not against those
/// that only refer to it.
pub(super) async fn lock(tx: &Tx, quotas: &Quotas, workspace: WorkspaceId) -> Result<Quotas> {
    let statement = tx.prepare_cached(&format!("SELECT {OWN} FOR NO KEY UPDATE OF w")).await?;
    let row = tx.query_opt(&statement, &[&workspace.uuid()]).await?;
    Ok(row.map_or(*quotas, |row| read(&row, quotas)))
}

/// A statement after the lock, so that it sees what the one who had it before has committed.
pub(super) async fn count_projects(tx: &Tx, workspace: WorkspaceId) -> Result<u32> {
    let statement = tx
        .prepare_cached(
            "SELECT count(*) AS used
               FROM projects
              WHERE workspace_id = $1 AND deleted_at IS NULL",
        )
        .await?;
    Ok(count(&tx.query_one(&statement, &[&workspace.uuid()]).await?, "used"))
}

/// See [`count_projects`].
pub(super) async fn count_databases(tx: &Tx, workspace: WorkspaceId) -> Result<u32> {
    let statement = tx
        .prepare_cached(
            "SELECT count(*) AS used
               FROM databases d
               JOIN projects p ON p.id = d.project_id
              WHERE p.workspace_id = $1 AND d.deleted_at IS NULL",
        )
        .await?;
    Ok(count(&tx.query_one(&statement, &[&workspace.uuid()]).await?, "used"))
}

pub(super) async fn connections(
    tx: &Tx,
    quotas: &Quotas,
    workspace: WorkspaceId,
    database: DatabaseId,
) -> Result<Quota> {
    let statement = tx
        .prepare_cached(&format!("SELECT (SELECT count(*) FROM connections WHERE database_id = $2) AS used, {OWN}"))
        .await?;
    let row = tx.query_one(&statement, &[&workspace.uuid(), &database.uuid()]).await?;
    Ok(Quota { limit: read(&row, quotas).connections_per_database, used: count(&row, "used") })
}

pub(super) async fn standing(session: &Session, quotas: &Quotas, workspace: WorkspaceId) -> Result<Standing> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT (SELECT count(*)
                       FROM projects
                      WHERE workspace_id = $1 AND deleted_at IS NULL) AS used_projects,
                    (SELECT count(*)
                       FROM databases d
                       JOIN projects p ON p.id = d.project_id
                      WHERE p.workspace_id = $1 AND d.deleted_at IS NULL) AS used_databases,
                    (SELECT coalesce(max(each.used), 0)
                       FROM (SELECT count(*) AS used
                               FROM connections c
                               JOIN databases d ON d.id = c.database_id
                               JOIN projects p ON p.id = d.project_id
                              WHERE p.workspace_id = $1
                              GROUP BY c.database_id) each) AS used_connections,
                    {OWN}"
        ))
        .await?;
    let row = session.query_one(&statement, &[&workspace.uuid()]).await?;
    let limits = read(&row, quotas);
    Ok(Standing {
        projects: Quota { limit: limits.projects, used: count(&row, "used_projects") },
        databases: Quota { limit: limits.databases, used: count(&row, "used_databases") },
        connections_per_database: Quota {
            limit: limits.connections_per_database,
            used: count(&row, "used_connections"),
        },
    })
}

fn read(row: &Row, quotas: &Quotas) -> Quotas {
    let own = |column, told: Option<u32>| match row.get::<_, Option<i32>>(column) {
        Some(limit) => Some(limit.unsigned_abs()).filter(|limit| *limit > 0),
        None => told,
    };
    Quotas {
        projects: own("projects", quotas.projects),
        databases: own("databases", quotas.databases),
        connections_per_database: own("connections_per_database", quotas.connections_per_database),
    }
}

fn count(row: &Row, column: &str) -> u32 {
    row.get::<_, i64>(column).try_into().unwrap_or(u32::MAX)
}
