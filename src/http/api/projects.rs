//! Projects on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::databases::DatabaseWithSecretFields;
use super::{Data, List, PageQuery, WorkspaceReference, databases as database_wire, given, sample_url, url};
use crate::app::App;
use crate::auth::{self, Principal};
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::ProjectId;
use crate::base::name::{DatabaseName, LogicalId, ProjectName};
use crate::base::store::{Session, Tx};
use crate::domain::backups;
use crate::domain::branches::Placement;
use crate::domain::databases::{self, NewDatabase};
use crate::domain::projects::{self, NewProject, Project, ProjectChange};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// What a project is: always `project`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum ProjectType {
    Project,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Project)]
pub(super) struct ProjectWire {
    /// Its id.
    #[schema(value_type = ProjectId)]
    id: String,
    /// Always `project`.
    r#type: ProjectType,
    /// Its address in this API.
    #[schema(format = "uri", example = json!(sample_url("projects", "proj")))]
    url: String,
    /// Its name.
    #[schema(example = "my_project")]
    name: String,
    /// The identity that an external tool gave it.
    #[schema(example = json!(null))]
    logical_id: Option<String>,
    /// When it was made.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// The region of its default database, or the one that it was made with.
    #[schema(example = "us-east-1")]
    default_region: Option<String>,
    /// Its workspace.
    workspace: WorkspaceReference,
    /// Whether it and its databases cannot be deleted.
    delete_protection: bool,
    /// For how many days every moment of its databases stays restorable; null: as the workspace has it.
    #[schema(example = 7)]
    backup_retention_days: Option<i32>,
}

/// A new project, with its default database unless none was wanted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectWithSecret)]
pub(super) struct NewProjectWire {
    #[serde(flatten)]
    project: ProjectWire,
    /// Its default database, with the secrets of its first connection; null when none was wanted.
    database: Option<DatabaseWithSecretFields>,
}

/// What a new project needs; all of it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "my_project", "region": "us-east-1"}))]
pub(super) struct CreateProject {
    /// Whether it gets a default database at once.
    #[serde(default = "yes")]
    #[schema(default = true)]
    create_database: bool,
    /// Its name, 1 to 256 characters; a made-up one when there is none.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The region of its default database.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    region: Option<String>,
    /// An external tool's own name for it; unique in the workspace.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
    /// The workspace; the token's own.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    workspace_id: Option<String>,
}

/// What to change about a project; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "another_name"}))]
pub(super) struct UpdateProject {
    /// Another name, 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// Any object. It is kept and never shown.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = HashMap<String, Value>, required = false)]
    settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether it and its databases cannot be deleted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    delete_protection: Option<bool>,
    /// For how many days every moment of its databases stays restorable: 1 to 365; null: as the workspace
    /// has it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, required = false, minimum = 1, maximum = 365)]
    backup_retention_days: Option<Option<i32>>,
}

/// Who gets a project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"recipientAccessToken": "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3b3Jrc3BhY2U6MDFqenE2dzNjNGU1In0.c2lnbmF0dXJl"}))]
pub(super) struct TransferProject {
    /// A token of the workspace that gets the project. It names that workspace and proves its consent.
    recipient_access_token: String,
}

fn yes() -> bool {
    true
}

/// Which projects.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ProjectQuery {
    /// Only the project with this logical id.
    logical_id: Option<String>,
}

fn wire(app: &App, project: Project) -> ProjectWire {
    let id = project.id.to_string();
    ProjectWire {
        url: url(app, "projects", &id),
        id,
        r#type: ProjectType::Project,
        name: project.name,
        logical_id: project.logical_id,
        created_at: format_timestamp(project.created_at),
        default_region: project.default_region,
        workspace: WorkspaceReference::new(app, project.workspace, project.workspace_name),
        delete_protection: project.delete_protection,
        backup_retention_days: project.backup_retention_days,
    }
}

fn parse(id: &str) -> Result<ProjectId, Error> {
    ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id))
}

