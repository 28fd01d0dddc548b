//! Backups of Howdah's metadata: the private metadata instance is backed up like a database, on a simple schedule, to a
//! repository that is encrypted with the master key alone. [`super::retention::archive`] archives its WAL together with
//! that of the databases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::retention::{Pace, Schedule};
use crate::context::JobCtx;
use base::id::InstanceId;
use base::keyring::Keyring;
use domain::backups::RETENTION_DAYS;
use engine::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, Backups as _, Retention, Vault, no_progress,
};
use engine::local::LocalEngine;

/// How often to check whether a backup is due.
const ROUND: Duration = Duration::from_secs(30);

/// The vault of a metadata instance. Its key comes from the master key alone: the keys of all other
/// vaults are in the store itself.
pub fn vault(keyring: &Keyring, instance: InstanceId) -> Vault {
    Vault { instance, key: keyring.derive(&format!("backups of the metadata {}", instance.bare())) }
}

/// Archives and backs up the metadata instance with this ID. Without scheduled backups, archiving is not started, but
/// continues if it was started before.
pub async fn back_up(ctx: Arc<JobCtx>, engine: Arc<LocalEngine>, instance: InstanceId, schedule: Schedule) {
    let vault = vault(&ctx.app.keyring, instance);
    let tasks = ctx.app.tasks.clone();
    let mut held = None;
    let mut pace = Pace::new(ctx.app.clock.now(), Instant::now());
    while !tasks.is_stopping() {
        let now = ctx.app.clock.now();
        let steady = pace.look(now, Instant::now()) >= schedule.steady;
        let done = tokio::select! {
            done = round(&engine, &vault, schedule, now, steady, &mut held) => done,
            () = tasks.stopping() => return,
        };
        let failed_before = ctx.app.metadata_at_risk.swap(done.is_err(), Ordering::Relaxed);
        match done {
            Err(error) if failed_before => {
                tracing::warn!(%error, "backup of Howdah's metadata is still failing; retrying")
            }
            Err(error) => tracing::error!(
                %error,
                "backup of Howdah's metadata failed; a recovery would lose its latest changes; retrying"
            ),
            Ok(()) if failed_before => tracing::info!("backup of Howdah's metadata has recovered"),
            Ok(()) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

async fn round(
    engine: &LocalEngine,
    vault: &Vault,
    schedule: Schedule,
    now: Timestamp,
    steady: bool,
    held: &mut Option<Vec<BackupFacts>>,
) -> Result<(), BackupError> {
    let never = schedule.every.is_zero();
    if never && !engine.archive_status(vault.instance).await?.enabled {
        return Ok(());
    }
    engine.ensure_archiving(vault).await?;
    let there = match held {
        Some(there) => there,
        None => held.insert(engine.backups(vault).await?),
    };
    let status = engine.archive_status(vault.instance).await?;
    if !never && is_due(there, &status, schedule.every, now) {
        // Read the list again in the next round, whether or not the backup succeeds.
        *held = None;
        let facts = engine.back_up(vault, BackupKind::Full, no_progress()).await?;
        tracing::info!(
            instance.id = %vault.instance, bytes = facts.stored,
            "backed up Howdah's metadata as {} to the repository {}", facts.label, vault.instance.bare()
        );
        // Otherwise the next backup removes expired ones.
        if steady {
            engine.expire(vault, Retention { days: RETENTION_DAYS.unsigned_abs() }).await?;
        }
    }
    match status.reason.filter(|_| status.failing_since.is_some()) {
        Some(reason) => Err(BackupError::Failed { doing: "archive the metadata", reason }),
        None => Ok(()),
    }
}

/// Whether a backup is due: the first one, the next one after `every`, or one after WAL was lost. All are full backups:
/// they are small, and damage to one does not affect the others.
fn is_due(held: &[BackupFacts], status: &ArchiveStatus, every: SignedDuration, now: Timestamp) -> bool {
    let last = held.iter().filter(|facts| facts.restorable).max_by_key(|facts| &facts.label);
    let is_lost = |last: &BackupFacts| status.gaps.iter().any(|gap| gap.last_segment >= last.first_segment);
    // Ignore backups dated further in the future than this: the clock was ahead.
    last.is_none_or(|last| is_lost(last) || now.duration_since(last.stopped_at).abs() >= every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::backups::{BackupLabel, Gap};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn backup(stopped_at: Timestamp) -> BackupFacts {
        BackupFacts {
            label: BackupLabel::parse("20260102-030405F").unwrap(),
            kind: BackupKind::Full,
            started_at: stopped_at,
            stopped_at,
            size: 1,
            stored: 1,
            first_segment: "000000010000000000000004".into(),
            last_segment: "000000010000000000000005".into(),
            timeline: 1,
            requires: Vec::new(),
            damaged_pages: false,
            restorable: true,
        }
    }

    #[test]
    fn a_backup_is_due_at_first_each_day_and_after_a_gap() {
        let at = |days: i64| Timestamp::from_second(days * 86_400).unwrap();
        let well = ArchiveStatus::default();
        assert!(is_due(&[], &well, DAY, at(1)));
        let held = [backup(at(1))];
        assert!(!is_due(&held, &well, DAY, at(1)));
        assert!(is_due(&held, &well, DAY, at(2)));
        assert!(is_due(&[backup(at(30))], &well, DAY, at(1)));
        let useless = BackupFacts { restorable: false, ..held[0].clone() };
        assert!(is_due(&[useless], &well, DAY, at(1)));
        // The clock may have been set back between the backup and the loss.
        for (segment, due) in [("000000010000000000000003", false), ("000000010000000000000006", true)] {
            let (first_segment, last_segment) = (segment.to_owned(), segment.to_owned());
            let gap = Gap { first_segment, last_segment, at: at(1) - DAY, archived_until: None };
            let lost = ArchiveStatus { gaps: vec![gap], ..well.clone() };
            assert_eq!(is_due(&held, &lost, DAY, at(1) + DAY / 2), due, "{segment}");
        }
    }
}
