//! Reconcilers of backups: they create due backups, remove expired ones, and archive WAL.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::backup::{engine_vault, expire, from_backup, list_what_is_held, look_at_archive};
use super::mail::tell_of_archives;
use crate::context::JobCtx;
use base::error::{Result, describe};
use domain::{backups, databases};
use engine::EngineError;
use engine::backups::BackupError;
use queue::StepError;

/// How often to archive waiting WAL.
const ARCHIVE_ROUND: Duration = Duration::from_secs(1);
/// How often to check for due backups.
const SCHEDULE_ROUND: Duration = Duration::from_secs(30);
/// How often to remove expired backups, in rounds of the schedule.
const TIDY_EVERY: u32 = 60;

/// The largest difference between the two clocks from one check to the next.
const UNEVEN: SignedDuration = SignedDuration::from_mins(1);

/// The schedule of backups and retention.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When a used database gets its first backup.
    pub first: SignedDuration,
    /// The time between backups of a used database; zero disables scheduled backups.
    pub every: SignedDuration,
    /// How long the system clock must be stable before expired backups are removed.
    pub steady: Duration,
}

/// Compares the system clock with the monotonic clock. A wrong system clock is mostly corrected soon, but backups
/// removed because of it would be lost.
pub(super) struct Pace {
    /// The time of the last check, by both clocks.
    last: (Timestamp, Instant),
    /// Since when both clocks have agreed.
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Timestamp, instant: Instant) -> Self {
        Self { last: (now, instant), since: instant }
    }

    /// For how long the system clock has been stable. Starts again after a jump or a suspend of the machine.
    pub(super) fn look(&mut self, now: Timestamp, instant: Instant) -> Duration {
        let (then, before) = std::mem::replace(&mut self.last, (now, instant));
        let passed = SignedDuration::try_from(instant - before).unwrap_or(SignedDuration::MAX);
        let jumped = now.duration_since(then).saturating_sub(passed);
        if jumped.abs() > UNEVEN {
            tracing::warn!(
                "the system clock jumped by {} seconds; retention is paused until the clock is stable",
                jumped.as_secs()
            );
            self.since = instant;
        }
        instant - self.since
    }
}

/// Resumes archiving after a start of Howdah, and archives WAL continuously.
pub async fn archive(ctx: Arc<JobCtx>) {
    // An aborted push is repeated, as after a crash; the last push happens when everything has stopped.
    tokio::select! {
        () = archive_for_ever(&ctx) => {}
        () = record_for_ever(&ctx) => {}
        () = ctx.app.tasks.stopping() => {}
    }
}

/// Records the archiving state of an instance as soon as it changes.
async fn record_for_ever(ctx: &JobCtx) {
    loop {
        for instance in ctx.instances.archive_changes().await {
            if let Err(error) = look_at_archive(ctx, instance).await {
                tracing::debug!(instance.id = %instance, %error, "could not check the archiving of an instance; retrying in the next round");
            }
        }
        tokio::time::sleep(ARCHIVE_ROUND).await;
    }
}

async fn archive_for_ever(ctx: &JobCtx) {
    let mut opened = false;
    loop {
        if !opened {
            opened = match open_archives(ctx).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "could not resume the archiving of all databases; retrying");
                    false
                }
            };
        }
        if let Err(error) = ctx.instances.archive_pending().await {
            tracing::warn!(error = %describe(&error), "WAL archiving failed; retrying");
        }
        tokio::time::sleep(ARCHIVE_ROUND).await;
    }
}

async fn open_archives(ctx: &JobCtx) -> Result<(), StepError> {
    let vaults = backups::all_vaults(&ctx.app.store.session().await?, &ctx.app.keyring).await?;
    let mut unopened = None;
    for vault in vaults.iter().filter(|vault| vault.open) {
        match ctx.instances.ensure_archiving(&engine_vault(vault)).await {
            // The instance is being deleted, or its files were lost: there is nothing to archive.
            Ok(()) | Err(BackupError::Engine(EngineError::Missing(_))) => {}
            Err(error) => unopened = Some(from_backup(error)),
        }
    }
    unopened.map_or(Ok(()), Err)
}

/// Starts due backups and removes expired ones.
pub async fn retain(ctx: Arc<JobCtx>, schedule: Schedule) {
    // Abort the round on shutdown: unresponsive storage could delay it by minutes.
    tokio::select! {
        () = retain_for_ever(&ctx, schedule) => {}
        () = ctx.app.tasks.stopping() => {}
    }
}

