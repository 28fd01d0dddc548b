//! The pages of a database.
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;

use super::chart::{Chart, Span, bytes, count};
use super::confirm::Typed;
use super::projects::{self as project_pages, Wanted};
use super::{Form, Frame, Html, Member, Once, Problem, Section, again, operations as operation_pages, see_other};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{BranchId, DatabaseId};
use base::name::DatabaseName;
use base::page::PageRequest;
use base::store::Session;
use domain::app::App;
use domain::backups::{self, Health};
use domain::branches::{self, Branch, Placement};
use domain::connections::Connection;
use domain::databases::{self, Database, DatabaseChange, Status};
use domain::operations::{self, State as OperationState};
use domain::projects::{self, Project};
use domain::regions::Region;
use domain::usage::{self, Period};
use web::Failure;
use web::path::Path;
use web::query::Query;

/// The most branches in a choice.
const BRANCHES: u32 = 1000;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/projects/{project}/databases/new", get(new).post(create))
        .route("/databases/{database}", get(show))
        .route("/databases/{database}/status", get(show_status))
        .route("/databases/{database}/settings", get(settings).post(update))
        .route("/databases/{database}/delete", get(settings).post(delete))
}

pub(crate) fn address(frame: &Frame, id: DatabaseId) -> String {
    frame.to(&format!("databases/{}", id.bare()))
}

/// The kind of the status dot, and the status as a word.
pub(crate) fn state(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Provisioning => ("busy", "Creating"),
        Status::Ready => ("good", "Ready"),
        Status::Recovering => ("busy", "Restoring"),
        Status::Failure => ("bad", "Failed"),
    }
}

pub(crate) async fn find(app: &App, member: &Member, id: &str) -> Result<Database> {
    let id = DatabaseId::parse(id).ok_or_else(|| Error::not_found("database", id))?;
    databases::get(&app.store.session().await?, &member.actor, id).await
}

/// The head of every page of a database.
pub(crate) struct Head {
    pub(crate) database: Database,
    pub(crate) base: String,
    pub(crate) tab: &'static str,
    pub(crate) project: String,
}

impl Head {
    pub(crate) fn of(frame: &Frame, database: Database, tab: &'static str) -> Self {
        Self {
            base: address(frame, database.id),
            project: project_pages::address(frame, database.project),
            tab,
            database,
        }
    }
}

/// Status and running operations of a database: the part of a page that refreshes itself.
#[derive(Template)]
#[template(path = "databases/standing.html")]
pub(crate) struct Standing {
    frame: Frame,
    state: (&'static str, &'static str),
    reason: Option<String>,
    operations: Vec<operation_pages::Row>,
    address: String,
    /// Whether the part refreshes itself.
    pub(crate) is_busy: bool,
    /// Whether it is rendered for the script instead of as part of a page.
    is_part: bool,
}

impl Standing {
    pub(crate) async fn of(session: &Session, frame: &Frame, actor: &Principal, database: &Database) -> Result<Self> {
        let page = PageRequest { after: None, limit: operation_pages::RECENT };
        let open = vec![OperationState::Waiting, OperationState::Running];
        let filter = operations::Filter { database: Some(database.id), states: open, ..Default::default() };
        let mut shown = operations::list(session, actor, &filter, page).await?.items;
        let is_busy = !shown.is_empty() || matches!(database.status, Status::Provisioning | Status::Recovering);
        if let (Status::Failure, Some(last)) = (database.status, database.operation)
            && shown.is_empty()
        {
            shown.extend(operations::get(session, actor, last).await.ok());
        }
        Ok(Self {
            state: state(database.status),
            reason: database.status_reason.clone(),
            operations: shown.into_iter().map(|operation| operation_pages::Row::of(frame, operation)).collect(),
            address: format!("{}/status", address(frame, database.id)),
            is_busy,
            is_part: false,
            frame: frame.clone(),
        })
    }
}

async fn show_status(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = find(&app, &member, &database).await?;
    let frame = member.frame(Section::Projects);
    let standing = Standing::of(&app.store.session().await?, &frame, &member.actor, &database).await?;
    Ok(Html(Standing { is_part: true, ..standing }).into_response())
}

struct ConnectionRow {
    connection: Connection,
    base: String,
    is_default: bool,
}

