//! Who is calling, on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Data;
use auth::Credential;
use base::error::Error;
use base::id::WorkspaceId;
use domain::app::App;
use domain::workspaces;
use web::Failure;
use web::caller::Caller;
use web::failure::ErrorBody;

/// The caller's identity.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Me, example = json!({
    "user": null,
    "workspace": {"id": "wksp_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "Personal"},
    "credential": {"type": "service_token", "id": "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "continuous integration"},
}))]
pub(crate) struct MeWire {
    /// The person that the application acts for. Null for a service token.
    user: Option<UserWire>,
    /// The workspace that the credential can access.
    workspace: Option<NamedWire>,
    /// The credential of the request.
    credential: CredentialWire,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
struct UserWire {
    /// The person's ID.
    #[schema(example = "usr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// The person's email address.
    #[schema(format = "email", example = "ada@example.com")]
    email: String,
    /// The person's name.
    #[schema(example = "Ada Lovelace")]
    name: Option<String>,
}

/// A workspace with its name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NamedWorkspace)]
struct NamedWire {
    /// The workspace's ID.
    #[schema(value_type = WorkspaceId)]
    id: String,
    /// The workspace's name.
    #[schema(example = "Personal")]
    name: String,
}

/// The type of a credential.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CredentialType {
    ServiceToken,
    Oauth,
}

/// The credential of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credential)]
struct CredentialWire {
    /// The credential's type.
    r#type: CredentialType,
    /// The ID of the service token or of the integration.
    #[schema(example = "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: Option<String>,
    /// The name of the service token or of the application.
    #[schema(example = "continuous integration")]
    name: Option<String>,
}

/// Get the current identity
///
/// Returns the workspace that the token can access, the token's ID and name and, for an application, the person that it
/// acts for.
#[utoipa::path(get, path = "/v1/me", tag = "Misc", responses(
    (status = 200, description = "The caller's identity.", body = Data<MeWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
))]
pub(crate) async fn get_me(State(app): State<Arc<App>>, Caller(actor): Caller) -> Result<Json<Data<MeWire>>, Failure> {
    let workspace = workspaces::get(&app.store.session().await?, &actor, actor.workspace()).await?;
    let credential = match actor.credential() {
        Credential::ServiceToken { id, name } => {
            CredentialWire { r#type: CredentialType::ServiceToken, id: Some(id.to_string()), name: Some(name.clone()) }
        }
        Credential::Integration { id, application, .. } => {
            CredentialWire { r#type: CredentialType::Oauth, id: Some(id.to_string()), name: Some(application.clone()) }
        }
        Credential::Session { .. } => return Err(Error::internal("a browser's session came to the API").into()),
    };
    let data = MeWire {
        user: actor.user().map(|user| UserWire {
            id: user.id.to_string(),
            email: user.email.clone(),
            name: user.display_name.clone(),
        }),
        workspace: Some(NamedWire { id: workspace.id.to_string(), name: workspace.name }),
        credential,
    };
    Ok(Json(Data { data }))
}
