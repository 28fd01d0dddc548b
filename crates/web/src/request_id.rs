//! Every request has an id, in its answer and on its log lines.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use base::secret::random_hex;

const HEADER: &str = "x-request-id";

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that this task serves.
pub fn current() -> Option<String> {
    CURRENT.try_with(String::clone).ok()
}

/// Takes the caller's id when it is a plain one, or makes one; logs the answer.
pub async fn trace(request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_plain(id));
    let id = given.map_or_else(random_hex::<8>, str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", request.id = id);
    async move {
        let begun = tokio::time::Instant::now();
        let mut response = CURRENT.scope(id.clone(), next.run(request)).await;
        let (status, elapsed_ms) = (response.status().as_u16(), begun.elapsed().as_millis() as u64);
        tracing::info!(status, elapsed_ms, "{method} {} answered {status}", without_secret(&path));
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(HEADER, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// Links that are good once have their secret in the path, which no log line has.
fn without_secret(path: &str) -> &str {
    let linked = ["/console/set-up/", "/console/reset/", "/console/invitations/"];
    linked.into_iter().find(|start| path.starts_with(start)).unwrap_or(path)
}

fn is_plain(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
