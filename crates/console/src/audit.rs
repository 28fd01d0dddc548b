//! The audit logs of a workspace and of the server.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::backups::moment;
use super::operations::in_words;
use super::projects::{PAGE, query_string};
use super::{Frame, Html, Member, Problem, Section, Visitor};
use base::error::{Error, Result};
use base::id::{AuditEntryId, ProjectId, ServiceTokenId, UserId, WorkspaceId};
use base::page::{MAX_LIMIT, Page, PageRequest};
use domain::app::App;
use domain::audit::{self, Actor, Entry, Filter, Outcome};
use domain::projects::{self, Project};
use web::Failure;
use web::query::Query;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/audit", get(list))
}

/// The page of the server's log.
const OF_INSTALLATION: &str = "/console/audit";

pub(crate) fn routes_of_installation() -> Router<Arc<App>> {
    Router::new().route(OF_INSTALLATION, get(list_for_installation))
}

struct Row {
    entry: Entry,
    action: String,
    actor_kind: &'static str,
    actor_id: String,
    /// The same list, filtered by this actor.
    same_actor: String,
    is_refused: bool,
    before: Option<String>,
    after: Option<String>,
    /// The name of the workspace, if it was deleted.
    workspace: Option<String>,
}

impl Row {
    fn of(entry: Entry, address: &str, workspaces: &[(WorkspaceId, String)]) -> Self {
        let written = |value: &Option<serde_json::Value>| {
            value.as_ref().and_then(|value| serde_json::to_string_pretty(value).ok())
        };
        let action = in_words(&entry.action);
        let actor_id = entry.actor.id().unwrap_or_default();
        Self {
            action: action.chars().take(1).flat_map(char::to_uppercase).chain(action.chars().skip(1)).collect(),
            actor_kind: match entry.actor {
                Actor::ServiceToken(_) => "Service token",
                Actor::User(_) => "Account",
                Actor::Anonymous => "Not signed in",
            },
            same_actor: format!("{address}?{}", query_string(&[("actor", &actor_id)])),
            actor_id,
            is_refused: entry.outcome == Outcome::Refused,
            before: written(&entry.before),
            after: written(&entry.after),
            workspace: workspaces.iter().find(|(id, _)| Some(*id) == entry.workspace).map(|(_, name)| name.clone()),
            entry,
        }
    }
}

#[derive(Template)]
#[template(path = "audit/list.html")]
struct List {
    frame: Frame,
    address: String,
    is_of_installation: bool,
    query: ListQuery,
    projects: Vec<Project>,
    workspaces: Vec<(WorkspaceId, String)>,
    rows: Vec<Row>,
    next: Option<String>,
    more: String,
    is_filtered: bool,
    problem: Problem,
}

#[derive(Default, Deserialize)]
struct ListQuery {
    #[serde(default)]
    action: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    cursor: Option<String>,
}

