//! Answers to requests that change something. Such an answer is made before the change is
//! committed, so that it can be kept with it and given again.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use base::error::{Error, Result};
use base::id::WorkflowId;

/// Names the operations that a change has started, separated by commas.
pub const OPERATION: &str = "howdah-operation";
/// Says that an answer was given before.
pub const REPLAYED: &str = "idempotent-replayed";

/// The answer to a change.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    /// JSON text; none for 204.
    body: Option<String>,
    /// See [`OPERATION`].
    operations: Vec<String>,
}

impl Answer {
    /// An answer with a body.
    pub fn of(status: StatusCode, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_string(body).map_err(Error::internal)?;
        Ok(Self { status: status.as_u16(), body: Some(body), operations: Vec::new() })
    }

    /// 204, without a body.
    pub fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT.as_u16(), body: None, operations: Vec::new() }
    }

    /// The same answer, naming these operations.
    pub fn naming(self, operations: impl IntoIterator<Item = WorkflowId>) -> Self {
        Self { operations: operations.into_iter().map(|id| id.to_string()).collect(), ..self }
    }

    /// Its bytes, to be kept.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    /// What [`Answer::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(self.body.map_or_else(Body::empty, Body::from));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if self.status != StatusCode::NO_CONTENT.as_u16() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Ok(operations) = HeaderValue::from_str(&self.operations.join(", "))
            && !operations.is_empty()
        {
            headers.insert(OPERATION, operations);
        }
        response
    }
}
