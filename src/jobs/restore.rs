//! Bringing databases back: in place, and as part of making new ones.

use super::backup::{from_backup, held, open_vault, reporting};
use super::database::{from_engine, keep_backup, prove};
use super::unknown;
use crate::app::JobCtx;
use crate::base::error::Result;
use crate::base::id::{BackupId, DatabaseId};
use crate::domain::backups::{self, Backup};
use crate::domain::databases::{self, Plan};
use crate::domain::restores::{self, RESTORE, Restore};
use crate::engine::EngineError;
use crate::engine::backups::{BackupError, BackupKind, BackupLabel, RecoverTo, Vault};
use crate::queue::{Job, Reason, StepError};

const SOURCE_GONE: &str = "what it was to be made from is gone; delete it and choose another source";

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
}

impl RestoreStep {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::RestoreInstance, Self::TakeOver, Self::ProveReady, Self::Discard];

    /// Its name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::RestoreInstance => RESTORE.first_step,
            Self::TakeOver => "take_over",
            Self::ProveReady => "prove_ready",
            Self::Discard => "discard",
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
    let (plan, restore) = match (plan.filter(|plan| !plan.deleted), restore) {
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
    match run(ctx, job, &plan, &restore, step).await {
        Err(StepError::Fail(reason)) => abandon(ctx, job, &restore, &reason).await,
        Err(StepError::Retry(reason)) if job.is_overdue() && step != RestoreStep::Discard.name() => {
            abandon(ctx, job, &restore, &reason).await
        }
        Err(StepError::Wait(reason)) if job.attempts() >= WAITS && step == RestoreStep::RestoreInstance.name() => {
            abandon(ctx, job, &restore, &reason).await
        }
        done => done,
    }
}

async fn run(ctx: &JobCtx, job: &Job, plan: &Plan, restore: &Restore, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    match RestoreStep::ALL.into_iter().find(|known| known.name() == step) {
        Some(RestoreStep::RestoreInstance) => {
            bring_back(ctx, job, restore).await?;
            let tx = store.begin().await?;
            job.advance(&tx, RestoreStep::TakeOver.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(RestoreStep::TakeOver) => {
            if let Some(old) = plan.instance.filter(|old| *old != restore.instance) {
                // The moments before the restore stay restorable, as far as that can be had.
                keep_backup(ctx, job, plan, old).await?;
                ctx.instances.ensure_stopped(old).await.map_err(from_engine)?;
            }
            let tx = store.begin().await?;
            restores::swap(&tx, ctx.app.clock.now(), restore).await?;
            job.advance(&tx, RestoreStep::ProveReady.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(RestoreStep::ProveReady) => {
            prove(ctx, plan).await?;
            let tx = store.begin().await?;
            databases::mark_ready(&tx, plan.id).await?;
            job.advance(&tx, RestoreStep::Discard.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(RestoreStep::Discard) => {
            if let Some(old) = restore.replaced {
                ctx.instances.ensure_destroyed(old).await.map_err(from_engine)?;
            }
            let tx = store.begin().await?;
            restores::finish(&tx, plan.id).await?;
            job.succeed(&tx).await?;
            // A new era begins, and what is restorable of it begins with its first backup.
            databases::back_up_now(&tx, ctx.app.clock.now(), &ctx.app.keyring, plan.id).await?;
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", step)),
    }
}

/// The database is what it was before, and the restored instance goes.
async fn abandon(ctx: &JobCtx, job: &Job, restore: &Restore, reason: &Reason) -> Result<(), StepError> {
    tracing::error!(
        database.id = %restore.database, workflow.id = %job.id, %reason,
        "the restore of {} was given up; it is what it was before", restore.database
    );
    // A session may have it open if it had taken over.
    ctx.instances.ensure_stopped(restore.instance).await.map_err(from_engine)?;
    let told = format!("the last restore did not work: {}", reason.explanation());
    let tx = ctx.app.store.begin().await?;
    restores::give_up(&tx, restore.database, &told).await?;
    job.fail(&tx, reason).await?;
    tx.commit().await?;
    if let Err(error) = ctx.instances.ensure_destroyed(restore.instance).await {
        tracing::error!(instance.id = %restore.instance, %error, "cannot remove what was restored");
    }
    Ok(())
}

/// Restores into the restore's instance, which is stopped and out of recovery then.
pub(super) async fn bring_back(ctx: &JobCtx, job: &Job, restore: &Restore) -> Result<(), StepError> {
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
    reporting(ctx, job, |progress| ctx.instances.restore(restore.instance, &vault, &label, to, progress))
        .await
        .map(drop)
        .map_err(from_backup)
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

/// The newest backup of a database that is to be copied as it is, which is made if there is none. It is
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
    let tx = store.begin().await?;
    backups::ensure_vault(&tx, ctx.app.clock.now(), &ctx.app.keyring, restore.source_database, instance).await?;
    tx.commit().await?;
    let (vault, known) = open_vault(ctx, instance).await?;
    let facts = reporting(ctx, job, |progress| ctx.instances.back_up(&vault, BackupKind::Full, progress))
        .await
        .map_err(from_backup)?;
    let tx = store.begin().await?;
    backups::add(&tx, &known, ctx.app.clock.now(), &held(&facts)).await?;
    tx.commit().await?;
    backups::newest(&store.session().await?, instance).await?.ok_or_else(gone)
}
