//! HTTP: routes, the envelope, request ids. Handlers begin and commit; rules are the domain's.

pub mod api;
mod body;
mod caller;
pub(crate) mod failure;
mod query;
mod request_id;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};
use utoipa::openapi::OpenApi;

use crate::app::App;
pub use failure::Failure;

/// Everything that the HTTP address serves.
pub fn router(app: Arc<App>) -> Router {
    let (routes, document) = api::routes().split_for_parts();
    let document = Arc::new(document);
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_headers(Any)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .expose_headers([HeaderName::from_static("x-request-id"), HeaderName::from_static("howdah-operation")])
        .max_age(Duration::from_secs(3600));
    routes
        .route("/v1/doc", get(move || async move { axum::Json(document.as_ref().clone()) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .fallback(failure::unknown_route)
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(cors)
        .layer(middleware::from_fn(request_id::trace))
        .with_state(app)
}

/// The OpenAPI document, made from the same declarations as the routes.
pub fn document() -> OpenApi {
    api::routes().into_openapi()
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
