//! Workspaces on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Data, List, PageQuery, given, sample_url, url};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::WorkspaceId;
use crate::base::name::WorkspaceName;
use crate::domain::backups;
use crate::domain::limits;
use crate::domain::members;
use crate::domain::workspaces::{self, Workspace, WorkspaceChange};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// What a workspace is: always `workspace`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum WorkspaceType {
    Workspace,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workspace)]
pub(super) struct WorkspaceWire {
    /// Its id.
    #[schema(value_type = WorkspaceId)]
    id: String,
    /// Always `workspace`.
    r#type: WorkspaceType,
    /// Its address in this API.
    #[schema(format = "uri", example = json!(sample_url("workspaces", "wksp")))]
    url: String,
    /// Its name.
    #[schema(example = "Personal")]
    name: String,
    /// When it was made.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// For how many days every moment of its databases stays restorable, where their project says nothing;
    /// null: as the server has it, which is 7.
    #[schema(example = 14)]
    backup_retention_days: Option<i32>,
}

/// What to change about a workspace; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"backupRetentionDays": 14}))]
pub(super) struct UpdateWorkspace {
    /// Another name: 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    name: Option<String>,
    /// For how many days every moment of its databases stays restorable, where their project says nothing:
    /// 1 to 365; null: as the server has it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, required = false, minimum = 1, maximum = 365)]
    backup_retention_days: Option<Option<i32>>,
}

/// What a workspace may use.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Subscription)]
pub(super) struct SubscriptionWire {
    /// The plan's name.
    #[schema(example = "Self-hosted")]
    plan_name: &'static str,
    /// Whether the workspace has reached its limit of projects or databases, so that no more can
    /// be made; `GET /v1/workspaces/{id}/limits` has the numbers.
    usage_blocked: bool,
    /// Where to get another plan: this server's own address, since there is nothing to buy.
    #[schema(format = "uri", example = "https://howdah.example.com")]
    upgrade_url: String,
}

/// What a new workspace needs; all of it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"displayName": "Research"}))]
pub(super) struct CreateWorkspace {
    /// Its name.
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

pub(super) fn parse(id: &str) -> Result<WorkspaceId, Error> {
    WorkspaceId::parse(id).ok_or_else(|| Error::not_found("workspace", id))
}

/// List workspaces
///
/// The workspaces that the token reaches; a service token reaches exactly one.
#[utoipa::path(get, path = "/v1/workspaces", tag = "Workspaces", params(PageQuery), responses(
    (status = 200, description = "The workspaces.", body = List<WorkspaceWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_workspaces(
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
/// The person whom the caller acts for owns it. The access token stays one of its own workspace: to work in
/// the new one, the person lets the application act there, too. A service token belongs to one workspace
/// and cannot make another.
#[utoipa::path(post, path = "/v1/workspaces", tag = "Workspaces", request_body = CreateWorkspace, responses(
    (status = 201, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token is a service token.", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_workspace(
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
/// What clients look at when a limit is reached. This server has one plan, whose limits its
/// operator sets.
#[utoipa::path(get, path = "/v1/workspaces/{id}/subscription", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id.")), responses(
    (status = 200, description = "The subscription.", body = Data<SubscriptionWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
))]
pub(super) async fn get_subscription(
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
#[utoipa::path(get, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id.")), responses(
    (status = 200, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
))]
pub(super) async fn get_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<WorkspaceWire>>, Failure> {
    let workspace = workspaces::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, workspace) }))
}

/// Update a workspace
///
/// For how long backups are kept. Those that are too old then are removed within half an hour, and the
/// moments that can be restored begin later.
#[utoipa::path(patch, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id.")),
    request_body = UpdateWorkspace, responses(
    (status = 200, description = "The workspace.", body = Data<WorkspaceWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn update_workspace(
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
/// Beyond the original. Only an owner may, through an application that acts for them: a service token is
/// nobody's. Its tokens, applications and invitations are no longer good when this answers, this access token
/// among them; its members keep their accounts. There must be no project in it, and no deleted database that
/// can still be restored. Its audit log stays for administrators of the server.
#[utoipa::path(delete, path = "/v1/workspaces/{id}", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id.")), responses(
    (status = 204, description = "It is gone."),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The caller does not own it, or is a service token.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 409, description = "There are projects in it, or deleted databases that can still be restored.", body = ErrorBody),
))]
pub(super) async fn delete_workspace(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    workspaces::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
