//! Operations: the workflows on databases, as their owners see them. The queue runs workflows; this module decides who
//! may see, cancel and retry them.

pub mod kinds;
mod store;

use jiff::Timestamp;
use uuid::Uuid;

use crate::audit::{self, Change, Resource};
use crate::{backups, databases, restores};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{DatabaseId, ProjectId, WorkflowId};
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};
pub use queue::State;

/// The status reason of a database whose creation was cancelled.
const CALLED_OFF: &str = "its creation was cancelled; retry the operation, or delete the database";

const BACKUP_CALLED_OFF: &str = "the backup was cancelled";

/// The work that a cancelled operation leaves unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The creation of a database.
    Database,
    /// The creation of a database from a backup or another database.
    Copy,
    /// A backup.
    Backup,
    /// A restore in place.
    Restore,
}

impl Undone {
    /// `None` for kinds that cannot be cancelled.
    fn of(kind: &str) -> Option<Self> {
        let kinds = [
            (databases::PROVISION, Self::Database),
            (databases::COPY, Self::Copy),
            (backups::BACK_UP, Self::Backup),
            (restores::RESTORE, Self::Restore),
        ];
        kinds.into_iter().find(|(known, _)| known.name == kind).map(|(_, undone)| undone)
    }
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The operation's ID.
    pub id: WorkflowId,
    /// The kind: a verb and a noun, such as `provision_database`.
    pub kind: String,
    /// The operation's state.
    pub state: State,
    /// The current or last step.
    pub step: String,
    /// The number of failed attempts at this step.
    pub attempts: i32,
    /// Why the step is being retried, or why the operation failed or was cancelled.
    pub reason: Option<String>,
    /// The progress of the step in bytes: done and total.
    pub progress: Option<(i64, i64)>,
    /// The database that the operation works on.
    pub database: DatabaseId,
    /// The database's name when the operation started.
    pub database_name: String,
    /// The database's project.
    pub project: ProjectId,
    /// When the operation started.
    pub created_at: Timestamp,
    /// When the operation last changed.
    pub updated_at: Timestamp,
    /// When the step is retried, during back-off.
    pub next_attempt_at: Option<Timestamp>,
    /// When the operation ended.
    pub ended_at: Option<Timestamp>,
    /// The database that the operation restores from, unless it was deleted.
    pub source: Option<DatabaseId>,
    /// Whether the backup that the operation restores is damaged.
    pub source_is_damaged: bool,
    /// Whether this is the last operation of an existing database.
    is_current: bool,
}

impl Operation {
    /// Whether the operation can be cancelled now.
    pub fn can_cancel(&self) -> bool {
        self.cancellation().is_ok()
    }

    /// The work that cancelling now leaves unfinished. A restore in place can be cancelled until the database is
    /// switched to the restored instance.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the operation has ended or cannot be cancelled.
    pub fn cancellation(&self) -> Result<Undone> {
        let undone = Undone::of(&self.kind).filter(|undone| match undone {
            Undone::Database | Undone::Copy | Undone::Backup => true,
            Undone::Restore => [restores::RESTORE.first_step, restores::TAKE_OVER].contains(&self.step.as_str()),
        });
        undone.filter(|_| !self.state.has_ended()).ok_or_else(|| cannot_cancel(self))
    }

    /// Whether the operation can be retried: it creates a database, failed or was cancelled, is the last operation of
    /// its database, and does not restore a damaged backup, which would fail again.
    pub fn can_retry(&self) -> bool {
        self.ended_badly() && self.is_current && self.creates_database() && !self.source_is_damaged
    }

    /// Whether only the damaged backup that the operation restores prevents a retry.
    pub fn needs_another_backup(&self) -> bool {
        self.ended_badly() && self.is_current && self.creates_database() && self.source_is_damaged
    }

    fn ended_badly(&self) -> bool {
        match self.state {
            State::Failed | State::Cancelled => true,
            State::Waiting | State::Running | State::Succeeded | State::Superseded => false,
        }
    }

    fn creates_database(&self) -> bool {
        matches!(Undone::of(&self.kind), Some(Undone::Database | Undone::Copy))
    }
}

/// Filters for operations, which must match all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only operations on this database, which may be deleted.
    pub database: Option<DatabaseId>,
    /// Only operations on databases of this project.
    pub project: Option<ProjectId>,
    /// Only operations in one of these states; all states if empty.
    pub states: Vec<State>,
}

/// Starts a workflow on a database, with the operation that its owner sees.
pub async fn start(tx: &Tx, now: Timestamp, kind: queue::Kind, database: DatabaseId) -> Result<WorkflowId> {
    let id = WorkflowId::generate(now);
    queue::start(tx, id, kind, database.uuid()).await?;
    store::insert(tx, id, database).await?;
    store::make_current(tx, id, database).await?;
    Ok(id)
}

/// Starts a workflow that does not change its database, such as a backup. The database keeps naming the operation that
/// changed it last.
pub async fn start_beside(
    tx: &Tx,
    now: Timestamp,
    kind: queue::Kind,
    database: DatabaseId,
    subject: Uuid,
) -> Result<WorkflowId> {
    let id = WorkflowId::generate(now);
    queue::start(tx, id, kind, subject).await?;
    store::insert(tx, id, database).await?;
    Ok(id)
}

