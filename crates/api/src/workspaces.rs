//! Workspaces on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Data, List, PageQuery, given, sample_url, url};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::WorkspaceId;
use base::name::WorkspaceName;
use domain::app::App;
use domain::backups;
use domain::limits;
use domain::members;
use domain::workspaces::{self, Workspace, WorkspaceChange};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The resource type: always `workspace`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum WorkspaceType {
    Workspace,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workspace)]
pub(crate) struct WorkspaceWire {
    /// The workspace's ID.
    #[schema(value_type = WorkspaceId)]
    id: String,
    /// Always `workspace`.
    r#type: WorkspaceType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("workspaces", "wksp")))]
    url: String,
    /// The workspace's name.
    #[schema(example = "Personal")]
    name: String,
    /// When the workspace was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// For how many days the workspace's databases can be restored to any moment, unless their project has its own
    /// setting. Null: the default of 7 days applies.
    #[schema(example = 14)]
    backup_retention_days: Option<i32>,
}

/// Changes to a workspace. Omitted fields are unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"backupRetentionDays": 14}))]
pub(crate) struct UpdateWorkspace {
    /// The new name, 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    name: Option<String>,
    /// For how many days the workspace's databases can be restored to any moment, unless their project has its own
    /// setting: 1 to 365. Null: the default of 7 days applies.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, required = false, minimum = 1, maximum = 365)]
    backup_retention_days: Option<Option<i32>>,
}

/// The subscription of a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Subscription)]
pub(crate) struct SubscriptionWire {
    /// The plan's name.
    #[schema(example = "Self-hosted")]
    plan_name: &'static str,
    /// Whether the workspace has reached its limit of projects or databases, so that no more can be created.
    /// `GET /v1/workspaces/{id}/limits` returns the numbers.
    usage_blocked: bool,
    /// The URL of this server. A self-hosted server has no other plans.
    #[schema(format = "uri", example = "https://howdah.example.com")]
    upgrade_url: String,
}

/// A workspace to create. All fields are optional.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"displayName": "Research"}))]
pub(crate) struct CreateWorkspace {
    /// The workspace's name. Generated from the person's name when omitted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    display_name: Option<String>,
}

fn wire(app: &App, workspace: Workspace) -> WorkspaceWire {
    let id = workspace.id.to_string();
    WorkspaceWire {
        url: url(app, "workspaces", &id),
        id,
        r#type: WorkspaceType::Workspace,
        name: workspace.name,
        created_at: format_timestamp(workspace.created_at),
        backup_retention_days: workspace.backup_retention_days,
    }
}

pub(crate) fn parse(id: &str) -> Result<WorkspaceId, Error> {
    WorkspaceId::parse(id).ok_or_else(|| Error::not_found("workspace", id))
}

/// List workspaces
///
/// Returns the workspaces that the token can access. Every token can access exactly one workspace.
#[utoipa::path(get, path = "/v1/workspaces", tag = "Workspaces", params(PageQuery), responses(
    (status = 200, description = "The workspaces.", body = List<WorkspaceWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_workspaces(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<WorkspaceWire>>, Failure> {
    let page = page.parse(WorkspaceId::parse)?;
    let found = workspaces::list(&app.store.session().await?, &actor, page).await?;
    Ok(Json(List::of(found, |workspace| wire(&app, workspace))))
}

/// Create a workspace
///
/// Creates a workspace. Its owner is the person that the application acts for. The access token cannot access the new
/// workspace: the person has to authorize the application there, too. A service token belongs to one workspace and
/// cannot create another one. Requires the developer role in the current workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "Workspaces", request_body = CreateWorkspace, responses(
    (status = 201, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is a service token or read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    body::Json(new): body::Json<CreateWorkspace>,
) -> Result<Answer, Failure> {
    let name = new.display_name.as_deref().map(WorkspaceName::parse).transpose()?;
    let tx = app.store.begin().await?;
    let workspace = members::create_workspace_for(&tx, &actor, app.clock.now(), name.as_ref()).await?;
    let answer = Answer::of(StatusCode::CREATED, &Data { data: wire(&app, workspace) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Get a workspace's subscription
///
/// Returns the plan of a workspace, and whether it has reached a limit. This server has one plan; its operator sets the
/// limits.
#[utoipa::path(get, path = "/v1/workspaces/{id}/subscription", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace.")), responses(
    (status = 200, description = "The subscription.", body = Data<SubscriptionWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_subscription(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<SubscriptionWire>>, Failure> {
    let usage_blocked = limits::is_blocked(&app.store.session().await?, &actor, &app.quotas, parse(&id)?).await?;
    let subscription =
        SubscriptionWire { plan_name: "Self-hosted", usage_blocked, upgrade_url: app.public.api.clone() };
    Ok(Json(Data { data: subscription }))
}

/// Get a workspace
///
/// Returns a workspace.
#[utoipa::path(get, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace.")), responses(
    (status = 200, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<WorkspaceWire>>, Failure> {
    let workspace = workspaces::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, workspace) }))
}

/// Update a workspace
///
/// Changes the name or the backup retention of a workspace. After a shorter retention is set, backups that are too old
/// are removed at the next retention check, normally within 30 minutes. Requires the admin role and a token that is not
/// limited to projects.
#[utoipa::path(patch, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace.")),
    request_body = UpdateWorkspace, responses(
    (status = 200, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn update_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(change): body::Json<UpdateWorkspace>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let change = WorkspaceChange {
        name: change.name.as_deref().map(WorkspaceName::parse).transpose()?,
        backup_retention_days: backups::parse_retention(change.backup_retention_days)?,
    };
    let tx = app.store.begin().await?;
    let workspace = workspaces::update(&tx, &actor, app.clock.now(), id, &change).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, workspace) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Delete a workspace
///
/// Deletes a workspace. Requires the owner role and an access token of an application; service tokens cannot delete
/// workspaces. All tokens, applications and invitations of the workspace stop working immediately, including the access
/// token of this request. The members keep their accounts. The workspace must have no projects and no deleted databases
/// that can still be restored. Administrators of the server can still read its audit log. Not part of the Prisma
/// Management API.
#[utoipa::path(delete, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace.")), responses(
    (status = 204, description = "The workspace was deleted."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The caller is not an owner of the workspace, or the token is read-only or a service token.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The workspace has projects, or deleted databases that can still be restored.", body = ErrorBody),
))]
pub(crate) async fn delete_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    workspaces::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
