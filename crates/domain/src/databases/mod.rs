//! Databases: each is one PostgreSQL instance. Requests record what people want here; the
//! workflows named by [`PROVISION`] and [`DELETE`] make it true.

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

/// Makes the instance of a new database and proves it.
pub const PROVISION: queue::Kind = queue::Kind { name: "provision_database", first_step: "create_instance" };
/// The same for one that is made from a backup or another database: that may take long.
pub const COPY: queue::Kind = queue::Kind { name: "copy_database", first_step: PROVISION.first_step };
/// Takes a deleted database's instance away.
pub const DELETE: queue::Kind = queue::Kind { name: "delete_database", first_step: "keep_backup" };

/// How a database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Provisioning,
    /// SQL through the gateway's address has worked. Nothing else sets it.
    Ready,
    /// A restore is under way.
    Recovering,
    /// It could not be made; the reason is recorded.
    Failure,
}

impl Status {
    /// Its word on the wire and in the store.
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
    /// Its id.
    pub id: DatabaseId,
    /// Its name in the API.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// Why it stands at `failure`, or what keeps it at `provisioning`.
    pub status_reason: Option<String>,
    /// Its region's id.
    pub region: String,
    /// Whether it is its project's default database.
    pub is_default: bool,
    /// The connection that was made with it, while that exists.
    pub default_connection: Option<ConnectionId>,
    /// Its connections, oldest first.
    pub connections: Vec<Connection>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its project.
    pub project: ProjectId,
    /// Its project's name.
    pub project_name: String,
    /// Its branch.
    pub branch: BranchId,
    /// The name of its branch.
    pub branch_git_name: String,
    /// The identity that an external tool gave it; unique on its branch.
    pub logical_id: Option<String>,
    /// The operation that is changing it, or changed it last.
    pub operation: Option<WorkflowId>,
    /// What it was made from, or brought back to last.
    pub source: SourceType,
    /// The database that it was made from.
    pub source_database: Option<DatabaseId>,
    /// The backup that it was made from.
    pub source_backup: Option<BackupId>,
}

impl Database {
    /// What the audit log says of it.
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

/// A database to be made.
#[derive(Clone, Debug)]
pub struct NewDatabase {
    /// Its name.
    pub name: DatabaseName,
    /// A region that was checked.
    pub region: String,
    /// Whether it becomes its project's default.
    pub is_default: bool,
    /// The branch that it is to stand on.
    pub placement: Placement,
    /// See [`Database::logical_id`].
    pub logical_id: Option<LogicalId>,
    /// What it is made from, unless it is to be empty.
    pub source: Option<Recipe>,
}

/// What to change about a database.
#[derive(Clone, Debug, Default)]
pub struct DatabaseChange {
    /// Another name.
    pub name: Option<DatabaseName>,
    /// Another branch.
    pub placement: Option<Placement>,
    /// Another [`Database::logical_id`].
    pub logical_id: Option<LogicalId>,
}

/// Which databases to list; those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of one project.
    pub project: Option<ProjectId>,
    /// Those on one branch.
    pub branch: Option<BranchId>,
    /// Those on branches of this name.
    pub branch_git_name: Option<BranchName>,
    /// Those with this identity.
    pub logical_id: Option<LogicalId>,
}

/// What a create leaves behind.
#[derive(Debug)]
pub struct Created {
    /// The database.
    pub database: DatabaseId,
    /// Its first connection, with the secret that is shown once.
    pub credential: NewCredential,
    /// The workflow that makes it.
    pub workflow: WorkflowId,
}

/// What a workflow step works on: the row as it is now, whoever asks.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The database.
    pub id: DatabaseId,
    /// Its project.
    pub project: ProjectId,
    /// Its instance; `None` once that was destroyed.
    pub instance: Option<InstanceId>,
    /// The major that was chosen for it, once it was.
    pub major: Option<u16>,
    /// See [`Database::status_reason`].
    pub status_reason: Option<String>,
    /// How it stands.
    pub status: Status,
    /// Since when it is to go, when it is.
    pub deleted_at: Option<Timestamp>,
    /// See [`Database::source`].
    pub source: SourceType,
}

