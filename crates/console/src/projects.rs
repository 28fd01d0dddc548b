//! The projects of a workspace.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::chart::count;
use super::confirm::Typed;
use super::connections::Reveal;
use super::databases::state;
use super::{Attempt, Form, Frame, Html, Member, Once, Problem, Section, again, operations, see_other};
use base::error::{Error, Result};
use base::id::{DatabaseId, ProjectId};
use base::name::{DatabaseName, ProjectName};
use base::page::PageRequest;
use domain::app::App;
use domain::backups::{self, LONGEST_RETENTION, RETENTION_DAYS};
use domain::branches::{self, Branch, Placement, Role};
use domain::databases::{self, Database, NewDatabase, Summary};
use domain::limits;
use domain::projects::{self, NewProject, Project, ProjectChange};
use domain::regions::Region;
use domain::restores::{self, Source};
use web::Failure;
use web::path::Path;
use web::query::Query;

/// Rows per page of a list.
pub(crate) const PAGE: u32 = 50;
/// The most branches that a page shows.
const BRANCHES: u32 = 200;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(list))
        .route("/projects", get(list).post(create))
        .route("/projects/new", get(new))
        .route("/projects/{project}", get(show))
        .route("/projects/{project}/settings", get(settings).post(update))
        .route("/projects/{project}/delete", get(settings).post(delete))
}

/// Parses an id of an address.
pub(crate) fn parse(id: &str) -> Result<ProjectId> {
    ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id))
}

pub(crate) fn address(frame: &Frame, id: ProjectId) -> String {
    frame.to(&format!("projects/{}", id.bare()))
}

struct Row {
    address: String,
    project: Project,
    region: String,
    databases: String,
    states: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "projects/list.html")]
struct List {
    frame: Frame,
    has_regions: bool,
    q: String,
    rows: Vec<Row>,
    next: Option<String>,
    more: String,
    usage: Vec<String>,
    may_create: bool,
    api: String,
    is_filtered: bool,
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    cursor: Option<String>,
}

async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let frame = member.frame(Section::Projects);
    let actor = &member.actor;
    let q = query.q.replace('\0', "").trim().to_owned();
    let page = PageRequest::parse(query.cursor.as_deref(), Some(PAGE), ProjectId::parse)?;
    let session = app.store.session().await?;
    let filter = projects::Filter { name_contains: (!q.is_empty()).then(|| q.clone()), ..projects::Filter::default() };
    let found = projects::list(&session, actor, &filter, page).await?;
    let summaries = databases::summarize(&session, &found.items).await?;
    let standing = limits::get(&session, actor, &app.quotas, actor.workspace()).await?;
    drop(session);
    let rows = found.items.into_iter().map(|project| {
        let summary = summaries.get(&project.id).copied().unwrap_or_default();
        Row {
            address: address(&frame, project.id),
            databases: count(summary.databases.unsigned_abs()),
            states: summarized(summary),
            region: region_of(&app, &project),
            project,
        }
    });
    let used = |quota: limits::Quota, what: &str| match quota.limit {
        Some(limit) => format!("{} of {} {what}", count(quota.used.into()), count(limit.into())),
        None => format!("{} {what}", count(quota.used.into())),
    };
    Ok(Html(List {
        rows: rows.collect(),
        next: found.next,
        more: format!("{}?{}", frame.to("projects"), query_string(&[("q", &q)])),
        usage: vec![used(standing.projects, "projects"), used(standing.databases, "databases")],
        has_regions: app.regions.are_several(),
        may_create: actor.may_create_projects().is_ok(),
        api: app.public.api.clone(),
        is_filtered: !q.is_empty() || query.cursor.is_some(),
        q,
        frame,
    })
    .into_response())
}

/// An encoded query string.
pub(crate) fn query_string(pairs: &[(&str, &str)]) -> String {
    serde_html_form::to_string(pairs).unwrap_or_default()
}

fn region_of(app: &App, project: &Project) -> String {
    project.default_region.as_deref().and_then(|id| app.regions.label(id)).unwrap_or_default()
}

