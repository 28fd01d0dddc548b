//! Who is calling, on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Data;
use crate::app::App;
use crate::domain::workspaces;
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;

/// Who is calling.
#[derive(Debug, Serialize, ToSchema)]
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
struct UserWire {
    /// The person's id.
    id: String,
    /// The person's address.
    email: String,
    /// The person's name.
    name: Option<String>,
}

/// A thing and its name.
#[derive(Debug, Serialize, ToSchema)]
struct NamedWire {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
}

/// What a request carries to say who it comes from.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialWire {
    /// What kind it is: `service_token`.
    #[schema(example = "service_token")]
    r#type: &'static str,
    /// Its id.
    id: Option<String>,
    /// Its name.
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
            r#type: "service_token",
            id: Some(actor.token().to_string()),
            name: Some(actor.name().to_owned()),
        },
    };
    Ok(Json(Data { data }))
}
