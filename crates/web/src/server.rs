//! The listener: how many connections there may be, and how much and how long each may ask.

use std::net::{IpAddr, Shutdown};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::origin::Peer;
use base::network::Network;
use base::places::{Place, Places};
use base::tasks::Tasks;

/// How much the listener takes, and for how long.
struct Limits {
    /// Open connections; while all are busy, more wait until one of them ends.
    connections: usize,
    /// The same from one address.
    per_address: usize,
    /// From a connection's beginning, or from its last answer, to the end of the next request's head.
    head: Duration,
    /// Until what was sent is acknowledged.
    unread: Duration,
}

/// What is read of a head before it is refused with a bare 431; `head` refuses much earlier.
const LARGEST_HEAD: usize = 64 * 1024;
/// The same for the number of its fields.
const MOST_FIELDS: usize = 128;
/// One address may have this part of the connections. It can keep only those that are being answered.
const SHARE: usize = 2;
const HEAD: Duration = Duration::from_secs(30);
/// Answers are small. Sessions of databases have no such limit, since a slow reader is none of the gateway's business.
const UNREAD: Duration = Duration::from_secs(30);

/// Answers whoever has too many connections, before it has asked anything.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    content-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":{\"code\":\"rate-limit-exceeded\",\
    \"message\":\"This IP address has too many concurrent requests.\",\
    \"hint\":\"Send fewer concurrent requests. Behind a reverse proxy, start Howdah with --trusted-proxy.\"}}\n";

/// Serves until the tasks stop, and then the requests that are under way. Proxies may have all the connections.
pub async fn serve(listener: &TcpListener, router: Router, connections: usize, proxies: &[Network], tasks: &Tasks) {
    let limits = Limits { connections, per_address: connections.div_ceil(SHARE), head: HEAD, unread: UNREAD };
    serve_within(&limits, listener, router, proxies, tasks).await;
}

async fn serve_within(limits: &Limits, listener: &TcpListener, router: Router, proxies: &[Network], tasks: &Tasks) {
    let places = Places::new(limits.connections, limits.per_address);
    let party = |address: IpAddr| {
        let is_proxy = proxies.iter().any(|network| network.contains(address));
        (!is_proxy).then(|| Network::of_one_party(address))
    };
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.head);
    protocol.max_buf_size(LARGEST_HEAD).max_headers(MOST_FIELDS);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = async { places.room().await; listener.accept().await } => accepted,
            Some(_) = connections.join_next() => continue,
            () = tasks.stopping() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = places.take(party(peer.ip())) else {
                    tracing::info!(%peer, "refused an HTTP connection: its IP address has too many concurrent requests");
                    let _ = stream.try_write(TOO_MANY);
                    continue;
                };
                prepare(&stream, limits);
                let place = Arc::new(place);
                connections.spawn(converse(protocol.clone(), stream, Peer(peer), place, router.clone(), tasks.clone()));
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

async fn converse(
    protocol: http1::Builder,
    stream: TcpStream,
    peer: Peer,
    place: Arc<Place>,
    router: Router,
    tasks: Tasks,
) {
    let own = place.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if request.body().is_end_stream() {
            place.set_waiting(false);
        }
        let of_request = place.clone();
        let request = request.map(|body| Tracked { body, place: of_request, waits_then: false });
        let (answering, place) = (router.clone().oneshot(request), place.clone());
        async move { answering.await.map(|response| response.map(|body| Tracked { body, place, waits_then: true })) }
    });
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = own.evicted() => return tracing::debug!(?peer, "closed a waiting HTTP connection in favor of a newer one"),
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "HTTP connection ended early");
    }
}

/// A body that says, when it is over, whether the client is waited for.
struct Tracked<B> {
    body: B,
    place: Arc<Place>,
    waits_then: bool,
}

