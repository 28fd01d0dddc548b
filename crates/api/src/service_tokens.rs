//! Service tokens on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, List, given, moment};
use auth::Limits;
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{ProjectId, ServiceTokenId, WorkspaceId};
use base::name::TokenName;
use base::page::PageRequest;
use domain::app::App;
use domain::service_tokens::{self, ServiceToken};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The largest page of this list, smaller than that of others.
const LARGEST_PAGE: u32 = 100;

/// The resource type: always `serviceToken`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum ServiceTokenType {
    ServiceToken,
}

/// A service token, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceToken)]
pub(crate) struct ServiceTokenWire {
    /// The token's ID.
    #[schema(value_type = ServiceTokenId)]
    id: String,
    /// Always `serviceToken`.
    r#type: ServiceTokenType,
    /// The token's name.
    #[schema(example = "continuous integration")]
    name: String,
    /// The first and last characters of the token's value, to recognize it by.
    #[schema(example = "eyJ0eX…k3Zg")]
    value_hint: String,
    /// When the token was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// When the token expires. Null if it does not expire.
    #[schema(format = "date-time", example = json!(null))]
    expires_at: Option<String>,
    /// When the token was last used, to the minute. Null if it was never used.
    #[schema(format = "date-time", example = "2026-07-09T12:04:00.000Z")]
    last_used_at: Option<String>,
    /// Whether the token is read-only.
    read_only: bool,
    /// The IDs of the projects that the token is limited to. Null if it can access the whole workspace.
    #[schema(value_type = Option<Vec<ProjectId>>, example = json!(null))]
    project_ids: Option<Vec<String>>,
}

/// A new service token, with its value, which is not returned again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceTokenWithSecret)]
pub(crate) struct NewServiceTokenWire {
    #[serde(flatten)]
    token: ServiceTokenWire,
    /// The token's value, to be sent as `Authorization: Bearer <value>`. It is not returned again.
    #[schema(
        example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3b3Jrc3BhY2U6MDFqenE2dzNjNGU1In0.c2lnbmF0dXJl"
    )]
    value: String,
}

/// A service token to create, with its restrictions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "continuous integration"}))]
pub(crate) struct CreateServiceToken {
    /// The token's name, 1 to 256 characters.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// When the token expires. It does not expire when omitted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = "date-time")]
    expires_at: Option<String>,
    /// Whether the token is read-only.
    #[serde(default)]
    #[schema(default = false)]
    read_only: bool,
    /// The IDs of 1 to 100 projects to limit the token to. It can access the whole workspace when omitted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<Vec<ProjectId>>, min_items = 1, max_items = 100)]
    project_ids: Option<Vec<String>>,
}

/// The page of the list of service tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ServiceTokenPage {
    /// The `pagination.nextCursor` of the previous page.
    cursor: Option<String>,
    /// The maximum number of tokens on a page: 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 100)]
    limit: Option<u32>,
}

fn wire(token: ServiceToken) -> ServiceTokenWire {
    let Limits { read_only, projects, expires_at } = token.limits;
    ServiceTokenWire {
        id: token.id.to_string(),
        r#type: ServiceTokenType::ServiceToken,
        name: token.name,
        value_hint: token.value_hint,
        created_at: format_timestamp(token.created_at),
        expires_at: expires_at.map(format_timestamp),
        last_used_at: token.last_used_at.map(format_timestamp),
        read_only,
        project_ids: projects.map(|projects| projects.iter().map(ProjectId::to_string).collect()),
    }
}

impl CreateServiceToken {
    fn limits(&self) -> Result<Limits, Error> {
        let project = |id: &String| ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id));
        let projects = self.project_ids.as_ref().map(|ids| ids.iter().map(project).collect()).transpose()?;
        let expires_at = self.expires_at.as_deref().map(|text| moment("expiresAt", text)).transpose()?;
        Ok(Limits { read_only: self.read_only, projects, expires_at })
    }
}

/// List service tokens
///
/// Returns the service tokens of a workspace, newest first, without their values. The list is empty for a workspace
/// other than the caller's.
#[utoipa::path(get, path = "/v1/workspaces/{workspaceId}/service-tokens", tag = "Service Tokens",
    params(("workspaceId" = String, Path, description = "The ID of the workspace."), ServiceTokenPage), responses(
    (status = 200, description = "The tokens.", body = List<ServiceTokenWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_service_tokens(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(workspace): Path<String>,
    Query(page): Query<ServiceTokenPage>,
) -> Result<Json<List<ServiceTokenWire>>, Failure> {
    let page = PageRequest::parse_up_to(LARGEST_PAGE, page.cursor.as_deref(), page.limit, ServiceTokenId::parse)?;
    let session = app.store.session().await?;
    let found = service_tokens::list(&session, &actor, WorkspaceId::parse(&workspace), page).await?;
    Ok(Json(List::of(found, wire)))
}

/// Create a service token
///
/// Creates a service token. The response contains its value, which is not returned again. A service token has the admin
/// role in its workspace, unless it is read-only, limited to projects, or expires. A token cannot create a token with
/// more permissions or a later expiry than its own. Requires the admin role.
#[utoipa::path(post, path = "/v1/workspaces/{workspaceId}/service-tokens", tag = "Service Tokens",
    params(("workspaceId" = String, Path, description = "The ID of the workspace.")),
    request_body = CreateServiceToken, responses(
    (status = 201, description = "The token.", body = Data<NewServiceTokenWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The caller's role is too low, its token is read-only or limited to projects, or the new token would expire later than the caller's.", body = ErrorBody),
    (status = 404, description = "The workspace or a project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_service_token(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(workspace): Path<String>,
    body::Json(new): body::Json<CreateServiceToken>,
) -> Result<Answer, Failure> {
    let id = WorkspaceId::parse(&workspace).ok_or_else(|| Error::not_found("workspace", &workspace))?;
    let (name, limits) = (TokenName::parse(&new.name)?, new.limits()?);
    let tx = app.store.begin().await?;
    let (token, issued) = service_tokens::create(&tx, &app.signer, &actor, app.clock.now(), id, &name, limits).await?;
    let data = NewServiceTokenWire { token: wire(token), value: issued.value.expose().to_owned() };
    let answer = Answer::of(StatusCode::CREATED, &Data { data })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Revoke a service token
///
/// Revokes a service token. Requests with it fail immediately. Requires the admin role.
#[utoipa::path(delete, path = "/v1/workspaces/{workspaceId}/service-tokens/{serviceTokenId}", tag = "Service Tokens",
    params(("workspaceId" = String, Path, description = "The ID of the workspace."),
        ("serviceTokenId" = String, Path, description = "The ID of the service token.")), responses(
    (status = 204, description = "The token was revoked."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The caller's token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The token does not exist, or the caller cannot access it.", body = ErrorBody),
    (status = 409, description = "The token is the last one of the workspace without restrictions.", body = ErrorBody),
))]
pub(crate) async fn delete_service_token(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path((workspace, token)): Path<(String, String)>,
) -> Result<Answer, Failure> {
    let missing = || Error::not_found("service token", &token);
    let workspace = WorkspaceId::parse(&workspace).ok_or_else(missing)?;
    let id = ServiceTokenId::parse(&token).ok_or_else(missing)?;
    let tx = app.store.begin().await?;
    service_tokens::delete(&tx, &actor, app.clock.now(), workspace, id).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
