//! HTTP: routes, the envelope, request ids. Handlers begin and commit; rules are the domain's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use utoipa::openapi::Server;

use base::error::Error;
use base::health::Outage;
use domain::app::App;
use domain::regions::Regions;
use web::failure::{Failure, Kind};
use web::rate::RateLimits;
use web::{answer, body, caller, failure, head, origin, rate, refusal, request_id, retry, server};

/// How long a request may take. Each wait inside of it is shorter; this is for a metadata store
/// that hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// How long `/readyz` waits for the metadata store.
const READINESS: Duration = Duration::from_millis(1500);

/// Serves HTTP on at most so many connections until the tasks stop, and then the requests that are under way.
pub async fn serve(listener: &TcpListener, app: Arc<App>, connections: usize) {
    let (tasks, proxies) = (app.tasks.clone(), app.trusted_proxies.clone());
    server::serve(listener, router(app), connections, &proxies, &tasks).await;
}

/// Everything that the HTTP address serves.
fn router(app: Arc<App>) -> Router {
    let api::Routes { authenticated, open, mut document, actions } = api::routes(&app.regions);
    let refused = (app.clone(), Arc::new(actions.and(console::actions())));
    document.servers = Some(vec![Server::new(&app.public.api)]);
    api::document::name_authorization(&mut document, &app.public.auth);
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
            header::WWW_AUTHENTICATE,
            rate::LIMIT,
            rate::REMAINING,
            rate::RESET,
        ])
        .max_age(Duration::from_secs(3600));
    let rates = Arc::new(RateLimits::new(&app.rates));
    let api = authenticated
        .route_layer(middleware::from_fn_with_state(app.clone(), retry::once))
        .route_layer(middleware::from_fn_with_state(app.clone(), caller::identify))
        .route_layer(middleware::from_fn_with_state(app.clone(), caller::point_to_authorization))
        .route_layer(middleware::from_fn_with_state(refused.clone(), refusal::record))
        .merge(open)
        .merge(api::pages::routes(&app, &document))
        .fallback(elsewhere);
    // Whoever watches over the process must not be kept away by those who share its address.
    let health = Router::new().route("/healthz", get(health)).route("/readyz", get(readiness));
    let pages = console::routes().merge(oauth::pages());
    let pages = guarded(pages.route_layer(middleware::from_fn_with_state(refused, refusal::record)))
        .layer(middleware::from_fn_with_state(rates.clone(), rate::limit));
    let oauth = guarded(oauth::endpoints())
        .layer(middleware::from_fn_with_state(rates.clone(), rate::limit))
        .layer(middleware::from_fn(oauth::answered));
    guarded(api)
        .layer(middleware::from_fn_with_state(rates, rate::limit))
        .merge(oauth)
        .merge(guarded(health))
        .layer(middleware::from_fn_with_state(Arc::new(cors), for_browsers))
        .merge(console::presented(pages, &app))
        .layer(middleware::from_fn(request_id::trace))
        .layer(middleware::from_fn_with_state(app.clone(), origin::find))
        .with_state(app)
}

/// What no route answers. A browser that was given the bare address gets to the console.
async fn elsewhere(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if method == Method::GET && uri.path() == "/" && accepted.contains("text/html") {
        return Redirect::to("/console").into_response();
    }
    failure::unknown_route(method, uri).await.into_response()
}

/// Routes whose every answer is one: what is too large, too slow or goes wrong has one too.
fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .method_not_allowed_fallback(failure::method_not_allowed)
        .layer(DefaultBodyLimit::max(body::LARGEST))
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(head::check))
}

/// The OpenAPI document, made from the same declarations as the routes.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document() -> serde_json::Result<Value> {
    api::document::to_json(&api::routes(&Regions::default()).document)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!("request failed with 503: the request took too long");
            let message = "the request took too long";
            let hint = "Check whether the change was made before you send the request again.";
            Failure::new(Kind::Unavailable, message, hint).into_response()
        }
    }
}

/// Adds what browsers want, and answers their preflights. Any other OPTIONS is a method like others.
async fn for_browsers(State(cors): State<Arc<CorsLayer>>, request: Request, next: Next) -> Response {
    let is_preflight = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && !is_preflight {
        return next.run(request).await;
    }
    let Ok(response) = cors.layer(next).oneshot(request).await;
    response
}

/// 200 unless only a new process, or the operator, can help: the private metadata instance cannot be restarted.
async fn health(State(app): State<Arc<App>>) -> Response {
    match app.health.outage().filter(Outage::is_unhealthy) {
        Some(outage) => not_ready(&outage.to_string()),
        None => "ok\n".into_response(),
    }
}

/// 200 while requests can be served: the metadata store answers and no shutdown is under way.
async fn readiness(State(app): State<Arc<App>>) -> Response {
    if app.tasks.is_stopping() {
        return not_ready("shutting down");
    }
    if let Some(outage) = app.health.outage() {
        return not_ready(&outage.to_string());
    }
    let asking = async { app.store.session().await?.simple_query("SELECT 1").await.map_err(Error::from) };
    match tokio::time::timeout(READINESS, asking).await {
        Ok(Ok(_)) => {
            let at_risk = app.metadata_at_risk.load(Ordering::Relaxed);
            let backups = at_risk.then(|| "the metadata cannot be backed up: see the log".to_owned());
            let disks = app.disks.iter().filter_map(|disk| disk.notice());
            let notices: String = backups.into_iter().chain(disks).map(|notice| format!("; {notice}")).collect();
            format!("ready{notices}\n").into_response()
        }
        Ok(Err(_)) | Err(_) => not_ready("the metadata store is not responding"),
    }
}

fn not_ready(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], format!("{reason}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::io::Write;
    use std::sync::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_the_request_id_and_logged_once() {
        let logged = Lines::default();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(logged.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let usual = std::panic::take_hook();
        base::panics::log();
        let panicking = get(|| async {
            if true {
                panic!("the roof is on fire")
            }
        });
        let router = guarded(Router::new().route("/", panicking)).layer(middleware::from_fn(request_id::trace));
        let request = Request::get("/").header("x-request-id", "mine-1").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        std::panic::set_hook(usual);

        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-request-id"], "mine-1");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal-server-error");
        assert!(body["error"]["hint"].as_str().unwrap().contains("mine-1"), "{body}");
        assert!(!body.to_string().contains("roof"), "{body}");
        let logged = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
        let errors: Vec<&str> = logged.lines().filter(|line| line.contains("ERROR") || line.contains("roof")).collect();
        assert_eq!(errors.len(), 1, "{logged}");
        assert!(errors[0].contains("the roof is on fire") && errors[0].contains("mine-1"), "{logged}");
        assert!(errors[0].contains("src/http.rs"), "{logged}");
    }
}
