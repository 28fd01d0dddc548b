//! Errors on the wire: `{"error":{"code","message","hint"?}}`. What they can be is one table,
//! [`Kind`]; `docs/errors.md` explains each line of it.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use base::error::{Error, describe};

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// The details of an error.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A stable code for programs, such as `resource-not-found`.
    #[schema(example = "resource-not-found")]
    code: &'static str,
    /// What failed, as a sentence for people.
    #[schema(example = "database with id db_abc not found")]
    message: String,
    /// How to resolve the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
}

/// Makes [`Kind`] and the list of all of them out of one table, so that neither lacks a line.
macro_rules! kinds {
    ($($(#[$about:meta])+ $name:ident = $status:ident $code:literal,)+) => {
        /// What an error can be; nothing else is answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$about])+ $name,)+
        }

        impl Kind {
            /// Every line of the table.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),+];

            /// Its line: the status, and the word for programs.
            const fn line(self) -> (StatusCode, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $code),)+
                }
            }
        }
    };
}

kinds! {
    /// The request cannot be read, or cannot be carried out as things stand.
    BadRequest = BAD_REQUEST "client-error",
    /// No valid token.
    Unauthenticated = UNAUTHORIZED "authentication-failed",
    /// The caller may not do this.
    Forbidden = FORBIDDEN "permission-denied",
    /// The token may not do this, and another one of the same caller may.
    LimitedToken = FORBIDDEN "permission-denied",
    /// It is not there, or not for this token.
    NotFound = NOT_FOUND "resource-not-found",
    /// The route does not take the method.
    MethodNotAllowed = METHOD_NOT_ALLOWED "client-error",
    /// The body did not arrive in time.
    BodyTooSlow = REQUEST_TIMEOUT "client-error",
    /// It clashes with what exists.
    Conflict = CONFLICT "client-error",
    /// The workspace has as much as it may have. Clients know the code, whatever the status.
    LimitReached = CONFLICT "planLimitReached",
    /// The body is too large.
    BodyTooLarge = PAYLOAD_TOO_LARGE "client-error",
    /// The address asked for is too long.
    AddressTooLong = URI_TOO_LONG "client-error",
    /// The body is not JSON by its own words.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "client-error",
    /// A value does not fit.
    Invalid = UNPROCESSABLE_ENTITY "validation-error",
    /// Requests come faster than they may.
    TooManyRequests = TOO_MANY_REQUESTS "rate-limit-exceeded",
    /// The header fields are too many or too large.
    HeadTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE "client-error",
    /// A fault of the server.
    Internal = INTERNAL_SERVER_ERROR "internal-server-error",
    /// The server cannot do it right now.
    Unavailable = SERVICE_UNAVAILABLE "service-unavailable",
}

/// What an answer says, for the layers that it passes.
#[derive(Clone, Debug)]
pub struct Said {
    /// Which line of the table it is.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A request that was not carried out.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    /// In seconds.
    retry_after: Option<u64>,
}

impl Failure {
    /// An error with what to do about it.
    pub fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let retry_after = (kind == Kind::Unavailable).then_some(1);
        Self { kind, message: message.into(), hint: Some(hint.into()), retry_after }
    }

    /// The same error, with when to try again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The status of its answer.
    pub fn status(&self) -> StatusCode {
        self.kind.line().0
    }

    /// What happened, in words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    #[cfg(test)]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What a person can give to the operator is the id that the log has, too.
    fn internal() -> Self {
        let id = request_id::current().map_or_else(|| "X-Request-Id header".into(), |id| format!("id {id}"));
        let hint = format!(
            "Try again. If the error persists, report it to the operator of this server with the request's {id}."
        );
        Self::new(Kind::Internal, "An internal error occurred.", hint)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Unauthenticated(_) => Self::new(
                Kind::Unauthenticated,
                message,
                "Send a valid token in the header: Authorization: Bearer <token>.",
            ),
            Error::Forbidden { hint, .. } => Self::new(Kind::Forbidden, message, hint),
            Error::LimitedToken { hint, .. } => Self::new(Kind::LimitedToken, message, hint),
            Error::NotFound { kind, .. } => {
                Self { kind: Kind::NotFound, message, hint: where_to_look(kind).map(Into::into), retry_after: None }
            }
            Error::Rejected { hint, .. } => Self::new(Kind::BadRequest, message, hint),
            Error::Invalid { hint, .. } => Self::new(Kind::Invalid, message, hint),
            Error::Conflict { hint, .. } => Self::new(Kind::Conflict, message, hint),
            Error::LimitReached { hint, .. } => Self::new(Kind::LimitReached, message, hint),
            Error::Unavailable { ref cause, .. } => {
                let cause = cause.as_ref().map(|cause| describe(cause.as_ref()));
                tracing::warn!(cause, "request failed with 503: {message}");
                Self::new(
                    Kind::Unavailable,
                    message,
                    "Retry after the time in Retry-After; send a change with the same Idempotency-Key.",
                )
            }
            Error::Internal(cause) => {
                tracing::error!(cause = %describe(cause.as_ref()), "request failed with 500");
                Self::internal()
            }
        }
    }
}

