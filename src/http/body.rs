//! JSON bodies: 408, 413, 415, 400 for what does not parse, 422 for what does not fit.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use crate::base::error::Error;

/// The largest body: names and ids need far less.
pub(super) const LARGEST: usize = 256 * 1024;
/// How long a body may take to arrive.
const LIMIT: Duration = Duration::from_secs(10);

/// A parsed JSON body. A missing one counts as `{}`, as in the original.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let media = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if let Some(media) = media {
            let media = media.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if !media.eq_ignore_ascii_case("application/json") {
                return Err(Failure::client(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    format!("The body's type is {media:?}."),
                    "Send JSON with the header Content-Type: application/json.",
                ));
            }
        }
        parse(&bytes).map(Self)
    }
}

/// The whole body.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Failure> {
    let Ok(read) = tokio::time::timeout(LIMIT, Bytes::from_request(request, state)).await else {
        return Err(Failure::client(
            StatusCode::REQUEST_TIMEOUT,
            format!("The body did not arrive within {} seconds.", LIMIT.as_secs()),
            "Send the request again.",
        ));
    };
    read.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Failure::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is larger than {LARGEST} bytes."),
            "Send a smaller body.",
        ),
        _ => Failure::client(StatusCode::BAD_REQUEST, "The body broke off.", "Send the request again."),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        Failure::client(StatusCode::BAD_REQUEST, format!("The body is not JSON: {error}."), "Send one JSON object.")
    })?;
    if !value.is_object() {
        return Err(Error::invalid("the body is not a JSON object", "Send one JSON object.").into());
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { format!("{path}: ") };
        Error::invalid(format!("{field}{}", error.inner()), "See the request's schema at /v1/doc.").into()
    })
}
