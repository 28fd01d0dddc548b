//! Restore verification: the newest backup of each database in use, in turn, is restored into a test instance, read
//! completely, and removed.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::backup::{from_backup, open_vault, reporting};
use super::database::from_engine;
use super::unknown;
use crate::context::JobCtx;
use base::error::{Result, describe};
use domain::backups::{self, Backup, Trial};
use domain::databases;
use engine::backups::{BackupLabel, RecoverTo, RestoreFacts};
use queue::{Job, Reason, StepError};

/// How often to check for backups that are due for verification.
const ROUND: Duration = Duration::from_secs(30);
/// How often a verification waits for space or programs before it fails, about ten minutes.
const WAITS: i32 = 20;

const EXPIRED: &str = "the backup expired before it was verified";
const NO_LABEL: &str = "the backup is not in the repository";

/// The steps of `verify_backup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialStep {
    /// Restore the backup into a test instance that clients cannot reach.
    RestoreForTrial,
    /// Read all tables and indexes of the test instance.
    Check,
    /// Destroy the test instance and record the result.
    Discard,
}

impl TrialStep {
    /// All steps, in order. After a failure, the last step follows.
    pub const ALL: [Self; 3] = [Self::RestoreForTrial, Self::Check, Self::Discard];

    /// The step's name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::RestoreForTrial => backups::VERIFY.first_step,
            Self::Check => "check",
            Self::Discard => "discard",
        }
    }
}

/// Runs one step of `verify_backup`.
pub async fn verify(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let Some(step) = TrialStep::ALL.into_iter().find(|known| known.name() == step) else {
        return Err(unknown("step", step));
    };
    let store = &ctx.app.store;
    let session = store.session().await?;
    let Some(trial) = backups::trial(&session, job.subject.into()).await? else {
        drop(session);
        // The verification had finished, but the worker died before recording that.
        let tx = store.begin().await?;
        job.succeed(&tx).await?;
        return Ok(tx.commit().await?);
    };
    let deleted = databases::plan(&session, trial.database).await?.is_none_or(|plan| plan.deleted_at.is_some());
    let backup = backups::find(&session, trial.database, trial.backup).await?;
    drop(session);
    let done = match backup.filter(|_| !deleted) {
        Some(backup) => run(ctx, job, &trial, &backup, step).await,
        None => {
            ctx.instances.ensure_destroyed(trial.instance).await.map_err(from_engine)?;
            let tx = store.begin().await?;
            backups::forget_trial(&tx, trial.backup).await?;
            match deleted {
                true => job.give_way(&tx).await?,
                false => job.fail(&tx, &Reason::new("its row is gone", EXPIRED)).await?,
            }
            return Ok(tx.commit().await?);
        }
    };
    match done {
        // Clean-up is retried without a deadline.
        Err(StepError::Fail(reason)) if step == TrialStep::Discard => Err(StepError::Retry(reason)),
        // Permanent errors mark the backup as damaged; transient errors do not.
        Err(StepError::Fail(reason)) => fail(ctx, job, &trial, &reason, true).await,
        Err(StepError::Retry(reason)) if job.is_overdue() && step != TrialStep::Discard => {
            fail(ctx, job, &trial, &reason, false).await
        }
        Err(StepError::Wait(reason)) if job.attempts() >= WAITS => fail(ctx, job, &trial, &reason, false).await,
        done => done,
    }
}

async fn run(ctx: &JobCtx, job: &Job, trial: &Trial, backup: &Backup, step: TrialStep) -> Result<(), StepError> {
    let store = &ctx.app.store;
    match step {
        TrialStep::RestoreForTrial => {
            let (vault, _) = open_vault(ctx, backup.instance).await?;
            let label = backup.label.as_deref().and_then(BackupLabel::parse);
            let label = label.ok_or_else(|| StepError::Fail(Reason::new("the backup has no label", NO_LABEL)))?;
            let restore =
                |progress| ctx.instances.restore(trial.instance, &vault, &label, RecoverTo::Immediate, progress);
            let facts = reporting(ctx, job, restore).await.map_err(from_backup)?;
            let tx = store.begin().await?;
            backups::record_speed(&tx, trial.backup, bytes_per_second(&facts)).await?;
            job.advance(&tx, TrialStep::Check.name()).await?;
            Ok(tx.commit().await?)
        }
        TrialStep::Check => {
            let check = |progress| ctx.instances.check(trial.instance, progress);
            let facts = reporting(ctx, job, check).await.map_err(from_backup)?;
            let tx = store.begin().await?;
            backups::record_relations(&tx, trial.backup, i64::try_from(facts.relations).unwrap_or(i64::MAX)).await?;
            job.advance(&tx, TrialStep::Discard.name()).await?;
            Ok(tx.commit().await?)
        }
        TrialStep::Discard => {
            ctx.instances.ensure_destroyed(trial.instance).await.map_err(from_engine)?;
            let tx = store.begin().await?;
            backups::finish_trial(&tx, ctx.app.clock.now(), trial).await?;
            match &trial.failure {
                Some(reason) => job.fail(&tx, reason).await?,
                None => job.succeed(&tx).await?,
            }
            tx.commit().await?;
            if trial.failure.is_none() {
                tracing::info!(
                    database.id = %trial.database, backup.id = %trial.backup,
                    "verified backup {} of {}", trial.backup, trial.database
                );
            }
            Ok(())
        }
    }
}

/// Records and reports a failed verification. Records the intent first, so that a crash leaves no instance behind.
async fn fail(ctx: &JobCtx, job: &Job, trial: &Trial, reason: &Reason, damaged: bool) -> Result<(), StepError> {
    let tx = ctx.app.store.begin().await?;
    backups::record_trial_failure(&tx, trial.backup, reason, damaged).await?;
    if let Some(outbox) = ctx.app.outbox() {
        let now = ctx.app.clock.now();
        outbox.tell_of_failed_trial(&tx, now, trial.database, trial.backup, reason.explanation()).await?;
    }
    job.advance(&tx, TrialStep::Discard.name()).await?;
    tx.commit().await?;
    tracing::error!(
        database.id = %trial.database, backup.id = %trial.backup, workflow.id = %job.id, %reason,
        "verification of backup {} of {} failed; create another backup",
        trial.backup, trial.database
    );
    Ok(())
}

fn bytes_per_second(facts: &RestoreFacts) -> i64 {
    let speed = u128::from(facts.bytes) * 1000 / u128::from(facts.milliseconds.max(1));
    i64::try_from(speed).unwrap_or(i64::MAX)
}

/// Starts due verifications, one at a time. `every` is the time after which a database is due again.
pub async fn hold(ctx: Arc<JobCtx>, every: SignedDuration) {
    let tasks = ctx.app.tasks.clone();
    while !tasks.is_stopping() {
        if let Err(error) = start_due(&ctx, every).await {
            tracing::warn!(error = %describe(&error), "could not start the verification of a backup; retrying");
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

async fn start_due(ctx: &JobCtx, every: SignedDuration) -> Result<()> {
    let now = ctx.app.clock.now();
    let due = backups::due_for_trial(&ctx.app.store.session().await?, now - every, now).await?;
    if let Some((database, backup)) = due {
        let tx = ctx.app.store.begin().await?;
        backups::start_trial(&tx, now, database, backup).await?;
        tx.commit().await?;
    }
    Ok(())
}
