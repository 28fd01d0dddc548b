//! The SQL of operations.

use tokio_postgres::Row;
use uuid::Uuid;

use super::{Filter, Operation};
use auth::Scope;
use base::error::Result;
use base::id::{DatabaseId, ProjectId, WorkflowId};
use base::page::PageRequest;
use base::store::{Session, Tx};
use queue::State;

const SELECT: &str = "SELECT o.id,
        w.kind,
        w.state,
        w.step,
        w.attempts,
        w.explanation,
        w.progress_done,
        w.progress_total,
        o.database_id,
        o.database_name,
        o.project_id,
        w.created_at,
        w.updated_at,
        CASE WHEN w.state = 'waiting' AND w.attempts > 0 THEN w.run_after END AS next_attempt_at,
        w.ended_at,
        EXISTS (SELECT
                  FROM databases d
                 WHERE d.id = o.database_id AND d.operation_id = o.id AND d.deleted_at IS NULL) AS is_current,
        (SELECT s.id FROM databases s WHERE s.id = r.source_database_id AND s.deleted_at IS NULL) AS source_id,
        EXISTS (SELECT FROM damaged_backups b WHERE b.id = r.backup_id) AS source_is_damaged
   FROM operations o
   JOIN workflows w ON w.id = o.id
   LEFT JOIN restores r ON r.database_id = o.database_id
  WHERE o.workspace_id = $1 AND ($2::uuid[] IS NULL OR o.project_id = ANY ($2))";

pub(super) async fn insert(tx: &Tx, id: WorkflowId, database: DatabaseId) -> Result<()> {
    let insert = tx
        .prepare_cached(
            "INSERT INTO operations (id, workspace_id, project_id, database_id, database_name)
             SELECT $1, p.workspace_id, p.id, d.id, d.name
               FROM databases d
               JOIN projects p ON p.id = d.project_id
              WHERE d.id = $2",
        )
        .await?;
    tx.execute(&insert, &[&id.uuid(), &database.uuid()]).await?;
    Ok(())
}

pub(super) async fn make_current(tx: &Tx, id: WorkflowId, database: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE databases SET operation_id = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&database.uuid(), &id.uuid()]).await?;
    Ok(())
}

pub(super) async fn get(session: &Session, scope: &Scope, id: WorkflowId) -> Result<Option<Operation>> {
    let statement = session.prepare_cached(&format!("{SELECT} AND o.id = $3")).await?;
    let row = session.query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    filter: &Filter,
    page: PageRequest<WorkflowId>,
) -> Result<Vec<Operation>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT}
                AND ($3::uuid IS NULL OR o.database_id = $3)
                AND ($4::uuid IS NULL OR o.project_id = $4)
                AND (cardinality($5::text[]) = 0 OR w.state = ANY ($5))
                AND ($6::uuid IS NULL OR o.id < $6)
              ORDER BY o.id DESC
              LIMIT $7"
        ))
        .await?;
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &scope.workspace,
        &scope.projects,
        &filter.database.map(|id| id.uuid()),
        &filter.project.map(|id| id.uuid()),
        &states,
        &page.after.map(|id| id.uuid()),
        &(i64::from(page.limit) + 1),
    ];
    session.query(&statement, &values).await?.iter().map(read).collect()
}

/// Makes a concurrent delete or transfer of the project wait: these lock the project before its databases.
pub(super) async fn hold_project(tx: &Tx, project: ProjectId) -> Result<()> {
    let statement = tx.prepare_cached("SELECT FROM projects WHERE id = $1 FOR KEY SHARE").await?;
    tx.execute(&statement, &[&project.uuid()]).await?;
    Ok(())
}

pub(super) async fn follow_project(tx: &Tx, project: ProjectId) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE operations o SET workspace_id = p.workspace_id FROM projects p WHERE p.id = $1 AND o.project_id = $1",
        )
        .await?;
    tx.execute(&statement, &[&project.uuid()]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Operation> {
    Ok(Operation {
        id: row.get::<_, Uuid>("id").into(),
        kind: row.get("kind"),
        state: State::parse(row.get("state"))?,
        step: row.get("step"),
        attempts: row.get("attempts"),
        reason: row.get("explanation"),
        progress: row.get::<_, Option<i64>>("progress_done").zip(row.get("progress_total")),
        database: row.get::<_, Uuid>("database_id").into(),
        database_name: row.get("database_name"),
        project: row.get::<_, Uuid>("project_id").into(),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
        next_attempt_at: row.get("next_attempt_at"),
        ended_at: row.get("ended_at"),
        source: row.get::<_, Option<Uuid>>("source_id").map(Into::into),
        source_is_damaged: row.get("source_is_damaged"),
        is_current: row.get("is_current"),
    })
}
