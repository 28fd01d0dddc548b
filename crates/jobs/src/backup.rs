//! Backups of databases.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::database::from_engine;
use super::unknown;
use crate::context::JobCtx;
use base::error::{Result, describe};
use base::id::{DatabaseId, InstanceId};
use domain::backups::{self, ArchiveState, Held, Loss};
use domain::databases;
use engine::EngineError;
use engine::backups::{BackupError, BackupFacts, BackupKind, Gap, Obstacle, Progress, ProgressSink, Retention, Vault};
use queue::{Job, Reason, StepError};

/// How often to record the progress of a step.
const REPORT: Duration = Duration::from_secs(1);

const UNREACHABLE: &str = "the backup storage is not responding; Howdah is retrying; details are in the server's log";
const OTHER: &str = "it failed, and Howdah is retrying; the reason is in the server's log";
const FULL: &str = "the backup storage is full; Howdah is retrying until the operator frees space";
const REFUSED: &str = "the backup storage refuses access; the operator has to check its settings";
const WRONG_PLACE: &str =
    "the backup storage is missing or was replaced by another one; the operator has to restore it";
const AHEAD: &str = "the newest backup is dated in the future, because the server's clock was ahead when it was created; \
                     the next backup can be created after that time, or after a restore in place";
const NOT_INSTALLED: &str =
    "pgBackRest is not installed on the server; Howdah is retrying until the operator installs it";
const OCCUPIED: &str = "another backup or restore of the same database is running; this one continues after it";
const INTERRUPTED: &str = "it was interrupted and is restarting";
const UNCLEAN: &str = "the instance to back up does not start; details are in the server's log";
const DAMAGED: &str = "the backup is damaged; choose another backup";
const MISSING: &str = "the backup no longer exists; choose another backup";
const GAP: &str =
    "changes between the backup and the requested moment were lost; choose a later backup or an earlier moment";
const LOST: &str = "WAL was written faster than it could be archived, and WAL that the backup needs was discarded; the \
                    backup is restarting";
const BEFORE: &str = "the requested moment is before the end of the backup; choose an earlier backup";
const NOT_WHOLE: &str = "tables or indexes in the backup are damaged; details are in the server's log";
const NO_CHECK: &str = "pg_amcheck is not installed on the server; Howdah is retrying until the operator installs it";
const REPLACED: &str = "the database was restored during the backup; create another backup";

/// The steps of `back_up_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackUpStep {
    /// Copy the instance's files and the WAL that the backup needs to the repository.
    CopyFiles,
    /// Update the list of backups from the repository.
    Record,
}

impl BackUpStep {
    /// All steps, in order.
    pub const ALL: [Self; 2] = [Self::CopyFiles, Self::Record];

    /// The step's name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::CopyFiles => backups::BACK_UP.first_step,
            Self::Record => "record",
        }
    }
}

