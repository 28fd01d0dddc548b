//! Notices: one sentence about the last change, shown on the next page. A cookie carries it there.

use axum::http::HeaderMap;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;

use super::cookies::Cookie;
use domain::app::App;

/// In characters. The text travels in a header.
const LONGEST: usize = 600;
const LASTS: SignedDuration = SignedDuration::from_secs(60);

/// The notice to show. `present` clears the cookie with the page that shows it.
pub(crate) fn read(app: &App, headers: &HeaderMap) -> Option<String> {
    let text = URL_SAFE_NO_PAD.decode(Cookie::Notice.read(app, headers)?).ok()?;
    String::from_utf8(text).ok().filter(|text| text.chars().count() <= LONGEST)
}

/// Redirects to a page of the console that shows this notice. Neither the address nor the notice may hold a
/// secret: both end up in browsers' histories or cookies.
pub fn see_other(app: &App, address: &str, notice: &str) -> Response {
    with_notice(app, go_to(address), notice)
}

/// Adds a notice to a response.
pub(crate) fn with_notice(app: &App, mut response: Response, notice: &str) -> Response {
    let text: String = notice.chars().take(LONGEST).collect();
    if let Some(cookie) = Cookie::Notice.set(app, &URL_SAFE_NO_PAD.encode(text), Some(LASTS)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Redirects to a page of this server.
pub fn go_to(address: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response()
}
