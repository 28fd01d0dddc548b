//! The SQL of databases.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Database, DatabaseChange, Deleted, Filter, MOST_DELETED, NewDatabase, Plan, Status, Summary};
use crate::projects::Project;
use crate::restores::SourceType;
use auth::Scope;
use base::error::{Error, Result};
use base::id::{BranchId, ConnectionId, DatabaseId, InstanceId, ProjectId};
use base::name::{BranchName, DatabaseName, LogicalId};
use base::page::PageRequest;
use base::store::{Conditions, QueryError, Session, Tx};

const SELECT: &str = "SELECT d.id,
        d.name,
        d.status,
        d.status_reason,
        d.region,
        d.is_default,
        d.default_connection_id,
        d.created_at,
        d.project_id,
        d.branch_id,
        b.git_name AS branch_git_name,
        d.logical_id,
        d.operation_id,
        d.source_type,
        d.source_database_id,
        d.source_backup_id,
        p.name AS project_name
   FROM databases d
   JOIN projects p ON p.id = d.project_id
   JOIN branches b ON b.id = d.branch_id
  WHERE d.deleted_at IS NULL";

/// Makes a concurrent delete of the project wait. False when the caller has no such project.
pub(super) async fn lock_project(tx: &Tx, scope: &Scope, project: ProjectId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "SELECT
               FROM projects
              WHERE workspace_id = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2)) AND id = $3 AND deleted_at IS NULL
                FOR SHARE",
        )
        .await?;
    Ok(tx.query_opt(&statement, &[&scope.workspace, &scope.projects, &project.uuid()]).await?.is_some())
}

pub(super) async fn insert(
    tx: &Tx,
    project: ProjectId,
    id: DatabaseId,
    instance: InstanceId,
    branch: BranchId,
    new: &NewDatabase,
    now: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO databases
                 (id, project_id, workspace_id, branch_id, logical_id, name, region, is_default, status, instance_id,
                  created_at)
             SELECT $1, p.id, p.workspace_id, $3, $4, $5, $6, $7, 'provisioning', $8, $9
               FROM projects p
              WHERE p.id = $2",
        )
        .await?;
    let logical_id = new.logical_id.as_ref().map(LogicalId::as_str);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
        &id.uuid(),
        &project.uuid(),
        &branch.uuid(),
        &logical_id,
        &new.name.as_str(),
        &new.region,
        &new.is_default,
        &instance.uuid(),
        &now,
    ];
    tx.execute(&statement, &values).await.map_err(|error| clash(error, logical_id))?;
    Ok(())
}

/// False when there is no such live database.
pub(super) async fn update(
    tx: &Tx,
    database: &Database,
    branch: Option<BranchId>,
    change: &DatabaseChange,
) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases
                SET name = coalesce($2, name), branch_id = coalesce($3, branch_id), logical_id = coalesce($4, logical_id)
              WHERE id = $1 AND deleted_at IS NULL",
        )
        .await?;
    let name = change.name.as_ref().map(DatabaseName::as_str);
    let logical_id = change.logical_id.as_ref().map(LogicalId::as_str);
    let branch = branch.map(|branch| branch.uuid());
    let updated = tx.execute(&statement, &[&database.id.uuid(), &name, &branch, &logical_id]).await;
    Ok(updated.map_err(|error| clash(error, logical_id.or(database.logical_id.as_deref())))? == 1)
}

/// What a broken rule means to the caller.
fn clash(error: QueryError, logical_id: Option<&str>) -> Error {
    match error.as_db_error().and_then(|error| error.constraint()) {
        Some("databases_project_id_default_key") => {
            Error::rejected("Default database already exists.", "Omit isDefault to create another database.")
        }
        Some("databases_branch_id_logical_id_key") => {
            let logical_id = logical_id.unwrap_or_default();
            Error::conflict(
                format!("logicalId: another database on the branch has the logical ID {logical_id:?}"),
                format!("Use that database (GET /v1/databases?logicalId={logical_id}), or choose another logical ID."),
            )
        }
        _ => error.into(),
    }
}

pub(super) async fn set_default_connection(tx: &Tx, id: DatabaseId, connection: ConnectionId) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE databases SET default_connection_id = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid(), &connection.uuid()]).await?;
    Ok(())
}