/// Makes a database in a project: its rows, its first connection, and the start of the workflow.
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

/// Changes a database and answers what it is then.
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
    // The project first, as in a delete of the project: two orders would be a deadlock.
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

/// Deletes a database and answers what it was, and the operation that takes it away. From the commit on it does not exist for anybody,
/// no credential of it is good, and a workflow takes its instance away.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Forbidden`] for a project's default database, and for every
/// database of a project with delete protection.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: DatabaseId) -> Result<Database> {
    let database = get(tx, actor, id).await?;
    actor.may_change()?;
    // The project first, as in a delete of the project. It stays the caller's, and as protected as it is.
    if !store::lock_project(tx, &actor.scope(), database.project).await? {
        return Err(Error::not_found("database", id));
    }
    if projects::get(tx, actor, database.project).await?.delete_protection {
        return Err(Error::forbidden(
            format!("Delete protection is on for the project {}.", database.project),
            format!("Turn it off first: PATCH /v1/projects/{} with deleteProtection: false.", database.project),
        ));
    }
    if database.is_default {
        return Err(Error::forbidden(
            "Cannot delete the default database of a project by itself.",
            "Delete the project: its databases go with it.",
        ));
    }
    let Some(operation) = mark_deleted(tx, now, id).await? else {
        return Err(Error::not_found("database", id));
    };
    audit::record(tx, actor, now, database.change("delete_database", Some(&database), None)).await?;
    Ok(Database { operation: Some(operation), ..database })
}

/// How the databases of one project stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there are.
    pub databases: i64,
    /// How many of them have failed.
    pub failed: i64,
    /// How many of them are being created or restored.
    pub under_way: i64,
    /// How many of them have a damaged backup.
    pub damaged: i64,
}

/// How the databases of projects stand that the caller was given; those without databases are missing.
pub async fn summarize(session: &Session, projects: &[Project]) -> Result<HashMap<ProjectId, Summary>> {
    store::summarize(session, projects).await
}

/// How many databases a project has.
pub async fn count_in_project(tx: &Tx, project: ProjectId) -> Result<u32> {
    Ok(store::live_in_project(tx, project).await?.len().try_into().unwrap_or(u32::MAX))
}

/// Deletes whatever databases a project still has, and answers the operations that take them away;
/// part of deleting the project.
///
/// # Errors
/// [`Error::Rejected`] while one of them is being restored or backed up.
pub async fn delete_all(tx: &Tx, now: Timestamp, project: ProjectId) -> Result<Vec<WorkflowId>> {
    let mut operations = Vec::new();
    for (id, status) in store::live_in_project(tx, project).await? {
        if status == Status::Recovering {
            return Err(Error::rejected(
                format!("the project has a database that is being restored ({id})"),
                "Wait until that has ended, and delete the project then.",
            ));
        }
        if backups::is_requested(tx, id).await? {
            return Err(Error::rejected(
                format!("the project has a database that is being backed up ({id})"),
                "Wait until that has ended, or cancel its operation, and delete the project then.",
            ));
        }
        operations.extend(mark_deleted(tx, now, id).await?);
    }
    Ok(operations)
}

/// Intent first: credentials end with this transaction, and the delete goes before any retry
/// that the database's other workflows may be waiting for.
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

/// What a workflow step has to know; `None` when the row is gone.
pub async fn plan(session: &Session, id: DatabaseId) -> Result<Option<Plan>> {
    store::plan(session, id).await
}

/// Records which major the database is made with; the first choice stays.
pub async fn choose_major(session: &Session, id: DatabaseId, major: u16) -> Result<u16> {
    store::choose_major(session, id, major).await
}

