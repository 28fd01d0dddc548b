//! The branches of a project, which group its databases.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::confirm::{Confirm, Nothing};
use super::projects as project_pages;
use super::{Form, Frame, Html, Member, Once, Problem, Section, again, see_other};
use base::error::{Error, Result};
use base::id::BranchId;
use base::name::BranchName;
use domain::app::App;
use domain::branches::{self, Branch};
use domain::projects::{self, Project};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/projects/{project}/branches/new", get(new).post(create))
        .route("/branches/{branch}/default", post(make_default))
        .route("/branches/{branch}/delete", get(ask_to_delete).post(delete))
}

#[derive(Template)]
#[template(path = "branches/new.html")]
struct New {
    frame: Frame,
    project: Project,
    base: String,
    name: String,
    is_default: bool,
    problem: Problem,
}

#[derive(Deserialize)]
struct NewForm {
    #[serde(rename = "gitName")]
    name: String,
    #[serde(rename = "isDefault")]
    is_default: Option<String>,
}

impl New {
    async fn of(app: &App, member: &Member, id: &str) -> Result<Self> {
        let frame = member.frame(Section::Projects);
        let project = projects::get(&app.store.session().await?, &member.actor, project_pages::parse(id)?).await?;
        member.actor.may_change()?;
        let base = project_pages::address(&frame, project.id);
        Ok(Self { frame, project, base, name: String::new(), is_default: false, problem: Problem::none() })
    }
}

async fn new(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
) -> Result<Response, Failure> {
    Ok(Html(New::of(&app, &member, &project).await?).into_response())
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    let page = New::of(&app, &member, &project).await?;
    let is_default = form.is_default.is_some();
    let made = async {
        let name = BranchName::parse(form.name.trim())?;
        let tx = app.store.begin().await?;
        let now = app.clock.now();
        let branch = branches::create(&tx, &member.actor, now, page.project.id, &name, is_default).await?;
        let answer = see_other(&app, &page.base, &format!("Branch “{}” created.", branch.git_name));
        attempt.commit(&app, tx, answer).await
    };
    match made.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["gitName"])?;
            Ok(again(New { name: form.name, is_default, problem, ..page }))
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Branch> {
    let id = BranchId::parse(id).ok_or_else(|| Error::not_found("branch", id))?;
    branches::get(&app.store.session().await?, &member.actor, id).await
}

async fn make_default(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, branch)): Path<(String, String)>,
    Form(Nothing {}): Form<Nothing>,
) -> Result<Response, Failure> {
    let branch = find(&app, &member, &branch).await?;
    let tx = app.store.begin().await?;
    branches::update(&tx, &member.actor, app.clock.now(), branch.id, Some(true)).await?;
    tx.commit().await?;
    let address = project_pages::address(&member.frame(Section::Projects), branch.project);
    Ok(see_other(&app, &address, &format!("“{}” is now the default branch.", branch.git_name)))
}

fn deletion(member: &Member, branch: &Branch) -> Confirm {
    let frame = member.frame(Section::Projects);
    Confirm {
        title: format!("Delete branch “{}”?", branch.git_name),
        effects: vec![format!(
            "The branch is removed from the project “{}”. It has no databases, so no data is lost.",
            branch.project_name
        )],
        label: "Delete branch",
        action: frame.to(&format!("branches/{}/delete", branch.id.bare())),
        back: project_pages::address(&frame, branch.project),
        problem: Problem::none(),
        frame,
    }
}

async fn ask_to_delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, branch)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let branch = find(&app, &member, &branch).await?;
    member.actor.may_change()?;
    branches::check_deletable(&app.store.session().await?, &branch).await?;
    Ok(deletion(&member, &branch).ask())
}

async fn delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, branch)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let branch = find(&app, &member, &branch).await?;
    let deleted = async {
        let tx = app.store.begin().await?;
        branches::delete(&tx, &member.actor, app.clock.now(), branch.id).await?;
        let address = project_pages::address(&member.frame(Section::Projects), branch.project);
        let answer = see_other(&app, &address, &format!("Branch “{}” deleted.", branch.git_name));
        attempt.commit(&app, tx, answer).await
    };
    match deleted.await {
        Ok(answer) => Ok(answer),
        Err(error) => deletion(&member, &branch).ask_again(error),
    }
}
