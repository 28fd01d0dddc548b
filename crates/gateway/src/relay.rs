//! Bytes in both directions, in one task, with back-pressure: nothing is read before what was read
//! earlier is written. Messages are not taken apart; only their ends are known, so that a last
//! word of ours never lands inside one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout};

use super::framing::Activity;
use super::refusal::Refusal;
use engine::Attachment;

/// Size of the buffer of each direction.
const BUFFER: usize = 16 * 1024;
/// How long the end of a message under way is waited for before the session is just closed.
const BOUNDARY_WAIT: Duration = Duration::from_secs(1);

/// Which side ended a session.
#[derive(Debug)]
pub(crate) enum Side {
    /// The client closed, or its connection broke.
    Client,
    /// The instance closed.
    Backend,
}

/// One direction.
struct Pipe {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    unflushed: bool,
}

impl Pipe {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, unflushed: false }
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        self.start = 0;
        self.end = buffer.filled().len();
        Poll::Ready(Ok(self.end))
    }

    fn poll_drain<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let bytes = &self.buffer[self.start..self.end];
            let written = ready!(Pin::new(&mut *writer).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += written;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.start = self.end;
    }

    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// A session's two streams and what is known of it.
pub(crate) struct Relay<C, B> {
    client: C,
    backend: B,
    /// From the client to the instance.
    up: Pipe,
    /// From the instance to the client.
    down: Pipe,
    /// How many bytes at the front of `down`'s buffer belong to ended messages.
    down_boundary: usize,
    activity: Activity,
    /// Only kept when there is an idle timeout.
    last_traffic: Option<Instant>,
}

impl<C, B> Relay<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// A relay between two streams at message boundaries, after a `ReadyForQuery` with this status.
    pub(crate) fn new(client: C, backend: B, status: u8, idle_timeout: bool) -> Self {
        Self {
            client,
            backend,
            up: Pipe::new(),
            down: Pipe::new(),
            down_boundary: 0,
            activity: Activity::new(status),
            last_traffic: idle_timeout.then(Instant::now),
        }
    }

    /// Relays until one side closes. Cancel-safe: it goes on where it was.
    pub(crate) async fn run(&mut self, attachment: &Attachment) -> Side {
        poll_fn(|context| self.poll(attachment, context)).await
    }

    fn poll(&mut self, attachment: &Attachment, context: &mut Context<'_>) -> Poll<Side> {
        let mut moved = false;
        let up = self.poll_up(attachment, context, &mut moved);
        let down = self.poll_down(context, &mut moved);
        if moved {
            attachment.touch(self.activity.is_busy());
            if let Some(last) = &mut self.last_traffic {
                *last = Instant::now();
            }
        }
        match (up, down) {
            // What the instance said last is out by then; a write to a closed instance fails first.
            (_, Poll::Ready(side)) | (Poll::Ready(side), Poll::Pending) => Poll::Ready(side),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    }

    /// Client to instance, until there is nothing more to do now.
    fn poll_up(&mut self, attachment: &Attachment, context: &mut Context<'_>, moved: &mut bool) -> Poll<Side> {
        loop {
            match self.up.poll_drain(&mut self.backend, context) {
                Poll::Ready(Ok(())) => {}
                // The instance is gone; `poll_down` sees it when its last bytes are relayed.
                Poll::Ready(Err(_)) | Poll::Pending => return Poll::Pending,
            }
            match self.up.poll_read(&mut self.client, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Side::Client),
                Poll::Ready(Ok(length)) => {
                    if !attachment.touch_before_sending() {
                        // The instance is about to stop: nothing more may reach it, or it would
                        // be lost. The client is told by whoever waits for the attachment's end.
                        self.up.clear();
                        return Poll::Pending;
                    }
                    *moved = true;
                    self.activity.client_sent(&self.up.buffer[..length]);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Instance to client, until there is nothing more to do now.
    fn poll_down(&mut self, context: &mut Context<'_>, moved: &mut bool) -> Poll<Side> {
        loop {
            match self.down.poll_drain(&mut self.client, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Side::Client),
                Poll::Pending => return Poll::Pending,
            }
            match self.down.poll_read(&mut self.backend, context) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    let _ = ready!(self.down.poll_flush(&mut self.client, context));
                    return Poll::Ready(Side::Backend);
                }
                Poll::Ready(Ok(length)) => {
                    *moved = true;
                    self.down_boundary = self.activity.backend_sent(&self.down.buffer[..length]).unwrap_or(0);
                }
                Poll::Pending => {
                    return match ready!(self.down.poll_flush(&mut self.client, context)) {
                        Ok(()) => Poll::Pending,
                        Err(_) => Poll::Ready(Side::Client),
                    };
                }
            }
        }
    }

    /// Whether a transaction or statement may be open.
    pub(crate) fn is_busy(&self) -> bool {
        self.activity.is_busy()
    }

    /// Whether the client said `Terminate` before it closed.
    pub(crate) fn is_terminated(&self) -> bool {
        self.activity.is_terminated()
    }

    /// When the session has been idle for `limit`, if nothing happens until then; a busy one is
    /// looked at again after the limit.
    pub(crate) fn idle_at(&self, limit: Duration) -> Instant {
        let now = Instant::now();
        if self.is_busy() { now + limit } else { self.last_traffic.unwrap_or(now) + limit }
    }

    /// Ends the session with a last word for the client, if that is possible between two messages.
    pub(crate) async fn end(mut self, refusal: &Refusal) {
        let boundary = timeout(BOUNDARY_WAIT, poll_fn(|context| self.poll_boundary(context))).await;
        drop(self.backend);
        if matches!(boundary, Ok(true)) {
            close(&mut self.client, &refusal.encode()).await;
        }
    }

    /// Relays downwards to the next boundary and no further; false when there will be none.
    fn poll_boundary(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        loop {
            // What comes after the last ended message is not sent any more.
            let cut =
                self.down.start < self.down.end && self.down.start <= self.down_boundary && self.down_boundary > 0;
            if cut {
                self.down.end = self.down_boundary;
            }
            if ready!(self.down.poll_drain(&mut self.client, context)).is_err() {
                return Poll::Ready(false);
            }
            if cut || self.activity.at_boundary() {
                return Poll::Ready(true);
            }
            match ready!(self.down.poll_read(&mut self.backend, context)) {
                Ok(0) | Err(_) => return Poll::Ready(false),
                Ok(length) => {
                    self.down_boundary = self.activity.backend_sent(&self.down.buffer[..length]).unwrap_or(0);
                }
            }
        }
    }

    /// Waits until the instance has closed by itself; what it says is not relayed.
    pub(crate) async fn drain_backend(&mut self) {
        poll_fn(|context| {
            loop {
                if let Ok(0) | Err(_) = ready!(self.down.poll_read(&mut self.backend, context)) {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    /// The client's stream, to say goodbye on; the instance's is closed.
    pub(crate) fn into_client(self) -> C {
        self.client
    }
}

/// Writes a last message and closes. Waits a moment for the client to read it: bytes that arrive
/// after the socket is gone would make its system throw the message away.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, last: &[u8]) {
    use tokio::io::AsyncReadExt as _;
    let goodbye = async {
        stream.write_all(last).await?;
        stream.shutdown().await
    };
    if matches!(timeout(Duration::from_secs(1), goodbye).await, Ok(Ok(()))) && !last.is_empty() {
        let mut rest = [0; 1024];
        let _ =
            timeout(Duration::from_millis(250), async { while let Ok(1..) = stream.read(&mut rest).await {} }).await;
    }
}
