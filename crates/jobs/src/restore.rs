//! Restores: in place, and as part of the creation of databases.

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

const SOURCE_GONE: &str = "its source no longer exists; delete the database and choose another source";

const OTHER_BACKUP: &str = "the backup is damaged; the restore is restarting with another backup";

/// The status reason after a failed restore in place.
const NOT_RESTORED: &str = "the last restore failed";
const CANCELLED: &str = "the restore was cancelled; the database keeps its previous data";

/// How often a restore in place waits for space, programs or another backup before it fails, about ten minutes: the
/// database cannot be used during the restore.
const WAITS: i32 = 20;

/// The steps of `restore_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStep {
    /// Restore into a new instance.
    RestoreInstance,
    /// Close the sessions, stop the old instance, and switch the database to the new one.
    TakeOver,
    /// Run SQL through the gateway's listening address, and mark the database as ready.
    ProveReady,
    /// Destroy the old instance.
    Discard,
    /// After a failure: switch the database back to the old instance.
    PutBack,
    /// After a failure or a cancellation: destroy the restored instance.
    DiscardRestored,
}

impl RestoreStep {
    /// All steps, in order. The last two replace the remaining steps after a failure.
    pub const ALL: [Self; 6] =
        [Self::RestoreInstance, Self::TakeOver, Self::ProveReady, Self::Discard, Self::PutBack, Self::DiscardRestored];

    /// The step's name in the queue.
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

    /// Whether the step can fail. Clean-up steps are retried without a deadline.
    fn may_give_up(self) -> bool {
        match self {
            Self::RestoreInstance | Self::TakeOver | Self::ProveReady => true,
            Self::Discard | Self::PutBack | Self::DiscardRestored => false,
        }
    }
}

/// Runs one step of `restore_database`. A failed restore leaves the database unchanged.
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
                // The restore had finished, but the worker died before recording that.
                Some(_) => job.succeed(&tx).await?,
                // The delete also removes the restored instance.
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
                // Archive the latest changes first: moments before the restore must stay restorable.
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
            // The new instance can only be restored from its first backup on.
            databases::back_up_now(&tx, ctx.app.clock.now(), &ctx.app.keyring, plan.id).await?;
            job.succeed(&tx).await?;
            Ok(tx.commit().await?)
        }
        RestoreStep::PutBack => {
            // Sessions may be open on the restored instance after the switch.
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
                None => job.call_off(&tx, &Reason::new("the operation was cancelled", CANCELLED)).await?,
            }
            Ok(tx.commit().await?)
        }
    }
}

/// Undoes a restore. Records the intent first, so that a crash leaves nothing behind.
async fn abandon(ctx: &JobCtx, job: &Job, restore: &Restore, reason: &Reason) -> Result<(), StepError> {
    let tx = ctx.app.store.begin().await?;
    restores::give_up(&tx, restore.database, reason).await?;
    job.advance(&tx, RestoreStep::PutBack.name()).await?;
    tx.commit().await?;
    tracing::error!(
        database.id = %restore.database, workflow.id = %job.id, %reason,
        "restore of {} failed; the database keeps its previous data", restore.database
    );
    Ok(())
}

/// Restores into the new instance, which is stopped and out of recovery afterwards.
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
        // A copy of the current state of a database.
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

/// Copies the files of a sleeping instance, if the file system can share them. Returns false if a backup has to be
/// restored instead.
async fn copy_sleeping(ctx: &JobCtx, restore: &Restore) -> Result<bool, StepError> {
    if restore.backup.is_some() || restore.target_time.is_some() {
        return Ok(false);
    }
    let source = restores::source_instance(&ctx.app.store.session().await?, restore.source_database).await?;
    let Some(source) = source else { return Ok(false) };
    match ctx.instances.copy(restore.instance, source).await {
        Ok(copied) => Ok(copied.is_some()),
        // A restore from a backup would fail for the same reason.
        Err(error @ (BackupError::Interrupted | BackupError::Engine(EngineError::NoSpace { .. }))) => {
            Err(from_backup(error))
        }
        Err(error) => {
            tracing::warn!(instance.id = %source, %error, "could not copy {source}; restoring a backup of it instead");
            Ok(false)
        }
    }
}

/// Marks the backup as damaged, and restarts with another backup if that gives the same result.
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
        "backup {} of {} is damaged and cannot be restored", backup.id, backup.database
    );
    // A copy of the current state needs a new backup.
    if restore.backup.is_none() {
        back_up_whole(ctx, job, restore.source_database, backup.instance).await?;
    }
    Ok(match other.is_some() || restore.backup.is_none() {
        true => StepError::Retry(Reason::new(reason.to_string(), OTHER_BACKUP)),
        false => StepError::Fail(reason),
    })
}

/// Archives the latest WAL. If the requested moment is already archived, an error is ignored: a broken instance may be
/// the reason for the restore.
async fn flush(ctx: &JobCtx, vault: &Vault, to: RecoverTo) -> Result<(), StepError> {
    let error = match ctx.instances.flush_archive(vault).await {
        Ok(()) => return Ok(()),
        // The instance was lost with its machine, so the repository contains all that is left.
        Err(BackupError::Engine(EngineError::Missing(_))) => return Ok(()),
        Err(error) => error,
    };
    let archived = backups::archived_until(&ctx.app.store.session().await?, vault.instance).await?;
    match to {
        RecoverTo::Time(moment) if archived.is_some_and(|archived| moment <= archived) => {
            tracing::warn!(
                instance.id = %vault.instance, %error,
                "could not archive the latest WAL; continuing, because the moment to restore to is already archived"
            );
            Ok(())
        }
        _ => Err(from_backup(error)),
    }
}

async fn find(ctx: &JobCtx, database: DatabaseId, id: BackupId) -> Result<Backup, StepError> {
    let found = backups::find(&ctx.app.store.session().await?, database, id).await?;
    found.ok_or_else(|| StepError::Fail(Reason::new(format!("the backup {id} no longer exists"), SOURCE_GONE)))
}

/// The newest sound backup of a database whose current state is to be copied; created if there is none. Chosen again at
/// each attempt, because it may have expired.
async fn choose(ctx: &JobCtx, job: &Job, restore: &Restore) -> Result<Backup, StepError> {
    let store = &ctx.app.store;
    let session = store.session().await?;
    let gone = || StepError::Fail(Reason::new("the database to be copied no longer exists", SOURCE_GONE));
    let instance = restores::source_instance(&session, restore.source_database).await?.ok_or_else(gone)?;
    if let Some(newest) = backups::newest(&session, instance).await? {
        return Ok(newest);
    }
    drop(session);
    back_up_whole(ctx, job, restore.source_database, instance).await?;
    backups::newest(&store.session().await?, instance).await?.ok_or_else(gone)
}
