//! Restores from a backup, to a new database or in place, to the end of a backup or to a moment; and copies of the
//! current state of a database, which use the same steps.
//!
//! A restore always creates a new instance. A restore in place switches the database to it, and keeps the previous
//! instance until the new one accepts connections.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::backups::{self, Backup};
use crate::databases::{self, Database, Status};
use crate::{operations, usage};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{BackupId, DatabaseId, InstanceId, WorkflowId};
use base::store::{Channel, Session, Tx};
use queue::Reason;

/// Restores a database in place.
pub const RESTORE: queue::Kind = queue::Kind { name: "restore_database", first_step: "restore_instance" };
/// The step of a restore in place that switches the database to the restored instance.
pub const TAKE_OVER: &str = "take_over";
/// The step of a failed or cancelled restore in place that removes the restored instance.
pub const DISCARD_RESTORED: &str = "discard_restored";

/// The source of a restore, as a caller names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A backup: its end, or a later moment.
    Backup {
        /// The backed-up database.
        database: DatabaseId,
        /// The backup.
        backup: BackupId,
        /// A moment after the end of the backup.
        to: Option<Timestamp>,
    },
    /// A database in its current state, or at a moment.
    Database {
        /// The database.
        database: DatabaseId,
        /// The moment.
        to: Option<Timestamp>,
    },
}

/// A checked source.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `backup` or `database`.
    pub source_type: SourceType,
    /// The source database.
    pub source_database: DatabaseId,
    /// The backup to restore; `None` for a copy of the current state.
    pub backup: Option<BackupId>,
    /// The moment to restore to.
    pub target_time: Option<Timestamp>,
}

/// The type of the source of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// No source: created empty.
    Empty,
    /// A backup.
    Backup,
    /// Another database.
    Database,
}

impl SourceType {
    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Backup => "backup",
            Self::Database => "database",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Empty, Self::Backup, Self::Database].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A running restore, for its workflow.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The database that is created or restored.
    pub database: DatabaseId,
    /// The source database.
    pub source_database: DatabaseId,
    /// The backup to restore, once it is chosen.
    pub backup: Option<BackupId>,
    /// The moment to restore to.
    pub target_time: Option<Timestamp>,
    /// The new instance.
    pub instance: InstanceId,
    /// Whether Howdah chose the backup for the moment, and may choose another one.
    pub any_backup: bool,
    /// In place: the previous instance.
    pub replaced: Option<InstanceId>,
    /// In place: why the restore failed.
    pub failure: Option<Reason>,
}

/// Checks a source that a caller named. A deleted database is accepted while it can be restored.
///
/// # Errors
/// [`Error::NotFound`] for a database that the caller does not have, or a backup that it does not have;
/// [`Error::Conflict`] when the backup is not complete; [`Error::Invalid`] for a moment that
/// cannot be restored.
pub async fn resolve(tx: &Tx, actor: &Principal, now: Timestamp, source: &Source) -> Result<Recipe> {
    let (Source::Backup { database, .. } | Source::Database { database, .. }) = source;
    let Some(kept) = store::find_source(tx, &actor.scope(), *database).await? else {
        return Err(Error::not_found("database", database));
    };
    actor.may_change()?;
    let window = backups::window(tx, *database, now).await?;
    match source {
        Source::Backup { backup, to, .. } => {
            let found = usable(tx, *database, *backup).await?;
            if let Some(moment) = to {
                window.check(&found, *moment)?;
            }
            Ok(Recipe {
                source_type: SourceType::Backup,
                source_database: *database,
                backup: Some(*backup),
                target_time: *to,
            })
        }
        Source::Database { to, .. } => {
            // A deleted database is restored to its last moment; an existing one can be backed up first.
            let moment = if kept.deleted { Some(to.or_else(|| window.end()).unwrap_or(now)) } else { *to };
            let backup = match moment {
                Some(moment) => Some(window.backup_for(moment)?.id),
                None if kept.status == Status::Ready => None,
                None => {
                    return Err(Error::conflict(
                        format!("the database {database} is {}", kept.status.as_str()),
                        "Only databases with the status ready can be copied.",
                    ));
                }
            };
            Ok(Recipe { source_type: SourceType::Database, source_database: *database, backup, target_time: moment })
        }
    }
}

async fn usable(tx: &Tx, database: DatabaseId, id: BackupId) -> Result<Backup> {
    let backup = backups::find(tx, database, id).await?.ok_or_else(|| Error::not_found("backup", id))?;
    match backup.state {
        backups::State::Completed => Ok(backup),
        backups::State::Running | backups::State::Failed => Err(Error::conflict(
            format!("the backup {id} is {}", backup.state.as_str()),
            "Only completed backups can be restored; GET /v1/databases/{databaseId}/backups lists them.",
        )),
    }
}

/// Records the source of a new database, as part of creating it.
pub async fn plan_new(tx: &Tx, database: DatabaseId, instance: InstanceId, recipe: &Recipe) -> Result<()> {
    store::insert(tx, database, instance, recipe, None).await?;
    store::set_source(tx, database, recipe).await
}

