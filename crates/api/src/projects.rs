//! Projects on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::databases::DatabaseWithSecretFields;
use super::{Data, List, PageQuery, WorkspaceReference, databases as database_wire, given, sample_url, url};
use auth::Principal;
use base::clock::format_timestamp;
use base::error::Error;
use base::id::ProjectId;
use base::name::{DatabaseName, LogicalId, ProjectName};
use base::store::{Session, Tx};
use domain::app::App;
use domain::backups;
use domain::branches::Placement;
use domain::databases::{self, NewDatabase};
use domain::projects::{self, NewProject, Project, ProjectChange};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The resource type: always `project`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum ProjectType {
    Project,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Project)]
pub(crate) struct ProjectWire {
    /// The project's ID.
    #[schema(value_type = ProjectId)]
    id: String,
    /// Always `project`.
    r#type: ProjectType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("projects", "proj")))]
    url: String,
    /// The project's name.
    #[schema(example = "my_project")]
    name: String,
    /// The identifier that an external tool assigned to the project.
    #[schema(example = json!(null))]
    logical_id: Option<String>,
    /// When the project was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// The region of the default database, or the region that the project was created with.
    #[schema(example = "us-east-1")]
    default_region: Option<String>,
    /// The workspace that owns the project.
    workspace: WorkspaceReference,
    /// Whether the project and its databases are protected from deletion.
    delete_protection: bool,
    /// For how many days the project's databases can be restored to any moment. Null: the workspace's setting applies.
    #[schema(example = 7)]
    backup_retention_days: Option<i32>,
}

/// A new project, with its default database if one was created.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectWithSecret)]
pub(crate) struct NewProjectWire {
    #[serde(flatten)]
    project: ProjectWire,
    /// The default database with the secrets of its first connection. Null when `createDatabase` was false.
    database: Option<DatabaseWithSecretFields>,
}

/// A project to create. All fields are optional.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "my_project", "region": "us-east-1"}))]
pub(crate) struct CreateProject {
    /// Whether to create a default database with the project.
    #[serde(default = "yes")]
    #[schema(default = true)]
    create_database: bool,
    /// The project's name, 1 to 256 characters. Generated when omitted.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The region of the default database.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    region: Option<String>,
    /// An identifier assigned by an external tool. Unique in the workspace.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
    /// The ID of the workspace. Must be the token's workspace, which is the default.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    workspace_id: Option<String>,
}

/// Changes to a project. Omitted fields are unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "another_name"}))]
pub(crate) struct UpdateProject {
    /// The new name, 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// Any JSON object. Howdah stores it and never returns it.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = HashMap<String, Value>, required = false)]
    settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether to protect the project and its databases from deletion.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    delete_protection: Option<bool>,
    /// For how many days the project's databases can be restored to any moment: 1 to 365. Null: the workspace's
    /// setting applies.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, required = false, minimum = 1, maximum = 365)]
    backup_retention_days: Option<Option<i32>>,
}

/// The recipient of a project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"recipientAccessToken": "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3b3Jrc3BhY2U6MDFqenE2dzNjNGU1In0.c2lnbmF0dXJl"}))]
pub(crate) struct TransferProject {
    /// A token of the workspace that receives the project. It identifies that workspace and proves its consent.
    recipient_access_token: String,
}

fn yes() -> bool {
    true
}

/// Filters of the list of projects.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ProjectQuery {
    /// Return only the project with this logical ID.
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
/// Returns the projects that the token can access, oldest first.
#[utoipa::path(get, path = "/v1/projects", tag = "Projects", params(PageQuery, ProjectQuery), responses(
    (status = 200, description = "The projects.", body = List<ProjectWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_projects(
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
/// Creates a project and, unless `createDatabase` is false, its default database. The response contains the
/// connection string of the database's first connection, which is not returned again. The database is normally
/// `ready`; if it is still `provisioning`, connections wait until it is ready. Requires the developer role and a
/// token that is not limited to projects.
#[utoipa::path(post, path = "/v1/projects", tag = "Projects", request_body = CreateProject, responses(
    (status = 201, description = "The project.", body = Data<NewProjectWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "Another project of the workspace has the logical ID, or the workspace has reached a limit (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    body::Json(new): body::Json<CreateProject>,
) -> Result<Answer, Failure> {
    let name = new.name.as_deref().map(ProjectName::parse).transpose()?;
    new.region.as_deref().map(|region| app.regions.check(region)).transpose()?;
    let logical_id = new.logical_id.as_deref().map(LogicalId::parse).transpose()?;
    if let Some(workspace) = new.workspace_id.as_deref()
        && base::id::WorkspaceId::parse(workspace) != Some(actor.workspace())
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
///
/// Returns a project. Its databases are listed by `GET /v1/projects/{projectId}/databases`.
#[utoipa::path(get, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The ID of the project.")), responses(
    (status = 200, description = "The project.", body = Data<ProjectWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<ProjectWire>>, Failure> {
    let project = projects::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, project) }))
}

/// Update a project
///
/// Changes the name, delete protection, backup retention or settings of a project. Requires the developer role.
#[utoipa::path(patch, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The ID of the project.")),
    request_body = UpdateProject, responses(
    (status = 200, description = "The project.", body = Data<ProjectWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn update_project(
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
/// Moves a project with all its databases to the workspace of the recipient's token. IDs, connection strings and
/// open sessions are unaffected. Afterwards the project is no longer accessible from the original workspace.
/// Requires the developer role in both workspaces.
#[utoipa::path(post, path = "/v1/projects/{id}/transfer", tag = "Projects",
    params(("id" = String, Path, description = "The ID of the project.")),
    request_body = TransferProject, responses(
    (status = 200, description = "The project, now in the recipient's workspace.", body = Data<ProjectWire>),
    (status = 400, description = "The recipient's token is invalid or cannot create projects, or the body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The project is already in that workspace, another project there has its logical ID, or the transfer would exceed a limit of that workspace (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn transfer_project(
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
            "Ask the recipient for a new token.",
        ),
        other => other,
    })
}

/// Delete a project
///
/// Deletes a project with all its databases. Their credentials stop working immediately, and their sessions are
/// closed. A final backup of each database is kept, with the earlier ones, for as long as the operator configured (7
/// days by default); until then each database can be restored into another project. Requires the developer role.
#[utoipa::path(delete, path = "/v1/projects/{id}", tag = "Projects",
    params(("id" = String, Path, description = "The ID of the project.")), responses(
    (status = 204, description = "The project was deleted."),
    (status = 400, description = "Delete protection is on, or a database of the project is being restored, or is being backed up on request.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn delete_project(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    let operations = projects::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty().naming(operations)).await?)
}
