//! Projects: what a workspace groups its databases in.

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
    /// Its id.
    pub id: ProjectId,
    /// Its name; names need not be unique.
    pub name: String,
    /// The identity that an external tool gave it; unique in the workspace.
    pub logical_id: Option<String>,
    /// The region of its default database, or the one it was made with.
    pub default_region: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its workspace's name.
    pub workspace_name: String,
    /// Whether it and its databases can't be deleted.
    pub delete_protection: bool,
    /// For how many days every moment of its databases stays restorable; `None`: as its workspace or the
    /// server has it.
    pub backup_retention_days: Option<i32>,
}

impl Project {
    /// What the audit log says of it.
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

/// A project to be made.
#[derive(Clone, Debug)]
pub struct NewProject {
    /// Its name; a made-up one when there is none.
    pub name: Option<ProjectName>,
    /// The region that it was asked for with.
    pub region: Option<String>,
    /// See [`Project::logical_id`].
    pub logical_id: Option<LogicalId>,
}

/// What to change about a project.
#[derive(Clone, Debug, Default)]
pub struct ProjectChange {
    /// Another name.
    pub name: Option<ProjectName>,
    /// A JSON object that is kept for the one who wrote it, and never shown.
    pub settings: Option<String>,
    /// See [`Project::delete_protection`].
    pub delete_protection: Option<bool>,
    /// See [`Project::backup_retention_days`]; the outer `None` leaves it as it is.
    pub backup_retention_days: Option<Option<i32>>,
}

/// Which projects to list; those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The one with this identity.
    pub logical_id: Option<LogicalId>,
    /// Those whose name has this in it, in letters of either case.
    pub name_contains: Option<String>,
}

/// Makes a project with its first branch, without databases.
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

/// Changes a project and answers what it is then.
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

/// Gives a project with its databases to another workspace, which `recipient` speaks for. Ids,
/// credentials and data stay as they are; from the commit on the giver has it no more.
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
            "Ask the recipient for a token that may create projects in the workspace.",
        )
    })?;
    if recipient.workspace() == actor.workspace() {
        return Err(Error::conflict(
            "the project is in the recipient's workspace already",
            "Nothing is left to do, unless recipientAccessToken was meant to be a token of another workspace.",
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
    // In each workspace's log is its own side: who of the other one it was is not its business.
    for side in [actor, recipient] {
        let change = taken.change("transfer_project", Some(&project), Some(&taken));
        audit::record(tx, side, now, change).await?;
    }
    Ok(taken)
}

/// Deletes a project with all its databases. From the commit on it does not exist for anybody;
/// the operations that are answered take its instances away.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live project; [`Error::Forbidden`] when it may
/// not; [`Error::Rejected`] while delete protection is on or one of its databases is being restored.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: ProjectId) -> Result<Vec<WorkflowId>> {
    get(tx, actor, id).await?;
    actor.may_change()?;
    // As it is once nobody else changes it: whoever was told that it is protected can rely on that.
    hold(tx, id).await?;
    let project = get(tx, actor, id).await?;
    if project.delete_protection {
        return Err(Error::rejected(
            format!("delete protection is on for the project {id}"),
            format!("Turn it off first: PATCH /v1/projects/{id} with deleteProtection: false."),
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

/// Keeps a project's row as it is until the transaction ends, if it is still there.
pub async fn hold(tx: &Tx, id: ProjectId) -> Result<()> {
    store::hold(tx, id).await
}

/// Removes a deleted project's row once its last database is gone.
pub async fn forget_if_empty(tx: &Tx, id: ProjectId) -> Result<()> {
    store::remove_if_empty(tx, id).await
}