/// The states of a project's databases, problems first. Empty if it has none.
fn summarized(summary: Summary) -> Vec<(&'static str, String)> {
    let Summary { databases, failed, under_way, damaged } = summary;
    let counts =
        [(failed, "bad", "failed"), (damaged, "bad", "with damaged backups"), (under_way, "busy", "not ready")];
    let counts = counts.into_iter().filter(|(number, ..)| *number > 0);
    let states: Vec<_> = counts.map(|(number, kind, what)| (kind, format!("{number} {what}"))).collect();
    match states.is_empty() && databases > 0 {
        true => vec![("good", "Ready".to_owned())],
        false => states,
    }
}

#[derive(Template)]
#[template(path = "projects/new.html")]
struct New {
    frame: Frame,
    name: String,
    region: String,
    has_regions: bool,
    regions: Vec<Region>,
    database: bool,
    problem: Problem,
    api: String,
}

#[derive(Deserialize)]
struct NewForm {
    #[serde(default)]
    name: String,
    region: String,
    database: Option<String>,
}

impl New {
    fn of(app: &App, member: &Member, form: NewForm, problem: Problem) -> Self {
        Self {
            frame: member.frame(Section::Projects),
            name: form.name,
            region: form.region,
            has_regions: app.regions.are_several(),
            regions: app.regions.list().to_vec(),
            database: form.database.is_some(),
            problem,
            api: app.public.api.clone(),
        }
    }
}

async fn new(State(app): State<Arc<App>>, member: Member) -> Result<Response, Failure> {
    member.actor.may_create_projects()?;
    let form =
        NewForm { name: String::new(), region: app.regions.default_id().to_owned(), database: Some(String::new()) };
    Ok(Html(New::of(&app, &member, form, Problem::none())).into_response())
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    match make(&app, &member, &form, attempt).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let fields: &[&str] = if app.regions.are_several() { &["name", "region"] } else { &["name"] };
            Ok(again(New::of(&app, &member, form, Problem::of(error, fields)?)))
        }
    }
}

async fn make(app: &App, member: &Member, form: &NewForm, attempt: Attempt) -> Result<Response> {
    let actor = &member.actor;
    let name = (!form.name.trim().is_empty()).then(|| ProjectName::parse(form.name.trim())).transpose()?;
    app.regions.check(&form.region)?;
    let now = app.clock.now();
    let tx = app.store.begin().await?;
    let wanted = NewProject { name, region: Some(form.region.clone()), logical_id: None };
    let project = projects::create(&tx, actor, now, &app.quotas, wanted).await?;
    let title = format!("Project “{}” created", project.name);
    if form.database.is_none() {
        let address = address(&member.frame(Section::Projects), project.id);
        return attempt.commit(app, tx, see_other(app, &address, &format!("{title}."))).await;
    }
    let first = NewDatabase {
        name: DatabaseName::parse(&project.name)?,
        region: form.region.clone(),
        is_default: true,
        placement: Placement::Default,
        logical_id: None,
        source: None,
    };
    app.check_room()?;
    let created = databases::create(&tx, actor, now, &app.quotas, project.id, first).await?;
    Reveal::commit(app, member, tx, attempt, title, &created).await
}

struct DatabaseRow {
    address: String,
    database: Database,
    branch: String,
    region: String,
    state: (&'static str, &'static str),
    has_damaged_backups: bool,
}

struct BranchRow {
    branch: Branch,
    role: &'static str,
    base: String,
    may_delete: bool,
}

struct DeletedRow {
    deleted: databases::Deleted,
    restore: String,
}

#[derive(Template)]
#[template(path = "projects/show.html")]
struct Show {
    frame: Frame,
    project: Project,
    base: String,
    region: String,
    is_settings: bool,
    has_regions: bool,
    rows: Vec<DatabaseRow>,
    next: Option<String>,
    more: String,
    branches: Vec<BranchRow>,
    deleted: Vec<DeletedRow>,
    operations: Vec<operations::Row>,
    all_operations: String,
}

#[derive(Deserialize)]
struct PageQuery {
    cursor: Option<String>,
}

