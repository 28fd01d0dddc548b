//! The requester's workspaces, and the settings of a workspace.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use super::chart::count;
use super::confirm::Typed;
use super::projects::days_of;
use super::{Form, Frame, Html, Member, Once, Problem, Section, Visitor, again, go_to, see_other};
use auth::{Action, Role};
use base::name::WorkspaceName;
use domain::app::App;
use domain::backups;
use domain::limits::{self, Quota, Standing};
use domain::members;
use domain::workspaces::{self, Workspace, WorkspaceChange};
use web::Failure;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console", get(go_home))
        .route("/console/workspaces", get(list_workspaces).post(create_workspace))
        .route("/console/workspaces/{workspace}/settings", get(get_settings).post(update_workspace))
        .route("/console/workspaces/{workspace}/settings/leave", post(leave_workspace))
        .route("/console/workspaces/{workspace}/settings/delete", get(ask_to_delete).post(delete_workspace))
}

#[derive(Template)]
#[template(path = "workspaces/list.html")]
struct ListPage {
    frame: Frame,
    workspaces: Vec<(Workspace, Role)>,
    name: String,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "workspaces/settings.html")]
struct SettingsPage {
    frame: Frame,
    name: String,
    days: String,
    usual_days: i32,
    standing: Standing,
    may_manage: bool,
    may_delete: bool,
    is_last_owner: bool,
    problem: Problem,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct SettingsForm {
    name: String,
    #[serde(default, rename = "backupRetentionDays")]
    days: String,
}

impl SettingsForm {
    fn of(workspace: &Workspace) -> Self {
        let days = workspace.backup_retention_days.map(|days| days.to_string());
        Self { name: workspace.name.clone(), days: days.unwrap_or_default() }
    }
}

#[derive(Deserialize)]
struct Confirmed {
    confirm: String,
}

/// Redirects to the only workspace, or to the list.
async fn go_home(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Response, Failure> {
    let workspaces = members::workspaces_of(&app.store.session().await?, visitor.user.id).await?;
    Ok(match &workspaces[..] {
        [(only, _)] => go_to(&format!("/console/workspaces/{}", only.id.bare())),
        _ => go_to("/console/workspaces"),
    })
}

async fn list_page(app: &App, visitor: &Visitor, name: String, problem: Problem) -> Result<ListPage, Failure> {
    let workspaces = members::workspaces_of(&app.store.session().await?, visitor.user.id).await?;
    Ok(ListPage { frame: visitor.frame(Section::Workspaces), workspaces, name, problem })
}

async fn list_workspaces(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Html<ListPage>, Failure> {
    list_page(&app, &visitor, String::new(), Problem::none()).await.map(Html)
}

async fn create_workspace(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Once(new, attempt): Once<Named>,
) -> Result<Response, Failure> {
    let created = async {
        let name = WorkspaceName::parse(&new.name)?;
        let tx = app.store.begin().await?;
        let workspace =
            members::create_workspace(&tx, app.clock.now(), &visitor.user, &name, visitor.origin.clone()).await?;
        let address = format!("/console/workspaces/{}", workspace.id.bare());
        let answer = see_other(&app, &address, &format!("Workspace “{}” created.", workspace.name));
        attempt.commit(&app, tx, answer).await
    };
    match created.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["name"])?;
            Ok(again(list_page(&app, &visitor, new.name, problem).await?))
        }
    }
}

async fn settings_page(
    app: &App,
    member: &Member,
    SettingsForm { name, days }: SettingsForm,
    problem: Problem,
) -> Result<SettingsPage, Failure> {
    let session = app.store.session().await?;
    let standing = limits::get(&session, &member.actor, &app.quotas, member.workspace.id).await?;
    let owners = members::list(&session, &member.actor).await?.into_iter().filter(|other| other.role == Role::Owner);
    Ok(SettingsPage {
        frame: member.frame(Section::Settings),
        name,
        days,
        usual_days: backups::RETENTION_DAYS,
        standing,
        may_manage: member.actor.may(Action::ManageWorkspace).is_ok(),
        may_delete: member.actor.may(Action::OwnWorkspace).is_ok(),
        is_last_owner: member.actor.role() == Role::Owner && owners.count() == 1,
        problem,
    })
}