async fn retain_for_ever(ctx: &JobCtx, schedule: Schedule) {
    let mut round: u32 = 0;
    let mut pace = Pace::new(ctx.app.clock.now(), Instant::now());
    loop {
        let steady = pace.look(ctx.app.clock.now(), Instant::now()) >= schedule.steady;
        if let Err(error) = start_due(ctx, schedule).await {
            tracing::warn!(error = %describe(&error), "could not start the backups that are due; retrying");
        }
        if let Err(error) = look_at_archives(ctx).await {
            tracing::warn!(%error, "could not check the archiving of all databases; retrying");
        }
        if let Err(error) = tell_of_archives(ctx).await {
            tracing::warn!(error = %describe(&error), "could not send mail about failing archiving; retrying");
        }
        if round.is_multiple_of(TIDY_EVERY)
            && let Err(error) = tidy_all(ctx, steady).await
        {
            tracing::warn!(%error, "could not remove expired backups; retrying");
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(SCHEDULE_ROUND).await;
    }
}

async fn start_due(ctx: &JobCtx, schedule: Schedule) -> Result<()> {
    if schedule.every.is_zero() {
        return Ok(());
    }
    let now = ctx.app.clock.now();
    let due = backups::due(&ctx.app.store.session().await?, now, schedule.first, schedule.every).await?;
    for backup in due {
        let tx = ctx.app.store.begin().await?;
        databases::back_up_now(&tx, now, &ctx.app.keyring, backup.database).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn look_at_archives(ctx: &JobCtx) -> Result<(), StepError> {
    let vaults = backups::all_vaults(&ctx.app.store.session().await?, &ctx.app.keyring).await?;
    for vault in vaults.iter().filter(|vault| vault.open) {
        if let Err(error) = look_at_archive(ctx, vault.instance).await {
            tracing::warn!(instance.id = %vault.instance, %error, "could not check the archiving of an instance; retrying");
        }
    }
    Ok(())
}

/// Updates the lists of backups from the repositories, after removing expired backups if the clock is stable.
async fn tidy_all(ctx: &JobCtx, steady: bool) -> Result<(), StepError> {
    let now = ctx.app.clock.now();
    let retentions = backups::retentions(&ctx.app.store.session().await?).await?;
    for (instance, days) in retentions {
        if steady && let Err(error) = expire(ctx, instance, days).await {
            tracing::warn!(instance.id = %instance, %error, "could not remove expired backups; retrying");
        }
        if let Err(error) = list_what_is_held(ctx, instance).await {
            tracing::warn!(instance.id = %instance, %error, "could not list the backups in a repository; retrying");
        }
    }
    if !steady {
        return Ok(());
    }
    for vault in backups::outlived(&ctx.app.store.session().await?, &ctx.app.keyring, now).await? {
        if let Err(error) = ctx.instances.ensure_forgotten(&engine_vault(&vault)).await {
            tracing::warn!(instance.id = %vault.instance, %error, "could not remove a backup repository; retrying");
            continue;
        }
        let tx = ctx.app.store.begin().await?;
        backups::forget_vault(&tx, vault.instance).await?;
        tx.commit().await?;
    }
    for plan in databases::outlived(&ctx.app.store.session().await?, now).await? {
        let tx = ctx.app.store.begin().await?;
        databases::forget(&tx, &plan, None).await?;
        tx.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_not_steady_after_a_jump() {
        let (now, instant, minute) = (Timestamp::UNIX_EPOCH, Instant::now(), Duration::from_secs(60));
        let after = |minutes: u32, ahead: SignedDuration| {
            (now + SignedDuration::from_mins(minutes.into()) + ahead, instant + minute * minutes)
        };
        let mut pace = Pace::new(now, instant);
        let mut look = |(now, instant)| pace.look(now, instant);
        assert_eq!(look(after(0, SignedDuration::ZERO)), Duration::ZERO);
        assert_eq!(look(after(60, SignedDuration::from_secs(20))), minute * 60, "it is corrected all the time");
        let week = SignedDuration::from_hours(7 * 24);
        assert_eq!(look(after(61, week)), Duration::ZERO, "ahead");
        assert_eq!(look(after(91, week)), minute * 30);
        assert_eq!(look(after(92, SignedDuration::ZERO)), Duration::ZERO, "and back");
        assert_eq!(look(after(152, SignedDuration::ZERO)), minute * 60);
    }
}
