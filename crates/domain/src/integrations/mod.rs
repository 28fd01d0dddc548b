//! Integrations: what people let applications do in a workspace for them. A person makes one by
//! consenting; here they are looked at and ended, too.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Refusal, Resource};
use crate::workspaces;
use auth::oauth::Scopes;
use auth::oauth::clients::Client;
use auth::{Credential, Principal};
use base::error::{Error, Result};
use base::id::{IntegrationId, OauthClientId, UserId, WorkspaceId};
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};

/// What one person lets one application do in a workspace.
#[derive(Clone, Debug)]
pub struct Integration {
    /// The integration's ID.
    pub id: IntegrationId,
    /// When the person consented.
    pub created_at: Timestamp,
    /// What to, in the words of OAuth.
    pub scopes: Vec<String>,
    /// The application.
    pub client: OauthClient,
    /// The person.
    pub user: User,
}

impl Integration {
    /// Removes it, and records that.
    async fn end(&self, tx: &Tx, actor: &Principal, now: Timestamp) -> Result<bool> {
        let change = Change {
            action: "delete_integration",
            resource: Resource::new("integration", self.id, &self.client.name),
            project: None,
            before: Some(serde_json::json!({
                "clientId": self.client.id.to_string(),
                "userId": self.user.id.to_string(),
                "scopes": self.scopes,
            })),
            after: None,
        };
        audit::record(tx, actor, now, change).await?;
        store::remove(tx, &actor.scope(), self.id).await
    }
}

/// An application.
#[derive(Clone, Debug)]
pub struct OauthClient {
    /// The oauth client's ID.
    pub id: OauthClientId,
    /// The oauth client's name.
    pub name: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A person.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// What they are called, if they said.
    pub display_name: Option<String>,
}

/// Records that the caller, a person, lets an application act for them in the workspace: in a new
/// integration, or in the one that there is, which may then do both.
///
/// # Errors
/// [`Error::Forbidden`] when the caller is no person.
pub async fn consent(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    client: &Client,
    scopes: Scopes,
) -> Result<IntegrationId> {
    let Some(user) = actor.user() else {
        return Err(Error::forbidden("Only a signed-in member can give an application access.", "Sign in."));
    };
    let (workspace, names) = (actor.workspace(), scopes.names());
    let id = store::upsert(tx, IntegrationId::generate(now), workspace, &client.id, user.id, &names, now).await?;
    let change = Change {
        action: "create_integration",
        resource: Resource::new("integration", id, &client.name),
        project: None,
        before: None,
        after: Some(serde_json::json!({
            "clientId": client.id.to_string(),
            "userId": user.id.to_string(),
            "scopes": names,
        })),
    };
    audit::record(tx, actor, now, change).await?;
    Ok(id)
}

/// A workspace's integrations, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for a workspace that is not the caller's.
pub async fn list(
    session: &Session,
    actor: &Principal,
    workspace: WorkspaceId,
    page: PageRequest<IntegrationId>,
) -> Result<Page<Integration>> {
    workspaces::get(session, actor, workspace).await?;
    list_all(session, actor, Some(workspace), page).await
}

/// The same, empty for a workspace that is not the caller's.
pub async fn list_all(
    session: &Session,
    actor: &Principal,
    workspace: Option<WorkspaceId>,
    page: PageRequest<IntegrationId>,
) -> Result<Page<Integration>> {
    let rows = match workspace {
        Some(workspace) => store::list(session, &actor.scope(), workspace, page).await?,
        None => Vec::new(),
    };
    Ok(Page::cut(rows, page.limit, |integration| integration.id.bare()))
}

/// The integration with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such integration.
pub async fn get(session: &Session, actor: &Principal, id: IntegrationId) -> Result<Integration> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("integration", id))
}

/// Ends an integration, and with it what was given out for it.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such integration; [`Error::Forbidden`] when it may not.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: IntegrationId) -> Result<()> {
    let integration = get(tx, actor, id).await?;
    actor.may_take_back(integration.user.id)?;
    if !integration.end(tx, actor, now).await? {
        return Err(Error::not_found("integration", id));
    }
    Ok(())
}

/// Ends the integrations of an application in a workspace: whoever consented to them, when the caller may
/// end those of others; otherwise the caller's own.
///
/// # Errors
/// [`Error::NotFound`] when the workspace is not the caller's, or the application has none there;
/// [`Error::Forbidden`] when the caller may end none of them.
pub async fn delete_of_client(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    workspace: WorkspaceId,
    client: &OauthClientId,
) -> Result<()> {
    let mut refused = Error::not_found("integration of the client", client);
    let mut endable = Vec::new();
    for id in store::of_client(tx, &actor.scope(), workspace, client).await? {
        let integration = get(tx, actor, id).await?;
        match actor.may_take_back(integration.user.id) {
            Ok(()) => endable.push(integration),
            Err(error) => refused = error,
        }
    }
    if endable.is_empty() {
        return Err(refused);
    }
    for integration in endable {
        integration.end(tx, actor, now).await?;
    }
    Ok(())
}

/// Records that an application has given back what it had for a person: the tokens of one consent.
pub async fn record_revocation(tx: &Tx, acting: &Principal, now: Timestamp) -> Result<()> {
    let Some(resource) = resource(acting) else { return Ok(()) };
    let change = Change { action: "revoke_tokens", resource, project: None, before: None, after: None };
    audit::record(tx, acting, now, change).await
}

/// Records that what an application has been given for a person came a second time, by whomever, so that
/// the tokens of that consent were ended.
pub async fn record_replay(tx: &Tx, acting: &Principal, now: Timestamp, status: u16, why: &str) -> Result<()> {
    let (action, resource) = ("issue_tokens".to_owned(), resource(acting));
    let refusal = Refusal { action, status, reason: why.to_owned(), resource, project: None };
    audit::record_refusal(tx, acting, now, refusal).await
}

/// The integration that an application acts in.
fn resource(acting: &Principal) -> Option<Resource> {
    match acting.credential() {
        Credential::Integration { id, application, .. } => Some(Resource::new("integration", id, application)),
        Credential::ServiceToken { .. } | Credential::Session { .. } => None,
    }
}

/// Ends whatever a user lets applications do, in all workspaces: it is not sure any more that it was them
/// who wanted that.
pub async fn remove_all_of(tx: &Tx, user: UserId) -> Result<()> {
    store::remove_all_of(tx, user).await
}
