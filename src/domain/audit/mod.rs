//! The audit log: every change of a workspace, allowed or refused. What was allowed is recorded in
//! the transaction that made it true; what was refused changed nothing and is recorded after it.
//! Secrets are in neither.

mod store;

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::auth::{Credential, Principal};
use crate::base::clock::format_timestamp;
use crate::base::error::Result;
use crate::base::id::{AuditEntryId, ProjectId, ServiceTokenId, UserId, WorkspaceId};
use crate::base::page::{Page, PageRequest};
use crate::base::store::{Channel, Session, Tx};
use crate::domain::workspaces;

/// Whether a change was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Allowed,
    /// It was not, and changed nothing.
    Refused,
}

impl Outcome {
    /// Its word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// Who asks for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A service token.
    ServiceToken(ServiceTokenId),
    /// A person, by themselves or through an application.
    User(UserId),
}

impl Actor {
    fn of(principal: &Principal) -> Self {
        match principal.credential() {
            Credential::ServiceToken { id, .. } => Self::ServiceToken(*id),
            Credential::Integration { user, .. } | Credential::Session { user } => Self::User(user.id),
        }
    }

    /// What it is, in the store and on the wire.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ServiceToken(_) => "service_token",
            Self::User(_) => "user",
        }
    }

    fn uuid(self) -> Uuid {
        match self {
            Self::ServiceToken(id) => id.uuid(),
            Self::User(id) => id.uuid(),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceToken(id) => id.fmt(f),
            Self::User(id) => id.fmt(f),
        }
    }
}

/// What a change was made to.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The noun of the API, such as `database`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name then.
    pub name: Option<String>,
}

impl Resource {
    /// A thing with a name.
    pub fn new(kind: &str, id: impl ToString, name: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string(), name: Some(name.to_owned()) }
    }
}

/// A change that is carried out in the transaction that it is recorded in.
#[derive(Debug)]
pub struct Change {
    /// A verb and a noun, such as `create_database`.
    pub action: &'static str,
    /// What is changed.
    pub resource: Resource,
    /// The project that it is in, or is.
    pub project: Option<ProjectId>,
    /// What it was, if it was there.
    pub before: Option<Value>,
    /// What it is, if it is still there.
    pub after: Option<Value>,
}

/// A change that was not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// What was asked for.
    pub action: String,
    /// The status of the answer.
    pub status: u16,
    /// The answer's message.
    pub reason: String,
    /// What it was to be done to, as the request named it; that need not exist.
    pub resource: Option<Resource>,
    /// The project that the request named.
    pub project: Option<ProjectId>,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id; later entries have larger ones.
    pub id: AuditEntryId,
    /// Whose log it is in.
    pub workspace: WorkspaceId,
    /// The project that it is about.
    pub project: Option<ProjectId>,
    /// When it happened.
    pub at: Timestamp,
    /// A verb and a noun, such as `create_database`.
    pub action: String,
    /// Whether it was carried out.
    pub outcome: Outcome,
    /// The status of the answer, where it was refused.
    pub status: Option<u16>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// Who asked for it.
    pub actor: Actor,
    /// The token's name then, or the user's address.
    pub actor_name: String,
    /// The application that acted for the user, by its name then.
    pub application: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// The request's id, which is in its answer and in the server's log.
    pub request_id: String,
    /// What it was done to.
    pub resource: Option<Resource>,
    /// What that was before.
    pub before: Option<Value>,
    /// What that was afterwards.
    pub after: Option<Value>,
}

