//! Restores: the ways back from a backup, to a new database or in place, to the end of a backup or to
//! a moment; and copies of a database as it is, which go the same way.
//!
//! A restore always makes another instance. In place, it takes over from the database's own one when
//! it has proved itself, and that one is kept until then.

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

/// Brings a database back to what it was, in place.
pub const RESTORE: queue::Kind = queue::Kind { name: "restore_database", first_step: "restore_instance" };
/// The step of a restore in place after which the restored instance is the database's.
pub const TAKE_OVER: &str = "take_over";
/// The step in which a restore in place that was given up removes what it has restored.
pub const DISCARD_RESTORED: &str = "discard_restored";

/// What a database is to be made from, or brought back to, as a caller names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A backup: its end, or a later moment.
    Backup {
        /// The database that it is of.
        database: DatabaseId,
        /// The backup.
        backup: BackupId,
        /// A moment after the backup's end.
        to: Option<Timestamp>,
    },
    /// A database as it is now, or as it was at a moment.
    Database {
        /// The database.
        database: DatabaseId,
        /// The moment.
        to: Option<Timestamp>,
    },
}

/// A source that was checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `backup` or `database`.
    pub source_type: SourceType,
    /// The database that it comes from.
    pub source_database: DatabaseId,
    /// The backup to begin with; `None` for a copy of what a database is now.
    pub backup: Option<BackupId>,
    /// The moment to get to.
    pub target_time: Option<Timestamp>,
}

/// What kind of thing a database was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// Nothing.
    Empty,
    /// A backup.
    Backup,
    /// Another database.
    Database,
}

impl SourceType {
    /// Its word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Backup => "backup",
            Self::Database => "database",
        }
    }

    /// Reads its word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Empty, Self::Backup, Self::Database].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A restore under way, as its workflow sees it.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The database that is made or brought back.
    pub database: DatabaseId,
    /// The database that it comes from.
    pub source_database: DatabaseId,
    /// The backup to begin with, once it is chosen.
    pub backup: Option<BackupId>,
    /// The moment to get to.
    pub target_time: Option<Timestamp>,
    /// The instance that it is restored into.
    pub instance: InstanceId,
    /// Howdah chose the backup for the moment, and may choose another one.
    pub any_backup: bool,
    /// In place: the instance that was the database's before.
    pub replaced: Option<InstanceId>,
    /// In place: why it is given up, when it is.
    pub failure: Option<Reason>,
}

/// Checks a source that a caller named. The database may be deleted, as long as it is kept.
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
            // A database that is gone is as it was last; one that is there can be backed up first.
            let moment = if kept.deleted { Some(to.or_else(|| window.end()).unwrap_or(now)) } else { *to };
            let backup = match moment {
                Some(moment) => Some(window.backup_for(moment)?.id),
                None if kept.status == Status::Ready => None,
                None => {
                    return Err(Error::conflict(
                        format!("the database {database} is {}", kept.status.as_str()),
                        "Only a database that is ready can be copied.",
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
            "Only a completed backup can be restored; GET the database's backups to see which are.",
        )),
    }
}

/// Records that a new database is made from this; part of creating it.
pub async fn plan_new(tx: &Tx, database: DatabaseId, instance: InstanceId, recipe: &Recipe) -> Result<()> {
    store::insert(tx, database, instance, recipe, None).await?;
    store::set_source(tx, database, recipe).await
}

/// Begins to bring a database back, in place. Its connections and credentials stay; its sessions end
/// when the restored instance takes over.
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
            "Wait until that has ended, and restore it then; its operationId says how it stands.",
        ));
    }
    if store::find(tx, target).await?.is_some() {
        return Err(if status == Status::Failure {
            Error::conflict(
                format!("the database {target} was never made"),
                "Retry the operation that its operationId names, or delete it and make another one.",
            )
        } else {
            Error::conflict(
                format!("the last restore of the database {target} is being finished"),
                "Wait until the operation that its operationId names has ended, and restore it then.",
            )
        });
    }
    store::insert(tx, target, InstanceId::generate(now), &recipe, Some(status)).await?;
    store::set_status(tx, target, Status::Recovering).await?;
    let operation = operations::start(tx, now, RESTORE, target).await?;
    tx.announce(Channel::DatabaseChanged, &target.bare()).await?;
    // What it comes from changes when the restored instance has been proven; the answer says what is wanted.
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

