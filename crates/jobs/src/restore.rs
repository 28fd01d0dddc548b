//! Bringing databases back: in place, and as part of making new ones.

use super::backup::{back_up_whole, from_backup, open_vault, reporting};
use super::database::{from_engine, keep_backup, prove};
use super::unknown;
use crate::context::JobCtx;
use base::error::Result;
use base::id::{BackupId, DatabaseId};
use domain::backups::{self, Backup};
use domain::databases::{self, Plan};
use domain::restores::{self, RESTORE, Restore};
use engine::EngineError;
use engine::backups::{BackupError, BackupLabel, RecoverTo, Vault};
use queue::{Job, Reason, StepError};

const SOURCE_GONE: &str = "what it was to be made from is gone; delete it and choose another source";

const OTHER_BACKUP: &str = "the backup is damaged; it begins again with another one";

/// What the owner of a database reads after a restore in place that was given up.
const NOT_RESTORED: &str = "the last restore did not work";
const CANCELLED: &str = "it was cancelled; the database is what it was before";

/// How often a restore in place waits for room, programs or another backup before it gives up: the
/// database cannot be used meanwhile. About ten minutes.
const WAITS: i32 = 20;

/// The steps of `restore_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStep {
    /// Restore into a new instance, beside the one that the database has.
    RestoreInstance,
    /// End the sessions, stop the old instance, and let the new one take over.
    TakeOver,
    /// Run SQL through the gateway's listening address, and call the database ready.
    ProveReady,
    /// Destroy the old instance.
    Discard,
    /// When it does not work: the old instance is the database's again.
    PutBack,
    /// When it does not work or was called off: destroy the restored instance.
    DiscardRestored,
}

impl RestoreStep {
    /// All of them, in order; the last two instead of those after the one that did not work.
    pub const ALL: [Self; 6] =
        [Self::RestoreInstance, Self::TakeOver, Self::ProveReady, Self::Discard, Self::PutBack, Self::DiscardRestored];

    /// Its name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::RestoreInstance => RESTORE.first_step,
            Self::TakeOver => restores::TAKE_OVER,
            Self::ProveReady => "prove_ready",
            Self::Discard => "discard",
            Self::PutBack => "put_back",
            Self::DiscardRestored => restores::DISCARD_RESTORED,
        }
    }

    /// Whether it may be given up. What only tidies up goes on for as long as it takes.
    fn may_give_up(self) -> bool {
        match self {
            Self::RestoreInstance | Self::TakeOver | Self::ProveReady => true,
            Self::Discard | Self::PutBack | Self::DiscardRestored => false,
        }
    }
}

/// Runs one step of `restore_database`. One that does not work leaves the database as it was.
pub async fn restore(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    let session = store.session().await?;
    let plan = databases::plan(&session, job.subject.into()).await?;
    let restore = restores::find(&session, job.subject.into()).await?;
    drop(session);
    let (plan, restore) = match (plan.filter(|plan| plan.deleted_at.is_none()), restore) {
        (Some(plan), Some(restore)) => (plan, restore),
        (plan, _) => {
            let tx = store.begin().await?;
            match plan {
                // It was finished, and the worker died before it could say so.
                Some(_) => job.succeed(&tx).await?,
                // A delete takes what was restored with it.
                None => job.give_way(&tx).await?,
            }
            return Ok(tx.commit().await?);
        }
    };
    let Some(step) = RestoreStep::ALL.into_iter().find(|known| known.name() == step) else {
        return Err(unknown("step", step));
    };
    match run(ctx, job, &plan, &restore, step).await {
        Err(StepError::Fail(reason)) if !step.may_give_up() => Err(StepError::Retry(reason)),
        Err(StepError::Fail(reason)) => abandon(ctx, job, &restore, &reason).await,
        Err(StepError::Retry(reason)) if job.is_overdue() && step.may_give_up() => {
            abandon(ctx, job, &restore, &reason).await
        }
        Err(StepError::Wait(reason))
            if job.attempts() >= WAITS && matches!(step, RestoreStep::RestoreInstance | RestoreStep::TakeOver) =>
        {
            abandon(ctx, job, &restore, &reason).await
        }
        done => done,
    }
}

