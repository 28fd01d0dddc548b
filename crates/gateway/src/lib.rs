//! The PostgreSQL front door: one port, TLS, authentication, waking, then bytes in both directions.
//!
//! The user name alone decides which database a session reaches. Nothing is woken before the
//! password was right, no password or key reaches a log, and what passes is not looked into.
//! The protocol is that of PostgreSQL's documentation, chapter 55 (Frontend/Backend Protocol).

mod admission;
pub mod authority;
mod backend;
mod cancel;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod login;
mod lookup;
mod opening;
mod refusal;
mod relay;
mod scram;
mod session;
mod startup;
#[cfg(test)]
mod tests;
pub mod tls;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::admission::Admission;
use self::cancel::Cancels;
use self::lookup::Lookup;
use self::opening::Stop;
use self::tls::Tls;
use base::network::Network;
use base::places::{Place, Places};
use base::store::Store;
use base::tasks::Tasks;
use engine::Instances;

/// What a gateway is set up with.
#[derive(Clone)]
pub struct Config {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Certificate and key; new sessions are served with the newest one.
    pub tls: watch::Receiver<Tls>,
    /// Makes the salts that unknown users are shown. Kept over restarts, so that they do not change.
    pub mock_secret: [u8; 32],
    /// How much of everything.
    pub limits: Limits,
}

/// How much the gateway takes, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest startup packet, in bytes.
    pub startup_packet: usize,
    /// From the connection to the right password.
    pub startup: Duration,
    /// How long a session waits for a database that is still provisioning, or that there is no room to wake.
    pub provisioning: Duration,
    /// Sessions of one database.
    pub sessions_per_database: usize,
    /// Sessions in total.
    pub sessions: usize,
    /// Connections that have not logged in.
    pub unauthenticated: usize,
    /// The same from one address (for IPv6, one /64).
    pub unauthenticated_per_address: usize,
    /// End a session that was idle, outside of a transaction, for this long.
    pub session_idle: Option<Duration>,
    /// Finds clients that vanished.
    pub keepalive: Keepalive,
}

/// TCP keepalive of clients' connections. It finds clients that vanished while nothing was under way. Nothing
/// else ends a connection for being slow: `TCP_USER_TIMEOUT` would also count the time in which a client that
/// is there does not read, such as one that pauses within `COPY TO STDOUT`. A client that vanished before it
/// acknowledged what was sent is given up by the system (`tcp_retries2`), on Linux after about 15 minutes.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Quiet for this long: ask whether the client is there.
    pub idle: Duration,
    /// Ask again after this long.
    pub interval: Duration,
    /// Give up after this many questions.
    pub retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            startup_packet: startup::MAX_LENGTH,
            startup: Duration::from_secs(15),
            provisioning: Duration::from_secs(30),
            sessions_per_database: 40,
            sessions: 5000,
            unauthenticated: 1000,
            unauthenticated_per_address: 250,
            session_idle: None,
            keepalive: Keepalive::default(),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), retries: 6 }
    }
}

/// What all sessions share.
struct Shared {
    tls: watch::Receiver<Tls>,
    mock_secret: [u8; 32],
    limits: Limits,
    lookup: Lookup,
    instances: Arc<Instances>,
    /// Of connections that have not logged in.
    arrivals: Places,
    admission: Admission,
    cancels: Cancels,
    /// Cancelled when shutdown begins; each session has a child of it.
    stop: CancellationToken,
}

/// A connection that has not logged in.
struct Arrival {
    place: Place,
    /// When it has to have logged in.
    deadline: Instant,
}

impl Shared {
    /// The outcome of `work`, unless the deadline passes, the arrival's place is taken away or shutdown begins first.
    async fn in_time<T>(&self, arrival: &Arrival, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            done = timeout_at(arrival.deadline, work) => done.map_err(|_| Stop::Closed),
            () = self.stop.cancelled() => Err(Stop::Closed),
            () = arrival.place.evicted() => Err(Stop::Evicted),
        }
    }
}

/// The front door, open but not yet served.
pub struct Gateway {
    listener: TcpListener,
    local_address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Gateway {
    /// Takes the port. Connections wait until [`Gateway::serve`].
    ///
    /// # Errors
    /// Those of the port, such as [`io::ErrorKind::AddrInUse`].
    pub fn bind(config: Config, store: Store, instances: Arc<Instances>, tasks: Tasks) -> io::Result<Self> {
        Self::with_lookup(config, Lookup::Store(store), instances, tasks)
    }

    fn with_lookup(config: Config, lookup: Lookup, instances: Arc<Instances>, tasks: Tasks) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(config.listen), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&config.listen.into())?;
        socket.listen(1024)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local_address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            tls: config.tls,
            mock_secret: config.mock_secret,
            arrivals: Places::new(config.limits.unauthenticated, config.limits.unauthenticated_per_address),
            limits: config.limits,
            lookup,
            instances,
            admission: Admission::default(),
            cancels: Cancels::default(),
            stop: tasks.stop_token(),
        });
        Ok(Self { listener, local_address, shared, tasks })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until the tasks stop. Sessions are tasks of their own: each is told why it ends, and
    /// [`Tasks::finished`] waits for them.
    pub async fn serve(&self) {
        let Self { listener, shared, tasks, .. } = self;
        let mut following = std::pin::pin!(shared.admission.clone().follow(shared.lookup.clone()));
        let mut follows = true;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => receive(shared, tasks, tcp, peer),
                    Err(cause) => {
                        // Mostly too many open files: it passes when sessions end.
                        tracing::warn!(%cause, "could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                () = &mut following, if follows => follows = false,
                () = tasks.stopping() => break,
            }
        }
        // From now on clients are refused at once instead of waiting in the queue of the port.
        let _ = SockRef::from(listener).shutdown(Shutdown::Both);
    }
}

/// Starts the task of one connection. If no place is left, another connection loses its own.
fn receive(shared: &Arc<Shared>, tasks: &Tasks, tcp: TcpStream, peer: SocketAddr) {
    let Some(place) = shared.arrivals.take(Some(Network::of_one_party(peer.ip()))) else { return };
    if let Err(cause) = prepare(&tcp, &shared.limits.keepalive) {
        return tracing::debug!(%peer, %cause, "connection closed by the client before it was accepted");
    }
    let arrival = Arrival { place, deadline: Instant::now() + shared.limits.startup };
    tasks.spawn(session::serve(shared.clone(), tcp, peer, arrival));
}

fn prepare(tcp: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let asking =
        TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval).with_retries(keepalive.retries);
    socket.set_tcp_keepalive(&asking)
}
