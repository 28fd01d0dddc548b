//! Protection against cross-site request forgery: refuses forms that another site sends. A proxy that
//! rewrites `Host`, or an address that differs from `--public-url`, can look like another site, so the
//! refusal names the addresses and the option to set.

use axum::http::{HeaderMap, header};
use tower_http::csrf::{CsrfLayer, ProtectionErrorKind};
use url::Url;

use domain::app::App;
use web::failure::{Failure, Kind};

/// Longer header values are cut in messages, in characters.
const LONGEST: usize = 200;

/// Checks `Sec-Fetch-Site`, or else compares `Origin` with `Host`. The public addresses are always trusted, so
/// that a proxy may rewrite `Host`.
pub(crate) fn layer(app: &App) -> CsrfLayer {
    let public = [&app.public.api, &app.public.auth].into_iter().filter_map(|address| origin(address));
    public.fold(CsrfLayer::new(), |layer, origin| layer.clone().add_trusted_origin(origin).unwrap_or(layer))
}

/// The origin of an address as browsers send it: in lower case, without a default port.
fn origin(address: &str) -> Option<String> {
    Some(Url::parse(address).ok()?.origin().ascii_serialization())
}

/// The refusal of a form that, by its headers, comes from another site.
pub(crate) fn another_site(app: &App, headers: &HeaderMap, kind: ProtectionErrorKind) -> Failure {
    let from = text(headers, header::ORIGIN);
    match (kind, from.as_deref()) {
        (ProtectionErrorKind::CrossOriginRequest, _) => Failure::new(
            Kind::Forbidden,
            "The form was submitted from another site.",
            "Nothing was changed. Open this console and submit the form there.",
        ),
        (_, None | Some("null")) => Failure::new(
            Kind::Forbidden,
            "The browser did not say which site the form was submitted from.",
            "Nothing was changed. Reload the page and submit the form again. If a proxy or a browser extension removes \
             the Origin or Referer header, turn that off for this site.",
        ),
        (_, Some(from)) => {
            let host = text(headers, header::HOST).unwrap_or_default();
            Failure::new(
                Kind::Forbidden,
                format!(
                    "The form was submitted from {from}, but the request arrived for {host}, and the public URL of this \
                     server is {}.",
                    app.public.api
                ),
                format!(
                    "Nothing was changed. If {from} is the address of this console, the operator can start Howdah with \
                     --public-url {from}, or configure the proxy to pass on the Host header (nginx: \
                     proxy_set_header Host $http_host)."
                ),
            )
        }
    }
}

/// The refusal of a form that came without a cookie of the console.
pub(crate) fn no_cookie(app: &App, headers: &HeaderMap) -> Failure {
    let public = &app.public.api;
    if is_encrypted(headers) || !public.starts_with("https://") {
        return Failure::new(
            Kind::Forbidden,
            "The browser sent no cookie for this console.",
            "Nothing was changed. Allow cookies for this site, reload the page and submit the form again.",
        );
    }
    let here = text(headers, header::ORIGIN).filter(|origin| origin != "null");
    let here = here.or_else(|| Some(format!("http://{}", text(headers, header::HOST)?))).unwrap_or_default();
    Failure::new(
        Kind::Forbidden,
        format!(
            "The browser sent no cookie: this page is at {here}, but the public URL of this server is {public}, so its \
             cookies work over https only."
        ),
        format!(
            "Nothing was changed. Open {public}/console. If {here} is the address to use, the operator can start Howdah \
             with --public-url {here}."
        ),
    )
}

/// The warning above password fields on an unencrypted connection.
pub(crate) fn warning(app: &App, headers: &HeaderMap) -> Option<String> {
    if is_encrypted(headers) {
        return None;
    }
    let public = &app.public.api;
    Some(match public.starts_with("https://") {
        true => {
            format!("You cannot sign in here: the cookies of this server work over https only. Open {public}/console.")
        }
        false => "Anyone on the network between this browser and the server can read your password. The operator of \
                  this server can set up HTTPS: see docs/https.md of Howdah."
            .to_owned(),
    })
}

/// Browsers send `Sec-Fetch-Site` only to trustworthy origins: https and localhost (W3C Fetch Metadata,
/// section 2). For older browsers, a proxy can set `X-Forwarded-Proto`.
fn is_encrypted(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site")
        || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_normalized_like_in_browsers() {
        for (address, expected) in [
            ("https://db.example.com", "https://db.example.com"),
            ("https://DB.Example.com:443/behind/a/proxy", "https://db.example.com"),
            ("http://howdah.lan:80", "http://howdah.lan"),
            ("http://howdah.lan:8080/", "http://howdah.lan:8080"),
            ("https://m\u{fc}ller.example", "https://xn--mller-kva.example"),
            ("http://[FD00::1]:8080", "http://[fd00::1]:8080"),
        ] {
            assert_eq!(origin(address).as_deref(), Some(expected));
        }
    }
}
