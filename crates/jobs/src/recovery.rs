//! Recovery of a database that was lost with its machine, from its backup repositories.

use super::backup::{engine_vault, from_backup, held, reporting};
use super::database::prove;
use super::unknown;
use crate::context::JobCtx;
use base::error::Result;
use base::id::DatabaseId;
use domain::backups;
use domain::databases;
use domain::recoveries::RECOVER;
use domain::restores::{self, Restore};
use engine::backups::{BackupError, BackupFacts, RecoverTo};
use queue::{Job, Reason, StepError};

const NO_BACKUP: &str = "its machine was lost before its first backup was complete";
const DAMAGED: &str = "its machine was lost, and its backups are damaged";

/// The steps of `recover_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverStep {
    /// Restore the latest archived state into a new instance, and assign it to the database.
    RestoreInstance,
    /// Run SQL through the gateway's listening address, mark the database as ready, and create the first backup of
    /// the new instance.
    ProveReady,
}

impl RecoverStep {
    /// All steps, in order.
    pub const ALL: [Self; 2] = [Self::RestoreInstance, Self::ProveReady];

    /// The step's name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::RestoreInstance => RECOVER.first_step,
            Self::ProveReady => "prove_ready",
        }
    }
}

/// Runs one step of `recover_database`. Retried without a deadline while there are backups: the storage may become
/// available again, and there is no other copy.
pub async fn recover(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
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
                Some(_) => job.succeed(&tx).await?,
                None => job.give_way(&tx).await?,
            }
            return Ok(tx.commit().await?);
        }
    };
    match RecoverStep::ALL.into_iter().find(|known| known.name() == step) {
        Some(RecoverStep::RestoreInstance) => {
            bring_back_newest(ctx, job, &restore).await?;
            let tx = store.begin().await?;
            restores::swap(&tx, ctx.app.clock.now(), &restore).await?;
            job.advance(&tx, RecoverStep::ProveReady.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(RecoverStep::ProveReady) => {
            prove(ctx, &plan).await?;
            let tx = store.begin().await?;
            databases::mark_ready(&tx, plan.id).await?;
            restores::finish(&tx, plan.id).await?;
            job.succeed(&tx).await?;
            databases::back_up_now(&tx, ctx.app.clock.now(), &ctx.app.keyring, plan.id).await?;
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", step)),
    }
}

/// Restores the newest sound backup, and tries damaged backups last. Reads the repositories, because the list in the
/// store may be a minute older. Without a backup in one repository, the previous one is used.
async fn bring_back_newest(ctx: &JobCtx, job: &Job, restore: &Restore) -> Result<(), StepError> {
    let database = restore.database;
    let vaults = backups::vaults(&ctx.app.store.session().await?, &ctx.app.keyring, database).await?;
    let mut damage = None;
    for (eras_back, known) in vaults.iter().rev().enumerate() {
        let vault = engine_vault(known);
        let there = match ctx.instances.backups(&vault).await {
            Ok(there) => there,
            Err(error @ BackupError::Damaged(_)) => {
                damage = Some(note(database, &error));
                continue;
            }
            Err(error) => return Err(from_backup(error)),
        };
        let whole: Vec<_> = there.into_iter().filter(|facts| facts.restorable).collect();
        let listed: Vec<_> = whole.iter().map(held).collect();
        let tx = ctx.app.store.begin().await?;
        backups::sync(&tx, known, ctx.app.clock.now(), &listed).await?;
        let known_damaged = backups::damaged(&tx, known.instance).await?;
        tx.commit().await?;
        let is_damaged = |facts: &&BackupFacts| known_damaged.iter().any(|label| label == facts.label.as_str());
        let (damaged, sound): (Vec<_>, Vec<_>) = whole.iter().rev().partition(is_damaged);
        // Without its later WAL, a backup can still be restored to its end.
        let ways = sound
            .into_iter()
            .chain(damaged)
            .flat_map(|facts| [(facts, RecoverTo::Latest), (facts, RecoverTo::Immediate)]);
        for (facts, to) in ways {
            let restored = reporting(ctx, job, |progress| {
                ctx.instances.restore(restore.instance, &vault, &facts.label, to, progress)
            });
            match restored.await {
                Ok(_) => {
                    if eras_back > 0 {
                        tracing::warn!(
                            database.id = %database,
                            "recovered {database} to its state before the last restore in place: it was lost before the \
                             first backup after that restore"
                        );
                    }
                    return Ok(());
                }
                Err(error @ (BackupError::Damaged(_) | BackupError::Gap(_) | BackupError::MissingBackup(_))) => {
                    damage = Some(note(database, &error));
                }
                Err(error) => return Err(from_backup(error)),
            }
        }
    }
    Err(StepError::Fail(match damage {
        Some(cause) => Reason::new(cause, DAMAGED),
        None => Reason::new("its backup repositories contain no complete backup", NO_BACKUP),
    }))
}

fn note(database: DatabaseId, error: &BackupError) -> String {
    tracing::warn!(database.id = %database, %error, "a backup of {database} cannot be restored; trying an older one");
    error.to_string()
}
