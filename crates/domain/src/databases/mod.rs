//! Databases, each of which is one PostgreSQL instance. Requests record the wanted state here; the workflows
//! [`PROVISION`], [`COPY`] and [`DELETE`] carry it out.

mod store;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::backups;
use crate::branches::{self, Placement};
use crate::connections::{self, Connection, NewCredential};
use crate::limits::{self, Quotas};
use crate::operations;
use crate::projects::{self, Project};
use crate::restores::{self, Recipe, SourceType};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{BackupId, BranchId, ConnectionId, DatabaseId, InstanceId, ProjectId, WorkflowId};
use base::keyring::Keyring;
use base::name::{BranchName, ConnectionName, DatabaseName, LogicalId};
use base::page::{Page, PageRequest};
use base::store::{Channel, Session, Tx};

/// Creates the instance of a new database and verifies that it accepts connections.
pub const PROVISION: queue::Kind = queue::Kind { name: "provision_database", first_step: "create_instance" };
/// The same for a database that is created from a backup or another database, which can take long.
pub const COPY: queue::Kind = queue::Kind { name: "copy_database", first_step: PROVISION.first_step };
/// Removes the instance of a deleted database.
pub const DELETE: queue::Kind = queue::Kind { name: "delete_database", first_step: "keep_backup" };

/// The status of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The database is being created.
    Provisioning,
    /// A query through the gateway's address has succeeded. Nothing else sets this status.
    Ready,
    /// A restore is running.
    Recovering,
    /// The database could not be created; the reason is recorded.
    Failure,
}

impl Status {
    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Recovering => "recovering",
            Self::Failure => "failure",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        [Self::Provisioning, Self::Ready, Self::Recovering, Self::Failure]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| Error::internal(format!("a database has the unknown status {text}")))
    }
}

/// A database, as its owner sees it.
#[derive(Clone, Debug)]
pub struct Database {
    /// The database's ID.
    pub id: DatabaseId,
    /// The database's name in the API.
    pub name: String,
    /// The database's state.
    pub status: Status,
    /// Why the status is `failure`, why the database is still `provisioning`, or why the last restore failed.
    pub status_reason: Option<String>,
    /// The ID of the database's region.
    pub region: String,
    /// Whether this is the project's default database.
    pub is_default: bool,
    /// The connection that was created with the database, until it is deleted.
    pub default_connection: Option<ConnectionId>,
    /// The database's connections, oldest first.
    pub connections: Vec<Connection>,
    /// When the database was created.
    pub created_at: Timestamp,
    /// The database's project.
    pub project: ProjectId,
    /// The name of the database's project.
    pub project_name: String,
    /// The database's branch.
    pub branch: BranchId,
    /// The name of the database's branch.
    pub branch_git_name: String,
    /// The identifier assigned by an external tool; unique on the branch.
    pub logical_id: Option<String>,
    /// The operation that is changing the database or changed it last.
    pub operation: Option<WorkflowId>,
    /// What the database was created from or last restored from.
    pub source: SourceType,
    /// The database of that source.
    pub source_database: Option<DatabaseId>,
    /// The backup of that source.
    pub source_backup: Option<BackupId>,
}

impl Database {
    /// The fields that the audit log records.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "status": self.status.as_str(),
            "region": self.region,
            "isDefault": self.is_default,
            "branchId": self.branch.to_string(),
            "logicalId": self.logical_id,
        })
    }

    fn change(&self, action: &'static str, before: Option<&Self>, after: Option<&Self>) -> Change {
        Change {
            action,
            resource: Resource::new("database", self.id, &self.name),
            project: Some(self.project),
            before: before.map(Self::audited),
            after: after.map(Self::audited),
        }
    }
}

/// A database to create.
#[derive(Clone, Debug)]
pub struct NewDatabase {
    /// The database's name.
    pub name: DatabaseName,
    /// The ID of an existing region.
    pub region: String,
    /// Whether the database becomes the project's default database.
    pub is_default: bool,
    /// The branch for the database.
    pub placement: Placement,
    /// See [`Database::logical_id`].
    pub logical_id: Option<LogicalId>,
    /// The source; `None` for an empty database.
    pub source: Option<Recipe>,
}

/// Changes to a database.
#[derive(Clone, Debug, Default)]
pub struct DatabaseChange {
    /// The new name.
    pub name: Option<DatabaseName>,
    /// The new branch.
    pub placement: Option<Placement>,
    /// The new [`Database::logical_id`].
    pub logical_id: Option<LogicalId>,
}

