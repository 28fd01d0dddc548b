//! The SQL of branches.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Branch, Filter, Role};
use auth::Scope;
use base::error::Result;
use base::id::{BranchId, ProjectId};
use base::name::BranchName;
use base::page::PageRequest;
use base::store::{Session, Tx};

const SELECT: &str = "SELECT b.id,
        b.git_name,
        b.is_default,
        b.role,
        b.created_at,
        b.updated_at,
        b.project_id,
        p.name AS project_name
   FROM branches b
   JOIN projects p ON p.id = b.project_id AND p.deleted_at IS NULL
  WHERE b.deleted_at IS NULL";

/// Makes every other change of the project's branches, and every database that is to be put on
/// one, wait. False when the caller has no such project.
pub(super) async fn lock_project(tx: &Tx, scope: &Scope, project: ProjectId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "SELECT
               FROM projects
              WHERE workspace_id = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2)) AND id = $3 AND deleted_at IS NULL
                FOR NO KEY UPDATE",
        )
        .await?;
    Ok(tx.query_opt(&statement, &[&scope.workspace, &scope.projects, &project.uuid()]).await?.is_some())
}

/// False when a live branch of the project has the name.
pub(super) async fn insert(
    tx: &Tx,
    project: ProjectId,
    id: BranchId,
    git_name: &BranchName,
    role: Role,
    now: Timestamp,
) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO branches (id, project_id, git_name, is_default, role, created_at, updated_at)
             VALUES ($1, $2, $3, false, $4, $5, $5)
             ON CONFLICT (project_id, git_name) WHERE deleted_at IS NULL DO NOTHING",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&id.uuid(), &project.uuid(), &git_name.as_str(), &role.as_str(), &now];
    Ok(tx.execute(&statement, &values).await? == 1)
}

/// Two statements: no two branches may have the flag at any time.
pub(super) async fn make_default(tx: &Tx, project: ProjectId, id: BranchId, now: Timestamp) -> Result<()> {
    let take = tx
        .prepare_cached(
            "UPDATE branches
                SET is_default = false, updated_at = $2
              WHERE project_id = $1 AND is_default AND deleted_at IS NULL",
        )
        .await?;
    let give = tx.prepare_cached("UPDATE branches SET is_default = true, updated_at = $2 WHERE id = $1").await?;
    tx.execute(&take, &[&project.uuid(), &now]).await?;
    tx.execute(&give, &[&id.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn get(session: &Session, scope: &Scope, id: BranchId) -> Result<Option<Branch>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT} AND p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2)) AND b.id = $3"
        ))
        .await?;
    session
        .query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()])
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

pub(super) async fn list(
    session: &Session,
    project: ProjectId,
    filter: &Filter,
    page: PageRequest<BranchId>,
) -> Result<Vec<Branch>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT}
                AND b.project_id = $1
                AND ($2::text IS NULL OR b.git_name = $2)
                AND ($3::text IS NULL OR strpos(b.git_name, $3) > 0)
                AND ($4::uuid IS NULL OR b.id > $4)
              ORDER BY b.id
              LIMIT $5"
        ))
        .await?;
    let (name, part) = match filter {
        Filter::All => (None, None),
        Filter::GitName(name) => (Some(name.as_str()), None),
        Filter::GitNameContains(part) => (None, Some(part.as_str())),
    };
    let after = page.after.map(|id| id.uuid());
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&project.uuid(), &name, &part, &after, &(i64::from(page.limit) + 1)];
    session.query(&statement, &values).await?.iter().map(read).collect()
}

/// How many live databases these branches have; those without any are missing.
pub(super) async fn count_databases(session: &Session, ids: &[BranchId]) -> Result<HashMap<BranchId, i64>> {
    let statement = session
        .prepare_cached(
            "SELECT branch_id, count(*) AS databases
               FROM databases
              WHERE branch_id = ANY ($1) AND deleted_at IS NULL
              GROUP BY branch_id",
        )
        .await?;
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = session.query(&statement, &[&ids]).await?;
    Ok(rows.iter().map(|row| (row.get::<_, Uuid>("branch_id").into(), row.get("databases"))).collect())
}

pub(super) async fn mark_deleted(tx: &Tx, id: BranchId, now: Timestamp) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE branches SET deleted_at = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn find_default(tx: &Tx, project: ProjectId) -> Result<Option<BranchId>> {
    let statement = tx
        .prepare_cached("SELECT id FROM branches WHERE project_id = $1 AND is_default AND deleted_at IS NULL")
        .await?;
    Ok(tx.query_opt(&statement, &[&project.uuid()]).await?.as_ref().map(read_id))
}

pub(super) async fn find(tx: &Tx, project: ProjectId, id: BranchId) -> Result<Option<BranchId>> {
    let statement =
        tx.prepare_cached("SELECT id FROM branches WHERE project_id = $1 AND id = $2 AND deleted_at IS NULL").await?;
    Ok(tx.query_opt(&statement, &[&project.uuid(), &id.uuid()]).await?.as_ref().map(read_id))
}

pub(super) async fn find_by_name(tx: &Tx, project: ProjectId, git_name: &BranchName) -> Result<Option<BranchId>> {
    let statement = tx
        .prepare_cached("SELECT id FROM branches WHERE project_id = $1 AND git_name = $2 AND deleted_at IS NULL")
        .await?;
    Ok(tx.query_opt(&statement, &[&project.uuid(), &git_name.as_str()]).await?.as_ref().map(read_id))
}

fn read_id(row: &Row) -> BranchId {
    row.get::<_, Uuid>("id").into()
}

fn read(row: &Row) -> Result<Branch> {
    Ok(Branch {
        id: read_id(row),
        git_name: row.get("git_name"),
        is_default: row.get("is_default"),
        role: Role::parse(row.get("role"))?,
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
        project: row.get::<_, Uuid>("project_id").into(),
        project_name: row.get("project_name"),
    })
}
