//! What the next page says about the change before it, in a cookie that it removes.

use axum::http::HeaderMap;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;

use super::cookies::Cookie;
use crate::app::App;

/// Longer texts are cut, since they travel in a header.
const LONGEST: usize = 600;
const LASTS: SignedDuration = SignedDuration::from_secs(60);

/// What was shown of a notice once is not shown again.
pub(super) fn read(app: &App, headers: &HeaderMap) -> Option<String> {
    let text = URL_SAFE_NO_PAD.decode(Cookie::Notice.read(app, headers)?).ok()?;
    String::from_utf8(text).ok().filter(|text| text.chars().count() <= LONGEST)
}

/// The answer to a change that was made: go to this page of ours, which says so. No secret may be in
/// the address or in the text.
pub(crate) fn see_other(app: &App, address: &str, notice: &str) -> Response {
    with_notice(app, go_to(address), notice)
}

/// The same answer; the page after it says this.
pub(super) fn with_notice(app: &App, mut response: Response, notice: &str) -> Response {
    let text: String = notice.chars().take(LONGEST).collect();
    if let Some(cookie) = Cookie::Notice.set(app, &URL_SAFE_NO_PAD.encode(text), Some(LASTS)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Go to this page of ours.
pub(crate) fn go_to(address: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response()
}
