//! What all responses of the console share: security headers, no caching, and error pages instead of the
//! API's error envelope.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::csrf::ProtectionError;

use super::cookies::Cookie;
use super::forgery;
use super::form;
use super::frame::{Frame, Section, Theme};
use super::notice;
use base::id::FormId;
use base::secret::random_text;
use domain::app::App;
use web::failure::{Kind, Said};
use web::request_id;

/// Nothing is loaded from other sites, no inline scripts, no embedding in frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Responses that already have one of these keep it.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The header that the script sends when it refreshes a part of a page.
const PART: &str = "x-howdah-part";

/// The new guest cookie of a browser in which nobody has signed in. Forms before the sign-in are bound to it.
#[derive(Clone, Debug)]
pub(crate) struct Guest(pub String);

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    status: u16,
    title: &'static str,
    message: String,
    hint: String,
    request_id: String,
}

/// Wraps routes that render pages.
pub fn presented(routes: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    routes.layer(forgery::layer(app)).layer(middleware::from_fn_with_state(app.clone(), present))
}

async fn present(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    let is_stranger = Cookie::Session.read(&app, &headers).is_none() && Cookie::Guest.read(&app, &headers).is_none();
    let is_file = request.uri().path().starts_with("/console/static/");
    let guest = (is_stranger && !is_file && request.method() == Method::GET).then(|| Guest(random_text::<24>()));
    if let Some(guest) = guest.clone() {
        request.extensions_mut().insert(guest);
    }
    // A part of a page shows no notice, so the cookie stays for the next page.
    let is_part = headers.contains_key(PART);

    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<ProtectionError>() {
        response = forgery::another_site(&app, &headers, error.kind()).into_response();
    }
    if let Some(said) = response.extensions_mut().remove::<Said>() {
        response = error_page(&app, &headers, guest.as_ref(), said, response);
    }
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(cookie) = guest.and_then(|guest| Cookie::Guest.set(&app, &guest.0, None)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let shows = !is_part && !is_file && !response.status().is_redirection();
    if shows
        && Cookie::Notice.read(&app, &headers).is_some()
        && let Some(cookie) = Cookie::Notice.clear(&app)
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The frame of a page without an account.
pub(crate) fn plain_frame(app: &App, headers: &HeaderMap, guest: Option<&Guest>) -> Frame {
    let now = app.clock.now();
    Frame {
        section: Section::Elsewhere,
        theme: Cookie::Theme.read(app, headers).map(Theme::parse).unwrap_or_default(),
        csrf: form::token(app, headers, guest).unwrap_or_default(),
        once: FormId::generate(now).bare(),
        notice: notice::read(app, headers),
        warning: forgery::warning(app, headers),
        badge: None,
        place: None,
        now,
    }
}

/// Replaces the API's error envelope by a page.
fn error_page(app: &App, headers: &HeaderMap, guest: Option<&Guest>, said: Said, answer: Response) -> Response {
    let (title, hint) = match said.kind {
        Kind::NotFound | Kind::MethodNotAllowed => (
            "Page not found",
            Some("It may have been deleted, or it belongs to a workspace that you are not a member of.".to_owned()),
        ),
        Kind::Forbidden | Kind::LimitedToken => ("Permission denied", said.hint),
        Kind::TooManyRequests => ("Too many requests", Some("Wait a moment, then reload the page.".to_owned())),
        Kind::Unavailable => ("Temporarily unavailable", Some("Wait a moment, then reload the page.".to_owned())),
        Kind::Internal => (
            "Something went wrong",
            Some(
                "Reload the page. If the error persists, give the request ID below to the operator of this server."
                    .to_owned(),
            ),
        ),
        Kind::Conflict | Kind::LimitReached => ("Conflict", said.hint),
        _ => ("Request failed", said.hint),
    };
    let message = match said.kind {
        Kind::NotFound | Kind::MethodNotAllowed => {
            "There is nothing at this address, or you don't have access to it.".to_owned()
        }
        _ => said.message,
    };
    let status = answer.status();
    let page = ErrorPage {
        frame: Frame { notice: None, ..plain_frame(app, headers, guest) },
        status: status.as_u16(),
        title,
        message,
        hint: hint.unwrap_or_default(),
        request_id: request_id::current().unwrap_or_default(),
    };
    let (mut head, _) = answer.into_parts();
    // If even this page cannot be rendered, only the status is sent.
    let text = page.render().unwrap_or_default();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Response::from_parts(head, Body::from(text))
}