/// None or one.
pub(super) async fn get(session: &Session, scope: &Scope, id: DatabaseId) -> Result<Vec<Database>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT} AND p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2)) AND d.id = $3"
        ))
        .await?;
    session.query(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?.iter().map(read).collect()
}

pub(super) async fn has_name(session: &Session, project: ProjectId, name: &DatabaseName) -> Result<bool> {
    let statement = session
        .prepare_cached("SELECT FROM databases WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL LIMIT 1")
        .await?;
    Ok(session.query_opt(&statement, &[&project.uuid(), &name.as_str()]).await?.is_some())
}

/// Whoever has it.
pub(super) async fn get_any(session: &Session, id: DatabaseId) -> Result<Option<Database>> {
    let statement = session.prepare_cached(&format!("{SELECT} AND d.id = $1")).await?;
    session.query_opt(&statement, &[&id.uuid()]).await?.as_ref().map(read).transpose()
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    filter: &Filter,
    page: PageRequest<DatabaseId>,
) -> Result<Vec<Database>> {
    let (after, limit) = (page.after.map_or(Uuid::nil(), |id| id.uuid()), i64::from(page.limit) + 1);
    let project = filter.project.map(|id| id.uuid());
    let branch = filter.branch.map(|id| id.uuid());
    let git_name = filter.branch_git_name.as_ref().map(BranchName::as_str);
    let logical_id = filter.logical_id.as_ref().map(LogicalId::as_str);
    let mut wanted = Conditions::of([&scope.workspace, &after, &limit]);
    wanted.add("d.project_id = ANY ($?)", scope.projects.as_ref());
    wanted.add("d.project_id = $?", project.as_ref());
    wanted.add("d.branch_id = $?", branch.as_ref());
    wanted
        .add("d.branch_id IN (SELECT id FROM branches WHERE git_name = $? AND deleted_at IS NULL)", git_name.as_ref());
    wanted.add("d.logical_id = $?", logical_id.as_ref());
    // As a pair, so that no other index looks good: one in the order of ids alone has those of others.
    let statement = session
        .prepare_cached(&format!(
            "{SELECT} AND d.workspace_id = $1 AND (d.workspace_id, d.id) > ($1, $2) {} ORDER BY d.workspace_id, d.id LIMIT $3",
            wanted.sql()
        ))
        .await?;
    session.query(&statement, wanted.values()).await?.iter().map(read).collect()
}

pub(super) async fn summarize(session: &Session, projects: &[Project]) -> Result<HashMap<ProjectId, Summary>> {
    let statement = session
        .prepare_cached(
            "SELECT d.project_id,
                    count(*) AS databases,
                    count(*) FILTER (WHERE d.status = 'failure') AS failed,
                    count(*) FILTER (WHERE d.status NOT IN ('ready', 'failure')) AS under_way,
                    count(*) FILTER (WHERE EXISTS (SELECT
                                                     FROM backups b
                                                    WHERE b.database_id = d.id
                                                      AND b.state = 'completed'
                                                      AND b.damaged_at IS NOT NULL)) AS damaged
               FROM databases d
              WHERE d.project_id = ANY ($1) AND d.deleted_at IS NULL
              GROUP BY d.project_id",
        )
        .await?;
    let ids: Vec<Uuid> = projects.iter().map(|project| project.id.uuid()).collect();
    let rows = session.query(&statement, &[&ids]).await?;
    let read = |row: &Row| {
        let summary = Summary {
            databases: row.get("databases"),
            failed: row.get("failed"),
            under_way: row.get("under_way"),
            damaged: row.get("damaged"),
        };
        (row.get::<_, Uuid>("project_id").into(), summary)
    };
    Ok(rows.iter().map(read).collect())
}

pub(super) async fn live_in_project(tx: &Tx, project: ProjectId) -> Result<Vec<(DatabaseId, Status)>> {
    let statement = tx
        .prepare_cached(
            "SELECT id, status FROM databases WHERE project_id = $1 AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE",
        )
        .await?;
    let rows = tx.query(&statement, &[&project.uuid()]).await?;
    rows.iter().map(|row| Ok((row.get::<_, Uuid>("id").into(), Status::parse(row.get("status"))?))).collect()
}