/// Where a caller finds the ids that it may use.
fn where_to_look(kind: &str) -> Option<&'static str> {
    match kind {
        "workspace" => Some("GET /v1/workspaces lists the workspaces that this token can access."),
        "project" => Some("GET /v1/projects lists the projects that this token can access."),
        "branch" => Some("GET /v1/projects/{projectId}/branches lists the branches of a project."),
        "database" => Some("GET /v1/databases lists the databases that this token can access."),
        "connection" => Some("GET /v1/connections lists the connections that this token can access."),
        "operation" => Some("GET /v1/operations lists the operations that this token can access."),
        "service token" => Some("GET /v1/workspaces/{workspaceId}/service-tokens lists the tokens of a workspace."),
        _ => None,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code) = self.kind.line();
        let said = Said { kind: self.kind, message: self.message.clone(), hint: self.hint.clone() };
        let body = ErrorBody { error: ErrorDetail { code, message: self.message, hint: self.hint } };
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(said);
        let headers = response.headers_mut();
        match self.kind {
            Kind::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // RFC 6750, section 3: some clients ask for another token then.
            Kind::LimitedToken => {
                let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            // What is left of the body would be taken for the next request.
            Kind::BodyTooSlow => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The answer of a route that does not exist.
pub async fn unknown_route(method: Method, uri: Uri) -> Failure {
    Failure::new(
        Kind::NotFound,
        format!("This server has no route {method} {}.", uri.path()),
        "Check the method and the path; GET /v1/doc lists all routes.",
    )
}

/// The answer of a page that does not exist.
pub fn unknown_page() -> Failure {
    Failure::new(Kind::NotFound, "This page does not exist.", "Check the URL, or start at /console.")
}

/// The answer of a route that does not take this method; the router adds `Allow`.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure::new(
        Kind::MethodNotAllowed,
        format!("{} does not support the method {method}.", uri.path()),
        "The Allow header lists the supported methods.",
    )
}

/// The answer of a handler that panicked; the panic itself is logged where it happens.
pub fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    Failure::internal().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_stands_in_the_documented_table_and_no_other() {
        let table = include_str!("../../../docs/errors.md");
        let mut documented: Vec<(&str, &str)> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .map(|line| line.split(" | ").collect::<Vec<_>>())
            .filter(|cells| cells[0].starts_with('`'))
            .map(|cells| match cells[..] {
                [code, status, meaning, cure] if !meaning.is_empty() && !cure.is_empty() => {
                    (status, code.trim_matches('`'))
                }
                _ => panic!("a line of docs/errors.md is not code, status, meaning, what to do: {cells:?}"),
            })
            .collect();
        let lines: Vec<(StatusCode, &str)> = Kind::ALL.iter().map(|kind| kind.line()).collect();
        let mut possible: Vec<(&str, &str)> = lines.iter().map(|(status, code)| (status.as_str(), *code)).collect();
        documented.sort_unstable();
        possible.sort_unstable();
        assert_eq!(documented, possible, "docs/errors.md has one line for each line of `kinds!`");
    }
}
