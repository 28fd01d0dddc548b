//! Service tokens as things that a workspace has. What a token is worth at a request is `auth`'s.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::projects;
use auth::service_tokens::{Issued, issue};
use auth::signing::Signer;
use auth::{Action, Limits, Principal};
use base::clock::format_timestamp;
use base::error::{Error, Result};
use base::id::{ServiceTokenId, WorkspaceId};
use base::name::TokenName;
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};

/// The most projects that one token may be limited to.
const MOST_PROJECTS: usize = 100;

/// A service token, without its value.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    /// The service token's ID.
    pub id: ServiceTokenId,
    /// The service token's name.
    pub name: String,
    /// Enough of its value to tell it from others.
    pub value_hint: String,
    /// When the service token was created.
    pub created_at: Timestamp,
    /// When it was used last, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// What it may do less than everything.
    pub limits: Limits,
}

impl ServiceToken {
    fn is_unlimited(&self) -> bool {
        self.limits == Limits::default()
    }

    /// What the audit log says of a change of it; its value is no part of that.
    async fn record(&self, tx: &Tx, actor: &Principal, now: Timestamp, action: &'static str) -> Result<()> {
        let projects = self.limits.projects.as_ref();
        let shown = serde_json::json!({
            "name": self.name,
            "valueHint": self.value_hint,
            "readOnly": self.limits.read_only,
            "projectIds": projects.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "expiresAt": self.limits.expires_at.map(format_timestamp),
        });
        let (before, after) = if action == "create_service_token" { (None, Some(shown)) } else { (Some(shown), None) };
        let resource = Resource::new("serviceToken", self.id, &self.name);
        audit::record(tx, actor, now, Change { action, resource, project: None, before, after }).await
    }
}

/// Makes a token of the caller's workspace.
///
/// # Errors
/// [`Error::NotFound`] for another workspace and for projects that the caller does not have;
/// [`Error::Forbidden`] when the token would be worth more than the caller's;
/// [`Error::Invalid`] when it would be worth nothing.
pub async fn create(
    tx: &Tx,
    signer: &Signer,
    actor: &Principal,
    now: Timestamp,
    workspace: WorkspaceId,
    name: &TokenName,
    limits: Limits,
) -> Result<(ServiceToken, Issued)> {
    if workspace != actor.workspace() {
        return Err(Error::not_found("workspace", workspace));
    }
    actor.may_grant(&limits)?;
    if limits.expires_at.is_some_and(|end| end <= now) {
        return Err(Error::invalid("expiresAt: the time is in the past", "Give a time in the future."));
    }
    let chosen = limits.projects.as_deref().unwrap_or_default();
    if limits.projects.is_some() && !(1..=MOST_PROJECTS).contains(&chosen.len()) {
        return Err(Error::invalid(
            format!("projectIds: {} projects are given", chosen.len()),
            format!("Give 1 to {MOST_PROJECTS} projects, or omit projectIds for all projects."),
        ));
    }
    for project in chosen {
        projects::get(tx, actor, *project).await?;
    }
    let issued = issue(tx, signer, now, workspace, name, &limits).await?;
    let token = get(tx, actor, issued.id).await?;
    token.record(tx, actor, now, "create_service_token").await?;
    Ok((token, issued))
}

/// A workspace's tokens that were not revoked, newest first; none of another workspace.
pub async fn list(
    session: &Session,
    actor: &Principal,
    workspace: Option<WorkspaceId>,
    page: PageRequest<ServiceTokenId>,
) -> Result<Page<ServiceToken>> {
    let rows = match workspace {
        Some(own) if own == actor.workspace() => store::list(session, actor, page).await?,
        _ => Vec::new(),
    };
    Ok(Page::cut(rows, page.limit, |token| token.id.bare()))
}

/// Ends a token: it is refused from the commit on, in every process.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such token; [`Error::Conflict`] when nobody
/// could do everything in the workspace any more.
pub async fn delete(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    workspace: WorkspaceId,
    id: ServiceTokenId,
) -> Result<()> {
    if workspace != actor.workspace() {
        return Err(Error::not_found("service token", id));
    }
    let token = get(tx, actor, id).await?;
    actor.may(Action::ManageCredentials)?;
    if token.is_unlimited() && !store::has_another_unlimited(tx, actor, id).await? {
        return Err(Error::conflict(
            "this is the last token of the workspace without restrictions or expiry",
            "Create another such token first, then revoke this one.",
        ));
    }
    if !store::revoke(tx, id, now).await? {
        return Err(Error::not_found("service token", id));
    }
    token.record(tx, actor, now, "delete_service_token").await
}

/// The token with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such token that was not revoked.
pub async fn get(session: &Session, actor: &Principal, id: ServiceTokenId) -> Result<ServiceToken> {
    store::get(session, actor, id).await?.ok_or_else(|| Error::not_found("service token", id))
}