/// Runs one step of `back_up_database`.
pub async fn back_up(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    let plan = databases::plan(&store.session().await?, job.subject.into()).await?;
    let Some(plan) = plan.filter(|plan| plan.deleted_at.is_none()) else {
        let tx = store.begin().await?;
        backups::mark_failed(&tx, job.subject.into(), "the database was deleted during the backup").await?;
        job.give_way(&tx).await?;
        return Ok(tx.commit().await?);
    };
    match BackUpStep::ALL.into_iter().find(|known| known.name() == step) {
        Some(BackUpStep::CopyFiles) => {
            let Some(backup) = backups::running(&store.session().await?, plan.id).await? else {
                let tx = store.begin().await?;
                job.succeed(&tx).await?;
                return Ok(tx.commit().await?);
            };
            if plan.instance != Some(backup.instance) {
                return Err(StepError::Fail(Reason::new("the instance was replaced during the backup", REPLACED)));
            }
            let (vault, _) = open_vault(ctx, backup.instance).await?;
            let there = ctx.instances.backups(&vault).await.map_err(from_backup)?;
            let labels: Vec<&str> = there.iter().map(|facts| facts.label.as_str()).collect();
            if backup.labels_before.is_none() {
                backups::mark_begun(&store.session().await?, backup.id, &labels).await?;
            }
            // A backup that was not there when this step began is its own: a previous worker died before recording
            // it. A backup whose WAL is missing does not count.
            let is_own = |facts: &BackupFacts| {
                let before = backup.labels_before.as_ref();
                before.is_some_and(|before| !before.iter().any(|label| label == facts.label.as_str()))
            };
            let facts = match there.iter().find(|facts| facts.restorable && is_own(facts)).cloned() {
                Some(facts) => facts,
                None => {
                    let kind = kind_of(backup.kind);
                    let made = reporting(ctx, job, |progress| ctx.instances.back_up(&vault, kind, progress)).await;
                    // The fault mostly affects archiving too: record it now, so that the list of backups shows it.
                    if made.is_err()
                        && let Err(error) = look_at_archive(ctx, backup.instance).await
                    {
                        tracing::debug!(instance.id = %backup.instance, %error, "could not check the archiving of an instance");
                    }
                    made.map_err(from_backup)?
                }
            };
            let tx = store.begin().await?;
            backups::mark_completed(&tx, &backup, ctx.app.clock.now(), &held(&facts)).await?;
            job.advance(&tx, BackUpStep::Record.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(BackUpStep::Record) => {
            if let Some(instance) = plan.instance {
                list_what_is_held(ctx, instance).await?;
            }
            let tx = store.begin().await?;
            job.succeed(&tx).await?;
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", step)),
    }
}

/// Creates a full backup of a database for another workflow that needs one.
pub(super) async fn back_up_whole(
    ctx: &JobCtx,
    job: &Job,
    database: DatabaseId,
    instance: InstanceId,
) -> Result<(), StepError> {
    try_to_back_up_whole(ctx, job, database, instance).await?.map_err(from_backup)
}

/// The same, for a workflow that continues without a backup if none can be created.
pub(super) async fn try_to_back_up_whole(
    ctx: &JobCtx,
    job: &Job,
    database: DatabaseId,
    instance: InstanceId,
) -> Result<Result<(), BackupError>, StepError> {
    let store = &ctx.app.store;
    let tx = store.begin().await?;
    backups::ensure_vault(&tx, ctx.app.clock.now(), &ctx.app.keyring, database, instance).await?;
    tx.commit().await?;
    let (vault, known) = open_vault(ctx, instance).await?;
    let backed_up = reporting(ctx, job, |progress| ctx.instances.back_up(&vault, BackupKind::Full, progress));
    let facts = match backed_up.await {
        Ok(facts) => facts,
        Err(error) => return Ok(Err(error)),
    };
    let tx = store.begin().await?;
    backups::add(&tx, &known, ctx.app.clock.now(), &held(&facts)).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

/// Removes expired backups from a repository.
pub(super) async fn expire(ctx: &JobCtx, instance: InstanceId, days: i32) -> Result<(), StepError> {
    let (vault, _) = open_vault(ctx, instance).await?;
    let retention = Retention { days: days.max(1).unsigned_abs() };
    match ctx.instances.expire(&vault, retention).await {
        // Retried in the next round.
        Ok(()) | Err(BackupError::Busy(_) | BackupError::MissingVault(_)) => Ok(()),
        Err(error) => Err(from_backup(error)),
    }
}

/// Updates the list of backups from the repository.
pub(super) async fn list_what_is_held(ctx: &JobCtx, instance: InstanceId) -> Result<(), StepError> {
    let (vault, known) = open_vault(ctx, instance).await?;
    let there = match ctx.instances.backups(&vault).await {
        Ok(there) => there,
        Err(BackupError::MissingVault(_)) => Vec::new(),
        Err(error) => return Err(from_backup(error)),
    };
    let held: Vec<Held> = there.iter().filter(|facts| facts.restorable).map(held).collect();
    let tx = ctx.app.store.begin().await?;
    backups::sync(&tx, &known, ctx.app.clock.now(), &held).await?;
    tx.commit().await?;
    look_at_archive(ctx, instance).await
}

/// Records the archiving state of an instance.
pub(super) async fn look_at_archive(ctx: &JobCtx, instance: InstanceId) -> Result<(), StepError> {
    let status = match ctx.instances.archive_status(instance).await {
        Ok(status) => status,
        // A repository can outlive its instance.
        Err(BackupError::MissingVault(_) | BackupError::Engine(EngineError::Missing(_))) => return Ok(()),
        Err(error) => return Err(from_backup(error)),
    };
    let state = ArchiveState {
        archived_until: status.archived_until,
        failing_since: status.failing_since,
        failing_reason: status.obstacle.map(|obstacle| explain(obstacle).to_owned()),
        waiting: i64::try_from(status.pending_bytes).unwrap_or(i64::MAX),
        lost: status.gaps.into_iter().map(loss).collect(),
    };
    let now = ctx.app.clock.now();
    Ok(backups::record_archive(&ctx.app.store.session().await?, instance, now, &state).await?)
}

fn loss(gap: Gap) -> Loss {
    Loss { from: gap.archived_until, until: gap.at, last_segment: Some(gap.last_segment) }
}

fn explain(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NotInstalled => NOT_INSTALLED,
        Obstacle::Full => FULL,
        Obstacle::Refused => REFUSED,
        Obstacle::WrongPlace => WRONG_PLACE,
        Obstacle::Unreachable => UNREACHABLE,
        Obstacle::Other => OTHER,
    }
}

/// The repository of an instance, as the engine's type and as the domain's type.
pub(super) async fn open_vault(ctx: &JobCtx, instance: InstanceId) -> Result<(Vault, backups::Vault), StepError> {
    let known = backups::vault(&ctx.app.store.session().await?, &ctx.app.keyring, instance).await?;
    let known = known.ok_or_else(|| {
        StepError::Fail(Reason::new(format!("the instance {instance} has no vault in the metadata store"), MISSING))
    })?;
    Ok((engine_vault(&known), known))
}

/// A repository as the engine's type.
pub(super) fn engine_vault(known: &backups::Vault) -> Vault {
    Vault { instance: known.instance, key: known.key.clone() }
}

/// Runs work that reports its progress, and records the progress once a second.
pub(super) async fn reporting<T, Work: Future<Output = T>>(
    ctx: &JobCtx,
    job: &Job,
    work: impl FnOnce(ProgressSink) -> Work,
) -> T {
    let (sender, receiver) = watch::channel(None::<Progress>);
    let work = work(Arc::new(move |progress| {
        sender.send_replace(Some(progress));
    }));
    let report = async {
        loop {
            tokio::time::sleep(REPORT).await;
            let progress = *receiver.borrow();
            if let Some(Progress { done, total }) = progress
                && let Err(error) = job.report(&ctx.app.store, done, total).await
            {
                tracing::debug!(error = %describe(&error), "could not record the progress of {}", job.id);
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = report => never,
    }
}

/// The domain's record of a backup in the repository.
pub(super) fn held(facts: &BackupFacts) -> Held {
    Held {
        label: facts.label.as_str().to_owned(),
        kind: match facts.kind {
            BackupKind::Full => backups::Kind::Full,
            BackupKind::Differential => backups::Kind::Differential,
            BackupKind::Incremental => backups::Kind::Incremental,
        },
        started_at: facts.started_at,
        completed_at: facts.stopped_at,
        size: i64::try_from(facts.size).unwrap_or(i64::MAX),
        first_segment: facts.first_segment.clone(),
    }
}

fn kind_of(kind: backups::Kind) -> BackupKind {
    match kind {
        backups::Kind::Full => BackupKind::Full,
        backups::Kind::Differential => BackupKind::Differential,
        backups::Kind::Incremental => BackupKind::Incremental,
    }
}

/// Damage and losses are permanent, so they fail the workflow; other errors are retried.
pub(super) fn from_backup(error: BackupError) -> StepError {
    let reason = |explanation| Reason::new(error.to_string(), explanation);
    match error {
        BackupError::Engine(error) => from_engine(error),
        BackupError::NotInstalled => StepError::Wait(reason(NOT_INSTALLED)),
        BackupError::Busy(_) => StepError::Wait(reason(OCCUPIED)),
        BackupError::MissingBackup(_) | BackupError::MissingVault(_) => StepError::Fail(reason(MISSING)),
        BackupError::Damaged(_) => StepError::Fail(reason(DAMAGED)),
        BackupError::Corrupt(_) => StepError::Fail(reason(NOT_WHOLE)),
        BackupError::CheckMissing(_) => StepError::Wait(reason(NO_CHECK)),
        BackupError::Gap(_) => StepError::Fail(reason(GAP)),
        BackupError::Lost => StepError::Retry(reason(LOST)),
        BackupError::Foreign(ref why) => {
            StepError::Fail(Reason::new(error.to_string(), format!("the database cannot be backed up: {why}")))
        }
        BackupError::BeforeBackup => StepError::Fail(reason(BEFORE)),
        BackupError::Interrupted => StepError::Retry(reason(INTERRUPTED)),
        BackupError::Unclean => StepError::Retry(reason(UNCLEAN)),
        BackupError::Full { .. } => StepError::Retry(reason(FULL)),
        BackupError::Refused { .. } => StepError::Retry(reason(REFUSED)),
        BackupError::WrongPlace(_) => StepError::Retry(reason(WRONG_PLACE)),
        BackupError::ClockWasAhead(_) => StepError::Fail(reason(AHEAD)),
        BackupError::Unreachable { .. } => StepError::Retry(reason(UNREACHABLE)),
        BackupError::Failed { .. } => StepError::Retry(reason(OTHER)),
    }
}
