//! The interactive pages: used in a browser, directly and behind a proxy, and how their files are sent.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use reqwest::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{Howdah, Person};
use crate::sdk::run;

#[tokio::test]
async fn a_browser_uses_the_pages() {
    let howdah = Howdah::start().await;
    run("docs.js", &howdah.url(), &howdah.token(), &[]).await;
}

#[tokio::test]
async fn the_pages_work_behind_a_proxy_and_below_a_path() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let public = format!("{origin}/behind/a/proxy");
    let howdah = Howdah::start_with(&["--public-url", &public]).await;
    let mut proxy = JoinSet::new();
    proxy.spawn(forward(listener, "/behind/a/proxy", howdah.anonymous()));
    run("docs.js", &public, &howdah.token(), &[]).await;

    // Opened by another name, the page may still reach the address that the document names.
    let page = howdah.anonymous().request(Method::GET, "/docs").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains(&format!("connect-src 'self' {origin};")), "{policy}");
}

/// A proxy that takes a path away and passes the rest on.
async fn forward(listener: TcpListener, path: &'static str, to: Person) {
    let pass = async move |request: Request| {
        let (head, body) = request.into_parts();
        let Some(rest) = head.uri.path().strip_prefix(path) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let answer = to.request(head.method, rest).headers(head.headers).body(body).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap()).into_response()
    };
    axum::serve(listener, Router::new().fallback(pass)).await.unwrap();
}

#[tokio::test]
async fn files_are_compressed_and_sent_once() {
    let howdah = Howdah::start().await;
    let anonymous = howdah.anonymous();
    let get = async |path: &str, header: (&str, &str)| {
        anonymous.request(Method::GET, path).header(header.0, header.1).send().await.unwrap()
    };
    for (path, media_type) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/page.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/icon.svg", "image/svg+xml"),
        ("/docs/license.txt", "text/plain; charset=utf-8"),
        ("/v1/doc", "application/json"),
    ] {
        let compressed = get(path, ("accept-encoding", "br, gzip")).await;
        assert_eq!(compressed.headers()["content-encoding"], "gzip", "{path}");
        assert_eq!(compressed.headers()["content-type"], media_type, "{path}");
        let tag = compressed.headers()["etag"].to_str().unwrap().to_owned();
        let plain = get(path, ("accept-encoding", "gzip;q=0")).await;
        assert!(!plain.headers().contains_key("content-encoding"), "{path}");
        assert_eq!(plain.headers()["etag"], tag, "{path}");
        let (compressed, plain) = (compressed.bytes().await.unwrap(), plain.text().await.unwrap());
        assert!(compressed.starts_with(&[0x1f, 0x8b]) && compressed.len() < plain.len(), "{path}");
        let again = get(path, ("if-none-match", &tag)).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert!(again.bytes().await.unwrap().is_empty(), "{path}");
    }
    let answer = howdah.anonymous().send(Method::POST, "/docs", None).await;
    answer.assert_error(405, "client-error");
}
