//! The SQL of backups and of the vaults that they are in.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    ArchiveState, Archiving, ArchivingState, BACK_UP, BEHIND, Backup, Due, Era, Health, Held, Kind, Loss, SealedVault,
    State, Trial, Vault,
};
use crate::databases;
use base::error::{Error, Result};
use base::id::{BackupId, DatabaseId, InstanceId, ProjectId, WorkflowId};
use base::store::{Session, Tx};
use queue::Reason;

const SELECT: &str = "SELECT b.id,
        b.database_id,
        b.instance_id,
        b.label,
        b.kind,
        b.state,
        b.created_at,
        b.completed_at,
        b.size,
        b.failure_reason,
        b.verified_at,
        b.restore_bytes_per_second,
        b.verified_relations,
        b.verification_failure,
        b.first_segment,
        b.labels_before,
        EXISTS (SELECT FROM damaged_backups d WHERE d.id = b.id) AS damaged
   FROM backups b";

const LOST: &str = "changes were lost before they were archived; later moments can be restored after the next backup";

const BUILDS_ON: &str = "the backup that it depends on is damaged; choose another backup";

const VAULT: &str = "SELECT v.instance_id, v.database_id, v.sealed_key, v.closed_at IS NULL AS open FROM vaults v";

pub(super) async fn list(session: &Session, database: DatabaseId, limit: i64) -> Result<Vec<Backup>> {
    let statement = session
        .prepare_cached(&format!("{SELECT} WHERE b.database_id = $1 ORDER BY b.created_at DESC, b.id DESC LIMIT $2"))
        .await?;
    session.query(&statement, &[&database.uuid(), &limit]).await?.iter().map(read).collect()
}

pub(super) async fn get(session: &Session, database: DatabaseId, id: BackupId) -> Result<Option<Backup>> {
    let statement = session.prepare_cached(&format!("{SELECT} WHERE b.database_id = $1 AND b.id = $2")).await?;
    session.query_opt(&statement, &[&database.uuid(), &id.uuid()]).await?.as_ref().map(read).transpose()
}

pub(super) async fn health(session: &Session, databases: &[DatabaseId]) -> Result<HashMap<DatabaseId, Health>> {
    let statement = session
        .prepare_cached(
            "SELECT b.database_id, count(*) AS completed, count(d.id) AS damaged
               FROM backups b
               LEFT JOIN damaged_backups d ON d.id = b.id
              WHERE b.database_id = ANY ($1) AND b.state = 'completed'
              GROUP BY b.database_id",
        )
        .await?;
    let ids: Vec<Uuid> = databases.iter().map(|id| id.uuid()).collect();
    let rows = session.query(&statement, &[&ids]).await?;
    let read = |row: &Row| {
        let (completed, damaged): (i64, i64) = (row.get("completed"), row.get("damaged"));
        (row.get::<_, Uuid>("database_id").into(), Health { sound: completed - damaged, damaged })
    };
    Ok(rows.iter().map(read).collect())
}

pub(super) async fn running(session: &Session, database: DatabaseId) -> Result<Option<Backup>> {
    let statement = session
        .prepare_cached(&format!("{SELECT} WHERE b.database_id = $1 AND b.state = 'running' ORDER BY b.id LIMIT 1"))
        .await?;
    session.query_opt(&statement, &[&database.uuid()]).await?.as_ref().map(read).transpose()
}

pub(super) async fn newest(session: &Session, instance: InstanceId) -> Result<Option<Backup>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT}
              WHERE b.instance_id = $1 AND b.state = 'completed' AND NOT EXISTS (SELECT
                                                                                   FROM damaged_backups d
                                                                                  WHERE d.id = b.id)
              ORDER BY b.completed_at DESC
              LIMIT 1"
        ))
        .await?;
    session.query_opt(&statement, &[&instance.uuid()]).await?.as_ref().map(read).transpose()
}

