//! Discovery documents (RFC 8414, RFC 9728) and the public keys (RFC 7517).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;

use auth::oauth::Scopes;
use domain::app::App;

/// Short enough that clients see a new key before it signs.
const KEPT: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "public, max-age=300")];

/// Metadata of the authorization server.
pub(crate) async fn server(State(app): State<Arc<App>>) -> impl IntoResponse {
    let at = |path: &str| format!("{}{path}", app.public.auth);
    let proofs = ["client_secret_basic", "client_secret_post", "none"];
    let mut document = json!({
        "issuer": app.public.auth,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "revocation_endpoint": at("/revoke"),
        "introspection_endpoint": at("/introspect"),
        "scopes_supported": Scopes::ALL.map(|(name, _)| name),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": proofs,
        "revocation_endpoint_auth_methods_supported": proofs,
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
        "service_documentation": format!("{}/docs", app.public.api),
    });
    if app.client_registration {
        document["registration_endpoint"] = at("/register").into();
    }
    (KEPT, Json(document))
}

/// Metadata of the API as the protected resource.
pub(crate) async fn resource(State(app): State<Arc<App>>) -> impl IntoResponse {
    let document = json!({
        "resource": app.public.api,
        "authorization_servers": [app.public.auth],
        "jwks_uri": format!("{}/.well-known/jwks.json", app.public.auth),
        "scopes_supported": Scopes::ALL.map(|(name, _)| name),
        "bearer_methods_supported": ["header"],
        "resource_name": "Howdah",
        "resource_documentation": format!("{}/docs", app.public.api),
    });
    (KEPT, Json(document))
}

/// The public keys that verify tokens.
pub(crate) async fn keys(State(app): State<Arc<App>>) -> impl IntoResponse {
    (KEPT, Json(app.signer.public_keys()))
}
