//! Deleted databases that can still be restored, whether or not their project still exists.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::connections::Reveal;
use super::projects::{self as project_pages, Wanted};
use super::{Attempt, Frame, Html, Member, Once, Problem, Section, again};
use base::error::{Error, Result};
use base::id::{DatabaseId, ProjectId};
use base::name::{DatabaseName, ProjectName};
use base::page::{MAX_LIMIT, PageRequest};
use domain::app::App;
use domain::branches::Placement;
use domain::databases::{self, Deleted, MOST_DELETED, NewDatabase};
use domain::projects::{self, NewProject, Project};
use domain::restores::{self, Source};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/deleted", get(list)).route("/deleted/{database}/restore", get(ask).post(restore))
}

pub(crate) fn address(frame: &Frame, id: DatabaseId) -> String {
    frame.to(&format!("deleted/{}/restore", id.bare()))
}

struct Row {
    deleted: Deleted,
    /// The page of its project, unless the project was deleted too.
    project: Option<String>,
    restore: String,
}

#[derive(Template)]
#[template(path = "deleted/list.html")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    /// Whether older ones are not shown.
    is_cut: bool,
    /// Whether this server keeps deleted databases.
    is_kept: bool,
}

async fn list(State(app): State<Arc<App>>, member: Member) -> Result<Response, Failure> {
    let frame = member.frame(Section::Projects);
    let found = databases::list_all_deleted(&app.store.session().await?, &member.actor).await?;
    let is_cut = found.len() == MOST_DELETED;
    let rows = found.into_iter().map(|deleted| Row {
        project: (!deleted.project_is_deleted).then(|| project_pages::address(&frame, deleted.project)),
        restore: address(&frame, deleted.id),
        deleted,
    });
    Ok(Html(List { rows: rows.collect(), is_cut, is_kept: !app.undelete.is_zero(), frame }).into_response())
}

#[derive(Template)]
#[template(path = "deleted/restore.html")]
struct Ask {
    frame: Frame,
    deleted: Deleted,
    address: String,
    projects: Vec<Project>,
    form: RestoreForm,
    problem: Problem,
}

#[derive(Default, Deserialize)]
struct RestoreForm {
    #[serde(default)]
    name: String,
    /// `project` or `new`.
    #[serde(default)]
    into: String,
    #[serde(default)]
    project: String,
    #[serde(default, rename = "projectName")]
    project_name: String,
}

impl RestoreForm {
    /// The defaults: its old project, or a new one with the same name if the project was deleted.
    fn of(deleted: &Deleted) -> Self {
        Self {
            name: deleted.name.clone(),
            into: if deleted.project_is_deleted { "new" } else { "project" }.to_owned(),
            project: deleted.project.bare(),
            project_name: deleted.project_name.clone(),
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Deleted> {
    let id = DatabaseId::parse(id).ok_or_else(|| Error::not_found("database", id))?;
    databases::get_deleted(&app.store.session().await?, &member.actor, id).await
}

async fn page(
    app: &App,
    member: &Member,
    deleted: Deleted,
    form: RestoreForm,
    problem: Problem,
) -> Result<Ask, Failure> {
    let frame = member.frame(Section::Projects);
    let all = PageRequest { after: None, limit: MAX_LIMIT };
    let session = app.store.session().await?;
    let projects = projects::list(&session, &member.actor, &projects::Filter::default(), all).await?.items;
    Ok(Ask { address: address(&frame, deleted.id), frame, deleted, projects, form, problem })
}

async fn ask(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let deleted = find(&app, &member, &database).await?;
    member.actor.may_change()?;
    let form = RestoreForm::of(&deleted);
    Ok(Html(page(&app, &member, deleted, form, Problem::none()).await?).into_response())
}

async fn restore(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Once(form, attempt): Once<RestoreForm>,
) -> Result<Response, Failure> {
    let deleted = find(&app, &member, &database).await?;
    let restored = match form.into.as_str() {
        "new" => restore_into_new(&app, &member, &deleted, &form, attempt).await,
        _ => restore_into(&app, &member, &deleted, &form, attempt).await,
    };
    match restored {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["name", "project", "projectName"])?;
            Ok(again(page(&app, &member, deleted, form, problem).await?))
        }
    }
}

/// The heading above the connection string.
fn title(deleted: &Deleted) -> String {
    format!("Restoring “{}”", deleted.name)
}

fn source(deleted: &Deleted) -> Source {
    Source::Database { database: deleted.id, to: None }
}

async fn restore_into(
    app: &App,
    member: &Member,
    deleted: &Deleted,
    form: &RestoreForm,
    attempt: Attempt,
) -> Result<Response> {
    let project = ProjectId::parse(&form.project).ok_or_else(|| {
        Error::invalid("project: no project is selected", "Select a project, or restore to a new one.")
    })?;
    let wanted = Wanted {
        name: form.name.trim(),
        region: &deleted.region,
        placement: Placement::Default,
        is_default: false,
        source: Some(source(deleted)),
    };
    project_pages::create_database(app, member, project, wanted, title(deleted), attempt).await
}

/// Restores into a new project, as its default database.
async fn restore_into_new(
    app: &App,
    member: &Member,
    deleted: &Deleted,
    form: &RestoreForm,
    attempt: Attempt,
) -> Result<Response> {
    let (actor, now) = (&member.actor, app.clock.now());
    let name = DatabaseName::parse(form.name.trim())?;
    let of_project = |error| match error {
        Error::Invalid { message, hint } => {
            Error::Invalid { message: message.replacen("name:", "projectName:", 1), hint }
        }
        other => other,
    };
    let project = ProjectName::parse(form.project_name.trim()).map_err(of_project)?;
    let tx = app.store.begin().await?;
    let source = restores::resolve(&tx, actor, now, &source(deleted)).await?;
    let wanted = NewProject { name: Some(project), region: Some(deleted.region.clone()), logical_id: None };
    let project = projects::create(&tx, actor, now, &app.quotas, wanted).await?;
    let new = NewDatabase {
        name,
        region: deleted.region.clone(),
        is_default: true,
        placement: Placement::Default,
        logical_id: None,
        source: Some(source),
    };
    app.check_room()?;
    let created = databases::create(&tx, actor, now, &app.quotas, project.id, new).await?;
    Reveal::commit(app, member, tx, attempt, title(deleted), &created).await
}
