//! Dynamic registration of applications (RFC 7591). Nobody verified such an application; the consent page says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Refusal;
use auth::oauth::clients::{self, NewClient};
use auth::oauth::{RedirectUri, Scopes};
use base::name::ApplicationName;
use domain::app::App;
use web::body;
use web::rate::Meter;

/// RFC 7591, section 2. Unknown fields are ignored.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    redirect_uris: Vec<String>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

/// RFC 7591, section 3.2.1.
#[derive(Serialize)]
pub(crate) struct Registered {
    client_id: String,
    client_id_issued_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    /// Required with a secret. 0: never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<i64>,
    client_name: String,
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: String,
    grant_types: [&'static str; 2],
    response_types: [&'static str; 1],
    scope: String,
}

pub(crate) async fn register(
    State(app): State<Arc<App>>,
    meter: Meter,
    body: Result<body::Json<Metadata>, web::Failure>,
) -> Result<(StatusCode, Json<Registered>), Refusal> {
    meter.attempt()?;
    if !app.client_registration {
        return Err(Refusal {
            status: StatusCode::FORBIDDEN,
            error: "access_denied",
            description: "applications do not register themselves here; somebody of a workspace makes them in the \
                          console"
                .into(),
        });
    }
    let wrong = |description: String| Refusal::new("invalid_client_metadata", description);
    let body::Json(metadata) = body.map_err(|failure| wrong(Refusal::from(failure).description))?;
    let method = metadata.token_endpoint_auth_method.unwrap_or_else(|| "client_secret_basic".into());
    if !["none", "client_secret_basic", "client_secret_post"].contains(&method.as_str()) {
        return Err(wrong(format!("token_endpoint_auth_method {method:?} is not supported")));
    }
    let known = ["authorization_code", "refresh_token"];
    if let Some(other) = metadata.grant_types.iter().flatten().find(|kind| !known.contains(&kind.as_str())) {
        return Err(wrong(format!("grant type {other:?} is not supported")));
    }
    if let Some(other) = metadata.response_types.iter().flatten().find(|kind| *kind != "code") {
        return Err(wrong(format!("response type {other:?} is not supported")));
    }
    let redirect_uris: Result<Vec<_>, _> = metadata.redirect_uris.iter().map(|uri| RedirectUri::parse(uri)).collect();
    let redirect = |error: base::error::Error| Refusal::new("invalid_redirect_uri", error.to_string());
    let redirect_uris = redirect_uris.map_err(redirect)?;
    clients::check_redirects(&redirect_uris).map_err(redirect)?;
    let name = metadata.client_name.as_deref().unwrap_or("Unnamed application");
    let name = ApplicationName::parse(name).map_err(|error| wrong(error.to_string()))?;
    clients::check_name(&name).map_err(|error| wrong(error.to_string()))?;
    let new = NewClient { name, description: None, redirect_uris, is_public: method == "none" };
    let now = app.clock.now();
    let tx = app.store.begin().await?;
    let (id, secret) = clients::register(&tx, now, &new).await?;
    tx.commit().await?;
    let registered = Registered {
        client_id: id.bare().to_owned(),
        client_id_issued_at: now.as_second(),
        client_secret_expires_at: secret.is_some().then_some(0),
        client_secret: secret.map(|secret| secret.expose().to_owned()),
        client_name: new.name.as_str().to_owned(),
        redirect_uris: new.redirect_uris.iter().map(|uri| uri.as_str().to_owned()).collect(),
        token_endpoint_auth_method: method,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        scope: Scopes { admin: true, read: true, offline: true }.to_string(),
    };
    Ok((StatusCode::CREATED, Json(registered)))
}
