//! Who is calling, on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Data;
use crate::app::App;
use crate::auth::Credential;
use crate::base::error::Error;
use crate::base::id::WorkspaceId;
use crate::domain::workspaces;
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;

/// Who is calling.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Me, example = json!({
    "user": null,
    "workspace": {"id": "wksp_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "Personal"},
    "credential": {"type": "service_token", "id": "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "continuous integration"},
}))]
pub(super) struct MeWire {
    /// The person, if the credential stands for one: null for a service token.
    user: Option<UserWire>,
    /// The workspace that the credential reaches.
    workspace: Option<NamedWire>,
    /// The credential.
    credential: CredentialWire,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
struct UserWire {
    /// The person's id.
    #[schema(example = "usr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// The person's address.
    #[schema(format = "email", example = "ada@example.com")]
    email: String,
    /// The person's name.
    #[schema(example = "Ada Lovelace")]
    name: Option<String>,
}

/// A workspace and its name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NamedWorkspace)]
struct NamedWire {
    /// Its id.
    #[schema(value_type = WorkspaceId)]
    id: String,
    /// Its name.
    #[schema(example = "Personal")]
    name: String,
}

/// What kind of credential a request carries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CredentialType {
    ServiceToken,
    Oauth,
}

/// What a request carries to say who it comes from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credential)]
struct CredentialWire {
    /// What kind it is.
    r#type: CredentialType,
    /// Its id.
    #[schema(example = "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: Option<String>,
    /// The service token's name, or the application's.
    #[schema(example = "continuous integration")]
    name: Option<String>,
}

/// Say who is calling
///
/// The workspace that the token reaches, the token's id and name, and the person that it acts for, if
/// an application acts for one.
#[utoipa::path(get, path = "/v1/me", tag = "Misc", responses(
    (status = 200, description = "Who is calling.", body = Data<MeWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
))]
pub(super) async fn get_me(State(app): State<Arc<App>>, Caller(actor): Caller) -> Result<Json<Data<MeWire>>, Failure> {
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
