//! The listener: how many connections there may be, and how much and how long each may ask.

use std::net::Shutdown;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::origin::Peer;
use crate::base::tasks::Tasks;

/// How much the listener takes, and for how long.
struct Limits {
    /// Open connections; more wait until one of them ends.
    connections: usize,
    /// From a connection's beginning, or from its last answer, to the end of the next request's head.
    head: Duration,
    /// Until what was sent is acknowledged.
    unread: Duration,
}

/// What is read of a head before it is refused with a bare 431; `head` refuses much earlier.
const LARGEST_HEAD: usize = 64 * 1024;
/// The same for the number of its fields.
const MOST_FIELDS: usize = 128;

const LIMITS: Limits = Limits { connections: 1024, head: Duration::from_secs(30), unread: Duration::from_secs(30) };

/// Serves until the tasks stop, and then the requests that are under way.
pub(super) async fn serve(listener: &TcpListener, router: Router, connections: usize, tasks: &Tasks) {
    serve_within(&Limits { connections, ..LIMITS }, listener, router, tasks).await;
}

async fn serve_within(limits: &Limits, listener: &TcpListener, router: Router, tasks: &Tasks) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.head);
    protocol.max_buf_size(LARGEST_HEAD).max_headers(MOST_FIELDS);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < limits.connections => accepted,
            Some(_) = connections.join_next() => continue,
            () = tasks.stopping() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                prepare(&stream, limits);
                connections.spawn(converse(protocol.clone(), stream, Peer(peer), router.clone(), tasks.clone()));
            }
            Err(cause) => {
                // Mostly too many open files: it passes when connections end.
                tracing::warn!(%cause, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // From now on clients are refused at once instead of waiting in the queue of the port.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
    while connections.join_next().await.is_some() {}
}

/// Whatever cannot be set is noticed when the connection is used.
fn prepare(stream: &TcpStream, limits: &Limits) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(limits.unread));
}

async fn converse(protocol: http1::Builder, stream: TcpStream, peer: Peer, router: Router, tasks: Tasks) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "an HTTP connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn connections_are_counted_and_end_when_no_request_comes() {
        let limits = Limits { connections: 1, head: Duration::from_millis(300), unread: Duration::from_secs(9) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let serving = serve_within(&limits, &listener, router, &tasks);
        let asking = async {
            let mut answer = [0; 512];
            // Half a head, whole ones with a pause after them, and nothing at all: each is closed in time.
            for sent in [&REQUEST[..20], REQUEST, b""] {
                let mut first = TcpStream::connect(address).await.unwrap();
                first.write_all(sent).await.unwrap();
                let begun = tokio::time::Instant::now();
                let mut second = TcpStream::connect(address).await.unwrap();
                second.write_all(REQUEST).await.unwrap();
                let length = second.read(&mut answer).await.unwrap();
                assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
                assert!(begun.elapsed() >= limits.head, "the second one waits for the first");
                let mut rest = Vec::new();
                first.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest.starts_with(b"HTTP/1.1 200"), sent == REQUEST);
            }
            tasks.stop();
        };
        let both = async { tokio::join!(serving, asking) };
        tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    }
}