impl ListQuery {
    fn pairs(&self) -> [(&'static str, &str); 8] {
        [
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("actor", &self.actor),
            ("project", &self.project),
            ("workspace", &self.workspace),
            ("resource", &self.resource),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn filter(&self) -> Result<Filter> {
        // Entries have names such as `create_database`; people type spaces. PostgreSQL refuses zero bytes.
        let given = |text: &str| (!text.trim().is_empty()).then(|| text.trim().replace('\0', "\u{fffd}"));
        let project = |id: String| ProjectId::parse(&id).ok_or_else(|| Error::not_found("project", id));
        let workspace = |id: String| WorkspaceId::parse(&id).ok_or_else(|| Error::not_found("workspace", id));
        let who = given(&self.actor);
        let actor = who.as_deref().and_then(actor);
        Ok(Filter {
            action: given(&self.action).map(|action| action.to_lowercase().replace(' ', "_")),
            outcome: match self.outcome.as_str() {
                "allowed" => Some(Outcome::Allowed),
                "refused" => Some(Outcome::Refused),
                _ => None,
            },
            actor_name: who.filter(|_| actor.is_none()),
            actor,
            project: given(&self.project).map(project).transpose()?,
            workspace: given(&self.workspace).map(workspace).transpose()?,
            resource: given(&self.resource),
            since: given(&self.since).map(|text| moment("since", &text)).transpose()?,
            until: given(&self.until).map(|text| moment("until", &text)).transpose()?,
        })
    }
}

/// Parses the id of an actor, with its prefix. Anything else is searched for in names.
fn actor(text: &str) -> Option<Actor> {
    let has = |prefix: &str| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
    match text {
        _ if has(ServiceTokenId::PREFIX) => ServiceTokenId::parse(text).map(Actor::ServiceToken),
        _ if has(UserId::PREFIX) => UserId::parse(text).map(Actor::User),
        _ => None,
    }
}

impl List {
    /// The page; without entries if the filter could not be parsed.
    fn of(frame: Frame, address: String, query: ListQuery, found: Result<Page<Entry>, Problem>) -> Self {
        let (found, problem) = match found {
            Ok(found) => (Some(found), Problem::none()),
            Err(problem) => (None, problem),
        };
        let (entries, next) = found.map(|found| (found.items, found.next)).unwrap_or_default();
        Self {
            rows: entries.into_iter().map(|entry| Row::of(entry, &address, &[])).collect(),
            next,
            more: format!("{address}?{}", query_string(&query.pairs())),
            is_filtered: query.cursor.is_some() || query.pairs().iter().any(|(_, value)| !value.is_empty()),
            is_of_installation: false,
            projects: Vec::new(),
            workspaces: Vec::new(),
            address,
            query,
            frame,
            problem,
        }
    }

    /// Adds the names of deleted workspaces.
    fn naming(mut self, workspaces: Vec<(WorkspaceId, String)>) -> Self {
        let rows = std::mem::take(&mut self.rows).into_iter();
        let rows = rows.map(|row| Row::of(row.entry, &self.address, &workspaces)).collect();
        Self { rows, workspaces, is_of_installation: true, ..self }
    }
}

fn unreadable(error: Error) -> Result<Problem, Failure> {
    Problem::of(error, &["since", "until"])
}

async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let (frame, actor) = (member.frame(Section::Audit), &member.actor);
    let page = PageRequest::parse(query.cursor.as_deref(), Some(PAGE), AuditEntryId::parse)?;
    let session = app.store.session().await?;
    let all = PageRequest { after: None, limit: MAX_LIMIT };
    let projects = projects::list(&session, actor, &projects::Filter::default(), all).await?.items;
    let found = match query.filter() {
        Ok(filter) => Ok(audit::list(&session, actor, actor.workspace(), &filter, page).await?),
        Err(error) => Err(unreadable(error)?),
    };
    let address = frame.to("audit");
    Ok(Html(List { projects, ..List::of(frame, address, query, found) }).into_response())
}

async fn list_for_installation(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let (frame, asker) = (visitor.frame(Section::People), visitor.asker());
    let page = PageRequest::parse(query.cursor.as_deref(), Some(PAGE), AuditEntryId::parse)?;
    let session = app.store.session().await?;
    let workspaces = audit::deleted_workspaces(&session, &asker).await?;
    let found = match query.filter() {
        Ok(filter) => Ok(audit::list_for_installation(&session, &asker, &filter, page).await?),
        Err(error) => Err(unreadable(error)?),
    };
    Ok(Html(List::of(frame, OF_INSTALLATION.to_owned(), query, found).naming(workspaces)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_as_actors_and_other_text_searches_names() {
        let bare = "01jzq6w3c4e5f6g7h8j9k0m1n2";
        let user = format!("{}_{bare}", UserId::PREFIX);
        assert_eq!(actor(&user).and_then(Actor::id), Some(user));
        assert!(matches!(actor(&format!("{}_{bare}", ServiceTokenId::PREFIX)), Some(Actor::ServiceToken(_))));
        assert!(actor(bare).is_none() && actor("ada@example.com").is_none() && actor("usr_ada").is_none());
    }
}