pub(super) async fn eras(session: &Session, database: DatabaseId) -> Result<Vec<Era>> {
    let vaults = session
        .prepare_cached(
            "SELECT instance_id, closed_at, archived_until, failing_since IS NOT NULL AS failing
               FROM vaults
              WHERE database_id = $1
              ORDER BY opened_at, instance_id",
        )
        .await?;
    let backups = session
        .prepare_cached(&format!(
            "{SELECT} WHERE b.database_id = $1 AND b.state = 'completed' ORDER BY b.completed_at, b.id"
        ))
        .await?;
    let losses = session
        .prepare_cached(
            "SELECT g.instance_id, g.lost_from, g.lost_until, g.last_segment
               FROM archive_gaps g
               JOIN vaults v ON v.instance_id = g.instance_id
              WHERE v.database_id = $1
              ORDER BY g.lost_until",
        )
        .await?;
    let losses = session.query(&losses, &[&database.uuid()]).await?;
    let lost = |instance: Uuid| {
        let own = losses.iter().filter(|row| row.get::<_, Uuid>("instance_id") == instance);
        own.map(|row| Loss {
            from: row.get("lost_from"),
            until: row.get("lost_until"),
            last_segment: row.get("last_segment"),
        })
        .collect()
    };
    let found: Vec<Backup> =
        session.query(&backups, &[&database.uuid()]).await?.iter().map(read).collect::<Result<_>>()?;
    let rows = session.query(&vaults, &[&database.uuid()]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let instance: InstanceId = row.get::<_, Uuid>("instance_id").into();
            Era {
                instance,
                backups: found.iter().filter(|backup| backup.instance == instance).cloned().collect(),
                closed_at: row.get("closed_at"),
                archived_until: row.get("archived_until"),
                failing: row.get("failing"),
                lost: lost(instance.uuid()),
            }
        })
        .collect())
}

pub(super) async fn retention_days(session: &Session, project: ProjectId) -> Result<Option<i32>> {
    let statement = session
        .prepare_cached(
            "SELECT coalesce(p.backup_retention_days, w.backup_retention_days) AS days
               FROM projects p
               JOIN workspaces w ON w.id = p.workspace_id
              WHERE p.id = $1",
        )
        .await?;
    let row = session.query_opt(&statement, &[&project.uuid()]).await?;
    Ok(row.and_then(|row| row.get("days")))
}

/// The instance of a database that is not deleted, which stays that until the transaction ends.
pub(super) async fn lock_instance(tx: &Tx, database: DatabaseId) -> Result<Option<InstanceId>> {
    databases::hold(tx, database).await?;
    let statement = tx.prepare_cached("SELECT instance_id FROM databases WHERE id = $1 AND deleted_at IS NULL").await?;
    let row = tx.query_opt(&statement, &[&database.uuid()]).await?;
    Ok(row.and_then(|row| row.get::<_, Option<Uuid>>("instance_id")).map(Into::into))
}

/// Locks a database and its vaults, in this order, before backups of it are changed.
pub(super) async fn hold(tx: &Tx, database: DatabaseId) -> Result<()> {
    databases::hold(tx, database).await?;
    let statement =
        tx.prepare_cached("SELECT FROM vaults WHERE database_id = $1 ORDER BY instance_id FOR NO KEY UPDATE").await?;
    tx.execute(&statement, &[&database.uuid()]).await?;
    Ok(())
}

pub(super) async fn is_running(session: &Session, database: DatabaseId) -> Result<bool> {
    Ok(running(session, database).await?.is_some())
}

pub(super) async fn is_requested(session: &Session, database: DatabaseId) -> Result<bool> {
    let statement = session
        .prepare_cached("SELECT FROM backups WHERE database_id = $1 AND state = 'running' AND requested LIMIT 1")
        .await?;
    Ok(session.query_opt(&statement, &[&database.uuid()]).await?.is_some())
}

/// Whether the newest full backup of an instance, or what was built on it since, is damaged: the next one
/// would be too.
pub(super) async fn is_base_damaged(session: &Session, instance: InstanceId) -> Result<bool> {
    let statement = session
        .prepare_cached(
            "SELECT
               FROM backups b
              WHERE b.instance_id = $1
                AND b.damaged_at IS NOT NULL
                AND b.label COLLATE \"C\" >= (SELECT max(f.label COLLATE \"C\")
                                              FROM backups f
                                             WHERE f.instance_id = $1 AND f.kind = 'full' AND f.state = 'completed')
              LIMIT 1",
        )
        .await?;
    Ok(session.query_opt(&statement, &[&instance.uuid()]).await?.is_some())
}

