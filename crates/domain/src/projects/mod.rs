//! Projects group the databases of a workspace.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::limits::{self, Quotas};
use crate::{branches, databases, operations};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{ProjectId, WorkflowId, WorkspaceId};
use base::name::{LogicalId, ProjectName};
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    /// The project's ID.
    pub id: ProjectId,
    /// The project's name; names need not be unique.
    pub name: String,
    /// The identifier assigned by an external tool; unique in the workspace.
    pub logical_id: Option<String>,
    /// The region of the default database, or the region that the project was created with.
    pub default_region: Option<String>,
    /// When the project was created.
    pub created_at: Timestamp,
    /// The project's workspace.
    pub workspace: WorkspaceId,
    /// The name of the project's workspace.
    pub workspace_name: String,
    /// Whether the project and its databases are protected from deletion.
    pub delete_protection: bool,
    /// For how many days the project's databases can be restored to any moment; `None` inherits the setting of the
    /// workspace or the default.
    pub backup_retention_days: Option<i32>,
}

impl Project {
    /// The fields that the audit log records.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "logicalId": self.logical_id,
            "defaultRegion": self.default_region,
            "workspaceId": self.workspace.to_string(),
            "deleteProtection": self.delete_protection,
            "backupRetentionDays": self.backup_retention_days,
        })
    }

    fn change(&self, action: &'static str, before: Option<&Self>, after: Option<&Self>) -> Change {
        Change {
            action,
            resource: Resource::new("project", self.id, &self.name),
            project: Some(self.id),
            before: before.map(Self::audited),
            after: after.map(Self::audited),
        }
    }
}

/// A project to create.
#[derive(Clone, Debug)]
pub struct NewProject {
    /// The project's name; `None` generates one.
    pub name: Option<ProjectName>,
    /// The requested region.
    pub region: Option<String>,
    /// See [`Project::logical_id`].
    pub logical_id: Option<LogicalId>,
}

/// Changes to a project.
#[derive(Clone, Debug, Default)]
pub struct ProjectChange {
    /// The new name.
    pub name: Option<ProjectName>,
    /// A JSON object that is stored and never returned.
    pub settings: Option<String>,
    /// See [`Project::delete_protection`].
    pub delete_protection: Option<bool>,
    /// See [`Project::backup_retention_days`]; the outer `None` leaves it unchanged.
    pub backup_retention_days: Option<Option<i32>>,
}

/// Filters for projects, which must match all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only the project with this logical ID.
    pub logical_id: Option<LogicalId>,
    /// Only projects whose name contains this text, ignoring case.
    pub name_contains: Option<String>,
}

/// Creates a project with its first branch, without databases.
///
/// # Errors
/// [`Error::Forbidden`] when the caller may not; [`Error::Conflict`] when a live project of the
/// workspace has the same `logical_id`; [`Error::LimitReached`].
pub async fn create(tx: &Tx, actor: &Principal, now: Timestamp, quotas: &Quotas, new: NewProject) -> Result<Project> {
    actor.may_create_projects()?;
    let id = ProjectId::generate(now);
    let name = new.name.unwrap_or_else(ProjectName::generate);
    store::insert(tx, actor.workspace(), id, &name, new.logical_id.as_ref(), new.region.as_deref(), now).await?;
    branches::create_first(tx, now, id).await?;
    limits::check_projects(tx, quotas, actor.workspace()).await?;
    let project = get(tx, actor, id).await?;
    audit::record(tx, actor, now, project.change("create_project", None, Some(&project))).await?;
    Ok(project)
}

/// The project with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such live project.
pub async fn get(session: &Session, actor: &Principal, id: ProjectId) -> Result<Project> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("project", id))
}

/// The caller's projects, oldest first.
pub async fn list(
    session: &Session,
    actor: &Principal,
    filter: &Filter,
    page: PageRequest<ProjectId>,
) -> Result<Page<Project>> {
    let rows = store::list(session, &actor.scope(), filter, page).await?;
    Ok(Page::cut(rows, page.limit, |project| project.id.bare()))
}

