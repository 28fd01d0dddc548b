//! The SQL of restores.

use tokio_postgres::Row;
use uuid::Uuid;

use super::{Kept, Recipe, Restore, SourceType};
use crate::databases::{self, Status};
use auth::Scope;
use base::error::Result;
use base::id::{BackupId, DatabaseId, InstanceId};
use base::store::{Session, Tx};
use queue::Reason;

/// Deleted ones are found as long as they are kept.
pub(super) async fn find_source(session: &Session, scope: &Scope, id: DatabaseId) -> Result<Option<Kept>> {
    let statement = session
        .prepare_cached(
            "SELECT d.status, d.deleted_at IS NOT NULL AS deleted
               FROM databases d
               JOIN projects p ON p.id = d.project_id
              WHERE p.workspace_id = $1
                AND ($2::uuid[] IS NULL OR p.id = ANY ($2))
                AND d.id = $3
                AND (d.deleted_at IS NULL OR d.forget_at > now())",
        )
        .await?;
    let row = session.query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?;
    row.map(|row| Ok(Kept { status: Status::parse(row.get("status"))?, deleted: row.get("deleted") })).transpose()
}

pub(super) async fn insert(
    tx: &Tx,
    database: DatabaseId,
    instance: InstanceId,
    recipe: &Recipe,
    status_before: Option<Status>,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO restores (database_id, source_database_id, backup_id, target_time, instance_id, status_before)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
        &database.uuid(),
        &recipe.source_database.uuid(),
        &recipe.backup.map(|id| id.uuid()),
        &recipe.target_time,
        &instance.uuid(),
        &status_before.map(Status::as_str),
    ];
    tx.execute(&statement, &values).await?;
    Ok(())
}

pub(super) async fn set_source(tx: &Tx, database: DatabaseId, recipe: &Recipe) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases SET source_type = $2, source_database_id = $3, source_backup_id = $4 WHERE id = $1",
        )
        .await?;
    let backup = recipe.backup.map(|id| id.uuid());
    let source = recipe.source_database.uuid();
    tx.execute(&statement, &[&database.uuid(), &recipe.source_type.as_str(), &source, &backup]).await?;
    Ok(())
}

/// What a restore in place comes from is what the database does.
pub(super) async fn settle_source(tx: &Tx, database: DatabaseId) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE databases d
                SET source_type = $2, source_database_id = r.source_database_id, source_backup_id = r.backup_id
               FROM restores r
              WHERE d.id = $1 AND r.database_id = $1",
        )
        .await?;
    tx.execute(&statement, &[&database.uuid(), &SourceType::Backup.as_str()]).await?;
    Ok(())
}

/// The status of a database that is not deleted, which stays that until the transaction ends.
pub(super) async fn lock_status(tx: &Tx, database: DatabaseId) -> Result<Option<Status>> {
    databases::hold(tx, database).await?;
    let statement = tx.prepare_cached("SELECT status FROM databases WHERE id = $1 AND deleted_at IS NULL").await?;
    let row = tx.query_opt(&statement, &[&database.uuid()]).await?;
    row.map(|row| Status::parse(row.get("status"))).transpose()
}

pub(super) async fn set_status(tx: &Tx, database: DatabaseId, status: Status) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE databases SET status = $2, status_reason = NULL WHERE id = $1").await?;
    tx.execute(&statement, &[&database.uuid(), &status.as_str()]).await?;
    Ok(())
}

pub(super) async fn begin_anew(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE restores
                SET instance_id = $2, status_before = 'failure', failure_cause = NULL, failure_reason = NULL
              WHERE database_id = $1",
        )
        .await?;
    tx.execute(&statement, &[&database.uuid(), &instance.uuid()]).await?;
    Ok(())
}

pub(super) async fn find(session: &Session, database: DatabaseId) -> Result<Option<Restore>> {
    let statement = session
        .prepare_cached(
            "SELECT r.database_id,
                    r.source_database_id,
                    r.backup_id,
                    r.target_time,
                    r.instance_id,
                    r.replaced_instance_id,
                    r.failure_cause,
                    r.failure_reason,
                    d.source_type = 'database' AND r.status_before IS NULL AS any_backup
               FROM restores r
               JOIN databases d ON d.id = r.database_id
              WHERE r.database_id = $1",
        )
        .await?;
    Ok(session.query_opt(&statement, &[&database.uuid()]).await?.as_ref().map(read))
}