/// Filters for databases, which must match all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only databases of this project.
    pub project: Option<ProjectId>,
    /// Only databases on this branch.
    pub branch: Option<BranchId>,
    /// Only databases on branches with this name.
    pub branch_git_name: Option<BranchName>,
    /// Only databases with this logical ID.
    pub logical_id: Option<LogicalId>,
}

/// The result of creating a database.
#[derive(Debug)]
pub struct Created {
    /// The database.
    pub database: DatabaseId,
    /// The first connection, with the secret that is returned once.
    pub credential: NewCredential,
    /// The workflow that creates the database.
    pub workflow: WorkflowId,
}

/// The current row of a database, for workflow steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The database.
    pub id: DatabaseId,
    /// The database's project.
    pub project: ProjectId,
    /// The database's instance; `None` once that was destroyed.
    pub instance: Option<InstanceId>,
    /// The PostgreSQL major version, once it is chosen.
    pub major: Option<u16>,
    /// See [`Database::status_reason`].
    pub status_reason: Option<String>,
    /// The database's state.
    pub status: Status,
    /// When the database was deleted.
    pub deleted_at: Option<Timestamp>,
    /// See [`Database::source`].
    pub source: SourceType,
}

/// Creates a database in a project: the rows, the first connection, and the workflow.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have, or a branch that the project
/// does not have; [`Error::Rejected`] when it is to be the default and the project has one;
/// [`Error::Conflict`] when a live database of the branch has the same `logical_id`;
/// [`Error::LimitReached`].
pub async fn create(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    quotas: &Quotas,
    project: ProjectId,
    new: NewDatabase,
) -> Result<Created> {
    if !store::lock_project(tx, &actor.scope(), project).await? {
        return Err(Error::not_found("project", project));
    }
    actor.may_change()?;
    let id = DatabaseId::generate(now);
    let branch = branches::place(tx, now, project, &new.placement).await?;
    let instance = InstanceId::generate(now);
    store::insert(tx, project, id, instance, branch, &new, now).await?;
    if let Some(recipe) = &new.source {
        restores::plan_new(tx, id, instance, recipe).await?;
    }
    let name = ConnectionName::parse("Default")?;
    let credential = connections::issue(tx, now, id, &name).await?;
    store::set_default_connection(tx, id, credential.id).await?;
    let kind = if new.source.is_some() { COPY } else { PROVISION };
    let workflow = operations::start(tx, now, kind, id).await?;
    limits::check_databases(tx, quotas, actor.workspace(), 1).await?;
    let made = get(tx, actor, id).await?;
    audit::record(tx, actor, now, made.change("create_database", None, Some(&made))).await?;
    Ok(Created { database: id, credential, workflow })
}

/// The database with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such live database.
pub async fn get(session: &Session, actor: &Principal, id: DatabaseId) -> Result<Database> {
    let mut found = store::get(session, &actor.scope(), id).await?;
    attach_connections(session, &mut found).await?;
    found.pop().ok_or_else(|| Error::not_found("database", id))
}

/// Whether a live database of a project has this name.
pub async fn has_name(session: &Session, project: ProjectId, name: &DatabaseName) -> Result<bool> {
    store::has_name(session, project, name).await
}

/// A project's databases, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have.
pub async fn list(
    session: &Session,
    actor: &Principal,
    project: ProjectId,
    page: PageRequest<DatabaseId>,
) -> Result<Page<Database>> {
    projects::get(session, actor, project).await?;
    list_all(session, actor, &Filter { project: Some(project), ..Filter::default() }, page).await
}

/// The databases of all of the caller's projects, oldest first.
pub async fn list_all(
    session: &Session,
    actor: &Principal,
    filter: &Filter,
    page: PageRequest<DatabaseId>,
) -> Result<Page<Database>> {
    let rows = store::list(session, &actor.scope(), filter, page).await?;
    let mut page = Page::cut(rows, page.limit, |database| database.id.bare());
    attach_connections(session, &mut page.items).await?;
    Ok(page)
}

async fn attach_connections(session: &Session, databases: &mut [Database]) -> Result<()> {
    if databases.is_empty() {
        return Ok(());
    }
    for connection in connections::of_databases(session, databases).await? {
        // Lists of databases are in the order of their ids.
        if let Ok(place) = databases.binary_search_by_key(&connection.database, |database| database.id) {
            databases[place].connections.push(connection);
        }
    }
    Ok(())
}