/// Starts a restore in place. Connections and credentials are kept; sessions are closed when the database is switched
/// to the restored instance.
///
/// # Errors
/// Those of [`resolve`]; [`Error::NotFound`] when the caller has no such database;
/// [`Error::Conflict`] while it is being made or restored, or something else is under way on it.
pub async fn start_in_place(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    target: DatabaseId,
    source: &Source,
) -> Result<(Database, WorkflowId)> {
    let before = databases::get(tx, actor, target).await?;
    actor.may_change()?;
    let recipe = Recipe { source_type: SourceType::Backup, ..resolve(tx, actor, now, source).await? };
    let status = store::lock_status(tx, target).await?.ok_or_else(|| Error::not_found("database", target))?;
    if status == Status::Provisioning || status == Status::Recovering {
        return Err(Error::conflict(
            format!("the database {target} is {}", status.as_str()),
            "Wait until the operation in its operationId ends, then restore the database.",
        ));
    }
    if store::find(tx, target).await?.is_some() {
        return Err(if status == Status::Failure {
            Error::conflict(
                format!("the database {target} was never created"),
                "Retry the operation in its operationId, or delete the database and create another one.",
            )
        } else {
            Error::conflict(
                format!("the last restore of the database {target} has not finished"),
                "Wait until the operation in its operationId ends, then restore the database.",
            )
        });
    }
    store::insert(tx, target, InstanceId::generate(now), &recipe, Some(status)).await?;
    store::set_status(tx, target, Status::Recovering).await?;
    let operation = operations::start(tx, now, RESTORE, target).await?;
    tx.announce(Channel::DatabaseChanged, &target.bare()).await?;
    // The stored source changes when the restored instance is verified; the response already shows the new source.
    let after = Database {
        source: recipe.source_type,
        source_database: Some(recipe.source_database),
        source_backup: recipe.backup,
        ..databases::get(tx, actor, target).await?
    };
    let change = Change {
        action: "restore_database",
        resource: Resource::new("database", target, &before.name),
        project: Some(before.project),
        before: None,
        after: Some(serde_json::json!({
            "source": recipe.source_type.as_str(),
            "databaseId": recipe.source_database.to_string(),
            "backupId": recipe.backup.map(|id| id.to_string()),
            "targetTime": recipe.target_time.map(base::clock::format_timestamp),
        })),
    };
    audit::record(tx, actor, now, change).await?;
    Ok((after, operation))
}

/// Records the recovery of a database, whose instance was lost, from its own backup repositories. If the recovery
/// fails, its status becomes `failure`.
pub async fn plan_recovery(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<()> {
    let recipe =
        Recipe { source_type: SourceType::Database, source_database: database, backup: None, target_time: None };
    store::insert(tx, database, instance, &recipe, Some(Status::Failure)).await?;
    store::set_status(tx, database, Status::Recovering).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// Restarts a restore in place with a new instance, after both the restored and the previous instance were lost.
pub async fn begin_anew(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<()> {
    store::begin_anew(tx, database, instance).await?;
    store::set_status(tx, database, Status::Recovering).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// The running restore of a database, if any.
pub async fn find(session: &Session, database: DatabaseId) -> Result<Option<Restore>> {
    store::find(session, database).await
}

/// The instance of a database to copy; `None` if it is gone.
pub async fn source_instance(session: &Session, database: DatabaseId) -> Result<Option<InstanceId>> {
    store::source_instance(session, database).await
}

/// Records another backup to restore, after the first one was found to be damaged.
pub async fn choose_backup(tx: &Tx, database: DatabaseId, backup: BackupId) -> Result<()> {
    store::choose_backup(tx, database, backup).await
}

/// Switches the database to the restored instance, and closes the backup repository of the previous one, which is kept
/// until [`finish`].
pub async fn swap(tx: &Tx, now: Timestamp, restore: &Restore) -> Result<()> {
    // The same order of locks as in a cancellation: the opposite order would deadlock.
    databases::hold(tx, restore.database).await?;
    if let Some(replaced) = store::swap(tx, restore.database, restore.instance).await? {
        backups::close_vault(tx, replaced, now).await?;
        usage::begin_anew(tx, restore.database).await?;
    }
    tx.announce(Channel::DatabaseChanged, &restore.database.bare()).await
}

/// Records the new source of a database after the restored instance was verified.
pub async fn settle(tx: &Tx, database: DatabaseId) -> Result<()> {
    store::settle_source(tx, database).await
}

/// Removes the record of a restore that has ended and is cleaned up.
pub async fn finish(tx: &Tx, database: DatabaseId) -> Result<()> {
    store::remove(tx, database).await
}

/// Records that a restore in place failed, before it is undone.
pub async fn give_up(tx: &Tx, database: DatabaseId, reason: &Reason) -> Result<()> {
    store::give_up(tx, database, reason).await
}

/// Switches the database back after a failed restore in place, and records the reason. The restored instance still
/// has to be removed; [`finish`] follows.
pub async fn put_back(tx: &Tx, database: DatabaseId, reason: Option<&str>) -> Result<()> {
    databases::hold(tx, database).await?;
    store::put_back(tx, database, reason).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// Cancels a restore in place before the switch, as part of cancelling its operation: the database keeps its data, and
/// the workflow removes the restored instance. Returns false if the workflow has ended.
pub async fn call_off(tx: &Tx, database: DatabaseId, operation: WorkflowId) -> Result<bool> {
    put_back(tx, database, None).await?;
    queue::divert(tx, operation, DISCARD_RESTORED).await
}

/// All instances of running restores that do not belong to a database.
pub async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    store::instances(session).await
}

/// The source of a restore, deleted or not.
pub(super) struct Kept {
    status: Status,
    deleted: bool,
}
