//! Workspaces: who owns projects.

mod store;

use jiff::Timestamp;

use crate::auth::Principal;
use crate::base::error::{Error, Result};
use crate::base::id::WorkspaceId;
use crate::base::name::WorkspaceName;
use crate::base::page::{Page, PageRequest};
use crate::base::store::{Session, Tx};
use crate::domain::audit::{self, Change, Resource};

/// A workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// For how many days every moment of its databases stays restorable, where their project says nothing;
    /// `None`: as the server has it.
    pub backup_retention_days: Option<i32>,
}

impl Workspace {
    /// What the audit log says of it.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({"name": self.name, "backupRetentionDays": self.backup_retention_days})
    }
}

/// What to change about a workspace; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceChange {
    /// Another name.
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

/// The oldest workspace, whoever asks.
///
/// # Errors
/// [`Error::NotFound`] when there is none.
pub async fn first(session: &Session) -> Result<WorkspaceId> {
    store::first(session).await?.ok_or_else(|| Error::not_found("workspace", "first"))
}

/// The workspaces that the caller reaches.
pub async fn list(session: &Session, actor: &Principal, page: PageRequest<WorkspaceId>) -> Result<Page<Workspace>> {
    let rows = store::list(session, actor.workspace(), page).await?;
    Ok(Page::cut(rows, page.limit, |workspace| workspace.id.bare()))
}