/// The labels of the damaged backups in a vault.
pub(super) async fn damaged(session: &Session, instance: InstanceId) -> Result<Vec<String>> {
    let statement = session
        .prepare_cached("SELECT b.label FROM backups b JOIN damaged_backups d ON d.id = b.id WHERE b.instance_id = $1")
        .await?;
    Ok(session.query(&statement, &[&instance.uuid()]).await?.iter().map(|row| row.get("label")).collect())
}

/// Differential while there is a full one that is young enough.
pub(super) async fn kind_due(session: &Session, instance: InstanceId, full_since: Timestamp) -> Result<Kind> {
    let statement = session
        .prepare_cached(
            "SELECT
               FROM backups
              WHERE instance_id = $1 AND kind = 'full' AND state = 'completed' AND created_at > $2
              LIMIT 1",
        )
        .await?;
    let full = session.query_opt(&statement, &[&instance.uuid(), &full_since]).await?;
    Ok(if full.is_some() { Kind::Differential } else { Kind::Full })
}

pub(super) async fn insert(
    tx: &Tx,
    id: BackupId,
    database: DatabaseId,
    instance: InstanceId,
    kind: Kind,
    requested: bool,
    now: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO backups (id, instance_id, database_id, kind, state, requested, created_at)
             VALUES ($1, $2, $3, $4, 'running', $5, $6)",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&id.uuid(), &instance.uuid(), &database.uuid(), &kind.as_str(), &requested, &now];
    tx.execute(&statement, &values).await?;
    Ok(())
}

pub(super) async fn adopt(tx: &Tx, database: DatabaseId, kind: Option<Kind>) -> Result<Option<(BackupId, WorkflowId)>> {
    let statement = tx
        .prepare_cached(
            "UPDATE backups b
                SET requested = true
               FROM workflows w
              WHERE b.database_id = $1
                AND b.state = 'running'
                AND NOT b.requested
                AND ($2::text IS NULL OR b.kind = $2)
                AND w.subject = b.database_id
                AND w.kind = $3
                AND w.state IN ('waiting', 'running')
          RETURNING b.id, w.id AS operation",
        )
        .await?;
    let row = tx.query_opt(&statement, &[&database.uuid(), &kind.map(Kind::as_str), &BACK_UP.name]).await?;
    Ok(row.map(|row| (row.get::<_, Uuid>("id").into(), row.get::<_, Uuid>("operation").into())))
}

pub(super) async fn mark_begun(session: &Session, id: BackupId, labels: &[&str]) -> Result<()> {
    let statement =
        session.prepare_cached("UPDATE backups SET labels_before = $2 WHERE id = $1 AND labels_before IS NULL").await?;
    session.execute(&statement, &[&id.uuid(), &labels]).await?;
    Ok(())
}

pub(super) async fn mark_completed(tx: &Tx, id: BackupId, held: &Held) -> Result<()> {
    // A look at the vault may have found it first.
    let forget = tx
        .prepare_cached(
            "DELETE FROM backups o
              USING backups b
              WHERE b.id = $1 AND o.instance_id = b.instance_id AND o.label = $2 AND o.id <> b.id",
        )
        .await?;
    let complete = tx
        .prepare_cached(
            "UPDATE backups
                SET label = $2,
                    kind = $3,
                    state = 'completed',
                    completed_at = $4,
                    size = $5,
                    first_segment = $6,
                    failure_reason = NULL
              WHERE id = $1",
        )
        .await?;
    tx.execute(&forget, &[&id.uuid(), &held.label]).await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&id.uuid(), &held.label, &held.kind.as_str(), &held.completed_at, &held.size, &held.first_segment];
    tx.execute(&complete, &values).await?;
    Ok(())
}

pub(super) async fn mark_failed(tx: &Tx, database: DatabaseId, reason: &str) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE backups SET state = 'failed', failure_reason = $2 WHERE database_id = $1 AND state = 'running'",
        )
        .await?;
    tx.execute(&statement, &[&database.uuid(), &reason]).await?;
    Ok(())
}