async fn show(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Failure> {
    let (frame, actor) = (member.frame(Section::Projects), &member.actor);
    let page = PageRequest::parse(query.cursor.as_deref(), Some(PAGE), DatabaseId::parse)?;
    let session = app.store.session().await?;
    let project = projects::get(&session, actor, parse(&project)?).await?;
    let found = databases::list(&session, actor, project.id, page).await?;
    let ids: Vec<DatabaseId> = found.items.iter().map(|database| database.id).collect();
    let health = backups::health_of_all(&session, &ids).await?;
    let deleted = databases::list_deleted(&session, actor, project.id).await?;
    let all = PageRequest { after: None, limit: BRANCHES };
    let branches = branches::list(&session, actor, project.id, &branches::Filter::All, all).await?.items;
    let deletable = branches::deletable(&session, &branches).await?;
    let filter = domain::operations::Filter { project: Some(project.id), ..Default::default() };
    let recent = PageRequest { after: None, limit: operations::RECENT };
    let recent = domain::operations::list(&session, actor, &filter, recent).await?;
    drop(session);
    let name_of = |database: &Database| {
        let branch = branches.iter().find(|branch| branch.id == database.branch);
        branch.map(|branch| branch.git_name.clone()).unwrap_or_default()
    };
    let base = address(&frame, project.id);
    let rows = found.items.into_iter().map(|database| DatabaseRow {
        address: super::databases::address(&frame, database.id),
        branch: name_of(&database),
        region: app.regions.label(&database.region).unwrap_or_default(),
        state: state(database.status),
        has_damaged_backups: health.get(&database.id).is_some_and(|health| health.damaged > 0),
        database,
    });
    let rows = rows.collect();
    Ok(Html(Show {
        region: region_of(&app, &project),
        is_settings: false,
        has_regions: app.regions.are_several(),
        rows,
        next: found.next,
        more: format!("{base}?"),
        branches: branches
            .into_iter()
            .map(|branch| BranchRow {
                base: frame.to(&format!("branches/{}", branch.id.bare())),
                role: match branch.role {
                    Role::Production => "Production",
                    Role::Preview => "Preview",
                },
                may_delete: deletable.contains(&branch.id),
                branch,
            })
            .collect(),
        deleted: deleted
            .into_iter()
            .map(|deleted| DeletedRow { restore: super::deleted::address(&frame, deleted.id), deleted })
            .collect(),
        operations: recent.items.into_iter().map(|operation| operations::Row::of(&frame, operation)).collect(),
        all_operations: format!("{}?{}", frame.to("operations"), query_string(&[("project", &project.id.bare())])),
        base,
        project,
        frame,
    })
    .into_response())
}

#[derive(Template)]
#[template(path = "projects/settings.html")]
struct Settings {
    frame: Frame,
    project: Project,
    base: String,
    region: String,
    is_settings: bool,
    name: String,
    days: String,
    /// The retention if the field is empty.
    inherited_days: i32,
    /// Whether `inherited_days` is set by the workspace instead of the server.
    workspace_says: bool,
    protected: bool,
    problem: Problem,
    delete_problem: Problem,
}

#[derive(Deserialize)]
struct SettingsForm {
    name: String,
    #[serde(default, rename = "backupRetentionDays")]
    days: String,
    #[serde(rename = "deleteProtection")]
    protected: Option<String>,
}

impl Settings {
    fn of(app: &App, member: &Member, project: Project) -> Self {
        let frame = member.frame(Section::Projects);
        let of_workspace = member.workspace.backup_retention_days;
        Self {
            base: address(&frame, project.id),
            region: region_of(app, &project),
            is_settings: true,
            name: project.name.clone(),
            days: project.backup_retention_days.map(|days| days.to_string()).unwrap_or_default(),
            inherited_days: of_workspace.unwrap_or(RETENTION_DAYS),
            workspace_says: of_workspace.is_some(),
            protected: project.delete_protection,
            problem: Problem::none(),
            delete_problem: Problem::none(),
            project,
            frame,
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Project> {
    projects::get(&app.store.session().await?, &member.actor, parse(id)?).await
}

async fn settings(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let project = find(&app, &member, &project).await?;
    member.actor.may_change()?;
    Ok(Html(Settings::of(&app, &member, project)).into_response())
}

async fn update(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
    Form(form): Form<SettingsForm>,
) -> Result<Response, Failure> {
    let project = find(&app, &member, &project).await?;
    let frame = member.frame(Section::Projects);
    let changed = async {
        let change = ProjectChange {
            name: Some(ProjectName::parse(form.name.trim())?),
            delete_protection: Some(form.protected.is_some()),
            backup_retention_days: Some(days_of(&form.days)?),
            settings: None,
        };
        let tx = app.store.begin().await?;
        let after = projects::update(&tx, &member.actor, app.clock.now(), project.id, &change).await?;
        tx.commit().await?;
        Ok(after)
    };
    match changed.await {
        Ok(after) => {
            let notice = format!("Settings of project “{}” saved.", after.name);
            Ok(see_other(&app, &format!("{}/settings", address(&frame, after.id)), &notice))
        }
        Err(error) => {
            let problem = Problem::of(error, &["name", "backupRetentionDays"])?;
            let page = Settings::of(&app, &member, project);
            let SettingsForm { name, days, protected } = form;
            Ok(again(Settings { name, days, protected: protected.is_some(), problem, ..page }))
        }
    }
}

/// Parses the retention. Empty means that the workspace's setting applies.
pub(crate) fn days_of(text: &str) -> Result<Option<i32>> {
    let text = text.trim();
    let days = (!text.is_empty()).then(|| text.parse().map_err(|_| not_a_number())).transpose()?;
    Ok(backups::parse_retention(Some(days))?.flatten())
}

fn not_a_number() -> Error {
    Error::invalid(
        "backupRetentionDays: not a number of days",
        format!("Enter a number from 1 to {LONGEST_RETENTION}."),
    )
}

async fn delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, project)): Path<(String, String)>,
    Once(typed, attempt): Once<Typed>,
) -> Result<Response, Failure> {
    let project = find(&app, &member, &project).await?;
    member.actor.may_change()?;
    let frame = member.frame(Section::Projects);
    let delete_problem = match typed.check(&project.name, "project") {
        Err(problem) => problem,
        Ok(()) => {
            let deleted = async {
                let tx = app.store.begin().await?;
                let removed = projects::delete(&tx, &member.actor, app.clock.now(), project.id).await?;
                let help = " Its databases can still be restored: see Recently deleted.";
                let help = if removed.is_empty() || app.undelete.is_zero() { "" } else { help };
                let notice = format!("Project “{}” deleted.{help}", project.name);
                attempt.commit(&app, tx, see_other(&app, &frame.to("projects"), &notice)).await
            };
            match deleted.await {
                Ok(answer) => return Ok(answer),
                Err(error) => Problem::of(error, &[])?,
            }
        }
    };
    Ok(again(Settings { delete_problem, ..Settings::of(&app, &member, project) }))
}

/// The fields of a form for a new database.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) placement: Placement,
    pub(crate) is_default: bool,
    pub(crate) source: Option<Source>,
}

/// Creates a database, waits briefly for it, and shows its connection string under this title.
pub(crate) async fn create_database(
    app: &App,
    member: &Member,
    project: ProjectId,
    wanted: Wanted<'_>,
    title: String,
    attempt: Attempt,
) -> Result<Response> {
    let name = DatabaseName::parse(wanted.name)?;
    app.regions.check(wanted.region)?;
    let tx = app.store.begin().await?;
    let now = app.clock.now();
    let source = match &wanted.source {
        // A restored database is listed beside its source; two of one name could be confused.
        Some(_) if databases::has_name(&tx, project, &name).await? => {
            return Err(Error::conflict(
                "name: the project already has a database with this name",
                "Choose another name.",
            ));
        }
        Some(source) => Some(restores::resolve(&tx, &member.actor, now, source).await?),
        None => None,
    };
    let Wanted { region, is_default, placement, .. } = wanted;
    let new = NewDatabase { name, region: region.to_owned(), is_default, placement, logical_id: None, source };
    app.check_room()?;
    let created = databases::create(&tx, &member.actor, now, &app.quotas, project, new).await?;
    Reveal::commit(app, member, tx, attempt, title, &created).await
}
