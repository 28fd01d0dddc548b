//! HTTP: routes, the envelope, request ids. Handlers begin and commit; rules are the domain's.

mod answer;
pub mod api;
mod body;
mod caller;
mod docs;
pub(crate) mod failure;
mod origin;
mod path;
mod query;
mod refusal;
mod request_id;
mod retry;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use utoipa::openapi::Server;

use crate::app::App;
use crate::base::error::Error;
use crate::domain::regions::Regions;
pub use failure::Failure;

/// How long a request may take. Each wait inside of it is shorter; this is for a metadata store
/// that hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// Serves HTTP until the tasks stop, and then the requests that are under way.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let tasks = app.tasks.clone();
    server::serve(listener, router(app), &tasks).await;
}

/// Everything that the HTTP address serves.
fn router(app: Arc<App>) -> Router {
    let (routes, mut document, actions) = api::routes(&app.regions);
    document.servers = Some(vec![Server::new(&app.public.api)]);
    // Named by the request: `*` does not stand for Authorization in browsers.
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static(answer::OPERATION),
            HeaderName::from_static(answer::REPLAYED),
            header::RETRY_AFTER,
        ])
        .max_age(Duration::from_secs(3600));
    routes
        .route_layer(middleware::from_fn_with_state(app.clone(), retry::once))
        .route_layer(middleware::from_fn_with_state((app.clone(), Arc::new(actions)), refusal::record))
        .route_layer(middleware::from_fn_with_state(app.clone(), caller::identify))
        .merge(docs::routes(&app, &document))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .fallback(failure::unknown_route)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(DefaultBodyLimit::max(body::LARGEST))
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(middleware::from_fn(in_time))
        .layer(cors)
        .layer(middleware::from_fn(request_id::trace))
        .with_state(app)
}

/// The OpenAPI document, made from the same declarations as the routes.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document() -> serde_json::Result<Value> {
    api::document::to_json(&api::routes(&Regions::default()).1)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = "the request took too long; look whether it was carried out before you repeat it";
            Failure::from(Error::Unavailable { message: message.into(), cause: None }).into_response()
        }
    }
}

/// 200 while requests can be served: the metadata store answers and no shutdown is under way.
async fn readiness(State(app): State<Arc<App>>) -> impl IntoResponse {
    if app.tasks.is_stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "shutting down\n");
    }
    let answers = async { app.store.session().await?.simple_query("SELECT 1").await.map_err(Into::into) };
    let answers: crate::base::error::Result<_> = answers.await;
    match answers {
        Ok(_) => (StatusCode::OK, [(header::RETRY_AFTER, "0")], "ready\n"),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "the metadata store does not answer\n")
        }
    }
}