async fn run(ctx: &JobCtx, job: &Job, plan: &Plan, restore: &Restore, step: RestoreStep) -> Result<(), StepError> {
    let store = &ctx.app.store;
    match step {
        RestoreStep::RestoreInstance => {
            bring_back(ctx, job, restore).await?;
            let tx = store.begin().await?;
            job.advance(&tx, RestoreStep::TakeOver.name()).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::TakeOver => {
            if let Some(old) = plan.instance.filter(|old| *old != restore.instance) {
                // The moments before the restore stay restorable; without that nothing is replaced.
                keep_backup(ctx, job, plan, old).await?;
                ctx.instances.ensure_stopped(old).await.map_err(from_engine)?;
            }
            let tx = store.begin().await?;
            restores::swap(&tx, ctx.app.clock.now(), restore).await?;
            job.advance(&tx, RestoreStep::ProveReady.name()).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::ProveReady => {
            prove(ctx, plan).await?;
            let tx = store.begin().await?;
            databases::mark_ready(&tx, plan.id).await?;
            restores::settle(&tx, plan.id).await?;
            job.advance(&tx, RestoreStep::Discard.name()).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::Discard => {
            if let Some(old) = restore.replaced {
                ctx.instances.ensure_destroyed(old).await.map_err(from_engine)?;
            }
            let tx = store.begin().await?;
            databases::hold(&tx, plan.id).await?;
            restores::finish(&tx, plan.id).await?;
            // A new era begins, and what is restorable of it begins with its first backup.
            databases::back_up_now(&tx, ctx.app.clock.now(), &ctx.app.keyring, plan.id).await?;
            job.succeed(&tx).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::PutBack => {
            // A session may have it open if it had taken over.
            ctx.instances.ensure_stopped(restore.instance).await.map_err(from_engine)?;
            let told = restore.failure.as_ref().map(|reason| format!("{NOT_RESTORED}: {}", reason.explanation()));
            let tx = store.begin().await?;
            restores::put_back(&tx, plan.id, told.as_deref()).await?;
            job.advance(&tx, RestoreStep::DiscardRestored.name()).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::DiscardRestored => {
            ctx.instances.ensure_destroyed(restore.instance).await.map_err(from_engine)?;
            let tx = store.begin().await?;
            restores::finish(&tx, plan.id).await?;
            match &restore.failure {
                Some(reason) => job.fail(&tx, reason).await?,
                None => job.call_off(&tx, &Reason::new("somebody cancelled it", CANCELLED)).await?,
            }
            Ok(tx.commit().await?)
        }
    }
}

/// Puts everything back. The intent comes first, so that a crash in the middle leaves nothing behind.
async fn abandon(ctx: &JobCtx, job: &Job, restore: &Restore, reason: &Reason) -> Result<(), StepError> {
    let tx = ctx.app.store.begin().await?;
    restores::give_up(&tx, restore.database, reason).await?;
    job.advance(&tx, RestoreStep::PutBack.name()).await?;
    tx.commit().await?;
    tracing::error!(
        database.id = %restore.database, workflow.id = %job.id, %reason,
        "the restore of {} was given up; it will be what it was before", restore.database
    );
    Ok(())
}

/// Restores into the restore's instance, which is stopped and out of recovery then.
pub(super) async fn bring_back(ctx: &JobCtx, job: &Job, restore: &Restore) -> Result<(), StepError> {
    if copy_sleeping(ctx, restore).await? {
        return Ok(());
    }
    let backup = match restore.backup {
        Some(id) => find(ctx, restore.source_database, id).await?,
        None => choose(ctx, job, restore).await?,
    };
    let (vault, known) = open_vault(ctx, backup.instance).await?;
    let label = backup.label.as_deref().and_then(BackupLabel::parse);
    let label = label.ok_or_else(|| StepError::Fail(Reason::new("the backup has no label", SOURCE_GONE)))?;
    let to = match restore.target_time {
        Some(moment) => RecoverTo::Time(moment),
        // A copy of a database as it is now.
        None if restore.backup.is_none() => RecoverTo::Latest,
        None => RecoverTo::Immediate,
    };
    if known.open && to != RecoverTo::Immediate {
        flush(ctx, &vault, to).await?;
    }
    match reporting(ctx, job, |progress| ctx.instances.restore(restore.instance, &vault, &label, to, progress)).await {
        Ok(_) => Ok(()),
        Err(error @ BackupError::Damaged(_)) => Err(doubt(ctx, job, restore, &backup, from_backup(error)).await?),
        Err(error) => Err(from_backup(error)),
    }
}

/// Copies a database as it is now out of its instance, if that sleeps and its files can be shared. False: it
/// has to come out of a backup.
async fn copy_sleeping(ctx: &JobCtx, restore: &Restore) -> Result<bool, StepError> {
    if restore.backup.is_some() || restore.target_time.is_some() {
        return Ok(false);
    }
    let source = restores::source_instance(&ctx.app.store.session().await?, restore.source_database).await?;
    let Some(source) = source else { return Ok(false) };
    match ctx.instances.copy(restore.instance, source).await {
        Ok(copied) => Ok(copied.is_some()),
        // Nor could anything else be done then.
        Err(error @ (BackupError::Interrupted | BackupError::Engine(EngineError::NoSpace { .. }))) => {
            Err(from_backup(error))
        }
        Err(error) => {
            tracing::warn!(instance.id = %source, %error, "{source} cannot be copied; a backup of it is restored");
            Ok(false)
        }
    }
}

/// Writes down that the backup is damaged, and begins with another one where that is as good.
async fn doubt(
    ctx: &JobCtx,
    job: &Job,
    restore: &Restore,
    backup: &Backup,
    error: StepError,
) -> Result<StepError, StepError> {
    let StepError::Fail(reason) = error else { return Ok(error) };
    let (store, now) = (&ctx.app.store, ctx.app.clock.now());
    let tx = store.begin().await?;
    if backups::mark_damaged(&tx, backup.id, &reason, now).await?
        && let Some(outbox) = ctx.app.outbox()
    {
        outbox.tell_of_failed_trial(&tx, now, backup.database, backup.id, reason.explanation()).await?;
    }
    let other = match restore.target_time.filter(|_| restore.any_backup) {
        Some(moment) => {
            let window = backups::window(&tx, restore.source_database, now).await?;
            window.backup_for(moment).ok().filter(|other| !other.damaged).map(|other| other.id)
        }
        None => None,
    };
    if let Some(other) = other {
        restores::choose_backup(&tx, restore.database, other).await?;
    }
    tx.commit().await?;
    tracing::error!(
        database.id = %backup.database, backup.id = %backup.id, %reason,
        "the backup {} of {} does not restore: do not rely on it", backup.id, backup.database
    );
    // A copy of what a database is now begins with a backup that was made now.
    if restore.backup.is_none() {
        back_up_whole(ctx, job, restore.source_database, backup.instance).await?;
    }
    Ok(match other.is_some() || restore.backup.is_none() {
        true => StepError::Retry(Reason::new(reason.to_string(), OTHER_BACKUP)),
        false => StepError::Fail(reason),
    })
}

/// Brings into the vault what is not in it yet. For a moment that is, the instance need not be well: it
/// may be the reason for the restore.
async fn flush(ctx: &JobCtx, vault: &Vault, to: RecoverTo) -> Result<(), StepError> {
    let error = match ctx.instances.flush_archive(vault).await {
        Ok(()) => return Ok(()),
        // It was lost with its machine: what is in the vault is all there is.
        Err(BackupError::Engine(EngineError::Missing(_))) => return Ok(()),
        Err(error) => error,
    };
    let archived = backups::archived_until(&ctx.app.store.session().await?, vault.instance).await?;
    match to {
        RecoverTo::Time(moment) if archived.is_some_and(|archived| moment <= archived) => {
            tracing::warn!(
                instance.id = %vault.instance, %error,
                "what was written last cannot be archived; the moment to restore to was archived before"
            );
            Ok(())
        }
        _ => Err(from_backup(error)),
    }
}

async fn find(ctx: &JobCtx, database: DatabaseId, id: BackupId) -> Result<Backup, StepError> {
    let found = backups::find(&ctx.app.store.session().await?, database, id).await?;
    found.ok_or_else(|| StepError::Fail(Reason::new(format!("the backup {id} is gone"), SOURCE_GONE)))
}

/// The newest whole backup of a database that is to be copied as it is, which is made if there is none. It is
/// chosen anew each time: it may have expired since.
async fn choose(ctx: &JobCtx, job: &Job, restore: &Restore) -> Result<Backup, StepError> {
    let store = &ctx.app.store;
    let session = store.session().await?;
    let gone = || StepError::Fail(Reason::new("the database to be copied is gone", SOURCE_GONE));
    let instance = restores::source_instance(&session, restore.source_database).await?.ok_or_else(gone)?;
    if let Some(newest) = backups::newest(&session, instance).await? {
        return Ok(newest);
    }
    drop(session);
    back_up_whole(ctx, job, restore.source_database, instance).await?;
    backups::newest(&store.session().await?, instance).await?.ok_or_else(gone)
}
