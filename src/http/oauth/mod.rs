//! The OAuth 2.0 authorization server on the wire. Its answers are those of the RFCs, not the API's
//! envelope; who signs in and consents sees pages of the console's.

mod authorize;
mod client;
mod discovery;
mod register;
mod token;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;

use crate::app::App;
use crate::base::error::{Error, describe};

/// The pages: a browser comes here.
pub(super) fn pages() -> Router<Arc<App>> {
    Router::new().route("/authorize", get(authorize::ask).post(authorize::decide))
}

/// What applications call, in browsers too.
pub(super) fn endpoints() -> Router<Arc<App>> {
    Router::new()
        .route("/token", post(token::issue))
        .route("/revoke", post(token::revoke))
        .route("/introspect", post(token::introspect))
        .route("/register", post(register::register))
        .route("/.well-known/oauth-authorization-server", get(discovery::server))
        .route("/.well-known/oauth-protected-resource", get(discovery::resource))
        .route("/.well-known/jwks.json", get(discovery::keys))
        .layer(middleware::from_fn(keep_out_of_caches))
}

/// What is said of tokens is for who asked (RFC 6749, section 5.1); the public documents may be kept
/// for a while, and say so themselves.
async fn keep_out_of_caches(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    }
    response
}

/// An error of the protocol (RFC 6749, section 5.2; RFC 7591, section 3.2.2).
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

#[derive(Serialize)]
struct RefusalBody {
    error: &'static str,
    error_description: String,
}

impl Refusal {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into() }
    }

    /// The client has not proven who it is.
    fn client() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            description: "the client is unknown, or its secret is not right".into(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
            Error::Forbidden { .. } => (StatusCode::BAD_REQUEST, "unauthorized_client"),
            _ => (StatusCode::BAD_REQUEST, "invalid_request"),
        };
        if status.is_server_error() {
            tracing::error!(error = %describe(&error), "an endpoint of OAuth failed");
        }
        Self { status, error: code, description: error.to_string() }
    }
}

impl From<super::Failure> for Refusal {
    fn from(failure: super::Failure) -> Self {
        let status = failure.status();
        let error = if status.is_server_error() { "temporarily_unavailable" } else { "invalid_request" };
        Self { status, error, description: failure.message().to_owned() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = RefusalBody { error: self.error, error_description: self.description };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"howdah\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}
