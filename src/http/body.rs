//! JSON bodies: 413, 415, 400 for what does not parse, 422 for what does not fit.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::base::error::Error;

/// The largest body: names and ids need far less.
const LARGEST: usize = 256 * 1024;

/// A parsed JSON body. A missing one counts as `{}`, as in the original.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if let Some(media) = parts.headers.get(header::CONTENT_TYPE) {
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

async fn read(body: Body) -> Result<axum::body::Bytes, Failure> {
    to_bytes(body, LARGEST).await.map_err(|_| {
        Failure::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is larger than {LARGEST} bytes, or broke off."),
            "Send a smaller body.",
        )
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let at = if path == "." { "the body".to_owned() } else { path };
            return Failure::from(Error::invalid(
                format!("{at}: {}", plain(&inner)),
                "See the request's schema at /v1/doc.",
            ));
        }
        malformed(&inner)
    })?;
    source.end().map_err(|error| malformed(&error))?;
    Ok(parsed)
}

fn malformed(error: &serde_json::Error) -> Failure {
    Failure::client(
        StatusCode::BAD_REQUEST,
        format!("The body is not JSON: {} at line {}, column {}.", plain(error), error.line(), error.column()),
        "Send one JSON object.",
    )
}

/// The parser's sentence without its position.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}
