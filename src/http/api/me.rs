//! Who is calling, on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Data;
use crate::app::App;
use crate::base::id::{ServiceTokenId, WorkspaceId};
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
}

/// What a request carries to say who it comes from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credential)]
struct CredentialWire {
    /// What kind it is.
    r#type: CredentialType,
    /// Its id.
    #[schema(value_type = Option<ServiceTokenId>)]
    id: Option<String>,
    /// Its name.
    #[schema(example = "continuous integration")]
    name: Option<String>,
}

/// Say who is calling
///
/// The workspace that the token reaches, and the token's id and name.
#[utoipa::path(get, path = "/v1/me", tag = "Misc", responses(
    (status = 200, description = "Who is calling.", body = Data<MeWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
))]
pub(super) async fn get_me(State(app): State<Arc<App>>, Caller(actor): Caller) -> Result<Json<Data<MeWire>>, Failure> {
    let workspace = workspaces::get(&app.store.session().await?, &actor, actor.workspace()).await?;
    let data = MeWire {
        user: None,
        workspace: Some(NamedWire { id: workspace.id.to_string(), name: workspace.name }),
        credential: CredentialWire {
            r#type: CredentialType::ServiceToken,
            id: Some(actor.token().to_string()),
            name: Some(actor.name().to_owned()),
        },
    };
    Ok(Json(Data { data }))
}