/// Changes a database and returns it.
///
/// # Errors
/// [`Error::NotFound`] for a database that the caller does not have, or a branch that its project
/// does not have; [`Error::Conflict`] when another live database of the branch has its `logical_id`.
pub async fn update(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    id: DatabaseId,
    change: &DatabaseChange,
) -> Result<Database> {
    let database = get(tx, actor, id).await?;
    // Lock the project first, as a delete of the project does: the opposite order would deadlock.
    actor.may_change()?;
    if !store::lock_project(tx, &actor.scope(), database.project).await? {
        return Err(Error::not_found("database", id));
    }
    let branch = match &change.placement {
        Some(placement) => Some(branches::place(tx, now, database.project, placement).await?),
        None => None,
    };
    if !store::update(tx, &database, branch, change).await? {
        return Err(Error::not_found("database", id));
    }
    let after = get(tx, actor, id).await?;
    audit::record(tx, actor, now, after.change("update_database", Some(&database), Some(&after))).await?;
    Ok(after)
}

/// Deletes a database and returns its last state with the operation that removes it. At the commit it ceases to exist
/// for all callers, its credentials stop working, and a workflow starts to remove its instance.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Forbidden`] for a project's default database, and for every
/// database of a project with delete protection.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: DatabaseId) -> Result<Database> {
    let database = get(tx, actor, id).await?;
    actor.may_change()?;
    // Lock the project first, as a delete of the project does. Its owner and its protection cannot change then.
    if !store::lock_project(tx, &actor.scope(), database.project).await? {
        return Err(Error::not_found("database", id));
    }
    if projects::get(tx, actor, database.project).await?.delete_protection {
        return Err(Error::forbidden(
            format!("Delete protection is on for the project {}.", database.project),
            format!(
                "Turn delete protection off first: PATCH /v1/projects/{} with deleteProtection: false.",
                database.project
            ),
        ));
    }
    if database.is_default {
        return Err(Error::forbidden(
            "Cannot delete the default database of a project by itself.",
            "Delete the project instead; this also deletes its databases.",
        ));
    }
    let Some(operation) = mark_deleted(tx, now, id).await? else {
        return Err(Error::not_found("database", id));
    };
    audit::record(tx, actor, now, database.change("delete_database", Some(&database), None)).await?;
    Ok(Database { operation: Some(operation), ..database })
}

/// A summary of the databases of a project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of databases.
    pub databases: i64,
    /// The number with the status `failure`.
    pub failed: i64,
    /// The number that is being created or restored.
    pub under_way: i64,
    /// The number with a damaged backup.
    pub damaged: i64,
}

/// Summaries of the databases of these projects, which the caller can access. Projects without databases are missing.
pub async fn summarize(session: &Session, projects: &[Project]) -> Result<HashMap<ProjectId, Summary>> {
    store::summarize(session, projects).await
}

/// The number of databases of a project.
pub async fn count_in_project(tx: &Tx, project: ProjectId) -> Result<u32> {
    Ok(store::live_in_project(tx, project).await?.len().try_into().unwrap_or(u32::MAX))
}

/// Deletes all databases of a project, as part of deleting the project. Returns the operations that remove them.
///
/// # Errors
/// [`Error::Rejected`] while one of them is being restored or backed up.
pub async fn delete_all(tx: &Tx, now: Timestamp, project: ProjectId) -> Result<Vec<WorkflowId>> {
    let mut operations = Vec::new();
    for (id, status) in store::live_in_project(tx, project).await? {
        if status == Status::Recovering {
            return Err(Error::rejected(
                format!("a database of the project is being restored ({id})"),
                "Wait until the restore ends, then delete the project.",
            ));
        }
        if backups::is_requested(tx, id).await? {
            return Err(Error::rejected(
                format!("a database of the project is being backed up ({id})"),
                "Wait until the backup ends or cancel its operation, then delete the project.",
            ));
        }
        operations.extend(mark_deleted(tx, now, id).await?);
    }
    Ok(operations)
}