/// Records that a database is to be brought back from its own vaults, since its instance was lost.
/// If that cannot be done it stands at `failure`.
pub async fn plan_recovery(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<()> {
    let recipe =
        Recipe { source_type: SourceType::Database, source_database: database, backup: None, target_time: None };
    store::insert(tx, database, instance, &recipe, Some(Status::Failure)).await?;
    store::set_status(tx, database, Status::Recovering).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// Lets a restore in place begin anew, into another instance: what it had restored so far was lost, and
/// so was what it would have put back.
pub async fn begin_anew(tx: &Tx, database: DatabaseId, instance: InstanceId) -> Result<()> {
    store::begin_anew(tx, database, instance).await?;
    store::set_status(tx, database, Status::Recovering).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// The restore under way of a database, if there is one.
pub async fn find(session: &Session, database: DatabaseId) -> Result<Option<Restore>> {
    store::find(session, database).await
}

/// The instance of a database whose copy is wanted, as it is now; `None` when it is gone.
pub async fn source_instance(session: &Session, database: DatabaseId) -> Result<Option<InstanceId>> {
    store::source_instance(session, database).await
}

/// Records the backup to begin with, after the one that was chosen first has turned out to be damaged.
pub async fn choose_backup(tx: &Tx, database: DatabaseId, backup: BackupId) -> Result<()> {
    store::choose_backup(tx, database, backup).await
}

/// Lets the restored instance take over, in place: from the commit on the database is that one, and
/// nothing comes into the vault of the old one any more. The old instance is kept until
/// [`finish`].
pub async fn swap(tx: &Tx, now: Timestamp, restore: &Restore) -> Result<()> {
    // As when the restore is cancelled: two orders would be a deadlock.
    databases::hold(tx, restore.database).await?;
    if let Some(replaced) = store::swap(tx, restore.database, restore.instance).await? {
        backups::close_vault(tx, replaced, now).await?;
        usage::begin_anew(tx, restore.database).await?;
    }
    tx.announce(Channel::DatabaseChanged, &restore.database.bare()).await
}

/// The restored instance has been proven, in place: from now on the database is what comes from there.
pub async fn settle(tx: &Tx, database: DatabaseId) -> Result<()> {
    store::settle_source(tx, database).await
}

/// Forgets a restore that has ended, and of which nothing is left that nobody needs.
pub async fn finish(tx: &Tx, database: DatabaseId) -> Result<()> {
    store::remove(tx, database).await
}

/// Records that a restore in place is given up, before anything of it is undone.
pub async fn give_up(tx: &Tx, database: DatabaseId, reason: &Reason) -> Result<()> {
    store::give_up(tx, database, reason).await
}

/// The database is what it was before a restore in place that was given up, with the reason beside it.
/// The restored instance, which nobody uses any more, is still to be removed; [`finish`] follows.
pub async fn put_back(tx: &Tx, database: DatabaseId, reason: Option<&str>) -> Result<()> {
    databases::hold(tx, database).await?;
    store::put_back(tx, database, reason).await?;
    tx.announce(Channel::DatabaseChanged, &database.bare()).await
}

/// Calls off a restore in place that has not taken over, as part of cancelling its operation: the
/// database is at once what it was before, and the workflow removes what it has restored. False when
/// the workflow has ended.
pub async fn call_off(tx: &Tx, database: DatabaseId, operation: WorkflowId) -> Result<bool> {
    put_back(tx, database, None).await?;
    queue::divert(tx, operation, DISCARD_RESTORED).await
}

/// Every instance that a restore is at work on, besides those that databases have.
pub async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    store::instances(session).await
}

/// The source of a restore, deleted or not.
pub(super) struct Kept {
    status: Status,
    deleted: bool,
}
