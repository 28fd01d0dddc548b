//! The interactive pages about the API, and the document that they show.
//!
//! All of it is in the binary. Links in the pages are relative, so that they work behind any
//! address, and nothing is loaded from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Redirect;
use axum::routing::{MethodRouter, get};
use utoipa::openapi::OpenApi;

use crate::document::to_json;
use base::error::describe;
use domain::app::App;
use web::file::File;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
/// All that the page at the end of a sign-in does is to tell the page that opened it.
const REDIRECT_POLICY: &str = "default-src 'none'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A file of Swagger UI, as the build script left it.
macro_rules! swagger_ui {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

/// `/docs`, `/v1/swagger-editor`, which is the same page, and `/v1/doc`.
pub fn routes(app: &App, document: &OpenApi) -> Router<Arc<App>> {
    let policy = policy(&[&app.public.api, &app.public.auth]);
    let page = |root: &str| {
        let text = include_str!("page.html").replace("{root}", root);
        File::new(HTML, text.as_bytes()).with_header(header::CONTENT_SECURITY_POLICY, policy.clone())
    };
    let text = to_json(document).map_or_else(|error| describe(&error), |json| json.to_string());
    let mut router = Router::new()
        .route("/v1/doc", serve(File::new("application/json", text.as_bytes())))
        .route("/docs", serve(page("")))
        .route("/v1/swagger-editor", serve(page("../")))
        // Relative links would be wrong there.
        .route("/docs/", get(|| async { Redirect::permanent("../docs") }))
        .route("/docs/page.js", serve(File::new(SCRIPT, include_bytes!("page.js"))))
        .route("/docs/page.css", serve(File::new(STYLE, include_bytes!("page.css"))))
        .route("/docs/icon.svg", serve(File::new("image/svg+xml", include_bytes!("../../../web/src/icon.svg"))))
        .route("/docs/swagger-ui-bundle.js", serve(File::gzipped(SCRIPT, swagger_ui!("swagger-ui-bundle.js"))))
        .route("/docs/swagger-ui.css", serve(File::gzipped(STYLE, swagger_ui!("swagger-ui.css"))))
        .route("/docs/license.txt", serve(File::gzipped("text/plain; charset=utf-8", swagger_ui!("LICENSE"))));
    // Where a sign-in in a window of its own comes back to. The pages name the first; the others are
    // where Swagger UI would look by itself.
    for folder in ["/swagger", "", "/v1"] {
        let redirect = File::gzipped(HTML, swagger_ui!("oauth2-redirect.html"))
            .with_header(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(REDIRECT_POLICY));
        router = router.route(&format!("{folder}/oauth2-redirect.html"), serve(redirect)).route(
            &format!("{folder}/oauth2-redirect.js"),
            serve(File::gzipped(SCRIPT, swagger_ui!("oauth2-redirect.js"))),
        );
    }
    router
}

fn serve(file: File) -> MethodRouter<Arc<App>> {
    let file = Arc::new(file);
    get(async move |headers: HeaderMap| file.answer(&headers))
}

/// What a page may load and reach: this server only. Its requests go to the public addresses, which
/// are other origins when the page was opened under another name, such as `localhost`.
fn policy(public: &[&str]) -> HeaderValue {
    let origin = |public: &&str| {
        let address = public.parse::<Uri>().ok()?;
        let (scheme, authority) = (address.scheme_str()?, address.authority()?);
        Some(format!(" {scheme}://{authority}"))
    };
    let mut origins: Vec<String> = public.iter().filter_map(origin).collect();
    origins.dedup();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{}; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        origins.concat()
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'self'"))
}