impl<B: HttpBody + Unpin> HttpBody for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.place.set_waiting(self.waits_then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::routing::get;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::time::timeout;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    struct World {
        address: SocketAddr,
        tasks: Tasks,
        /// Requests for `/held` that have begun.
        held: Arc<AtomicUsize>,
        /// Ends them.
        release: Arc<Notify>,
    }

    impl World {
        async fn new(limits: Limits, proxies: &'static [&'static str]) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (tasks, held, release) = (Tasks::default(), Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
            let (begun, until, serving) = (held.clone(), release.clone(), tasks.clone());
            let wait = move || async move {
                begun.fetch_add(1, Ordering::SeqCst);
                until.notified().await;
                "held"
            };
            let router = Router::new()
                .route("/", get(|| async { "hello" }).post(|body: Bytes| async { body }))
                .route("/held", get(wait));
            tasks.spawn(async move {
                let proxies: Vec<Network> = proxies.iter().map(|text| text.parse().unwrap()).collect();
                serve_within(&limits, &listener, router, &proxies, &serving).await;
            });
            Self { address, tasks, held, release }
        }

        /// A connection from this address of the loopback network on which these bytes were sent.
        async fn send(&self, host: &str, bytes: &[u8]) -> TcpStream {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
            let mut stream = socket.connect(self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }

        /// Connections on which a request is under way that ends when it is told to.
        async fn hold(&self, host: &str, number: usize) -> Vec<TcpStream> {
            let before = self.held.load(Ordering::SeqCst);
            let mut streams = Vec::new();
            for _ in 0..number {
                streams.push(self.send(host, b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await);
            }
            while self.held.load(Ordering::SeqCst) < before + number {
                tokio::task::yield_now().await;
            }
            streams
        }
    }

    /// The next bytes, or nothing when it was closed.
    async fn heard(stream: &mut TcpStream) -> String {
        let mut answer = [0; 1024];
        let length = timeout(Duration::from_secs(20), stream.read(&mut answer)).await.unwrap().unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    fn limits(connections: usize, per_address: usize) -> Limits {
        Limits { connections, per_address, head: HEAD, unread: UNREAD }
    }

    #[tokio::test]
    async fn connections_end_when_no_request_comes() {
        let world = World::new(Limits { head: Duration::from_millis(300), ..limits(9, 9) }, &[]).await;
        // Half a head, whole ones with a pause after them, and nothing at all: each is closed in time.
        for sent in [&REQUEST[..20], REQUEST, b""] {
            let mut stream = world.send("127.0.0.1", sent).await;
            let mut all = Vec::new();
            timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.unwrap().unwrap();
            assert_eq!(all.starts_with(b"HTTP/1.1 200"), sent == REQUEST);
        }
    }

    #[tokio::test]
    async fn clients_that_send_nothing_keep_nobody_away() {
        let world = World::new(limits(4, 3), &[]).await;
        let slow = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1";
        let mut first = world.send("127.0.0.2", &REQUEST[..20]).await;
        let mut second = world.send("127.0.0.2", slow).await;
        let mut other = world.send("127.0.0.3", b"").await;
        let _last = world.send("127.0.0.4", REQUEST).await;
        let mut open = Vec::new();
        for waiting in [&mut first, &mut second] {
            let mut newcomer = world.send("127.0.0.1", REQUEST).await;
            assert!(heard(&mut newcomer).await.starts_with("HTTP/1.1 200"));
            assert_eq!(heard(waiting).await, "");
            newcomer.write_all(REQUEST).await.unwrap();
            assert!(heard(&mut newcomer).await.starts_with("HTTP/1.1 200"));
            open.push(newcomer);
        }
        assert_eq!(other.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        other.write_all(REQUEST).await.unwrap();
        assert!(heard(&mut other).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn an_address_may_not_have_every_connection() {
        let world = World::new(limits(4, 2), &[]).await;
        let mut held = world.hold("127.0.0.2", 2).await;
        let refused = heard(&mut world.send("127.0.0.2", b"").await).await;
        assert!(
            refused.starts_with("HTTP/1.1 429") && refused.contains(r#""code":"rate-limit-exceeded""#),
            "{refused}"
        );
        serde_json::from_str::<serde_json::Value>(refused.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(heard(&mut world.send("127.0.0.1", REQUEST).await).await.starts_with("HTTP/1.1 200"));
        // A request that was answered makes room for the next connection.
        world.release.notify_one();
        let [one, two] = &mut held[..] else { panic!("two") };
        let answered = tokio::select! { answer = heard(one) => answer, answer = heard(two) => answer };
        assert!(answered.ends_with("held"), "{answered}");
        assert!(heard(&mut world.send("127.0.0.2", REQUEST).await).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_proxy_may_have_every_connection_and_the_next_one_waits() {
        let world = World::new(limits(3, 1), &["127.0.0.2"]).await;
        let held = world.hold("127.0.0.2", 3).await;
        let mut next = world.send("127.0.0.1", REQUEST).await;
        let early = timeout(Duration::from_millis(200), next.read(&mut [0])).await;
        assert!(early.is_err(), "all are busy: it waits");
        world.release.notify_one();
        let early = timeout(Duration::from_millis(200), next.read(&mut [0])).await;
        assert!(early.is_err(), "a proxy keeps its connections");
        drop(held);
        assert!(heard(&mut next).await.starts_with("HTTP/1.1 200"));
        world.tasks.stop();
    }
}