/// Says what keeps a database at `provisioning`, or that nothing in particular does.
pub async fn explain(session: &Session, id: DatabaseId, reason: Option<&str>) -> Result<()> {
    store::explain(session, id, reason).await
}

/// Starts a backup of a database by itself, if it is ready and none is under way: the first one of what
/// was restored.
pub async fn back_up_now(tx: &Tx, now: Timestamp, keyring: &Keyring, id: DatabaseId) -> Result<()> {
    if let Some(database) = store::get_any(tx, id).await?.filter(|database| database.status == Status::Ready) {
        backups::start(tx, now, keyring, &database).await?;
    }
    Ok(())
}

/// The probe through the gateway has succeeded.
pub async fn mark_ready(tx: &Tx, id: DatabaseId) -> Result<()> {
    // The update leaves out a deleted database, and would not lock it.
    hold(tx, id).await?;
    store::mark_ready(tx, id).await?;
    credential::end_probes(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await
}

/// It is to be made after all. False when it did not stand at `failure`.
pub async fn mark_provisioning(tx: &Tx, id: DatabaseId) -> Result<bool> {
    let changed = store::mark_provisioning(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await?;
    Ok(changed)
}

/// Its workflow has given up. The reason is a sentence for its owner.
pub async fn mark_failed(tx: &Tx, id: DatabaseId, reason: &str) -> Result<()> {
    hold(tx, id).await?;
    store::mark_failed(tx, id, reason).await?;
    credential::end_probes(tx, id).await?;
    tx.announce(Channel::DatabaseChanged, &id.bare()).await
}

/// Locks a database, deleted or not, until the transaction ends. A step that writes to several tables begins with it;
/// `ARCHITECTURE.md` has the order of locks. An update with conditions is no such lock: it locks nothing when they do
/// not hold.
pub async fn hold(tx: &Tx, id: DatabaseId) -> Result<()> {
    store::hold(tx, id).await
}

/// Locks a deleted database and its project before anything of it is removed.
pub async fn hold_to_forget(tx: &Tx, plan: &Plan) -> Result<()> {
    projects::hold(tx, plan.project).await?;
    hold(tx, plan.id).await
}

/// Locks all databases of a project, deleted or not, whose project is locked already.
pub async fn hold_all(tx: &Tx, project: ProjectId) -> Result<()> {
    store::hold_all(tx, project).await
}

/// The instance of a deleted database is gone. The row stays until `forget_at`, while the database can
/// be restored from what is kept of it; without that it goes, and its project's row if that waits
/// for it.
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

/// Deleted databases that are kept no longer, and of which no vault is left.
pub async fn outlived(session: &Session, now: Timestamp) -> Result<Vec<Plan>> {
    store::outlived(session, now).await
}

/// A deleted database that can still be restored.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its id, to restore it from.
    pub id: DatabaseId,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The project that it was in.
    pub project: ProjectId,
    /// That project's name.
    pub project_name: String,
    /// Whether that project was deleted, too.
    pub project_is_deleted: bool,
    /// When it was deleted.
    pub deleted_at: Timestamp,
    /// Until when it can be restored.
    pub restorable_until: Timestamp,
}

/// The deleted databases of a project that can still be restored, the last one first. The project may
/// be deleted itself.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have, and did not have.
pub async fn list_deleted(session: &Session, actor: &Principal, project: ProjectId) -> Result<Vec<Deleted>> {
    store::list_deleted(session, &actor.scope(), project).await?.ok_or_else(|| Error::not_found("project", project))
}

/// How many deleted databases a list of all of them has at most.
pub const MOST_DELETED: usize = 500;

/// The deleted databases of all of the caller's projects that can still be restored, the last one first, up
/// to [`MOST_DELETED`].
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

/// Every instance that a database row, deleted or not, stands for.
pub async fn instances(session: &Session) -> Result<Vec<InstanceId>> {
    store::instances(session).await
}
