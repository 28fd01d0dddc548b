//! Operations on databases, with their steps and progress.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::chart::bytes;
use super::confirm::{Confirm, Nothing};
use super::projects::query_string;
use super::{Form, Frame, Html, Member, Once, Problem, Section, databases as database_pages, see_other};
use base::error::{Error, Result};
use base::id::{DatabaseId, ProjectId, WorkflowId};
use base::page::PageRequest;
use domain::app::App;
use domain::operations::{self, Operation, State as OperationState, Undone};
use web::Failure;
use web::path::Path;
use web::query::Query;

/// How many operations the pages of projects and databases show.
pub(crate) const RECENT: u32 = 5;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/operations", get(list))
        .route("/operations/{operation}", get(show))
        .route("/operations/{operation}/status", get(show_status))
        .route("/operations/{operation}/cancel", get(ask_to_cancel).post(cancel))
        .route("/operations/{operation}/retry", post(retry))
}

pub(crate) struct Step {
    pub(crate) text: String,
    /// `done`, `now`, `ended` or `later`.
    pub(crate) kind: &'static str,
    /// The kind as a word.
    pub(crate) word: &'static str,
}

pub(crate) struct Progress {
    pub(crate) percent: u8,
    pub(crate) text: String,
}

pub(crate) struct Row {
    pub(crate) operation: Operation,
    pub(crate) address: String,
    pub(crate) database_address: String,
    pub(crate) title: String,
    pub(crate) state: (&'static str, &'static str),
    pub(crate) steps: Vec<Step>,
    /// Why the operation is delayed or failed, or else its current step. `None` once it has succeeded.
    pub(crate) detail: Option<String>,
    pub(crate) progress: Option<Progress>,
    pub(crate) can_cancel: bool,
    pub(crate) can_retry: bool,
    /// What to do when the backup is damaged: addresses and labels of links.
    pub(crate) ways_around: Vec<(String, &'static str)>,
}

fn state(operation: &Operation) -> (&'static str, &'static str) {
    match operation.state {
        OperationState::Waiting if operation.attempts > 0 => ("busy", "Retrying soon"),
        OperationState::Waiting => ("busy", "Starting"),
        OperationState::Running => ("busy", "Running"),
        OperationState::Succeeded => ("good", "Done"),
        OperationState::Failed => ("bad", "Failed"),
        OperationState::Superseded => ("idle", "Stopped by a delete"),
        OperationState::Cancelled => ("idle", "Cancelled"),
    }
}

/// `back_up` as "back up".
pub(crate) fn in_words(name: &str) -> String {
    name.replace('_', " ")
}

impl Row {
    pub(crate) fn of(frame: &Frame, operation: Operation) -> Self {
        let kind = operations::kinds::describe(&operation.kind);
        let undone = kind.and_then(|kind| kind.undoing.iter().position(|(name, _)| *name == operation.step));
        // Once an operation is being undone, only the steps that undo it are shown.
        let shown = kind.map(|kind| if undone.is_some() { kind.undoing } else { kind.steps });
        let at = shown.and_then(|steps| steps.iter().position(|(name, _)| *name == operation.step));
        let ended = operation.state.has_ended();
        let succeeded = operation.state == OperationState::Succeeded;
        let failed = operation.state == OperationState::Failed;
        let mark = |place: usize| match at {
            _ if succeeded => ("done", "done"),
            Some(at) if place < at => ("done", "done"),
            Some(at) if place == at && ended => ("ended", if failed { "failed" } else { "stopped" }),
            Some(at) if place == at => ("now", "running"),
            _ if ended => ("later", "not run"),
            _ => ("later", "pending"),
        };
        let steps = shown.unwrap_or_default();
        let words = |name: &str| {
            let known = steps.iter().find(|(known, _)| *known == name);
            known.map_or_else(|| in_words(name), |(_, text)| (*text).to_owned())
        };
        let progress = operation.progress.filter(|(_, total)| *total > 0 && !ended).map(|(done, total)| Progress {
            percent: u8::try_from(done.clamp(0, total).saturating_mul(100) / total).unwrap_or(100),
            text: format!("{} of {}", bytes(done.unsigned_abs()), bytes(total.unsigned_abs())),
        });
        let database_address = database_pages::address(frame, operation.database);
        Self {
            address: frame.to(&format!("operations/{}", operation.id.bare())),
            ways_around: ways_around(frame, &operation, &database_address),
            database_address,
            title: kind.map_or_else(|| in_words(&operation.kind), |kind| kind.title.to_owned()),
            state: state(&operation),
            steps: steps
                .iter()
                .enumerate()
                .map(|(place, (_, text))| {
                    let (kind, word) = mark(place);
                    Step { text: (*text).to_owned(), kind, word }
                })
                .collect(),
            detail: (!succeeded).then(|| operation.reason.clone().unwrap_or_else(|| words(&operation.step))),
            progress,
            can_cancel: frame.may_change() && operation.can_cancel(),
            can_retry: frame.may_change() && operation.can_retry(),
            operation,
        }
    }
}

fn ways_around(frame: &Frame, operation: &Operation, database: &str) -> Vec<(String, &'static str)> {
    if !frame.may_change() || !operation.needs_another_backup() {
        return Vec::new();
    }
    let restore = operation.source.map(|source| format!("{}/restore", database_pages::address(frame, source)));
    let restore = restore.map(|address| (address, "Restore from another backup…"));
    restore.into_iter().chain([(format!("{database}/settings"), "Delete this database…")]).collect()
}

#[derive(Template)]
#[template(path = "operations/list.html")]
struct List {
    frame: Frame,
    operations: Vec<Row>,
    state: String,
    project: String,
    database: String,
    next: Option<String>,
    more: String,
    is_filtered: bool,
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    state: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    database: String,
    cursor: Option<String>,
}

/// Parses the id of a filter. An unreadable id is not the same as no filter.
fn wanted<Id>(text: &str, kind: &'static str, read: impl Fn(&str) -> Option<Id>) -> Result<Option<Id>> {
    match text {
        "" => Ok(None),
        text => read(text).map(Some).ok_or_else(|| Error::not_found(kind, text)),
    }
}

async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let frame = member.frame(Section::Projects);
    let states = match query.state.as_str() {
        "open" => vec![OperationState::Waiting, OperationState::Running],
        "failed" => vec![OperationState::Failed],
        _ => Vec::new(),
    };
    let filter = operations::Filter {
        database: wanted(&query.database, "database", DatabaseId::parse)?,
        project: wanted(&query.project, "project", ProjectId::parse)?,
        states,
    };
    let page = PageRequest::parse(query.cursor.as_deref(), Some(super::projects::PAGE), WorkflowId::parse)?;
    let found = operations::list(&app.store.session().await?, &member.actor, &filter, page).await?;
    let ListQuery { state, project, database, cursor } = query;
    let pairs = [("state", state.as_str()), ("project", project.as_str()), ("database", database.as_str())];
    Ok(Html(List {
        operations: found.items.into_iter().map(|operation| Row::of(&frame, operation)).collect(),
        next: found.next,
        more: format!("{}?{}", frame.to("operations"), query_string(&pairs)),
        is_filtered: cursor.is_some() || pairs.iter().any(|(_, value)| !value.is_empty()),
        state,
        project,
        database,
        frame,
    })
    .into_response())
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Operation> {
    let id = WorkflowId::parse(id).ok_or_else(|| Error::not_found("operation", id))?;
    operations::get(&app.store.session().await?, &member.actor, id).await
}

#[derive(Template)]
#[template(path = "operations/show.html")]
struct Show {
    frame: Frame,
    row: Row,
    part: Part,
    database_exists: bool,
}

/// The part of the page that refreshes itself.
#[derive(Template)]
#[template(path = "operations/part.html")]
struct Part {
    frame: Frame,
    row: Row,
    is_part: bool,
}

async fn show(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, operation)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let operation = find(&app, &member, &operation).await?;
    let database = domain::databases::get(&app.store.session().await?, &member.actor, operation.database).await;
    let frame = member.frame(Section::Projects);
    let part = Part { row: Row::of(&frame, operation.clone()), is_part: false, frame: frame.clone() };
    let row = Row::of(&frame, operation);
    Ok(Html(Show { row, part, database_exists: database.is_ok(), frame }).into_response())
}