/// The operation with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller cannot access it.
pub async fn get(session: &Session, actor: &Principal, id: WorkflowId) -> Result<Operation> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("operation", id))
}

/// The caller's operations, newest first. Operations are removed 30 days after they end.
pub async fn list(
    session: &Session,
    actor: &Principal,
    filter: &Filter,
    page: PageRequest<WorkflowId>,
) -> Result<Page<Operation>> {
    let rows = store::list(session, &actor.scope(), filter, page).await?;
    Ok(Page::cut(rows, page.limit, |operation| operation.id.bare()))
}

/// The operations on a database of the caller's, newest first.
///
/// # Errors
/// [`Error::NotFound`] for a database that the caller does not have.
pub async fn list_of_database(
    session: &Session,
    actor: &Principal,
    database: DatabaseId,
    page: PageRequest<WorkflowId>,
) -> Result<Page<Operation>> {
    databases::get(session, actor, database).await?;
    list(session, actor, &Filter { database: Some(database), ..Filter::default() }, page).await
}

/// Cancels an operation. A database that was being created gets the status `failure`, and can be retried or deleted; a
/// running backup fails; a database that was being restored in place keeps its data, and the operation ends when the
/// restored instance has been removed.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the caller's; [`Error::Conflict`] when it has ended, cannot
/// be cancelled, or is a restore that has switched instances or was cancelled before.
pub async fn cancel(tx: &Tx, actor: &Principal, now: Timestamp, id: WorkflowId) -> Result<Operation> {
    let before = lock(tx, actor, id).await?;
    let undone = before.cancellation()?;
    let called_off = match undone {
        Undone::Database | Undone::Copy => queue::cancel(tx, id, CALLED_OFF).await?,
        Undone::Backup => queue::cancel(tx, id, BACKUP_CALLED_OFF).await?,
        Undone::Restore => restores::call_off(tx, before.database, id).await?,
    };
    if !called_off {
        return Err(cannot_cancel(&before));
    }
    match undone {
        Undone::Database | Undone::Copy => databases::mark_failed(tx, before.database, CALLED_OFF).await?,
        Undone::Backup => backups::mark_failed(tx, before.database, BACKUP_CALLED_OFF).await?,
        Undone::Restore => {}
    }
    changed(tx, actor, now, "cancel_operation", &before).await
}

fn cannot_cancel(operation: &Operation) -> Error {
    let Operation { id, kind, step, state, .. } = operation;
    if state.has_ended() {
        return Error::conflict(
            format!("the operation {id} has already ended ({})", state.as_str()),
            "There is nothing to cancel. To undo a creation, delete the database.",
        );
    }
    match Undone::of(kind) {
        Some(Undone::Restore) => Error::conflict(
            format!("the operation {id} ({kind}) is at the step {step} and can no longer be cancelled"),
            "Wait until it ends: either the restored data is already in use, or the restore is already being undone.",
        ),
        Some(Undone::Database | Undone::Copy | Undone::Backup) | None => Error::conflict(
            format!("the operation {id} ({kind}) is of a kind that cannot be cancelled"),
            "Wait until it ends.",
        ),
    }
}

/// Retries an operation that failed or was cancelled. It continues with the step that it ended at.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the caller's; [`Error::Conflict`] when it is in another
/// state, not the last one of its database, or restores a damaged backup.
pub async fn retry(tx: &Tx, actor: &Principal, now: Timestamp, id: WorkflowId) -> Result<Operation> {
    let before = lock(tx, actor, id).await?;
    if before.needs_another_backup() {
        let backups = match before.source {
            Some(source) => format!("GET /v1/databases/{source}/backups lists them"),
            None => "the source database was deleted".to_owned(),
        };
        return Err(Error::conflict(
            format!("the operation {id} cannot be retried: its backup is damaged"),
            format!("Restore another backup instead ({backups}), and delete this database if it is not needed."),
        ));
    }
    let restarted =
        before.can_retry() && databases::mark_provisioning(tx, before.database).await? && queue::retry(tx, id).await?;
    if !restarted {
        return Err(Error::conflict(
            format!("the operation {id} cannot be retried: its state is {}", before.state.as_str()),
            "Only an operation that creates a database can be retried: the last operation of the database, after it \
             failed or was cancelled.",
        ));
    }
    changed(tx, actor, now, "retry_operation", &before).await
}

/// Locks the project and the database before the workflow, in the same order as steps that write their result.
async fn lock(tx: &Tx, actor: &Principal, id: WorkflowId) -> Result<Operation> {
    let operation = get(tx, actor, id).await?;
    actor.may_change()?;
    store::hold_project(tx, operation.project).await?;
    databases::hold(tx, operation.database).await?;
    get(tx, actor, id).await
}

async fn changed(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    action: &'static str,
    before: &Operation,
) -> Result<Operation> {
    let after = get(tx, actor, before.id).await?;
    let resource = Resource::new("operation", before.id, &before.kind);
    let state = |operation: &Operation| serde_json::json!({"state": operation.state.as_str()});
    let change = Change { action, resource, project: Some(before.project), before: None, after: None };
    let change = Change { before: Some(state(before)), after: Some(state(&after)), ..change };
    audit::record(tx, actor, now, change).await?;
    Ok(after)
}

/// Moves the operations of a project to its new workspace.
pub async fn follow_project(tx: &Tx, project: ProjectId) -> Result<()> {
    store::follow_project(tx, project).await
}
