//! Workspaces: who owns projects.

mod store;

use jiff::Timestamp;

use crate::auth::Principal;
use crate::base::error::{Error, Result};
use crate::base::id::WorkspaceId;
use crate::base::page::{Page, PageRequest};
use crate::base::store::{Session, Tx};

/// A workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Makes a workspace.
pub async fn create(tx: &Tx, name: &str, now: Timestamp) -> Result<Workspace> {
    let workspace = Workspace { id: WorkspaceId::generate(now), name: name.to_owned(), created_at: now };
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