/// Those that failed before this moment go too.
pub(super) async fn remove_missing(
    tx: &Tx,
    instance: InstanceId,
    labels: &[&str],
    failed_before: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "DELETE FROM backups
              WHERE instance_id = $1
                AND (state = 'completed' AND label <> ALL ($2)
                     OR state = 'failed' AND created_at < $3)",
        )
        .await?;
    tx.execute(&statement, &[&instance.uuid(), &labels, &failed_before]).await?;
    Ok(())
}

/// Nothing new is added when it is in the list.
pub(super) async fn insert_held(tx: &Tx, id: BackupId, vault: &Vault, held: &Held) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO backups
                    (id, instance_id, database_id, label, kind, state, created_at, completed_at, size, first_segment)
             VALUES ($1, $2, $3, $4, $5, 'completed', $6, $7, $8, $9)
             ON CONFLICT (instance_id, label) DO UPDATE
                SET first_segment = excluded.first_segment
              WHERE backups.first_segment IS NULL",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
        &id.uuid(),
        &vault.instance.uuid(),
        &vault.database.uuid(),
        &held.label,
        &held.kind.as_str(),
        &held.started_at,
        &held.completed_at,
        &held.size,
        &held.first_segment,
    ];
    tx.execute(&statement, &values).await?;
    Ok(())
}

pub(super) async fn mark_verified(tx: &Tx, trial: &Trial, now: Timestamp) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE backups
                SET verified_at = $2,
                    restore_bytes_per_second = $3,
                    verified_relations = $4,
                    verification_failure = NULL,
                    damaged_at = NULL
              WHERE id = $1",
        )
        .await?;
    tx.execute(&statement, &[&trial.backup.uuid(), &now, &trial.bytes_per_second, &trial.relations]).await?;
    Ok(())
}

pub(super) async fn mark_suspect(tx: &Tx, id: BackupId, reason: &str) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE backups SET verification_failure = $2 WHERE id = $1").await?;
    tx.execute(&statement, &[&id.uuid(), &reason]).await?;
    Ok(())
}

/// False when it is known already, or the backup is gone.
pub(super) async fn mark_damaged(tx: &Tx, id: BackupId, reason: &str, now: Timestamp) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE backups b
                SET verification_failure = $2, damaged_at = $3
               FROM backups o
              WHERE b.id = $1 AND o.id = b.id
          RETURNING o.damaged_at IS NULL AS news",
        )
        .await?;
    let row = tx.query_opt(&statement, &[&id.uuid(), &reason, &now]).await?;
    Ok(row.is_some_and(|row| row.get("news")))
}

/// The full backup that this one builds on, unless it is one or that one is known to be damaged.
pub(super) async fn base(session: &Session, id: BackupId) -> Result<Option<BackupId>> {
    let statement = session
        .prepare_cached(
            "SELECT f.id
               FROM backups b
               JOIN backups f ON f.instance_id = b.instance_id AND f.label = split_part(b.label, '_', 1)
              WHERE b.id = $1 AND f.id <> b.id AND f.state = 'completed' AND f.damaged_at IS NULL",
        )
        .await?;
    let row = session.query_opt(&statement, &[&id.uuid()]).await?;
    Ok(row.map(|row| row.get::<_, Uuid>("id").into()))
}

/// False when there is no such completed backup of the database.
pub(super) async fn mark_tried(tx: &Tx, database: DatabaseId, backup: BackupId, now: Timestamp) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE vaults v
                SET tried_at = $3,
                    tried_backup = b.id
               FROM backups b
              WHERE b.id = $2 AND b.database_id = $1 AND b.state = 'completed' AND v.instance_id = b.instance_id",
        )
        .await?;
    Ok(tx.execute(&statement, &[&database.uuid(), &backup.uuid(), &now]).await? == 1)
}

