//! The HTTP endpoints of the OAuth 2.0 authorization server. Errors have the format of the RFCs instead of the
//! API's envelope; sign-in and consent are pages of the console.

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

use base::error::{Error, describe};
use domain::app::App;
use web::failure::{Failure, Said};

/// The pages for browsers.
pub fn pages() -> Router<Arc<App>> {
    Router::new().route("/authorize", get(authorize::ask).post(authorize::decide))
}

/// The endpoints for applications, to be wrapped in [`answered`].
pub fn endpoints() -> Router<Arc<App>> {
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

/// Token responses must not be cached (RFC 6749, section 5.1). The public documents set their own
/// `Cache-Control`.
async fn keep_out_of_caches(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    }
    response
}

/// Converts refusals of the inner layers, such as rate limits, to errors of the protocol. Keeps their headers.
pub async fn answered(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(said) = response.extensions_mut().remove::<Said>() else { return response };
    let refusal = Refusal::of(response.status(), &said.message);
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (_, body) = Json(refusal.body()).into_response().into_parts();
    Response::from_parts(head, body)
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

    /// The client could not be authenticated.
    fn client() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            description: "the client is unknown, or its secret is wrong".into(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
            Error::Forbidden { .. } | Error::LimitedToken { .. } => (StatusCode::BAD_REQUEST, "unauthorized_client"),
            _ => (StatusCode::BAD_REQUEST, "invalid_request"),
        };
        if status.is_server_error() {
            tracing::error!(error = %describe(&error), "an OAuth endpoint failed");
        }
        Self { status, error: code, description: error.to_string() }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::of(failure.status(), failure.message())
    }
}

impl Refusal {
    /// A refusal of the layers around the endpoints.
    fn of(status: StatusCode, description: &str) -> Self {
        let error = match status {
            StatusCode::INTERNAL_SERVER_ERROR => "server_error",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
            _ => "invalid_request",
        };
        Self { status, error, description: description.to_owned() }
    }

    fn body(&self) -> RefusalBody {
        // RFC 6749, section 5.2, allows printable ASCII without quotes and backslashes.
        let plain = |letter: char| match letter {
            '"' | '\\' => '\'',
            ' '..='~' => letter,
            _ => '?',
        };
        RefusalBody { error: self.error, error_description: self.description.chars().map(plain).collect() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"howdah\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}