/// Records the intent: credentials stop working at the commit, and the delete does not wait for the back-off of the
/// database's other workflows.
async fn mark_deleted(tx: &Tx, now: Timestamp, id: DatabaseId) -> Result<Option<WorkflowId>> {
    if !store::mark_deleted(tx, id, now).await? {
        return Ok(None);
    }
    connections::end_all(tx, id).await?;
    queue::hurry(tx, id.uuid()).await?;
    let operation = operations::start(tx, now, DELETE, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await?;
    Ok(Some(operation))
}

/// The current row of a database for a workflow step; `None` if it is gone.
pub async fn plan(session: &Session, id: DatabaseId) -> Result<Option<Plan>> {
    store::plan(session, id).await
}

/// Records the PostgreSQL major version of the database, unless one was chosen before. Returns the recorded one.
pub async fn choose_major(session: &Session, id: DatabaseId, major: u16) -> Result<u16> {
    store::choose_major(session, id, major).await
}

/// Sets or clears the reason why a database is still `provisioning`.
pub async fn explain(session: &Session, id: DatabaseId, reason: Option<&str>) -> Result<()> {
    store::explain(session, id, reason).await
}

/// Starts the first backup after a restore, if the database is ready and no backup is running.
pub async fn back_up_now(tx: &Tx, now: Timestamp, keyring: &Keyring, id: DatabaseId) -> Result<()> {
    if let Some(database) = store::get_any(tx, id).await?.filter(|database| database.status == Status::Ready) {
        backups::start(tx, now, keyring, &database).await?;
    }
    Ok(())
}

/// Marks a database as ready after the probe through the gateway succeeded.
pub async fn mark_ready(tx: &Tx, id: DatabaseId) -> Result<()> {
    // The update skips a deleted database and would not lock it.
    hold(tx, id).await?;
    store::mark_ready(tx, id).await?;
    credential::end_probes(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await
}

/// Marks a failed database as provisioning again, for a retry. Returns false if its status is not `failure`.
pub async fn mark_provisioning(tx: &Tx, id: DatabaseId) -> Result<bool> {
    let changed = store::mark_provisioning(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await?;
    Ok(changed)
}

/// Marks a database as failed after its workflow failed. The reason is for the owner.
pub async fn mark_failed(tx: &Tx, id: DatabaseId, reason: &str) -> Result<()> {
    hold(tx, id).await?;
    store::mark_failed(tx, id, reason).await?;
    credential::end_probes(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await
}

/// Locks a database, deleted or not, until the transaction ends. Steps that write to several tables take this lock
/// first (see the order of locks in `ARCHITECTURE.md`). A conditional update is no substitute: it locks nothing when
/// its condition is false.
pub async fn hold(tx: &Tx, id: DatabaseId) -> Result<()> {
    store::hold(tx, id).await
}

/// Locks a deleted database and its project before anything of it is removed.
pub async fn hold_to_forget(tx: &Tx, plan: &Plan) -> Result<()> {
    projects::hold(tx, plan.project).await?;
    hold(tx, plan.id).await
}

/// Locks all databases of a locked project, deleted or not.
pub async fn hold_all(tx: &Tx, project: ProjectId) -> Result<()> {
    store::hold_all(tx, project).await
}

/// Finishes a delete after the instance is removed. The row stays until `forget_at` if the database can be restored;
/// otherwise it is removed, together with the row of a deleted project without other databases.
pub async fn forget(tx: &Tx, plan: &Plan, forget_at: Option<Timestamp>) -> Result<()> {
    hold_to_forget(tx, plan).await?;
    match forget_at {
        Some(moment) => store::keep_until(tx, plan.id, moment).await,
        None => {
            store::remove(tx, plan.id).await?;
            projects::forget_if_empty(tx, plan.project).await
        }
    }
}

/// Deleted databases whose retention has ended and whose backup repositories are removed.
pub async fn outlived(session: &Session, now: Timestamp) -> Result<Vec<Plan>> {
    store::outlived(session, now).await
}

/// A deleted database that can still be restored.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The database's ID, to restore it from.
    pub id: DatabaseId,
    /// The database's name.
    pub name: String,
    /// The database's region.
    pub region: String,
    /// The project that the database was in.
    pub project: ProjectId,
    /// The name of that project.
    pub project_name: String,
    /// Whether that project is deleted, too.
    pub project_is_deleted: bool,
    /// When the database was deleted.
    pub deleted_at: Timestamp,
    /// Until when the database can be restored.
    pub restorable_until: Timestamp,
}

/// The deleted databases of a project that can still be restored, last deleted first. The project itself may be
/// deleted.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have, and did not have.
pub async fn list_deleted(session: &Session, actor: &Principal, project: ProjectId) -> Result<Vec<Deleted>> {
    store::list_deleted(session, &actor.scope(), project).await?.ok_or_else(|| Error::not_found("project", project))
}

/// The maximum number of databases that [`list_all_deleted`] returns.
pub const MOST_DELETED: usize = 500;

/// The deleted databases of all of the caller's projects that can still be restored, last deleted first, up to
/// [`MOST_DELETED`].
pub async fn list_all_deleted(session: &Session, actor: &Principal) -> Result<Vec<Deleted>> {
    store::list_all_deleted(session, &actor.scope(), None).await
}

/// A deleted database that can still be restored.
///
/// # Errors
/// [`Error::NotFound`] when the caller has, and had, no such database, or it is kept no longer.
pub async fn get_deleted(session: &Session, actor: &Principal, id: DatabaseId) -> Result<Deleted> {
    let found = store::list_all_deleted(session, &actor.scope(), Some(id)).await?.pop();
    found.ok_or_else(|| Error::not_found("database", id))
}

/// The instances of all databases, deleted or not.
pub async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    store::instances(session).await
}
