//! Keeping Howdah's own metadata: the private instance is backed up as databases are, by a plain
//! policy, into a vault that opens with the master key alone. What moves its archive moves everybody's
//! ([`super::retention::archive`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::retention::{Pace, Schedule};
use crate::app::JobCtx;
use crate::base::id::InstanceId;
use crate::domain::backups::{FULL_EVERY, RETENTION_DAYS};
use crate::engine::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, Backups as _, Retention, Vault, no_progress,
};
use crate::engine::local::LocalEngine;
use crate::metadata;

/// How often it is looked whether a backup is due.
const ROUND: Duration = Duration::from_secs(30);

/// Archives and backs up the metadata instance with this id. Nothing is begun when no backups are to be
/// made by themselves; what was begun goes on.
pub async fn back_up(ctx: Arc<JobCtx>, engine: Arc<LocalEngine>, instance: InstanceId, schedule: Schedule) {
    let vault = metadata::vault(&ctx.app.keyring, instance);
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
            Err(error) if failed_before => tracing::warn!(%error, "the metadata still cannot be backed up"),
            Err(error) => tracing::error!(
                %error,
                "Howdah's own metadata cannot be backed up, and could not be recovered as it is now; trying again"
            ),
            Ok(()) if failed_before => tracing::info!("the metadata is backed up again"),
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
    if let Some(kind) = due(there, &status, schedule.every, now).filter(|_| !never) {
        // Whatever comes of it, it is looked again what there is.
        *held = None;
        let facts = engine.back_up(vault, kind, no_progress()).await?;
        tracing::info!(
            instance.id = %vault.instance, bytes = facts.stored,
            "backed up Howdah's own metadata as {} in the vault {}", facts.label, vault.instance.bare()
        );
        // Otherwise the next backup does.
        if steady {
            engine.expire(vault, Retention { days: RETENTION_DAYS.unsigned_abs() }).await?;
        }
    }
    match status.reason.filter(|_| status.failing_since.is_some()) {
        Some(reason) => Err(BackupError::Failed { doing: "archive the metadata", reason }),
        None => Ok(()),
    }
}

/// The backup that is due: the first, the next after so long, or one after WAL was lost.
fn due(held: &[BackupFacts], status: &ArchiveStatus, every: SignedDuration, now: Timestamp) -> Option<BackupKind> {
    let whole = || held.iter().filter(|facts| facts.restorable);
    let Some(last) = whole().map(|facts| facts.stopped_at).max() else { return Some(BackupKind::Full) };
    let lost = status.gaps.iter().any(|gap| gap.at > last);
    // One from a clock that was ahead by more is none.
    if !lost && now.duration_since(last).abs() < every {
        return None;
    }
    let has_full =
        whole().any(|facts| facts.kind == BackupKind::Full && now.duration_since(facts.stopped_at) < FULL_EVERY);
    Some(if has_full { BackupKind::Differential } else { BackupKind::Full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backups::{BackupLabel, Gap};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn backup(kind: BackupKind, stopped_at: Timestamp) -> BackupFacts {
        BackupFacts {
            label: BackupLabel::parse("20260102-030405F").unwrap(),
            kind,
            started_at: stopped_at,
            stopped_at,
            size: 1,
            stored: 1,
            first_segment: String::new(),
            last_segment: String::new(),
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
        assert_eq!(due(&[], &well, DAY, at(1)), Some(BackupKind::Full));
        let held = [backup(BackupKind::Full, at(1))];
        assert_eq!(due(&held, &well, DAY, at(1)), None);
        assert_eq!(due(&held, &well, DAY, at(2)), Some(BackupKind::Differential));
        assert_eq!(due(&held, &well, DAY, at(8)), Some(BackupKind::Full));
        assert_eq!(due(&[backup(BackupKind::Full, at(30))], &well, DAY, at(1)), Some(BackupKind::Differential));
        let useless = BackupFacts { restorable: false, ..held[0].clone() };
        assert_eq!(due(&[useless], &well, DAY, at(1)), Some(BackupKind::Full));
        let gap = Gap {
            first_segment: String::new(),
            last_segment: String::new(),
            at: at(1) + DAY / 2,
            archived_until: None,
        };
        let lost = ArchiveStatus { gaps: vec![gap], ..well };
        assert_eq!(due(&held, &lost, DAY, at(1) + DAY / 2), Some(BackupKind::Differential));
    }
}