/// Changes a project and returns it.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live project; [`Error::Forbidden`] when it may not.
pub async fn update(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    id: ProjectId,
    change: &ProjectChange,
) -> Result<Project> {
    let before = get(tx, actor, id).await?;
    actor.may_change()?;
    store::update(tx, &actor.scope(), id, change).await?;
    let after = get(tx, actor, id).await?;
    audit::record(tx, actor, now, after.change("update_project", Some(&before), Some(&after))).await?;
    Ok(after)
}

/// Transfers a project with its databases to the workspace of `recipient`. IDs, credentials and data are unchanged; at
/// the commit the caller loses access to the project.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live project; [`Error::Forbidden`] when the giver
/// may not change it; [`Error::Rejected`] when the recipient may not take it; [`Error::Conflict`]
/// when the recipient has it already, or has another one with its `logical_id`;
/// [`Error::LimitReached`] when the recipient's workspace would have too much.
pub async fn transfer(
    tx: &Tx,
    actor: &Principal,
    recipient: &Principal,
    now: Timestamp,
    quotas: &Quotas,
    id: ProjectId,
) -> Result<Project> {
    let project = get(tx, actor, id).await?;
    actor.may_change()?;
    recipient.may_create_projects().map_err(|reason| {
        Error::rejected(
            format!("recipientAccessToken: {reason}"),
            "Ask the recipient for a token that can create projects in their workspace.",
        )
    })?;
    if recipient.workspace() == actor.workspace() {
        return Err(Error::conflict(
            "the project is already in the recipient's workspace",
            "Check that recipientAccessToken is a token of the workspace that is to receive the project.",
        ));
    }
    hold(tx, id).await?;
    databases::hold_all(tx, id).await?;
    if !store::set_workspace(tx, &project, recipient.workspace()).await? {
        return Err(Error::not_found("project", id));
    }
    limits::check_projects(tx, quotas, recipient.workspace()).await?;
    let brought = databases::count_in_project(tx, id).await?;
    limits::check_databases(tx, quotas, recipient.workspace(), brought).await?;
    operations::follow_project(tx, id).await?;
    let taken = get(tx, recipient, id).await?;
    // Each workspace's audit log records only its own actor.
    for side in [actor, recipient] {
        let change = taken.change("transfer_project", Some(&project), Some(&taken));
        audit::record(tx, side, now, change).await?;
    }
    Ok(taken)
}

/// Deletes a project with all its databases. At the commit it ceases to exist for all callers. Returns the operations
/// that remove its instances.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live project; [`Error::Forbidden`] when it may
/// not; [`Error::Rejected`] while delete protection is on, or one of its databases is being restored or backed up.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: ProjectId) -> Result<Vec<WorkflowId>> {
    get(tx, actor, id).await?;
    actor.may_change()?;
    // Read again after locking, so that a concurrent change of delete protection counts.
    hold(tx, id).await?;
    let project = get(tx, actor, id).await?;
    if project.delete_protection {
        return Err(Error::rejected(
            format!("Delete protection is on for the project {id}."),
            format!("Turn delete protection off first: PATCH /v1/projects/{id} with deleteProtection: false."),
        ));
    }
    if !store::mark_deleted(tx, &actor.scope(), id, now).await? {
        return Err(Error::not_found("project", id));
    }
    let operations = databases::delete_all(tx, now, id).await?;
    audit::record(tx, actor, now, project.change("delete_project", Some(&project), None)).await?;
    forget_if_empty(tx, id).await?;
    Ok(operations)
}

/// Locks a project's row, if it still exists, until the transaction ends.
pub async fn hold(tx: &Tx, id: ProjectId) -> Result<()> {
    store::hold(tx, id).await
}

/// Removes the row of a deleted project without databases.
pub async fn forget_if_empty(tx: &Tx, id: ProjectId) -> Result<()> {
    store::remove_if_empty(tx, id).await
}