async fn show_status(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, operation)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let operation = find(&app, &member, &operation).await?;
    let frame = member.frame(Section::Projects);
    let row = Row::of(&frame, operation);
    Ok(Html(Part { row, is_part: true, frame }).into_response())
}

fn cancellation(member: &Member, operation: Operation) -> Result<Confirm> {
    let frame = member.frame(Section::Projects);
    let effects: &[&str] = match operation.cancellation()? {
        Undone::Database => &["The database is not created. You can try again, or delete it."],
        Undone::Copy => &[
            "The new database is not created. You can try again, or delete it.",
            "The database that it is restored from does not change.",
        ],
        Undone::Backup => &["This backup is not created. Existing backups are kept."],
        Undone::Restore => &["The database keeps its current data. What was restored so far is removed."],
    };
    let row = Row::of(&frame, operation);
    Ok(Confirm {
        title: format!("Cancel “{}” of “{}”?", row.title, row.operation.database_name),
        effects: effects.iter().map(|effect| (*effect).to_owned()).collect(),
        label: "Cancel operation",
        action: format!("{}/cancel", row.address),
        back: row.address,
        problem: Problem::none(),
        frame,
    })
}

async fn ask_to_cancel(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, operation)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let operation = find(&app, &member, &operation).await?;
    member.actor.may_change()?;
    Ok(cancellation(&member, operation)?.ask())
}

async fn cancel(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, operation)): Path<(String, String)>,
    Form(Nothing {}): Form<Nothing>,
) -> Result<Response, Failure> {
    let operation = find(&app, &member, &operation).await?;
    let tx = app.store.begin().await?;
    operations::cancel(&tx, &member.actor, app.clock.now(), operation.id).await?;
    tx.commit().await?;
    let address = member.frame(Section::Projects).to(&format!("operations/{}", operation.id.bare()));
    Ok(see_other(&app, &address, "Operation cancelled."))
}

async fn retry(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, operation)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let operation = find(&app, &member, &operation).await?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    operations::retry(&tx, &member.actor, app.clock.now(), operation.id).await?;
    let address = database_pages::address(&member.frame(Section::Projects), operation.database);
    let answer = attempt.commit(&app, tx, see_other(&app, &address, "Retrying the operation.")).await?;
    app.settle(&mut announcements, operation.id).await?;
    Ok(answer)
}