pub(super) async fn hold(tx: &Tx, id: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("SELECT FROM databases WHERE id = $1 FOR NO KEY UPDATE").await?;
    tx.execute(&statement, &[&id.uuid()]).await?;
    Ok(())
}

/// They are about to get another workspace, which is part of a key.
pub(super) async fn hold_all(tx: &Tx, project: ProjectId) -> Result<()> {
    let statement = tx.prepare_cached("SELECT FROM databases WHERE project_id = $1 ORDER BY id FOR UPDATE").await?;
    tx.execute(&statement, &[&project.uuid()]).await?;
    Ok(())
}

pub(super) async fn mark_deleted(tx: &Tx, id: DatabaseId, now: Timestamp) -> Result<bool> {
    let statement =
        tx.prepare_cached("UPDATE databases SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL").await?;
    Ok(tx.execute(&statement, &[&id.uuid(), &now]).await? == 1)
}

pub(super) async fn plan(session: &Session, id: DatabaseId) -> Result<Option<Plan>> {
    let statement = session
        .prepare_cached(
            "SELECT id, project_id, instance_id, major, status, status_reason, deleted_at, source_type
               FROM databases
              WHERE id = $1",
        )
        .await?;
    session.query_opt(&statement, &[&id.uuid()]).await?.as_ref().map(read_plan).transpose()
}

fn read_plan(row: &Row) -> Result<Plan> {
    Ok(Plan {
        id: row.get::<_, Uuid>("id").into(),
        project: row.get::<_, Uuid>("project_id").into(),
        instance: row.get::<_, Option<Uuid>>("instance_id").map(Into::into),
        major: row.get::<_, Option<i16>>("major").map(i16::unsigned_abs),
        status: Status::parse(row.get("status"))?,
        status_reason: row.get("status_reason"),
        deleted_at: row.get("deleted_at"),
        source: SourceType::parse(row.get("source_type")).unwrap_or(SourceType::Empty),
    })
}

pub(super) async fn keep_until(tx: &Tx, id: DatabaseId, moment: Timestamp) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE databases SET instance_id = NULL, forget_at = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid(), &moment]).await?;
    Ok(())
}

pub(super) async fn outlived(session: &Session, now: Timestamp) -> Result<Vec<Plan>> {
    let statement = session
        .prepare_cached(
            "SELECT id, project_id, instance_id, major, status, status_reason, deleted_at, source_type
               FROM databases d
              WHERE d.forget_at <= $1 AND NOT EXISTS (SELECT FROM vaults v WHERE v.database_id = d.id)
              ORDER BY id",
        )
        .await?;
    session.query(&statement, &[&now]).await?.iter().map(read_plan).collect()
}

/// A deleted database that is kept, with its project `p`.
const DELETED: &str = "d.id, d.name, d.region, d.deleted_at, d.forget_at, p.id AS project_id, p.name AS project_name,
        p.deleted_at IS NOT NULL AS project_is_deleted";

/// None when the caller has no such project, deleted or not.
pub(super) async fn list_deleted(session: &Session, scope: &Scope, project: ProjectId) -> Result<Option<Vec<Deleted>>> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT {DELETED}
               FROM projects p
               LEFT JOIN databases d ON d.project_id = p.id AND d.deleted_at IS NOT NULL AND d.forget_at > now()
              WHERE p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2)) AND p.id = $3
              ORDER BY d.deleted_at DESC, d.id DESC"
        ))
        .await?;
    let rows = session.query(&statement, &[&scope.workspace, &scope.projects, &project.uuid()]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(Some(rows.iter().filter_map(read_deleted).collect()))
}

/// All, or the one with this id.
pub(super) async fn list_all_deleted(session: &Session, scope: &Scope, id: Option<DatabaseId>) -> Result<Vec<Deleted>> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT {DELETED}
               FROM projects p
               JOIN databases d ON d.project_id = p.id AND d.deleted_at IS NOT NULL AND d.forget_at > now()
              WHERE p.workspace_id = $1
                AND ($2::uuid[] IS NULL OR p.id = ANY ($2))
                AND ($3::uuid IS NULL OR d.id = $3)
              ORDER BY d.deleted_at DESC, d.id DESC
              LIMIT $4"
        ))
        .await?;
    let most = i64::try_from(MOST_DELETED).map_err(Error::internal)?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&scope.workspace, &scope.projects, &id.map(|id| id.uuid()), &most];
    Ok(session.query(&statement, &values).await?.iter().filter_map(read_deleted).collect())
}

