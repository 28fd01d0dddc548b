//! One session's path: first packet, TLS, password, relaying, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::cancel::Target;
use super::opening::{self, Open, Stop};
use super::refusal::{Refusal, printable};
use super::relay::{self, Relay, Side};
use super::startup::{self, CancelKey, Packet, Startup};
use super::tls::{self, Tls};
use super::{Arrival, Shared};

/// How long a client that said goodbye lets its last statement run.
const LAST_STATEMENT_WAIT: Duration = Duration::from_secs(5);
/// How long a client may take to accept the greeting.
const GREETING_WAIT: Duration = Duration::from_secs(15);
/// How much of what a client sends before its session is ready is read, to see whether it closes.
const READ_AHEAD: usize = 1024;

/// Serves one TCP connection.
pub(super) async fn serve(shared: Arc<Shared>, mut tcp: TcpStream, peer: SocketAddr, arrival: Arrival) {
    let local = is_local(&tcp, peer);
    let first = shared.in_time(&arrival, first_packet(&shared, &mut tcp, local)).await.flatten();
    match first {
        Ok(First::Cancel(key)) => cancel(&shared, &key).await,
        Ok(First::Startup(startup)) => converse(&shared, tcp, startup, None, peer, arrival).await,
        Ok(First::Tls { direct }) => {
            // SCRAM binds to the certificate of this handshake, whichever the gateway has by then.
            let Tls { acceptor, end_point } = shared.tls.borrow().clone();
            let Ok(Ok(mut stream)) = shared.in_time(&arrival, acceptor.accept(tcp)).await else {
                return tracing::debug!(%peer, "TLS handshake failed");
            };
            if direct && stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
                let refusal = Refusal::Malformed("direct TLS needs ALPN with the protocol postgresql");
                return turn_away(&shared, &mut stream, refusal.into(), peer, "", &arrival).await;
            }
            let packet = match shared.in_time(&arrival, startup::read(&mut stream, shared.limits.startup_packet)).await
            {
                Ok(Ok(Some(packet))) => packet,
                Ok(Ok(None) | Err(_)) => return,
                Err(stop) => return turn_away(&shared, &mut stream, stop, peer, "", &arrival).await,
            };
            match packet {
                Ok(Packet::Startup(startup)) => {
                    converse(&shared, stream, startup, end_point.as_deref(), peer, arrival).await;
                }
                Ok(Packet::Cancel(key)) => {
                    cancel(&shared, &key).await;
                    relay::close(&mut stream, b"").await;
                }
                Ok(Packet::Ssl | Packet::Gss) => {
                    let refusal = Refusal::Malformed("encryption was requested twice");
                    turn_away(&shared, &mut stream, refusal.into(), peer, "", &arrival).await;
                }
                Err(refusal) => turn_away(&shared, &mut stream, refusal.into(), peer, "", &arrival).await,
            }
        }
        Err(stop) => turn_away(&shared, &mut tcp, stop, peer, "", &arrival).await,
    }
}

enum First {
    Cancel(CancelKey),
    Startup(Startup),
    Tls { direct: bool },
}

/// Reads what comes before encryption or the plain start-up. Exactly the packets' bytes are read,
/// so that nothing sent in the clear can be taken for something sent under TLS.
async fn first_packet(shared: &Shared, tcp: &mut TcpStream, local: bool) -> Result<First, Stop> {
    const TLS_HANDSHAKE: u8 = 0x16;
    let mut byte = [0];
    if tcp.peek(&mut byte).await? == 1 && byte[0] == TLS_HANDSHAKE {
        return Ok(First::Tls { direct: true });
    }
    let mut declined = false;
    loop {
        let Some(packet) = startup::read(tcp, shared.limits.startup_packet).await? else { return Err(Stop::Closed) };
        match packet? {
            Packet::Ssl => {
                if matches!(tcp.peek(&mut byte).now_or_never(), Some(Ok(1..))) {
                    // CVE-2021-23214: bytes put in before the handshake by somebody else.
                    return Err(Refusal::Malformed("received unencrypted data after SSL request").into());
                }
                tcp.write_all(b"S").await?;
                return Ok(First::Tls { direct: false });
            }
            Packet::Gss if declined => return Err(Refusal::Malformed("encryption was requested twice").into()),
            Packet::Gss => {
                declined = true;
                tcp.write_all(b"N").await?;
            }
            Packet::Cancel(key) => return Ok(First::Cancel(key)),
            Packet::Startup(_) if !local => return Err(Refusal::PlainFromAfar.into()),
            Packet::Startup(startup) => return Ok(First::Startup(startup)),
        }
    }
}

/// Whether the peer is on this machine: nothing can listen on the way.
fn is_local(tcp: &TcpStream, peer: SocketAddr) -> bool {
    let own = tcp.local_addr().map(|own| own.ip().to_canonical());
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || own.is_ok_and(|own| own == peer)
}

/// Passes a cancel on. The client gets no answer in any case.
async fn cancel(shared: &Shared, key: &CancelKey) {
    if let Some(target) = shared.cancels.find(key) {
        target.cancel().await;
    }
}