/// List projects
///
/// Oldest first.
#[utoipa::path(get, path = "/v1/projects", tag = "Projects", params(PageQuery, ProjectQuery), responses(
    (status = 200, description = "The projects.", body = List<ProjectWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_projects(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(page): Query<PageQuery>,
    Query(filter): Query<ProjectQuery>,
) -> Result<Json<List<ProjectWire>>, Failure> {
    let page = page.parse(ProjectId::parse)?;
    let logical_id = filter.logical_id.as_deref().map(LogicalId::parse).transpose()?;
    let filter = projects::Filter { logical_id, ..projects::Filter::default() };
    let session = app.store.session().await?;
    let found = projects::list(&session, &actor, &filter, page).await?;
    Ok(Json(List::of(found, |project| wire(&app, project))))
}

/// Create a project
///
/// With a default database, unless `createDatabase` is false. The answer holds the connection
/// string of the database's first connection, which is not shown again. The database is normally
/// `ready`; when it is still `provisioning`, a connect waits for it.
#[utoipa::path(post, path = "/v1/projects", tag = "Projects", request_body = CreateProject, responses(
    (status = 201, description = "The project.", body = Data<NewProjectWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 409, description = "Another project has the logical id, or the workspace has reached a limit (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    body::Json(new): body::Json<CreateProject>,
) -> Result<Answer, Failure> {
    let name = new.name.as_deref().map(ProjectName::parse).transpose()?;
    new.region.as_deref().map(|region| app.regions.check(region)).transpose()?;
    let logical_id = new.logical_id.as_deref().map(LogicalId::parse).transpose()?;
    if let Some(workspace) = new.workspace_id.as_deref()
        && crate::base::id::WorkspaceId::parse(workspace) != Some(actor.workspace())
    {
        return Err(Error::not_found("workspace", workspace).into());
    }
    let mut announcements = app.store.announcements();
    let now = app.clock.now();
    let tx = app.store.begin().await?;
    let wanted = NewProject { name, region: new.region.clone(), logical_id };
    let project = projects::create(&tx, &actor, now, &app.quotas, wanted).await?;
    let created = if new.create_database {
        let region = new.region.unwrap_or_else(|| app.regions.default_id().to_owned());
        let name = DatabaseName::parse(&project.name)?;
        let placement = Placement::Default;
        let first = NewDatabase { name, region, is_default: true, placement, logical_id: None, source: None };
        app.check_room()?;
        Some(databases::create(&tx, &actor, now, &app.quotas, project.id, first).await?)
    } else {
        None
    };
    let Some(created) = created else {
        let answer = made(&app, &tx, &actor, project.id, None).await?;
        return Ok(repeatable.commit(&app, tx, answer).await?);
    };
    let so_far = made(&app, &tx, &actor, project.id, Some(&created)).await?;
    repeatable.commit_unsettled(&app, tx, &so_far).await?;
    app.settle(&mut announcements, created.workflow).await?;
    let answer = made(&app, &app.store.session().await?, &actor, project.id, Some(&created)).await?;
    Ok(repeatable.settle(&app, answer).await?)
}

/// The answer to a create, as things are now.
async fn made(
    app: &App,
    session: &Session,
    actor: &Principal,
    project: ProjectId,
    created: Option<&databases::Created>,
) -> Result<Answer, Error> {
    let project = wire(app, projects::get(session, actor, project).await?);
    let database = match created {
        None => None,
        Some(created) => {
            let found = databases::get(session, actor, created.database).await?;
            Some(database_wire::wire_new(app, &found, &created.credential))
        }
    };
    let answer = Answer::of(StatusCode::CREATED, &Data { data: NewProjectWire { project, database } })?;
    Ok(answer.naming(created.map(|created| created.workflow)))
}

/// Get a project
#[utoipa::path(get, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The project's id.")), responses(
    (status = 200, description = "The project.", body = Data<ProjectWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
))]
pub(super) async fn get_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<ProjectWire>>, Failure> {
    let project = projects::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, project) }))
}

/// Update a project
#[utoipa::path(patch, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The project's id.")),
    request_body = UpdateProject, responses(
    (status = 200, description = "The project.", body = Data<ProjectWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not do this.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn update_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(change): body::Json<UpdateProject>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let change = ProjectChange {
        name: change.name.as_deref().map(ProjectName::parse).transpose()?,
        settings: change.settings.map(|settings| serde_json::Value::Object(settings).to_string()),
        delete_protection: change.delete_protection,
        backup_retention_days: backups::parse_retention(change.backup_retention_days)?,
    };
    let tx = app.store.begin().await?;
    let project = projects::update(&tx, &actor, app.clock.now(), id, &change).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, project) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Transfer a project
///
/// To the workspace of the recipient's token, with all its databases. Ids and connection strings
/// stay as they are, sessions go on; from then on the project does not exist for the giver.
#[utoipa::path(post, path = "/v1/projects/{id}/transfer", tag = "Projects",
    params(("id" = String, Path, description = "The project's id.")),
    request_body = TransferProject, responses(
    (status = 200, description = "The project, in the recipient's workspace.", body = Data<ProjectWire>),
    (status = 400, description = "The recipient's token is not good, or the body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 409, description = "It is in that workspace already, another project there has its logical id, or it would have more than it may (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn transfer_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(transfer): body::Json<TransferProject>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let tx = app.store.begin().await?;
    // Whoever does not have the project learns nothing from the recipient's token.
    projects::get(&tx, &actor, id).await?;
    let recipient = recipient(&app, &tx, &transfer.recipient_access_token).await?;
    let project = projects::transfer(&tx, &actor, &recipient, app.clock.now(), &app.quotas, id).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, project) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Whom the recipient's token stands for. That it is not good is the request's fault, not that of
/// the caller's own token: 401 would make clients log the caller out.
async fn recipient(app: &App, tx: &Tx, token: &str) -> Result<Principal, Error> {
    let accepted = auth::authenticate(tx, &app.signer, token, app.clock.now()).await;
    accepted.map(|accepted| accepted.principal).map_err(|error| match error {
        Error::Unauthenticated(_) => Error::rejected(
            "recipientAccessToken: the recipient's access token is invalid, expired or revoked",
            "The recipient has to give a new one.",
        ),
        other => other,
    })
}

/// Delete a project
///
/// Deletes a project with all its databases. Their credentials stop working at once, and their sessions are ended. A
/// last backup of each is kept, with the earlier ones, for as long as the operator configured (a week by default):
/// until then each database can be restored into another project.
#[utoipa::path(delete, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The project's id.")), responses(
    (status = 204, description = "It is gone."),
    (status = 400, description = "Delete protection is on, or one of its databases is being restored.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
))]
pub(super) async fn delete_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    let operations = projects::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty().naming(operations)).await?)
}
