//! Errors on the wire: `{"error":{"code","message","hint"?}}`.

use std::any::Any;

use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::base::error::{Error, describe};

/// The error envelope.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A stable word for programs, such as `resource-not-found`.
    #[schema(example = "resource-not-found")]
    code: &'static str,
    /// A sentence for people.
    #[schema(example = "database with id db_abc not found")]
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
}

/// The message of an answer, for the layers that it passes.
#[derive(Clone, Debug)]
pub(super) struct Said(pub(super) String);

/// A request that was not carried out.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A client's mistake without a code of its own.
    pub fn client(status: StatusCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, code: "client-error", message: message.into(), hint: Some(hint.into()) }
    }

    fn internal() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal-server-error",
            message: "An internal error occurred.".into(),
            hint: Some("Try again; if it persists, give the operator the X-Request-Id of this answer.".into()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (status, code, hint) = match error {
            Error::Unauthenticated(_) => (
                StatusCode::UNAUTHORIZED,
                "authentication-failed",
                Some("Send the header Authorization: Bearer <service token>.".into()),
            ),
            Error::Forbidden(_) => (StatusCode::FORBIDDEN, "permission-denied", None),
            Error::NotFound { .. } => (StatusCode::NOT_FOUND, "resource-not-found", None),
            Error::Rejected(_) => (StatusCode::BAD_REQUEST, "client-error", None),
            Error::Invalid { hint, .. } => (StatusCode::UNPROCESSABLE_ENTITY, "validation-error", hint),
            Error::Conflict(_) => (StatusCode::CONFLICT, "client-error", None),
            Error::Unavailable { ref cause, .. } => {
                let cause = cause.as_ref().map(|cause| describe(cause.as_ref()));
                tracing::warn!(cause, "answered 503: {message}");
                (StatusCode::SERVICE_UNAVAILABLE, "service-unavailable", None)
            }
            Error::Internal(cause) => {
                tracing::error!(cause = %describe(cause.as_ref()), "answered 500");
                return Self::internal();
            }
        };
        Self { status, code, message, hint }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let said = Said(self.message.clone());
        let body = ErrorBody { error: ErrorDetail { code: self.code, message: self.message, hint: self.hint } };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(said);
        let extra = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::REQUEST_TIMEOUT => Some((header::CONNECTION, "close")),
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, header::HeaderValue::from_static(value));
        }
        response
    }
}

/// The answer of a route that does not exist.
pub(super) async fn unknown_route() -> Failure {
    Failure {
        status: StatusCode::NOT_FOUND,
        code: "resource-not-found",
        message: "Resource Not Found".into(),
        hint: Some("Use GET /v1/{resource} to list available IDs.".into()),
    }
}

/// The answer of a route that does not take this method; the router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure::client(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}.", uri.path()),
        "The Allow header names the methods that it takes.",
    )
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(panic = text, "a request handler panicked; answered 500");
    Failure::internal().into_response()
}
