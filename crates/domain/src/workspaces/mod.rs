//! Workspaces: who owns projects.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use auth::{Action, Principal};
use base::clock::format_timestamp;
use base::error::{Error, Result};
use base::id::WorkspaceId;
use base::name::WorkspaceName;
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};

/// A workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The workspace's ID.
    pub id: WorkspaceId,
    /// The workspace's name.
    pub name: String,
    /// When the workspace was created.
    pub created_at: Timestamp,
    /// For how many days every moment of its databases stays restorable, where their project says nothing;
    /// `None`: as the server has it.
    pub backup_retention_days: Option<i32>,
}

impl Workspace {
    /// The fields that the audit log records.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({"name": self.name, "backupRetentionDays": self.backup_retention_days})
    }
}

/// What to change about a workspace; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceChange {
    /// The new name.
    pub name: Option<WorkspaceName>,
    /// See [`Workspace::backup_retention_days`].
    pub backup_retention_days: Option<Option<i32>>,
}

/// Makes a workspace.
pub async fn create(tx: &Tx, name: &str, now: Timestamp) -> Result<Workspace> {
    let workspace = Workspace {
        id: WorkspaceId::generate(now),
        name: name.to_owned(),
        created_at: now,
        backup_retention_days: None,
    };
    store::insert(tx, &workspace).await?;
    Ok(workspace)
}

/// The workspace with this id.
///
/// # Errors
/// [`Error::NotFound`] for any that the caller does not reach.
pub async fn get(session: &Session, actor: &Principal, id: WorkspaceId) -> Result<Workspace> {
    let reachable = if id == actor.workspace() { store::get(session, id).await? } else { None };
    reachable.ok_or_else(|| Error::not_found("workspace", id))
}

/// Changes a workspace and answers what it is then.
///
/// # Errors
/// [`Error::NotFound`] for any that the caller does not reach; [`Error::Forbidden`] when it may not.
pub async fn update(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    id: WorkspaceId,
    change: &WorkspaceChange,
) -> Result<Workspace> {
    let before = get(tx, actor, id).await?;
    actor.may_change_workspace()?;
    if let Some(name) = &change.name {
        store::rename(tx, id, name.as_str()).await?;
    }
    if let Some(days) = change.backup_retention_days {
        store::set_backup_retention(tx, id, days).await?;
    }
    let after = get(tx, actor, id).await?;
    let change = Change {
        action: "update_workspace",
        resource: Resource::new("workspace", id, &after.name),
        project: None,
        before: Some(before.audited()),
        after: Some(after.audited()),
    };
    audit::record(tx, actor, now, change).await?;
    Ok(after)
}

/// What is still in a workspace that is to be deleted.
struct Left {
    /// Projects.
    projects: i64,
    /// Deleted databases that can still be restored.
    kept: i64,
    /// Until when the last of these can be.
    kept_until: Option<Timestamp>,
    /// Deleted projects, with databases that are being removed or kept.
    deleted_projects: i64,
}

/// Deletes a workspace. From the commit on it does not exist for anybody, and no token, application or
/// invitation of it is good. Its audit log stays, for administrators.
///
/// # Errors
/// [`Error::NotFound`] for any that the caller does not reach; [`Error::Forbidden`] for who does not own it;
/// [`Error::Conflict`] while there are projects in it, or databases that can still be restored.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: WorkspaceId) -> Result<()> {
    get(tx, actor, id).await?;
    actor.may(Action::OwnWorkspace)?;
    // Whoever adds something to it was first, and is seen below, or waits and finds it gone.
    let workspace = store::hold(tx, id).await?.ok_or_else(|| Error::not_found("workspace", id))?;
    let left = store::left(tx, id).await?;
    let several = |count: i64, noun: &str| if count == 1 { format!("a {noun}") } else { format!("{count} {noun}s") };
    if left.projects > 0 {
        return Err(Error::conflict(
            format!("the workspace still has {}", several(left.projects, "project")),
            "Delete each project, or transfer it to another workspace with `howdah projects transfer`. Then delete the \
             workspace.",
        ));
    }
    if let (kept, Some(until)) = (left.kept, left.kept_until) {
        let until = format_timestamp(until);
        return Err(Error::conflict(
            format!("{} of the workspace can still be restored, until {until}", several(kept, "deleted database")),
            format!(
                "Restore the databases that are still needed and transfer their project to another workspace. The \
                 workspace can be deleted shortly after {until}, when its last backups have been removed."
            ),
        ));
    }
    if left.deleted_projects > 0 {
        return Err(Error::conflict(
            "databases of the workspace are still being removed",
            "Wait a moment, then delete the workspace.",
        ));
    }
    let change = Change {
        action: "delete_workspace",
        resource: Resource::new("workspace", id, &workspace.name),
        project: None,
        before: Some(workspace.audited()),
        after: None,
    };
    audit::record(tx, actor, now, change).await?;
    store::delete(tx, &workspace, now).await
}

/// The oldest workspace, whoever asks.
///
/// # Errors
/// [`Error::Rejected`] when there is none.
pub async fn first(session: &Session) -> Result<WorkspaceId> {
    store::first(session)
        .await?
        .ok_or_else(|| Error::rejected("there is no workspace; create one in the console first", ""))
}

/// The workspaces that the caller reaches.
pub async fn list(session: &Session, actor: &Principal, page: PageRequest<WorkspaceId>) -> Result<Page<Workspace>> {
    let rows = store::list(session, actor.workspace(), page).await?;
    Ok(Page::cut(rows, page.limit, |workspace| workspace.id.bare()))
}