/// Everything from the start-up packet on.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    stream: S,
    startup: Startup,
    end_point: Option<&[u8]>,
    peer: SocketAddr,
    arrival: Arrival,
) {
    let user = startup.user().unwrap_or_default();
    let mut stream = BufReader::with_capacity(READ_AHEAD, stream);
    let logging_in = opening::log_in(shared, &mut stream, &startup, end_point);
    let login = match shared.in_time(&arrival, logging_in).await.flatten() {
        Ok(login) => login,
        Err(stop) => return turn_away(shared, &mut stream, stop, peer, &user, &arrival).await,
    };
    drop(arrival);
    let kick = shared.stop.child_token();
    let opened = tokio::select! {
        opened = opening::open(shared, &startup, login, &kick) => opened,
        () = kick.cancelled() => Err(ended(shared).into()),
        () = opening::closed(&mut stream) => Err(Stop::Closed),
    };
    let mut open = match opened {
        Ok(open) => open,
        Err(stop) => return refuse(&mut stream, stop, peer, &user).await,
    };

    let target = open.backend.key.take().map(|key| Target { endpoint: open.attachment.endpoint().clone(), key });
    let registered = target.clone().map(|target| shared.cancels.register(startup.cancel_key_length(), target));
    let mut greeting = std::mem::take(&mut open.backend.greeting);
    if let Some(registered) = &registered {
        greeting.extend(registered.message());
    }
    greeting.extend([b'Z', 0, 0, 0, 5, open.backend.status]);
    let greet = async {
        stream.write_all(&greeting).await?;
        stream.flush().await
    };
    if !matches!(timeout(GREETING_WAIT, greet).await, Ok(Ok(()))) {
        return;
    }
    relay_until_the_end(shared, stream, open, target, kick, peer).await;
}

/// The session itself.
async fn relay_until_the_end<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: S,
    open: Open,
    target: Option<Target>,
    kick: tokio_util::sync::CancellationToken,
    peer: SocketAddr,
) {
    let Open { credential, attachment, backend, held } = open;
    let limit = shared.limits.session_idle;
    let mut relay = Relay::new(stream, backend.stream, backend.status, limit.is_some());
    attachment.touch(relay.is_busy());
    let mut idle = std::pin::pin!(sleep_until(Instant::now() + limit.unwrap_or_default()));
    let ending = {
        let mut forced = std::pin::pin!(async {
            tokio::select! {
                reason = attachment.ended() => Refusal::Ended(reason),
                () = kick.cancelled() => ended(shared),
            }
        });
        loop {
            tokio::select! {
                biased;
                side = relay.run(&attachment) => break Err(side),
                refusal = &mut forced => break Ok(refusal),
                () = &mut idle, if limit.is_some() => {
                    let limit = limit.unwrap_or_default();
                    let at = relay.idle_at(limit);
                    if at <= Instant::now() {
                        break Ok(Refusal::Idle { limit_s: limit.as_secs() });
                    }
                    idle.as_mut().reset(at);
                }
            }
        }
    };
    let why = match ending {
        Ok(refusal) => {
            relay.end(&refusal).await;
            refusal.message()
        }
        Err(Side::Backend) => {
            relay::close(&mut relay.into_client(), b"").await;
            "closed by the instance".to_owned()
        }
        Err(Side::Client) => {
            // No statement outlives its client, except for a moment one that was sent before an orderly goodbye.
            let over = relay.is_terminated() && timeout(LAST_STATEMENT_WAIT, relay.drain_backend()).await.is_ok();
            if let (false, true, Some(target)) = (over, relay.is_busy(), target) {
                target.cancel().await;
            }
            "closed by the client".to_owned()
        }
    };
    drop(held);
    tracing::debug!(
        %peer,
        database.id = %credential.database,
        connection.id = credential.connection.map(tracing::field::display),
        "session ended: {why}"
    );
}

/// Why a session's token was cancelled.
fn ended(shared: &Shared) -> Refusal {
    if shared.stop.is_cancelled() { Refusal::Shutdown } else { Refusal::CredentialEnded }
}

/// Refuses a connection that has not logged in, for which its place is kept.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    stop: Stop,
    peer: SocketAddr,
    user: &str,
    arrival: &Arrival,
) {
    let _ = shared.in_time(arrival, refuse(stream, stop, peer, user)).await;
}

/// Tells the client why there is no session, and the log.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, stop: Stop, peer: SocketAddr, user: &str) {
    let user = printable(user);
    match stop {
        Stop::Refused(refusal) => {
            tracing::info!(%peer, user, sqlstate = refusal.code(), "refused a session: {}", refusal.message());
            relay::close(stream, &refusal.encode()).await;
        }
        Stop::RefusedByInstance(message) => {
            tracing::info!(%peer, user, "the instance refused a session");
            relay::close(stream, &message).await;
        }
        Stop::Evicted => {
            // Another connection has its place already: send what fits into the socket's buffer and close.
            let last = Refusal::Unauthenticated.encode();
            let _ = async { stream.write_all(&last).await.and(stream.flush().await) }.now_or_never();
            tracing::debug!(%peer, user, "closed an unauthenticated connection in favor of a newer one");
        }
        Stop::Closed => {
            tracing::debug!(%peer, user, "connection closed or timed out before authentication");
        }
    }
}
