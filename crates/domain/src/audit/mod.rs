//! The audit log: every change of a workspace, and of who may do what on the whole installation, allowed
//! or refused. What was allowed is recorded in the transaction that made it true; what was refused
//! changed nothing and is recorded after it. Secrets are in neither.

mod store;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::workspaces;
use auth::users::User;
use auth::{Credential, Origin, Principal};
use base::clock::format_timestamp;
use base::error::{Error, Result};
use base::id::{AuditEntryId, DatabaseId, ProjectId, ServiceTokenId, UserId, WorkspaceId};
use base::page::{Page, PageRequest};
use base::store::{Channel, Session, Tx};

/// Whether a change was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Allowed,
    /// It was not, and changed nothing.
    Refused,
}

impl Outcome {
    /// The name in the API and in the store.
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
    /// Nobody knows who: only for what concerns the whole installation.
    Anonymous,
}

impl Actor {
    /// What it is, in the store and on the wire.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ServiceToken(_) => "service_token",
            Self::User(_) => "user",
            Self::Anonymous => "anonymous",
        }
    }

    /// The actor's ID on the wire, if it has one.
    pub fn id(self) -> Option<String> {
        match self {
            Self::ServiceToken(id) => Some(id.to_string()),
            Self::User(id) => Some(id.to_string()),
            Self::Anonymous => None,
        }
    }

    fn uuid(self) -> Option<Uuid> {
        match self {
            Self::ServiceToken(id) => Some(id.uuid()),
            Self::User(id) => Some(id.uuid()),
            Self::Anonymous => None,
        }
    }
}

/// Who asks for something that concerns the whole installation, and no workspace.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who it is; `None` when nobody knows.
    pub user: Option<User>,
    /// The request that they came with.
    pub origin: Origin,
}

impl Asker {
    /// This user, who came with this request.
    pub fn of(user: &User, origin: &Origin) -> Self {
        Self { user: Some(user.clone()), origin: origin.clone() }
    }

    /// Whether they may do what concerns everybody with an account.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no administrator.
    pub fn may_administer(&self) -> Result<()> {
        if self.user.as_ref().is_some_and(|user| user.is_administrator) {
            return Ok(());
        }
        Err(Error::forbidden("Only administrators of this server can see its accounts.", "Ask an administrator."))
    }
}

/// What a change was made to.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The noun of the API, such as `database`.
    pub kind: String,
    /// The resource's ID.
    pub id: String,
    /// The resource's name then.
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

/// What came of the delete of a database.
#[derive(Clone, Copy, Debug)]
pub struct Consequence<'a> {
    /// A verb and a noun.
    pub action: &'static str,
    /// Which database was deleted, by itself or with its project.
    pub database: DatabaseId,
    /// Why it came of it.
    pub reason: &'a str,
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
    /// The entry's ID; later entries have larger ones.
    pub id: AuditEntryId,
    /// Whose log it is in; `None`: in that of the whole installation.
    pub workspace: Option<WorkspaceId>,
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
            "workspaceId": self.workspace.map(|id| id.to_string()),
            "projectId": self.project.map(|id| id.to_string()),
            "at": format_timestamp(self.at),
            "action": self.action,
            "outcome": self.outcome.as_str(),
            "status": self.status,
            "reason": self.reason,
            "actor": {
                "type": self.actor.kind(),
                "id": self.actor.id(),
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
    /// Those of tokens, users and applications with this in their name or address, in letters of either case.
    pub actor_name: Option<String>,
    /// Those about one project and what is in it.
    pub project: Option<ProjectId>,
    /// Those about one thing.
    pub resource: Option<String>,
    /// Those of one workspace; of those that were deleted, in the log of the whole installation.
    pub workspace: Option<WorkspaceId>,
    /// Those that happened then or later.
    pub since: Option<Timestamp>,
    /// Those that happened before.
    pub until: Option<Timestamp>,
}

/// Records a change, in the transaction that makes it, in the log of the caller's workspace.
pub async fn record(tx: &Tx, actor: &Principal, now: Timestamp, change: Change) -> Result<()> {
    write(tx, &changed(blank(actor, now), change)).await
}

/// Records what was refused; nothing else came of it.
pub async fn record_refusal(tx: &Tx, actor: &Principal, now: Timestamp, refusal: Refusal) -> Result<()> {
    write(tx, &refused(blank(actor, now), refusal)).await
}

/// Like [`record`], in the log of the whole installation.
pub async fn record_for_installation(tx: &Tx, asker: &Asker, now: Timestamp, change: Change) -> Result<()> {
    write(tx, &changed(blank_for_installation(asker, now), change)).await
}

