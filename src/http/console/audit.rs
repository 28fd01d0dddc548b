//! The audit log of a workspace.

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
use super::{Frame, Html, Member, Problem, Section};
use crate::app::App;
use crate::base::error::{Error, Result};
use crate::base::id::{AuditEntryId, ProjectId};
use crate::base::page::{MAX_LIMIT, PageRequest};
use crate::domain::audit::{self, Actor, Entry, Filter, Outcome};
use crate::domain::projects::{self, Project};
use crate::http::Failure;
use crate::http::query::Query;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/audit", get(list))
}

struct Row {
    entry: Entry,
    action: String,
    actor_kind: &'static str,
    is_refused: bool,
    before: Option<String>,
    after: Option<String>,
}

impl Row {
    fn of(entry: Entry) -> Self {
        let written = |value: &Option<serde_json::Value>| {
            value.as_ref().and_then(|value| serde_json::to_string_pretty(value).ok())
        };
        let action = in_words(&entry.action);
        Self {
            action: action.chars().take(1).flat_map(char::to_uppercase).chain(action.chars().skip(1)).collect(),
            actor_kind: match entry.actor {
                Actor::ServiceToken(_) => "service token",
                Actor::User(_) => "person",
            },
            is_refused: entry.outcome == Outcome::Refused,
            before: written(&entry.before),
            after: written(&entry.after),
            entry,
        }
    }
}

#[derive(Template)]
#[template(path = "audit/list.html")]
struct List {
    frame: Frame,
    query: ListQuery,
    projects: Vec<Project>,
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
    project: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    cursor: Option<String>,
}

impl ListQuery {
    fn pairs(&self) -> [(&'static str, &str); 6] {
        [
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("project", &self.project),
            ("resource", &self.resource),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn filter(&self) -> Result<Filter> {
        // The log has names of ours; people write them with spaces. No entry has a zero byte.
        let given = |text: &str| (!text.trim().is_empty()).then(|| text.trim().replace('\0', "\u{fffd}"));
        let project = |id: String| ProjectId::parse(&id).ok_or_else(|| Error::not_found("project", id));
        Ok(Filter {
            action: given(&self.action).map(|action| action.to_lowercase().replace(' ', "_")),
            outcome: match self.outcome.as_str() {
                "allowed" => Some(Outcome::Allowed),
                "refused" => Some(Outcome::Refused),
                _ => None,
            },
            actor: None,
            project: given(&self.project).map(project).transpose()?,
            resource: given(&self.resource),
            since: given(&self.since).map(|text| moment("since", &text)).transpose()?,
            until: given(&self.until).map(|text| moment("until", &text)).transpose()?,
        })
    }
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
    let (found, problem) = match query.filter() {
        Ok(filter) => (Some(audit::list(&session, actor, actor.workspace(), &filter, page).await?), Problem::none()),
        Err(error) => (None, Problem::of(error, &["since", "until"])?),
    };
    let (entries, next) = found.map(|found| (found.items, found.next)).unwrap_or_default();
    Ok(Html(List {
        rows: entries.into_iter().map(Row::of).collect(),
        next,
        more: format!("{}?{}", frame.to("audit"), query_string(&query.pairs())),
        is_filtered: query.cursor.is_some() || query.pairs().iter().any(|(_, value)| !value.is_empty()),
        projects,
        query,
        frame,
        problem,
    })
    .into_response())
}