#[derive(Template)]
#[template(path = "databases/show.html")]
struct Show {
    frame: Frame,
    head: Head,
    health: Health,
    standing: Standing,
    region: String,
    branch: String,
    source: Option<(String, &'static str)>,
    size: String,
    month: String,
    measured_at: Option<Timestamp>,
    connections: Vec<ConnectionRow>,
    has_ca: bool,
    name: String,
    problem: Problem,
    chart: Chart,
    span: Span,
    operations: Vec<operation_pages::Row>,
    all_operations: String,
}

impl Show {
    async fn of(app: &App, member: &Member, database: Database, span: Span) -> Result<Self> {
        let (frame, actor, now) = (member.frame(Section::Projects), &member.actor, app.clock.now());
        let session = app.store.session().await?;
        let standing = Standing::of(&session, &frame, actor, &database).await?;
        let health = backups::health(&session, database.id).await?;
        let branch = branches::get(&session, actor, database.branch).await?;
        let month = usage::get(&session, actor, database.id, &Period::parse(None, None, now)?).await?;
        let hours = usage::history(&session, actor, database.id, &Period::until(span.end(now), span.length())).await?;
        let page = PageRequest { after: None, limit: operation_pages::RECENT };
        let recent = operations::list_of_database(&session, actor, database.id, page).await?;
        drop(session);
        let source = database.source_database.map(|source| {
            let what = match database.source_backup {
                Some(_) => "a backup of a database",
                None => "a database",
            };
            (address(&frame, source), what)
        });
        let rows = database.connections.iter().map(|connection| ConnectionRow {
            base: frame.to(&format!("connections/{}", connection.id.bare())),
            is_default: database.default_connection == Some(connection.id),
            connection: connection.clone(),
        });
        Ok(Self {
            has_ca: app.needs_ca(),
            region: app.regions.label(&database.region).unwrap_or_default(),
            branch: branch.git_name,
            source,
            size: month.measured_at.map_or_else(|| "Not measured yet".to_owned(), |_| bytes(month.storage_bytes)),
            month: count(month.operations),
            measured_at: month.measured_at,
            connections: rows.collect(),
            name: String::new(),
            problem: Problem::none(),
            chart: Chart::of(&hours, span, now),
            span,
            operations: recent.items.into_iter().map(|operation| operation_pages::Row::of(&frame, operation)).collect(),
            all_operations: format!(
                "{}?{}",
                frame.to("operations"),
                project_pages::query_string(&[("database", &database.id.bare())])
            ),
            head: Head::of(&frame, database, "overview"),
            health,
            standing,
            frame,
        })
    }
}

#[derive(Deserialize)]
struct ShowQuery {
    #[serde(default)]
    span: String,
}

async fn show(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Query(query): Query<ShowQuery>,
) -> Result<Response, Failure> {
    let database = find(&app, &member, &database).await?;
    Ok(Html(Show::of(&app, &member, database, Span::parse(&query.span)).await?).into_response())
}

/// The page again, with the problem of the form for a new connection.
pub(crate) async fn overview_again(
    app: &App,
    member: &Member,
    database: Database,
    name: String,
    problem: Problem,
) -> Result<Response, Failure> {
    let page = Show::of(app, member, database, Span::default()).await?;
    Ok(again(Show { name, problem, ..page }))
}

#[derive(Template)]
#[template(path = "databases/new.html")]
struct New {
    frame: Frame,
    project: Project,
    base: String,
    branches: Vec<Branch>,
    has_regions: bool,
    regions: Vec<Region>,
    has_default: bool,
    form: NewForm,
    problem: Problem,
}

#[derive(Deserialize)]
struct NewForm {
    name: String,
    region: String,
    #[serde(rename = "branchId")]
    branch: String,
    #[serde(rename = "isDefault")]
    is_default: Option<String>,
}

impl New {
    async fn of(app: &App, member: &Member, id: &str, form: Option<NewForm>, problem: Problem) -> Result<Self> {
        let (frame, actor) = (member.frame(Section::Projects), &member.actor);
        let session = app.store.session().await?;
        let project = projects::get(&session, actor, project_pages::parse(id)?).await?;
        actor.may_change()?;
        let branches = list_branches(&session, actor, &project).await?;
        let all = PageRequest { after: None, limit: BRANCHES };
        let has_default =
            databases::list(&session, actor, project.id, all).await?.items.iter().any(|one| one.is_default);
        let form = form.unwrap_or_else(|| NewForm {
            name: String::new(),
            region: project.default_region.clone().unwrap_or_else(|| app.regions.default_id().to_owned()),
            branch: branches.iter().find(|one| one.is_default).map(|one| one.id.bare()).unwrap_or_default(),
            is_default: None,
        });
        let (base, regions) = (project_pages::address(&frame, project.id), app.regions.list().to_vec());
        let has_regions = app.regions.are_several();
        Ok(Self { frame, base, project, branches, has_regions, regions, has_default, form, problem })
    }
}

async fn list_branches(session: &Session, actor: &Principal, project: &Project) -> Result<Vec<Branch>> {
    let all = PageRequest { after: None, limit: BRANCHES };
    Ok(branches::list(session, actor, project.id, &branches::Filter::All, all).await?.items)
}

async fn new(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
) -> Result<Response, Failure> {
    Ok(Html(New::of(&app, &member, &project, None, Problem::none()).await?).into_response())
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    let id = project_pages::parse(&project)?;
    let made = async {
        let branch =
            BranchId::parse(&form.branch).ok_or_else(|| Error::invalid("branchId: there is no such branch", ""))?;
        let wanted = Wanted {
            name: form.name.trim(),
            region: &form.region,
            placement: Placement::Branch(branch),
            is_default: form.is_default.is_some(),
            source: None,
        };
        let title = format!("Database “{}” created", form.name.trim());
        project_pages::create_database(&app, &member, id, wanted, title, attempt).await
    };
    match made.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let fields = ["name", "branchId", "region"];
            let shown = if app.regions.are_several() { 3 } else { 2 };
            let problem = Problem::of(error, &fields[..shown])?;
            Ok(again(New::of(&app, &member, &project, Some(form), problem).await?))
        }
    }
}