/// Like [`record_refusal`], in the log of the whole installation.
pub async fn record_refusal_for_installation(tx: &Tx, asker: &Asker, now: Timestamp, refusal: Refusal) -> Result<()> {
    write(tx, &refused(blank_for_installation(asker, now), refusal)).await
}

/// Records something that came of a delete later on, in the name of who asked for it. Once only.
pub async fn record_consequence(
    tx: &Tx,
    now: Timestamp,
    project: ProjectId,
    consequence: Consequence<'_>,
) -> Result<()> {
    let id = AuditEntryId::generate(now);
    match store::insert_consequence(tx, id, now, project, consequence).await? {
        true => tx.announce(Channel::AuditRecorded, &id.bare()).await,
        false => Ok(()),
    }
}

/// Whether that was recorded.
pub async fn has_consequence(session: &Session, action: &str, database: DatabaseId) -> Result<bool> {
    store::has_consequence(session, action, database).await
}

fn changed(entry: Entry, change: Change) -> Entry {
    let Change { action, resource, project, before, after } = change;
    Entry { project, action: action.to_owned(), resource: Some(resource), before, after, ..entry }
}

fn refused(entry: Entry, refusal: Refusal) -> Entry {
    Entry {
        action: refusal.action,
        outcome: Outcome::Refused,
        status: Some(refusal.status),
        reason: Some(refusal.reason),
        resource: refusal.resource,
        project: refusal.project,
        ..entry
    }
}

fn blank(actor: &Principal, now: Timestamp) -> Entry {
    let (who, name, application) = match actor.credential() {
        Credential::ServiceToken { id, name } => (Actor::ServiceToken(*id), name.clone(), None),
        Credential::Integration { user, application, .. } => {
            (Actor::User(user.id), user.email.clone(), Some(application.clone()))
        }
        Credential::Session { user } => (Actor::User(user.id), user.email.clone(), None),
    };
    Entry { workspace: Some(actor.workspace()), application, ..by(who, name, actor.origin(), now) }
}

fn blank_for_installation(asker: &Asker, now: Timestamp) -> Entry {
    match &asker.user {
        Some(user) => by(Actor::User(user.id), user.email.clone(), &asker.origin, now),
        None => by(Actor::Anonymous, "somebody".to_owned(), &asker.origin, now),
    }
}

fn by(actor: Actor, actor_name: String, origin: &Origin, now: Timestamp) -> Entry {
    Entry {
        id: AuditEntryId::generate(now),
        workspace: None,
        project: None,
        at: now,
        action: String::new(),
        outcome: Outcome::Allowed,
        status: None,
        reason: None,
        actor,
        actor_name,
        application: None,
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
/// [`Error::NotFound`] for a workspace that the caller does not reach.
pub async fn list(
    session: &Session,
    actor: &Principal,
    workspace: WorkspaceId,
    filter: &Filter,
    page: PageRequest<AuditEntryId>,
) -> Result<Page<Entry>> {
    workspaces::get(session, actor, workspace).await?;
    let scope = actor.scope();
    let of = Of::Workspace { id: scope.workspace, projects: scope.projects };
    let rows = store::list(session, &of, filter, page).await?;
    Ok(Page::cut(rows, page.limit, |entry| entry.id.bare()))
}

/// The log of the whole installation, with those of workspaces that were deleted; newest first.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator.
pub async fn list_for_installation(
    session: &Session,
    asker: &Asker,
    filter: &Filter,
    page: PageRequest<AuditEntryId>,
) -> Result<Page<Entry>> {
    asker.may_administer()?;
    let rows = store::list(session, &Of::Installation, filter, page).await?;
    Ok(Page::cut(rows, page.limit, |entry| entry.id.bare()))
}

/// The workspaces that were deleted and whose logs are still there, by name, the last one first.
///
/// # Errors
/// [`Error::Forbidden`] for who is no administrator.
pub async fn deleted_workspaces(session: &Session, asker: &Asker) -> Result<Vec<(WorkspaceId, String)>> {
    asker.may_administer()?;
    store::deleted_workspaces(session).await
}

/// Whose log is listed.
enum Of {
    /// A workspace's; of some of its projects, where the caller is limited to them.
    Workspace { id: Uuid, projects: Option<Vec<Uuid>> },
    /// The whole installation's.
    Installation,
}

/// Takes up to `most` entries that are not in the stream yet, oldest first. They count as streamed
/// when the transaction commits; other processes pass over them until it ends.
pub async fn take_unstreamed(tx: &Tx, most: i64) -> Result<Vec<Entry>> {
    store::take_unstreamed(tx, most).await
}

/// Forgets entries older than this, and which workspaces were deleted before.
pub async fn forget_before(session: &Session, moment: Timestamp) -> Result<()> {
    store::forget_before(session, moment).await
}
