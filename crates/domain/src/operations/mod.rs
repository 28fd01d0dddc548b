//! Operations: workflows as the owners of what they work on see them. How a workflow runs is the
//! queue's; here is who may see it, call it off, and have it tried again.

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

/// What the owner of a database reads after its making was called off.
const CALLED_OFF: &str = "its making was cancelled; retry the operation, or delete the database";

const BACKUP_CALLED_OFF: &str = "it was cancelled";

/// What a cancelled operation leaves undone.
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
    /// `None`: operations of this kind go through, or fail by themselves.
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
    /// Its id.
    pub id: WorkflowId,
    /// What it does: a verb and a noun, such as `provision_database`.
    pub kind: String,
    /// How it stands.
    pub state: State,
    /// The step that it is at, or ended at.
    pub step: String,
    /// How often this step was tried without success.
    pub attempts: i32,
    /// Why it has not got further; why it ended, if not well.
    pub reason: Option<String>,
    /// How far its step has come, in bytes: done, and of how many.
    pub progress: Option<(i64, i64)>,
    /// What it works on.
    pub database: DatabaseId,
    /// The database's name when the operation began.
    pub database_name: String,
    /// The database's project.
    pub project: ProjectId,
    /// When it began.
    pub created_at: Timestamp,
    /// When something happened to it last.
    pub updated_at: Timestamp,
    /// When its step is tried again, while it waits for that.
    pub next_attempt_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The database that it restores from, unless that was deleted.
    pub source: Option<DatabaseId>,
    /// The backup that it restores is damaged.
    pub source_is_damaged: bool,
    /// Whether it is the last one of a database that is still there.
    is_current: bool,
}

impl Operation {
    /// Whether it can be cancelled now.
    pub fn can_cancel(&self) -> bool {
        self.cancellation().is_ok()
    }

    /// What cancelling it now leaves undone. A restore in place can be cancelled until the restored instance
    /// has taken over.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it has ended, or runs to its end whatever happens.
    pub fn cancellation(&self) -> Result<Undone> {
        let undone = Undone::of(&self.kind).filter(|undone| match undone {
            Undone::Database | Undone::Copy | Undone::Backup => true,
            Undone::Restore => [restores::RESTORE.first_step, restores::TAKE_OVER].contains(&self.step.as_str()),
        });
        undone.filter(|_| !self.state.has_ended()).ok_or_else(|| cannot_cancel(self))
    }

    /// Whether it can be retried: it failed or was cancelled, nothing came after it, and it does not restore
    /// a damaged backup, which would fail again.
    pub fn can_retry(&self) -> bool {
        self.ended_badly() && self.is_current && self.creates_database() && !self.source_is_damaged
    }

    /// Whether it failed, or was cancelled, as the last operation of its database, and cannot be retried
    /// since the backup that it restores is damaged.
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

/// Which operations to list; those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those on one database, which may be gone.
    pub database: Option<DatabaseId>,
    /// Those on the databases of one project.
    pub project: Option<ProjectId>,
    /// Those in one of these states; in any, when it is empty.
    pub states: Vec<State>,
}

/// Starts a workflow on a database, and with it the operation that its owner sees.
pub async fn start(tx: &Tx, now: Timestamp, kind: queue::Kind, database: DatabaseId) -> Result<WorkflowId> {
    let id = WorkflowId::generate(now);
    queue::start(tx, id, kind, database.uuid()).await?;
    store::insert(tx, id, database).await?;
    store::make_current(tx, id, database).await?;
    Ok(id)
}

/// Starts a workflow that changes nothing about its database, such as a backup of it: the operation that
/// the database names stays the one that changed it.
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
/// [`Error::NotFound`] when it is none of the caller's.
pub async fn get(session: &Session, actor: &Principal, id: WorkflowId) -> Result<Operation> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("operation", id))
}

/// The caller's operations, newest first. Those that ended more than 30 days ago are forgotten.
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

/// Calls an operation off. A database that was being made stands at `failure` then, to be retried
/// or deleted; a backup that was being made has failed; a database that was being restored is at once
/// what it was before, and the operation ends when what was restored has been removed.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the caller's; [`Error::Conflict`] when it has ended, goes
/// through whatever happens, or is a restore that has taken over or was called off before.
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
            format!("the operation {id} has ended already ({})", state.as_str()),
            "Nothing is left to cancel: look at its database, or delete that.",
        );
    }
    match Undone::of(kind) {
        Some(Undone::Restore) => Error::conflict(
            format!("the operation {id} is a {kind} at the step {step} and can no longer be cancelled"),
            "Wait for its end: either the restored database has taken over, or it is being put back already.",
        ),
        Some(Undone::Database | Undone::Copy | Undone::Backup) | None => Error::conflict(
            format!("the operation {id} is a {kind} and cannot be cancelled"),
            "Wait for its end: it goes through whatever happens.",
        ),
    }
}

/// Tries an operation again that failed or was cancelled. It goes on at the step where it was.
///
/// # Errors
/// [`Error::NotFound`] when it is none of the caller's; [`Error::Conflict`] when it is in another
/// state, not the last one of its database, or restores a damaged backup.
pub async fn retry(tx: &Tx, actor: &Principal, now: Timestamp, id: WorkflowId) -> Result<Operation> {
    let before = lock(tx, actor, id).await?;
    if before.needs_another_backup() {
        let backups = match before.source {
            Some(source) => format!("GET /v1/databases/{source}/backups lists the others"),
            None => "the database that it was of was deleted".to_owned(),
        };
        return Err(Error::conflict(
            format!("the operation {id} cannot be retried: the backup that it restores is damaged"),
            format!("Restore from another backup: {backups}. Delete this database if you do not need it."),
        ));
    }
    let restarted =
        before.can_retry() && databases::mark_provisioning(tx, before.database).await? && queue::retry(tx, id).await?;
    if !restarted {
        return Err(Error::conflict(
            format!("the operation {id} cannot be retried: its state is {}", before.state.as_str()),
            "Only the last operation of a database that is still there can be retried, once it has failed or was \
             cancelled.",
        ));
    }
    changed(tx, actor, now, "retry_operation", &before).await
}

/// The database's row first, as everywhere: a step that writes its result locks it before the workflow.
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

/// The operations of a project follow it into another workspace.
pub async fn follow_project(tx: &Tx, project: ProjectId) -> Result<()> {
    store::follow_project(tx, project).await
}