pub(super) async fn source_instance(session: &Session, database: DatabaseId) -> Result<Option<InstanceId>> {
    let statement =
        session.prepare_cached("SELECT instance_id FROM databases WHERE id = $1 AND deleted_at IS NULL").await?;
    let row = session.query_opt(&statement, &[&database.uuid()]).await?;
    Ok(row.and_then(|row| row.get::<_, Option<Uuid>>("instance_id")).map(Into::into))
}

pub(super) async fn choose_backup(tx: &Tx, database: DatabaseId, backup: BackupId) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE restores SET backup_id = $2 WHERE database_id = $1").await?;
    tx.execute(&statement, &[&database.uuid(), &backup.uuid()]).await?;
    Ok(())
}

/// The instance that was the database's before; `None` when the other one has taken over already.
pub(super) async fn swap(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<Option<InstanceId>> {
    let keep = tx
        .prepare_cached(
            "UPDATE restores r
                SET replaced_instance_id = d.instance_id
               FROM databases d
              WHERE r.database_id = $1 AND d.id = $1 AND d.instance_id <> $2
          RETURNING d.instance_id",
        )
        .await?;
    let take = tx.prepare_cached("UPDATE databases SET instance_id = $2, major = NULL WHERE id = $1").await?;
    let row = tx.query_opt(&keep, &[&database.uuid(), &instance.uuid()]).await?;
    tx.execute(&take, &[&database.uuid(), &instance.uuid()]).await?;
    Ok(row.map(|row| row.get::<_, Uuid>("instance_id").into()))
}

pub(super) async fn remove(tx: &Tx, database: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM restores WHERE database_id = $1").await?;
    tx.execute(&statement, &[&database.uuid()]).await?;
    Ok(())
}

pub(super) async fn give_up(tx: &Tx, database: DatabaseId, reason: &Reason) -> Result<()> {
    let statement =
        tx.prepare_cached("UPDATE restores SET failure_cause = $2, failure_reason = $3 WHERE database_id = $1").await?;
    tx.execute(&statement, &[&database.uuid(), &reason.to_string(), &reason.explanation()]).await?;
    Ok(())
}

/// Whether the restored instance had taken over or not. Nothing happens the second time.
pub(super) async fn put_back(tx: &Tx, database: DatabaseId, reason: Option<&str>) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "WITH before AS (SELECT r.replaced_instance_id, r.status_before
                               FROM restores r
                               JOIN databases d ON d.id = r.database_id
                              WHERE r.database_id = $1 AND r.status_before IS NOT NULL AND d.status = 'recovering'),
                  reopened AS (UPDATE vaults v
                                  SET closed_at = NULL
                                 FROM before b
                                WHERE v.instance_id = b.replaced_instance_id),
                  kept AS (UPDATE restores r SET replaced_instance_id = NULL FROM before b WHERE r.database_id = $1)
             UPDATE databases d
                SET status = b.status_before,
                    status_reason = $2,
                    instance_id = coalesce(b.replaced_instance_id, d.instance_id)
               FROM before b
              WHERE d.id = $1",
        )
        .await?;
    tx.execute(&statement, &[&database.uuid(), &reason]).await?;
    Ok(())
}

pub(super) async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    let rows = session
        .query("SELECT unnest(array_remove(ARRAY[instance_id, replaced_instance_id], NULL)) AS id FROM restores", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("id").into()).collect())
}

fn read(row: &Row) -> Restore {
    Restore {
        database: row.get::<_, Uuid>("database_id").into(),
        source_database: row.get::<_, Uuid>("source_database_id").into(),
        backup: row.get::<_, Option<Uuid>>("backup_id").map(Into::into),
        target_time: row.get("target_time"),
        instance: row.get::<_, Uuid>("instance_id").into(),
        any_backup: row.get("any_backup"),
        replaced: row.get::<_, Option<Uuid>>("replaced_instance_id").map(Into::into),
        failure: row
            .get::<_, Option<String>>("failure_cause")
            .zip(row.get::<_, Option<String>>("failure_reason"))
            .map(|(cause, reason)| Reason::new(cause, reason)),
    }
}
