//! The SQL of recoveries.

use jiff::Timestamp;
use uuid::Uuid;

use super::{RECOVER, Recovery};
use crate::databases::{COPY, DELETE, PROVISION};
use crate::restores::RESTORE;
use base::error::Result;
use base::id::DatabaseId;
use base::store::Tx;

pub(super) async fn end_backups(tx: &Tx, reason: &str) -> Result<()> {
    tx.execute("UPDATE backups SET state = 'failed', failure_reason = $1 WHERE state = 'running'", &[&reason]).await?;
    Ok(())
}

/// Their instances are gone, and nothing was to come of them.
pub(super) async fn forget_trials(tx: &Tx) -> Result<()> {
    tx.execute("DELETE FROM trials", &[]).await?;
    Ok(())
}

/// Restores in place that somebody had cancelled, and whose instance alone was still to be removed.
pub(super) async fn forget_called_off(tx: &Tx) -> Result<()> {
    tx.execute(
        "DELETE FROM restores r
          USING databases d
          WHERE d.id = r.database_id
            AND r.status_before IS NOT NULL
            AND d.deleted_at IS NULL
            AND d.status <> 'recovering'",
        &[],
    )
    .await?;
    Ok(())
}

/// What was archived by then is all there is.
pub(super) async fn end_archives(tx: &Tx, now: Timestamp) -> Result<()> {
    tx.execute(
        "UPDATE vaults v
            SET failing_since = coalesce(v.failing_since, $1),
                archived_until = coalesce(v.archived_until,
                                          (SELECT max(b.completed_at)
                                             FROM backups b
                                            WHERE b.instance_id = v.instance_id AND b.state = 'completed'))
          WHERE v.closed_at IS NULL",
        &[&now],
    )
    .await?;
    Ok(())
}

/// The databases with a restore in place, or a recovery, under way.
pub(super) async fn under_restore(tx: &Tx) -> Result<Vec<DatabaseId>> {
    let rows = tx
        .query(
            "SELECT r.database_id
               FROM restores r
               JOIN databases d ON d.id = r.database_id
              WHERE r.status_before IS NOT NULL AND d.deleted_at IS NULL
              ORDER BY r.database_id",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("database_id").into()).collect())
}

/// The databases that were there, and nothing is under way to bring them back.
pub(super) async fn lost(tx: &Tx) -> Result<Vec<DatabaseId>> {
    let rows = tx
        .query(
            "SELECT d.id
               FROM databases d
              WHERE d.deleted_at IS NULL
                AND d.status IN ('ready', 'recovering')
                AND NOT EXISTS (SELECT FROM restores r WHERE r.database_id = d.id)
              ORDER BY d.id",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("id").into()).collect())
}

pub(super) async fn count(tx: &Tx) -> Result<Recovery> {
    let row = tx
        .query_one(
            "SELECT count(*) FILTER (WHERE kind = $1 OR kind = $2) AS databases,
                    count(*) FILTER (WHERE kind IN ($3, $5)) AS provisions,
                    count(*) FILTER (WHERE kind = $4) AS deletes
               FROM workflows
              WHERE state = 'waiting'",
            &[&RECOVER.name, &RESTORE.name, &PROVISION.name, &DELETE.name, &COPY.name],
        )
        .await?;
    let number = |name| usize::try_from(row.get::<_, i64>(name)).unwrap_or_default();
    Ok(Recovery { databases: number("databases"), provisions: number("provisions"), deletes: number("deletes") })
}