pub(super) async fn insert_trial(tx: &Tx, backup: BackupId, database: DatabaseId, instance: InstanceId) -> Result<()> {
    let statement =
        tx.prepare_cached("INSERT INTO trials (backup_id, database_id, instance_id) VALUES ($1, $2, $3)").await?;
    tx.execute(&statement, &[&backup.uuid(), &database.uuid(), &instance.uuid()]).await?;
    Ok(())
}

pub(super) async fn trial(session: &Session, backup: BackupId) -> Result<Option<Trial>> {
    let statement = session
        .prepare_cached(
            "SELECT backup_id,
                    database_id,
                    instance_id,
                    bytes_per_second,
                    relations,
                    failure_cause,
                    failure_reason,
                    damaged
               FROM trials
              WHERE backup_id = $1",
        )
        .await?;
    let row = session.query_opt(&statement, &[&backup.uuid()]).await?;
    Ok(row.map(|row| Trial {
        backup: row.get::<_, Uuid>("backup_id").into(),
        database: row.get::<_, Uuid>("database_id").into(),
        instance: row.get::<_, Uuid>("instance_id").into(),
        bytes_per_second: row.get("bytes_per_second"),
        relations: row.get("relations"),
        failure: row
            .get::<_, Option<String>>("failure_cause")
            .zip(row.get::<_, Option<String>>("failure_reason"))
            .map(|(cause, reason)| Reason::new(cause, reason)),
        damaged: row.get("damaged"),
    }))
}

pub(super) async fn record_speed(tx: &Tx, backup: BackupId, bytes_per_second: i64) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE trials SET bytes_per_second = $2 WHERE backup_id = $1").await?;
    tx.execute(&statement, &[&backup.uuid(), &bytes_per_second]).await?;
    Ok(())
}

pub(super) async fn record_relations(tx: &Tx, backup: BackupId, relations: i64) -> Result<()> {
    let statement = tx.prepare_cached("UPDATE trials SET relations = $2 WHERE backup_id = $1").await?;
    tx.execute(&statement, &[&backup.uuid(), &relations]).await?;
    Ok(())
}

pub(super) async fn record_trial_failure(tx: &Tx, backup: BackupId, reason: &Reason, damaged: bool) -> Result<()> {
    let statement = tx
        .prepare_cached("UPDATE trials SET failure_cause = $2, failure_reason = $3, damaged = $4 WHERE backup_id = $1")
        .await?;
    tx.execute(&statement, &[&backup.uuid(), &reason.to_string(), &reason.explanation(), &damaged]).await?;
    Ok(())
}

pub(super) async fn remove_trial(tx: &Tx, backup: BackupId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM trials WHERE backup_id = $1").await?;
    tx.execute(&statement, &[&backup.uuid()]).await?;
    Ok(())
}

pub(super) async fn trial_instances(session: &Session, database: Option<DatabaseId>) -> Result<Vec<InstanceId>> {
    let statement =
        session.prepare_cached("SELECT instance_id FROM trials WHERE $1::uuid IS NULL OR database_id = $1").await?;
    let rows = session.query(&statement, &[&database.map(|id| id.uuid())]).await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("instance_id").into()).collect())
}

/// Nothing happens when the instance has one.
pub(super) async fn insert_vault(
    tx: &Tx,
    instance: InstanceId,
    database: DatabaseId,
    sealed_key: &[u8],
    now: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO vaults (instance_id, database_id, sealed_key, opened_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (instance_id) DO NOTHING",
        )
        .await?;
    tx.execute(&statement, &[&instance.uuid(), &database.uuid(), &sealed_key, &now]).await?;
    Ok(())
}

pub(super) async fn vault(session: &Session, instance: InstanceId) -> Result<Option<SealedVault>> {
    let statement = session.prepare_cached(&format!("{VAULT} WHERE v.instance_id = $1")).await?;
    Ok(session.query_opt(&statement, &[&instance.uuid()]).await?.as_ref().map(read_vault))
}

pub(super) async fn vaults_of(session: &Session, database: DatabaseId) -> Result<Vec<SealedVault>> {
    let statement = session.prepare_cached(&format!("{VAULT} WHERE v.database_id = $1 ORDER BY v.opened_at")).await?;
    Ok(session.query(&statement, &[&database.uuid()]).await?.iter().map(read_vault).collect())
}