#[derive(Template)]
#[template(path = "databases/settings.html")]
struct Settings {
    frame: Frame,
    head: Head,
    branches: Vec<Branch>,
    name: String,
    branch: String,
    /// Why it cannot be deleted.
    kept: Option<&'static str>,
    project_settings: String,
    undelete_days: i64,
    problem: Problem,
    delete_problem: Problem,
}

#[derive(Deserialize)]
struct SettingsForm {
    name: String,
    #[serde(rename = "branchId")]
    branch: String,
}

impl Settings {
    async fn of(app: &App, member: &Member, database: Database) -> Result<Self> {
        let (frame, actor) = (member.frame(Section::Projects), &member.actor);
        let session = app.store.session().await?;
        let project = projects::get(&session, actor, database.project).await?;
        actor.may_change()?;
        let branches = list_branches(&session, actor, &project).await?;
        let kept = match (project.delete_protection, database.is_default) {
            (true, _) => Some("Delete protection is on for the project, so this database cannot be deleted."),
            (false, true) => Some("The default database of a project can only be deleted with the project."),
            (false, false) => None,
        };
        Ok(Self {
            branches,
            name: database.name.clone(),
            branch: database.branch.bare(),
            kept,
            project_settings: format!("{}/settings", project_pages::address(&frame, project.id)),
            undelete_days: app.undelete.as_hours() / 24,
            head: Head::of(&frame, database, "settings"),
            problem: Problem::none(),
            delete_problem: Problem::none(),
            frame,
        })
    }
}

async fn settings(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = find(&app, &member, &database).await?;
    Ok(Html(Settings::of(&app, &member, database).await?).into_response())
}

async fn update(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Form(form): Form<SettingsForm>,
) -> Result<Response, Failure> {
    let database = find(&app, &member, &database).await?;
    let changed = async {
        let branch =
            BranchId::parse(&form.branch).ok_or_else(|| Error::invalid("branchId: there is no such branch", ""))?;
        let name = DatabaseName::parse(form.name.trim())?;
        let change = DatabaseChange { name: Some(name), placement: Some(Placement::Branch(branch)), logical_id: None };
        let tx = app.store.begin().await?;
        let after = databases::update(&tx, &member.actor, app.clock.now(), database.id, &change).await?;
        tx.commit().await?;
        Ok::<_, Error>(after)
    };
    match changed.await {
        Ok(after) => {
            let address = format!("{}/settings", address(&member.frame(Section::Projects), after.id));
            Ok(see_other(&app, &address, &format!("Settings of database “{}” saved.", after.name)))
        }
        Err(error) => {
            let problem = Problem::of(error, &["name", "branchId"])?;
            let page = Settings::of(&app, &member, database).await?;
            Ok(again(Settings { name: form.name, branch: form.branch, problem, ..page }))
        }
    }
}

async fn delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Once(typed, attempt): Once<Typed>,
) -> Result<Response, Failure> {
    let database = find(&app, &member, &database).await?;
    let delete_problem = match typed.check(&database.name, "database") {
        Err(problem) => problem,
        Ok(()) => {
            let tx = app.store.begin().await?;
            databases::delete(&tx, &member.actor, app.clock.now(), database.id).await?;
            let address = project_pages::address(&member.frame(Section::Projects), database.project);
            let answer = see_other(&app, &address, &format!("Database “{}” deleted.", database.name));
            return Ok(attempt.commit(&app, tx, answer).await?);
        }
    };
    let page = Settings::of(&app, &member, database).await?;
    Ok(again(Settings { delete_problem, ..page }))
}
