//! Opening a session on the instance's private socket.
//!
//! The start-up phase of PostgreSQL documentation §55.2.1, as a client: no password is asked
//! for there (`peer`), parameters pass through, the cancel key stays here.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::startup::CancelKey;
use engine::Endpoint;

/// The most bytes that an instance may send before it is ready. PostgreSQL sends less than 1,000, and a
/// notice for each setting of the client's that it does not take.
const MOST_BYTES: usize = 64 * 1024;

/// What became of it.
pub(crate) enum Opened {
    /// The session is ready.
    Ready(Backend),
    /// The instance said no, in an `ErrorResponse` for the client.
    Refused(Vec<u8>),
    /// It starts or stops at this moment (57P03 or 57P01): try again.
    NotNow,
}

/// An open session of an instance, right before its first `ReadyForQuery` is told.
pub(crate) struct Backend {
    /// The session.
    pub(crate) stream: UnixStream,
    /// The instance's own cancel key, if it has one.
    pub(crate) key: Option<CancelKey>,
    /// `ParameterStatus` and notices for the client.
    pub(crate) greeting: Vec<u8>,
    /// The status of `ReadyForQuery`.
    pub(crate) status: u8,
}

/// Opens a session with this `StartupMessage`.
///
/// # Errors
/// When the socket is not there, closes early or does not speak the protocol.
pub(crate) async fn open(endpoint: &Endpoint, startup: &[u8]) -> io::Result<Opened> {
    let mut stream = endpoint.connect().await?;
    stream.write_all(startup).await?;
    Ok(match read_greeting(&mut stream).await? {
        Greeting::Ready { key, greeting, status } => Opened::Ready(Backend { stream, key, greeting, status }),
        Greeting::Refused(message) => Opened::Refused(message),
        Greeting::NotNow => Opened::NotNow,
    })
}

/// What an instance says to a `StartupMessage`.
#[derive(Debug)]
pub(super) enum Greeting {
    Ready { key: Option<CancelKey>, greeting: Vec<u8>, status: u8 },
    Refused(Vec<u8>),
    NotNow,
}

pub(super) async fn read_greeting<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Greeting> {
    let mut key = None;
    let mut greeting = Vec::new();
    let mut left = MOST_BYTES;
    loop {
        let (kind, message) = read_message(stream, left).await?;
        left -= message.len();
        let body = &message[5..];
        match kind {
            b'R' if body == [0, 0, 0, 0] => {}
            b'R' => return Err(io::Error::other("the instance asks for a password")),
            b'K' => {
                if let Some((process, secret)) = body.split_first_chunk::<4>() {
                    key = Some(CancelKey { process: u32::from_be_bytes(*process), key: secret.to_vec() });
                }
            }
            b'S' | b'N' => greeting.extend(message),
            b'Z' if body.len() == 1 => return Ok(Greeting::Ready { key, greeting, status: body[0] }),
            b'E' => {
                return Ok(match sqlstate(body) {
                    Some(b"57P03" | b"57P01") => Greeting::NotNow,
                    _ => Greeting::Refused(message),
                });
            }
            _ => return Err(io::Error::other("the instance does not speak the protocol")),
        }
    }
}

/// One whole message of `most` bytes at most, of the type that is also its first byte.
async fn read_message<S: AsyncRead + Unpin>(stream: &mut S, most: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if length < 4 {
        return Err(io::Error::other("the instance sent a message of an impossible length"));
    }
    if length >= most {
        return Err(io::Error::other(format!("the instance sent more than {MOST_BYTES} bytes before it was ready")));
    }
    let mut message = header.to_vec();
    message.resize(length + 1, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok((kind, message))
}

/// The `C` field of an `ErrorResponse`.
fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a session with a server that sends `text` again and again.
    async fn greeted_with(text: &[u8]) -> io::Result<Opened> {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint { directory: directory.path().to_owned() };
        let listener = tokio::net::UnixListener::bind(endpoint.socket()).unwrap();
        let sending = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(text).await.is_ok() {}
        };
        let startup = [0, 0, 0, 8, 0, 3, 0, 0];
        let (opened, ()) = tokio::join!(open(&endpoint, &startup), sending);
        opened
    }

    #[tokio::test]
    async fn a_greeting_without_end_is_cut_off() {
        for text in [
            &b"R\0\0\0\x08\0\0\0\0"[..],
            b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02",
            b"S\0\0\0\x08a\0b\0",
            b"S\x7f\xff\xff\xffa",
        ] {
            let Err(error) = greeted_with(text).await else { panic!("{text:?} is no greeting") };
            assert!(error.to_string().contains("more than 65536 bytes"), "{error}");
        }
        assert!(greeted_with(b"R\0\0\0\x03").await.is_err());
    }

    #[test]
    fn the_code_of_an_error_is_found() {
        assert_eq!(sqlstate(b"SFATAL\0VFATAL\0C57P03\0Mstarting up\0\0"), Some(&b"57P03"[..]));
        assert_eq!(sqlstate(b""), None);
    }
}