async fn get_settings(State(app): State<Arc<App>>, member: Member) -> Result<Html<SettingsPage>, Failure> {
    settings_page(&app, &member, SettingsForm::of(&member.workspace), Problem::none()).await.map(Html)
}

async fn update_workspace(
    State(app): State<Arc<App>>,
    member: Member,
    Form(form): Form<SettingsForm>,
) -> Result<Response, Failure> {
    let updated = async {
        let change = WorkspaceChange {
            name: Some(WorkspaceName::parse(&form.name)?),
            backup_retention_days: Some(days_of(&form.days)?),
        };
        let tx = app.store.begin().await?;
        workspaces::update(&tx, &member.actor, app.clock.now(), member.workspace.id, &change).await?;
        tx.commit().await
    };
    match updated.await {
        Ok(()) => Ok(see_other(&app, &member.frame(Section::Settings).to("settings"), "Settings saved.")),
        Err(error) => {
            let problem = Problem::of(error, &["name", "backupRetentionDays"])?;
            Ok(again(settings_page(&app, &member, form, problem).await?))
        }
    }
}

async fn leave_workspace(
    State(app): State<Arc<App>>,
    member: Member,
    Form(leave): Form<Confirmed>,
) -> Result<Response, Failure> {
    let left = async {
        if leave.confirm.trim() != member.workspace.name.trim() {
            return Err(super::form::not_the_name(&member.workspace.name));
        }
        let tx = app.store.begin().await?;
        members::remove(&tx, &member.actor, app.clock.now(), member.visitor.user.id).await?;
        tx.commit().await
    };
    match left.await {
        Ok(()) => {
            let said = format!("You left the workspace “{}”.", member.workspace.name);
            Ok(see_other(&app, "/console/workspaces", &said))
        }
        Err(error) => {
            let problem = Problem::of(error, &["confirm"])?;
            Ok(again(settings_page(&app, &member, SettingsForm::of(&member.workspace), problem).await?))
        }
    }
}

#[derive(Template)]
#[template(path = "workspaces/delete.html")]
struct DeletePage {
    frame: Frame,
    workspace: Workspace,
    problem: Problem,
}

impl DeletePage {
    fn of(member: &Member, problem: Problem) -> Self {
        Self { frame: member.frame(Section::Settings), workspace: member.workspace.clone(), problem }
    }
}

async fn ask_to_delete(member: Member) -> Result<Html<DeletePage>, Failure> {
    member.actor.may(Action::OwnWorkspace)?;
    Ok(Html(DeletePage::of(&member, Problem::none())))
}

async fn delete_workspace(
    State(app): State<Arc<App>>,
    member: Member,
    Form(typed): Form<Typed>,
) -> Result<Response, Failure> {
    member.actor.may(Action::OwnWorkspace)?;
    if let Err(problem) = typed.check(&member.workspace.name, "workspace") {
        return Ok(again(DeletePage::of(&member, problem)));
    }
    let deleted = async {
        let tx = app.store.begin().await?;
        workspaces::delete(&tx, &member.actor, app.clock.now(), member.workspace.id).await?;
        tx.commit().await
    };
    match deleted.await {
        Ok(()) => {
            let said = format!("Workspace “{}” deleted.", member.workspace.name);
            Ok(see_other(&app, "/console/workspaces", &said))
        }
        Err(error) => Ok(again(DeletePage::of(&member, Problem::of(error, &[])?))),
    }
}

fn shown(quota: &Quota) -> String {
    match quota.limit {
        Some(limit) => format!("{} of {}", count(quota.used.into()), count(limit.into())),
        None => format!("{}, no limit", count(quota.used.into())),
    }
}
