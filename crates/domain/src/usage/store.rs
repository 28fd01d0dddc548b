//! The SQL of usage.

use jiff::Timestamp;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::{Counters, Hour, Usage};
use auth::Scope;
use base::error::{Error, Result};
use base::id::{DatabaseId, InstanceId};
use base::store::{Session, Tx};

/// The hours that begin in `[from, until)`; `from` is the beginning of one.
pub(super) async fn get(
    session: &Session,
    scope: &Scope,
    database: DatabaseId,
    from: Timestamp,
    until: Timestamp,
) -> Result<Option<Usage>> {
    let statement = session
        .prepare_cached(
            "SELECT coalesce((SELECT sum(h.operations)::bigint
                                FROM usage_hours h
                               WHERE h.database_id = d.id AND h.hour >= $4 AND h.hour < $5), 0) AS operations,
                    newest.storage_bytes,
                    newest.measured_at
               FROM databases d
               JOIN projects p ON p.id = d.project_id
               LEFT JOIN LATERAL (SELECT h.storage_bytes, h.measured_at
                                    FROM usage_hours h
                                   WHERE h.database_id = d.id AND h.hour < $5
                                   ORDER BY h.hour DESC
                                   LIMIT 1) newest ON true
              WHERE p.workspace_id = $1
                AND ($2::uuid[] IS NULL OR p.id = ANY ($2))
                AND d.id = $3
                AND d.deleted_at IS NULL",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&scope.workspace, &scope.projects, &database.uuid(), &from, &until];
    let row = session.query_opt(&statement, &values).await?;
    Ok(row.map(|row| Usage {
        operations: row.get::<_, i64>("operations").unsigned_abs(),
        storage_bytes: row.get::<_, Option<i64>>("storage_bytes").unwrap_or_default().unsigned_abs(),
        measured_at: row.get("measured_at"),
    }))
}

/// The hours that begin in `[from, until)`, and the newest one before.
pub(super) async fn history(
    session: &Session,
    database: DatabaseId,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Hour>> {
    let statement = session
        .prepare_cached(
            "SELECT h.hour, h.operations, h.storage_bytes
               FROM usage_hours h
              WHERE h.database_id = $1
                AND h.hour < $3
                AND h.hour >= coalesce((SELECT max(before.hour)
                                          FROM usage_hours before
                                         WHERE before.database_id = $1 AND before.hour < $2), $2)
              ORDER BY h.hour",
        )
        .await?;
    let rows = session.query(&statement, &[&database.uuid(), &from, &until]).await?;
    let read = |row: &tokio_postgres::Row| Hour {
        start: row.get("hour"),
        operations: row.get::<_, i64>("operations").unsigned_abs(),
        storage_bytes: row.get::<_, i64>("storage_bytes").unsigned_abs(),
    };
    Ok(rows.iter().map(read).collect())
}

/// In the order of their ids, as everywhere.
pub(super) async fn hold(tx: &Tx, instances: &[InstanceId]) -> Result<()> {
    let statement =
        tx.prepare_cached("SELECT FROM databases WHERE instance_id = ANY ($1) ORDER BY id FOR KEY SHARE").await?;
    let instances: Vec<Uuid> = instances.iter().map(|id| id.uuid()).collect();
    tx.execute(&statement, &[&instances]).await?;
    Ok(())
}

/// The ready database that lives in an instance. Its row stays until the transaction ends.
pub(super) async fn find_ready(tx: &Tx, instance: InstanceId) -> Result<Option<DatabaseId>> {
    let statement = tx
        .prepare_cached(
            "SELECT id
               FROM databases
              WHERE instance_id = $1 AND status = 'ready'
                FOR KEY SHARE",
        )
        .await?;
    let row = tx.query_opt(&statement, &[&instance.uuid()]).await?;
    Ok(row.map(|row| row.get::<_, Uuid>("id").into()))
}

/// What was measured of this instance last.
pub(super) async fn counters(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<Option<Vec<Counters>>> {
    let statement = tx
        .prepare_cached("SELECT counters FROM usage_counters WHERE database_id = $1 AND instance_id = $2 FOR UPDATE")
        .await?;
    let row = tx.query_opt(&statement, &[&database.uuid(), &instance.uuid()]).await?;
    Ok(row.map(|row| row.get::<_, Json<Vec<Counters>>>("counters").0))
}

pub(super) async fn set_counters(
    tx: &Tx,
    database: DatabaseId,
    instance: InstanceId,
    counters: &[Counters],
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO usage_counters (database_id, instance_id, counters)
             VALUES ($1, $2, $3)
             ON CONFLICT (database_id) DO UPDATE
                SET instance_id = excluded.instance_id, counters = excluded.counters",
        )
        .await?;
    tx.execute(&statement, &[&database.uuid(), &instance.uuid(), &Json(counters)]).await?;
    Ok(())
}

pub(super) async fn add(
    tx: &Tx,
    database: DatabaseId,
    hour: Timestamp,
    operations: u64,
    storage_bytes: u64,
    measured_at: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO usage_hours AS h (database_id, hour, operations, storage_bytes, measured_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (database_id, hour) DO UPDATE
                SET operations = h.operations + excluded.operations,
                    storage_bytes = excluded.storage_bytes,
                    measured_at = excluded.measured_at",
        )
        .await?;
    let number = |number: u64| i64::try_from(number).map_err(Error::internal);
    let (operations, storage_bytes) = (number(operations)?, number(storage_bytes)?);
    tx.execute(&statement, &[&database.uuid(), &hour, &operations, &storage_bytes, &measured_at]).await?;
    Ok(())
}

pub(super) async fn remove_before(session: &Session, end: Timestamp) -> Result<()> {
    let statement = session
        .prepare_cached(
            "DELETE FROM usage_hours old
              WHERE old.hour < $1
                AND EXISTS (SELECT
                              FROM usage_hours newer
                             WHERE newer.database_id = old.database_id AND newer.hour > old.hour)",
        )
        .await?;
    session.execute(&statement, &[&end]).await?;
    Ok(())
}

pub(super) async fn activity(session: &Session, database: DatabaseId) -> Result<(bool, Option<Timestamp>)> {
    let statement = session
        .prepare_cached(
            "SELECT coalesce(sum(operations), 0) > 0 AS used, max(measured_at) AS measured_at
               FROM usage_hours
              WHERE database_id = $1",
        )
        .await?;
    let row = session.query_one(&statement, &[&database.uuid()]).await?;
    Ok((row.get("used"), row.get("measured_at")))
}

pub(super) async fn forget_counters(tx: &Tx, database: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM usage_counters WHERE database_id = $1").await?;
    tx.execute(&statement, &[&database.uuid()]).await?;
    Ok(())
}
