//! Reconcilers of backups: what is due is made, what is too old goes, and archives are kept moving.

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

/// How often WAL that waits is brought to the repository.
const ARCHIVE_ROUND: Duration = Duration::from_secs(1);
/// How often it is looked for backups that are due.
const SCHEDULE_ROUND: Duration = Duration::from_secs(30);
/// How often retention is looked after: rounds of the schedule.
const TIDY_EVERY: u32 = 60;

/// What the two clocks may differ by between two looks.
const UNEVEN: SignedDuration = SignedDuration::from_mins(1);

/// When backups are made and removed.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// A used database has its first backup after so long.
    pub first: SignedDuration,
    /// A used database has another one after so long; zero: none are made by themselves.
    pub every: SignedDuration,
    /// Nothing is removed for its age before the machine's clock has gone evenly for so long.
    pub steady: Duration,
}

/// How the machine's clock goes, compared with one that nobody can set. A clock that was set wrong is mostly
/// set right again soon; what was removed meanwhile would not come back.
pub(super) struct Pace {
    /// When it was looked last, by both.
    last: (Timestamp, Instant),
    /// Since when both agree.
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Timestamp, instant: Instant) -> Self {
        Self { last: (now, instant), since: instant }
    }

    /// For how long the clock has gone evenly. After a jump, or a sleep of the machine, that begins anew.
    pub(super) fn look(&mut self, now: Timestamp, instant: Instant) -> Duration {
        let (then, before) = std::mem::replace(&mut self.last, (now, instant));
        let passed = SignedDuration::try_from(instant - before).unwrap_or(SignedDuration::MAX);
        let jumped = now.duration_since(then).saturating_sub(passed);
        if jumped.abs() > UNEVEN {
            tracing::warn!(
                "the clock was moved by {} seconds: no backup is removed for its age for a while",
                jumped.as_secs()
            );
            self.since = instant;
        }
        instant - self.since
    }
}

/// Lets archiving go on where it was before Howdah started, and keeps it moving.
pub async fn archive(ctx: Arc<JobCtx>) {
    // A push that is called off half-way is made again, as after a crash; the last one comes when
    // everything has stopped.
    tokio::select! {
        () = archive_for_ever(&ctx) => {}
        () = record_for_ever(&ctx) => {}
        () = ctx.app.tasks.stopping() => {}
    }
}

/// Writes down at once how the archiving of an instance goes when that has changed.
async fn record_for_ever(ctx: &JobCtx) {
    loop {
        for instance in ctx.instances.archive_changes().await {
            if let Err(error) = look_at_archive(ctx, instance).await {
                tracing::debug!(instance.id = %instance, %error, "cannot look at an archive; the next round does");
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
                    tracing::warn!(%error, "cannot take up the archiving of all databases; trying again");
                    false
                }
            };
        }
        if let Err(error) = ctx.instances.archive_pending().await {
            tracing::warn!(error = %describe(&error), "cannot archive; trying again");
        }
        tokio::time::sleep(ARCHIVE_ROUND).await;
    }
}

async fn open_archives(ctx: &JobCtx) -> Result<(), StepError> {
    let vaults = backups::all_vaults(&ctx.app.store.session().await?, &ctx.app.keyring).await?;
    let mut unopened = None;
    for vault in vaults.iter().filter(|vault| vault.open) {
        match ctx.instances.ensure_archiving(&engine_vault(vault)).await {
            // Its delete is under way, or its files were lost: there is nothing to archive.
            Ok(()) | Err(BackupError::Engine(EngineError::Missing(_))) => {}
            Err(error) => unopened = Some(from_backup(error)),
        }
    }
    unopened.map_or(Ok(()), Err)
}

/// Starts the backups that are due, and removes what has been kept long enough.
pub async fn retain(ctx: Arc<JobCtx>, schedule: Schedule) {
    // What is called off half-way, which storage that does not answer would make take minutes, is done
    // at another time.
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
            tracing::warn!(error = %describe(&error), "cannot start backups that are due; trying again");
        }
        if let Err(error) = look_at_archives(ctx).await {
            tracing::warn!(%error, "cannot look at the archives; trying again");
        }
        if let Err(error) = tell_of_archives(ctx).await {
            tracing::warn!(error = %describe(&error), "cannot tell anybody of archives that are stuck; trying again");
        }
        if round.is_multiple_of(TIDY_EVERY)
            && let Err(error) = tidy_all(ctx, steady).await
        {
            tracing::warn!(%error, "cannot remove old backups; trying again");
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
            tracing::warn!(instance.id = %vault.instance, %error, "cannot look at an archive; trying again");
        }
    }
    Ok(())
}

/// Makes the lists of backups what the vaults hold. Only while the clock is steady anything is removed first.
async fn tidy_all(ctx: &JobCtx, steady: bool) -> Result<(), StepError> {
    let now = ctx.app.clock.now();
    let retentions = backups::retentions(&ctx.app.store.session().await?).await?;
    for (instance, days) in retentions {
        if steady && let Err(error) = expire(ctx, instance, days).await {
            tracing::warn!(instance.id = %instance, %error, "cannot remove old backups; trying again");
        }
        if let Err(error) = list_what_is_held(ctx, instance).await {
            tracing::warn!(instance.id = %instance, %error, "cannot list the backups in a vault; trying again");
        }
    }
    if !steady {
        return Ok(());
    }
    for vault in backups::outlived(&ctx.app.store.session().await?, &ctx.app.keyring, now).await? {
        if let Err(error) = ctx.instances.ensure_forgotten(&engine_vault(&vault)).await {
            tracing::warn!(instance.id = %vault.instance, %error, "cannot remove a vault; trying again");
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
    fn a_clock_that_jumps_is_not_steady_for_a_while() {
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