pub(super) async fn all_vaults(session: &Session) -> Result<Vec<SealedVault>> {
    Ok(session.query(VAULT, &[]).await?.iter().map(read_vault).collect())
}

/// What was known before counts unless the clock was set back since.
pub(super) async fn record_archive(
    session: &Session,
    instance: InstanceId,
    now: Timestamp,
    state: &ArchiveState,
) -> Result<()> {
    let statement = session
        .prepare_cached(
            "UPDATE vaults
                SET archived_until = greatest(CASE WHEN archived_until <= $6 THEN archived_until END, $2),
                    failing_since = $3,
                    failing_reason = $4,
                    waiting_bytes = $7,
                    gap_at = greatest(gap_at, $5)
              WHERE instance_id = $1",
        )
        .await?;
    let gap_at = state.lost.iter().map(|loss| loss.until).max();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &instance.uuid(),
        &state.archived_until,
        &state.failing_since,
        &state.failing_reason,
        &gap_at,
        &now,
        &state.waiting,
    ];
    if gap_at.is_some() {
        let lose = session
            .prepare_cached(
                "INSERT INTO archive_gaps (instance_id, lost_from, lost_until, last_segment)
                 SELECT v.instance_id, lost.since, lost.until, lost.segment
                   FROM vaults v, unnest($2::timestamptz[], $3::timestamptz[], $4::text[]) AS lost (since, until, segment)
                  WHERE v.instance_id = $1
                 ON CONFLICT (instance_id, lost_until) DO UPDATE
                    SET last_segment = excluded.last_segment
                  WHERE archive_gaps.last_segment IS DISTINCT FROM excluded.last_segment",
            )
            .await?;
        let (from, until): (Vec<Option<Timestamp>>, Vec<Timestamp>) =
            state.lost.iter().map(|loss| (loss.from, loss.until)).unzip();
        let segments: Vec<Option<&str>> = state.lost.iter().map(|loss| loss.last_segment.as_deref()).collect();
        session.execute(&lose, &[&instance.uuid(), &from, &until, &segments]).await?;
    }
    session.execute(&statement, &values).await?;
    Ok(())
}

pub(super) async fn archiving(session: &Session, database: DatabaseId) -> Result<Option<Archiving>> {
    let statement = session
        .prepare_cached(
            "SELECT v.failing_since,
                    v.failing_reason,
                    v.waiting_bytes,
                    v.archived_until,
                    (SELECT max(g.lost_until)
                       FROM archive_gaps g
                      WHERE g.instance_id = v.instance_id
                        AND NOT EXISTS (SELECT
                                          FROM backups b
                                         WHERE b.instance_id = v.instance_id
                                           AND b.state = 'completed'
                                           AND coalesce(b.first_segment > g.last_segment COLLATE \"C\",
                                                        b.completed_at > g.lost_until))) AS lost_at
               FROM vaults v
               JOIN databases d ON d.instance_id = v.instance_id
              WHERE d.id = $1",
        )
        .await?;
    let row = session.query_opt(&statement, &[&database.uuid()]).await?;
    Ok(row.map(|row| {
        let (failing, lost): (Option<Timestamp>, Option<Timestamp>) = (row.get("failing_since"), row.get("lost_at"));
        let waiting: i64 = row.get("waiting_bytes");
        let (state, since, reason) = match (failing, lost) {
            (Some(_), _) => (ArchivingState::Stuck, failing, row.get("failing_reason")),
            (None, Some(_)) => (ArchivingState::Lost, lost, Some(LOST.to_owned())),
            (None, None) if waiting > BEHIND => {
                let reason =
                    format!("{} MiB of WAL are waiting: WAL is written faster than it is archived", waiting >> 20);
                (ArchivingState::Behind, row.get("archived_until"), Some(reason))
            }
            (None, None) => (ArchivingState::Ok, None, None),
        };
        Archiving { state, since, reason }
    }))
}