/// None for a project without a deleted database.
fn read_deleted(row: &Row) -> Option<Deleted> {
    Some(Deleted {
        id: row.get::<_, Option<Uuid>>("id")?.into(),
        name: row.get("name"),
        region: row.get("region"),
        project: row.get::<_, Uuid>("project_id").into(),
        project_name: row.get("project_name"),
        project_is_deleted: row.get("project_is_deleted"),
        deleted_at: row.get("deleted_at"),
        restorable_until: row.get("forget_at"),
    })
}

pub(super) async fn choose_major(session: &Session, id: DatabaseId, major: u16) -> Result<u16> {
    let chosen = i16::try_from(major).map_err(Error::internal)?;
    let statement = session
        .prepare_cached("UPDATE databases SET major = coalesce(major, $2) WHERE id = $1 RETURNING major")
        .await?;
    let row = session.query_opt(&statement, &[&id.uuid(), &chosen]).await?;
    Ok(row.map_or(major, |row| row.get::<_, i16>("major").unsigned_abs()))
}

pub(super) async fn explain(session: &Session, id: DatabaseId, reason: Option<&str>) -> Result<()> {
    let statement = session
        .prepare_cached("UPDATE databases SET status_reason = $2 WHERE id = $1 AND status = 'provisioning'")
        .await?;
    session.execute(&statement, &[&id.uuid(), &reason]).await?;
    Ok(())
}

/// A deleted database keeps the status that it had.
pub(super) async fn mark_ready(tx: &Tx, id: DatabaseId) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases SET status = 'ready', status_reason = NULL WHERE id = $1 AND deleted_at IS NULL",
        )
        .await?;
    tx.execute(&statement, &[&id.uuid()]).await?;
    Ok(())
}

/// False when it does not stand at `failure`, or is deleted.
pub(super) async fn mark_provisioning(tx: &Tx, id: DatabaseId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases
                SET status = 'provisioning', status_reason = NULL
              WHERE id = $1 AND status = 'failure' AND deleted_at IS NULL",
        )
        .await?;
    Ok(tx.execute(&statement, &[&id.uuid()]).await? == 1)
}

/// Only what is still being made can fail to be made.
pub(super) async fn mark_failed(tx: &Tx, id: DatabaseId, reason: &str) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases
                SET status = 'failure', status_reason = $2
              WHERE id = $1 AND status = 'provisioning' AND deleted_at IS NULL",
        )
        .await?;
    tx.execute(&statement, &[&id.uuid(), &reason]).await?;
    Ok(())
}

pub(super) async fn remove(tx: &Tx, id: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM databases WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid()]).await?;
    Ok(())
}

pub(super) async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    let rows = session.query("SELECT instance_id FROM databases WHERE instance_id IS NOT NULL", &[]).await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("instance_id").into()).collect())
}

fn read(row: &Row) -> Result<Database> {
    Ok(Database {
        id: row.get::<_, Uuid>("id").into(),
        name: row.get("name"),
        status: Status::parse(row.get("status"))?,
        status_reason: row.get("status_reason"),
        region: row.get("region"),
        is_default: row.get("is_default"),
        default_connection: row.get::<_, Option<Uuid>>("default_connection_id").map(Into::into),
        connections: Vec::new(),
        created_at: row.get("created_at"),
        project: row.get::<_, Uuid>("project_id").into(),
        project_name: row.get("project_name"),
        branch: row.get::<_, Uuid>("branch_id").into(),
        branch_git_name: row.get("branch_git_name"),
        logical_id: row.get("logical_id"),
        operation: row.get::<_, Option<Uuid>>("operation_id").map(Into::into),
        source: SourceType::parse(row.get("source_type")).unwrap_or(SourceType::Empty),
        source_database: row.get::<_, Option<Uuid>>("source_database_id").map(Into::into),
        source_backup: row.get::<_, Option<Uuid>>("source_backup_id").map(Into::into),
    })
}
