//! Integrations on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, List, PageQuery, sample_url, url};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{IntegrationId, OauthClientId, WorkspaceId};
use domain::app::App;
use domain::integrations::{self, Integration};
use web::Failure;
use web::answer::Answer;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The permission that a person gave an application to act for them in a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Integration)]
pub(crate) struct IntegrationWire {
    /// The integration's ID.
    #[schema(value_type = IntegrationId)]
    id: String,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("integrations", "itgr")))]
    url: String,
    /// When the person gave the permission.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// The permitted scopes.
    #[schema(example = json!(["workspace:admin", "offline_access"]))]
    scopes: Vec<String>,
    /// The application that acts for the person.
    client: IntegrationClient,
    /// The person that the application acts for.
    created_by_user: IntegrationUser,
}

/// An application that acts for people.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationClient {
    /// The application's ID.
    #[schema(example = "itgr_cmm3lndn701oo0uefvxzo0ivw")]
    id: String,
    /// The application's name.
    #[schema(example = "Prisma CLI")]
    name: String,
    /// When the application was registered.
    #[schema(format = "date-time", example = "2026-07-01T08:00:00.000Z")]
    created_at: String,
}

/// A person who lets an application act for them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationUser {
    /// The person's ID.
    #[schema(example = "usr_01jzq6w3c4e5f6g7h8j9k0m1n4")]
    id: String,
    /// The person's email address.
    #[schema(format = "email", example = "ada@example.com")]
    email: String,
    /// The person's name. Null if they gave none.
    #[schema(example = "Ada Lovelace")]
    display_name: Option<String>,
}

/// Filters of the list of integrations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct IntegrationQuery {
    /// The ID of the workspace.
    workspace_id: String,
}

fn wire(app: &App, integration: Integration) -> IntegrationWire {
    let Integration { id, created_at, scopes, client, user } = integration;
    let id = id.to_string();
    IntegrationWire {
        url: url(app, "integrations", &id),
        id,
        created_at: format_timestamp(created_at),
        scopes,
        client: IntegrationClient {
            id: client.id.to_string(),
            name: client.name,
            created_at: format_timestamp(client.created_at),
        },
        created_by_user: IntegrationUser {
            id: user.id.to_string(),
            email: user.email,
            display_name: user.display_name,
        },
    }
}

fn parse(id: &str) -> Result<IntegrationId, Error> {
    IntegrationId::parse(id).ok_or_else(|| Error::not_found("integration", id))
}

fn parse_workspace(id: &str) -> Result<WorkspaceId, Error> {
    WorkspaceId::parse(id).ok_or_else(|| Error::not_found("workspace", id))
}

/// List integrations
///
/// Returns the integrations of a workspace, oldest first: the applications that may act for its members. The list is
/// empty for a workspace other than the token's, and for a token that is limited to projects.
#[utoipa::path(get, path = "/v1/integrations", tag = "Integrations", params(IntegrationQuery, PageQuery), responses(
    (status = 200, description = "The integrations.", body = List<IntegrationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "`workspaceId` is missing, or a parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_all_integrations(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(filter): Query<IntegrationQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<IntegrationWire>>, Failure> {
    let page = page.parse(IntegrationId::parse)?;
    let workspace = WorkspaceId::parse(&filter.workspace_id);
    let found = integrations::list_all(&app.store.session().await?, &actor, workspace, page).await?;
    Ok(Json(List::of(found, |integration| wire(&app, integration))))
}

/// Get an integration
///
/// Returns an integration with its application, its scopes and the person that the application acts for.
#[utoipa::path(get, path = "/v1/integrations/{id}", tag = "Integrations",
    params(("id" = String, Path, description = "The ID of the integration.")), responses(
    (status = 200, description = "The integration.", body = Data<IntegrationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The integration does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_integration(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<IntegrationWire>>, Failure> {
    let integration = integrations::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, integration) }))
}

/// Delete an integration
///
/// Deletes an integration. The application can no longer act for the person; its tokens are revoked immediately.
/// Everyone can delete their own integrations. Deleting the integrations of others requires the admin role or a service
/// token.
#[utoipa::path(delete, path = "/v1/integrations/{id}", tag = "Integrations",
    params(("id" = String, Path, description = "The ID of the integration.")), responses(
    (status = 204, description = "The integration was deleted."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller cannot delete the integrations of others.", body = ErrorBody),
    (status = 404, description = "The integration does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn delete_integration(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    integrations::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}

/// List integrations of a workspace
///
/// Returns the integrations of a workspace, oldest first: the applications that may act for its members. The list is
/// empty for a token that is limited to projects.
#[utoipa::path(get, path = "/v1/workspaces/{workspaceId}/integrations", tag = "Integrations",
    params(("workspaceId" = String, Path, description = "The ID of the workspace."), PageQuery), responses(
    (status = 200, description = "The integrations.", body = List<IntegrationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_integrations(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(workspace): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<IntegrationWire>>, Failure> {
    let workspace = parse_workspace(&workspace)?;
    let page = page.parse(IntegrationId::parse)?;
    let found = integrations::list(&app.store.session().await?, &actor, workspace, page).await?;
    Ok(Json(List::of(found, |integration| wire(&app, integration))))
}

/// Delete an application's integrations
///
/// Deletes all integrations of an application in a workspace. The application can no longer act for anyone there; its
/// tokens for the workspace are revoked immediately. For a caller without the admin role, only their own integration is
/// deleted.
#[utoipa::path(delete, path = "/v1/workspaces/{workspaceId}/integrations/{clientId}", tag = "Integrations",
    params(("workspaceId" = String, Path, description = "The ID of the workspace."),
        ("clientId" = String, Path, description = "The ID of the application.")), responses(
    (status = 204, description = "The integrations were deleted."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller cannot delete the integrations of others.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, the token cannot access it, or the application has no integration in it.", body = ErrorBody),
))]
pub(crate) async fn delete_integrations_of_client(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path((workspace, client)): Path<(String, String)>,
) -> Result<Answer, Failure> {
    let workspace = parse_workspace(&workspace)?;
    let client = OauthClientId::parse(&client).ok_or_else(|| Error::not_found("integration of the client", &client))?;
    let tx = app.store.begin().await?;
    integrations::delete_of_client(&tx, &actor, app.clock.now(), workspace, &client).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