pub(super) async fn archived_until(session: &Session, instance: InstanceId) -> Result<Option<Timestamp>> {
    let statement = session.prepare_cached("SELECT archived_until FROM vaults WHERE instance_id = $1").await?;
    let row = session.query_opt(&statement, &[&instance.uuid()]).await?;
    Ok(row.and_then(|row| row.get("archived_until")))
}

pub(super) async fn close_vault(tx: &Tx, instance: InstanceId, now: Timestamp) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE vaults
                SET closed_at = CASE WHEN failing_since IS NULL THEN $2 ELSE coalesce(archived_until, $2) END
              WHERE instance_id = $1 AND closed_at IS NULL",
        )
        .await?;
    tx.execute(&statement, &[&instance.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn forget_vault(tx: &Tx, instance: InstanceId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM vaults WHERE instance_id = $1").await?;
    tx.execute(&statement, &[&instance.uuid()]).await?;
    Ok(())
}

/// A database whose last try failed waits ten minutes for the next one.
pub(super) async fn due(
    session: &Session,
    first_before: Timestamp,
    last_before: Timestamp,
    full_since: Timestamp,
    ahead: Timestamp,
    failed_before: Timestamp,
) -> Result<Vec<Due>> {
    let statement = session
        .prepare_cached(
            "SELECT d.id,
                    EXISTS (SELECT
                              FROM backups b
                             WHERE b.instance_id = d.instance_id
                               AND b.kind = 'full'
                               AND b.state = 'completed'
                               AND b.created_at > $3) AND damaged.at IS NULL AS has_full
               FROM databases d
               LEFT JOIN LATERAL (SELECT b.created_at AS at, b.label, b.first_segment
                                    FROM backups b
                                   WHERE b.instance_id = d.instance_id
                                     AND b.state = 'completed'
                                     AND b.created_at <= $4
                                     AND NOT EXISTS (SELECT FROM damaged_backups x WHERE x.id = b.id)
                                   ORDER BY b.label COLLATE \"C\" DESC
                                   LIMIT 1) last ON true
              CROSS JOIN LATERAL (SELECT max(b.created_at) AS at
                                    FROM backups b
                                   WHERE b.instance_id = d.instance_id
                                     AND b.damaged_at IS NOT NULL
                                     AND (last.at IS NULL OR b.label > last.label COLLATE \"C\")) damaged
              CROSS JOIN LATERAL (SELECT EXISTS (SELECT
                                                   FROM archive_gaps g
                                                  WHERE g.instance_id = d.instance_id
                                                    AND coalesce(g.last_segment >= last.first_segment COLLATE \"C\",
                                                                 g.lost_until > last.at)) AS any) lost
              CROSS JOIN LATERAL (SELECT EXISTS (SELECT
                                                   FROM usage_hours u
                                                  WHERE u.database_id = d.id
                                                    AND u.operations > 0
                                                    AND (last.at IS NULL OR u.measured_at > last.at)) AS any) activity
              WHERE d.status = 'ready'
                AND d.deleted_at IS NULL
                AND (last.at IS NULL AND d.created_at < $1 AND activity.any
                     OR last.at < $2 AND activity.any
                     OR lost.any
                     OR damaged.at IS NOT NULL)
                AND NOT EXISTS (SELECT
                                  FROM workflows w
                                 WHERE w.subject = d.id AND w.state IN ('waiting', 'running'))
                AND NOT EXISTS (SELECT
                                  FROM backups b
                                 WHERE b.database_id = d.id
                                   AND b.state = 'failed'
                                   AND b.created_at > $5)
              ORDER BY last.at NULLS FIRST, d.id
              LIMIT 16",
        )
        .await?;
    let rows = session.query(&statement, &[&first_before, &last_before, &full_since, &ahead, &failed_before]).await?;
    let kind = |row: &Row| if row.get("has_full") { Kind::Differential } else { Kind::Full };
    Ok(rows.iter().map(|row| Due { database: row.get::<_, Uuid>("id").into(), kind: kind(row) }).collect())
}

pub(super) async fn due_for_trial(
    session: &Session,
    before: Timestamp,
    now: Timestamp,
) -> Result<Option<(DatabaseId, BackupId)>> {
    let statement = session
        .prepare_cached(
            "SELECT d.id AS database_id, b.id AS backup_id
               FROM databases d
               JOIN vaults v ON v.instance_id = d.instance_id
               JOIN LATERAL (SELECT b.id, b.completed_at
                               FROM backups b
                              WHERE b.instance_id = d.instance_id AND b.state = 'completed'
                              ORDER BY b.completed_at DESC
                              LIMIT 1) b ON true
              WHERE d.status = 'ready'
                AND d.deleted_at IS NULL
                AND (v.tried_at IS NULL
                     OR (v.tried_at < $1 OR v.tried_at > $2) AND v.tried_backup IS DISTINCT FROM b.id)
                AND NOT EXISTS (SELECT FROM trials)
              ORDER BY v.tried_at NULLS FIRST, b.id
              LIMIT 1",
        )
        .await?;
    let row = session.query_opt(&statement, &[&before, &now]).await?;
    Ok(row.map(|row| (row.get::<_, Uuid>("database_id").into(), row.get::<_, Uuid>("backup_id").into())))
}

pub(super) async fn outlived(session: &Session, now: Timestamp, default_days: i32) -> Result<Vec<SealedVault>> {
    let statement = session
        .prepare_cached(&format!(
            "{VAULT}
               JOIN databases d ON d.id = v.database_id
               JOIN projects p ON p.id = d.project_id
               JOIN workspaces w ON w.id = p.workspace_id
              WHERE (d.forget_at <= $1
                     OR d.deleted_at IS NULL AND d.status <> 'recovering' AND v.closed_at < $1 - make_interval(days => coalesce(p.backup_retention_days,
                                                                          w.backup_retention_days,
                                                                          $2)))
                AND NOT EXISTS (SELECT
                                  FROM restores r
                                  JOIN backups b ON b.id = r.backup_id
                                 WHERE b.instance_id = v.instance_id)"
        ))
        .await?;
    Ok(session.query(&statement, &[&now, &default_days]).await?.iter().map(read_vault).collect())
}

/// What a database is being brought back from is left as it is.
pub(super) async fn retentions(session: &Session) -> Result<Vec<(Uuid, Option<i32>)>> {
    let statement = session
        .prepare_cached(
            "SELECT v.instance_id, coalesce(p.backup_retention_days, w.backup_retention_days) AS days
               FROM vaults v
               JOIN databases d ON d.id = v.database_id
               JOIN projects p ON p.id = d.project_id
               JOIN workspaces w ON w.id = p.workspace_id
              WHERE d.status <> 'recovering' OR d.deleted_at IS NOT NULL",
        )
        .await?;
    let rows = session.query(&statement, &[]).await?;
    Ok(rows.iter().map(|row| (row.get("instance_id"), row.get("days"))).collect())
}

fn read_vault(row: &Row) -> SealedVault {
    SealedVault {
        instance: row.get("instance_id"),
        database: row.get("database_id"),
        sealed_key: row.get("sealed_key"),
        open: row.get("open"),
    }
}

fn read(row: &Row) -> Result<Backup> {
    let kind: &str = row.get("kind");
    Ok(Backup {
        id: row.get::<_, Uuid>("id").into(),
        database: row.get::<_, Uuid>("database_id").into(),
        instance: row.get::<_, Uuid>("instance_id").into(),
        label: row.get("label"),
        kind: Kind::parse(kind).ok_or_else(|| Error::internal(format!("a backup has the unknown kind {kind}")))?,
        state: State::parse(row.get("state"))?,
        created_at: row.get("created_at"),
        completed_at: row.get("completed_at"),
        size: row.get("size"),
        failure_reason: row.get("failure_reason"),
        verified_at: row.get("verified_at"),
        restore_bytes_per_second: row.get("restore_bytes_per_second"),
        verified_relations: row.get("verified_relations"),
        verification_failure: match row.get::<_, bool>("damaged") {
            true => Some(row.get::<_, Option<String>>("verification_failure").unwrap_or_else(|| BUILDS_ON.to_owned())),
            false => row.get("verification_failure"),
        },
        damaged: row.get("damaged"),
        first_segment: row.get("first_segment"),
        labels_before: row.get("labels_before"),
    })
}