impl Entry {
    /// The entry as one JSON object, for a stream.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "id": self.id.to_string(),
            "workspaceId": self.workspace.to_string(),
            "projectId": self.project.map(|id| id.to_string()),
            "at": format_timestamp(self.at),
            "action": self.action,
            "outcome": self.outcome.as_str(),
            "status": self.status,
            "reason": self.reason,
            "actor": {
                "type": self.actor.kind(),
                "id": self.actor.to_string(),
                "name": self.actor_name,
                "application": self.application,
            },
            "address": self.address,
            "requestId": self.request_id,
            "resource": self.resource.as_ref().map(|resource| serde_json::json!({
                "type": resource.kind, "id": resource.id, "name": resource.name,
            })),
            "before": self.before,
            "after": self.after,
        })
    }
}

/// Which entries to list; those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of one action.
    pub action: Option<String>,
    /// Those that were carried out, or those that were refused.
    pub outcome: Option<Outcome>,
    /// Those of one token or user.
    pub actor: Option<Actor>,
    /// Those about one project and what is in it.
    pub project: Option<ProjectId>,
    /// Those about one thing.
    pub resource: Option<String>,
    /// Those that happened then or later.
    pub since: Option<Timestamp>,
    /// Those that happened before.
    pub until: Option<Timestamp>,
}

/// Records a change, in the transaction that makes it, in the log of the caller's workspace.
pub async fn record(tx: &Tx, actor: &Principal, now: Timestamp, change: Change) -> Result<()> {
    let Change { action, resource, project, before, after } = change;
    let entry =
        Entry { project, action: action.to_owned(), resource: Some(resource), before, after, ..blank(actor, now) };
    write(tx, &entry).await
}

/// Records what was refused; nothing else came of it.
pub async fn record_refusal(tx: &Tx, actor: &Principal, now: Timestamp, refusal: Refusal) -> Result<()> {
    let entry = Entry {
        action: refusal.action,
        outcome: Outcome::Refused,
        status: Some(refusal.status),
        reason: Some(refusal.reason),
        resource: refusal.resource,
        project: refusal.project,
        ..blank(actor, now)
    };
    write(tx, &entry).await
}

fn blank(actor: &Principal, now: Timestamp) -> Entry {
    let origin = actor.origin();
    Entry {
        id: AuditEntryId::generate(now),
        workspace: actor.workspace(),
        project: None,
        at: now,
        action: String::new(),
        outcome: Outcome::Allowed,
        status: None,
        reason: None,
        actor: Actor::of(actor),
        actor_name: match actor.credential() {
            Credential::ServiceToken { name, .. } => name.clone(),
            Credential::Integration { user, .. } | Credential::Session { user } => user.email.clone(),
        },
        application: match actor.credential() {
            Credential::Integration { application, .. } => Some(application.clone()),
            _ => None,
        },
        address: origin.address.map(|address| address.to_string()),
        request_id: origin.request_id.clone(),
        resource: None,
        before: None,
        after: None,
    }
}

async fn write(tx: &Tx, entry: &Entry) -> Result<()> {
    store::insert(tx, entry).await?;
    tx.announce(Channel::AuditRecorded, &entry.id.bare()).await
}

/// A workspace's log, newest first. Who is limited to projects sees what is about them.
///
/// # Errors
/// [`crate::base::error::Error::NotFound`] for a workspace that the caller does not reach.
pub async fn list(
    session: &Session,
    actor: &Principal,
    workspace: WorkspaceId,
    filter: &Filter,
    page: PageRequest<AuditEntryId>,
) -> Result<Page<Entry>> {
    workspaces::get(session, actor, workspace).await?;
    let rows = store::list(session, &actor.scope(), filter, page).await?;
    Ok(Page::cut(rows, page.limit, |entry| entry.id.bare()))
}

/// Takes up to `most` entries that are not in the stream yet, oldest first. They count as streamed
/// when the transaction commits; other processes pass over them until it ends.
pub async fn take_unstreamed(tx: &Tx, most: i64) -> Result<Vec<Entry>> {
    store::take_unstreamed(tx, most).await
}

/// Forgets entries older than this.
pub async fn forget_before(session: &Session, moment: Timestamp) -> Result<()> {
    store::forget_before(session, moment).await
}
