//! Who is it: the SASL exchange over the wire.
//!
//! PostgreSQL documentation §55.3: AuthenticationSASL, SASLInitialResponse,
//! AuthenticationSASLContinue, SASLResponse, AuthenticationSASLFinal.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::refusal::Refusal;
use super::scram::{self, Failure, Subject};

/// The longest SASL message that PostgreSQL takes (`PG_MAX_SASL_MESSAGE_LENGTH`), and its header.
const MAX_MESSAGE: usize = 1024;

/// Runs the exchange. When it succeeds, the answer is not sent yet: these are its bytes, with
/// `AuthenticationOk` behind them.
pub(crate) async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    subject: Subject,
    user: &str,
    end_point: Option<&[u8]>,
) -> io::Result<Result<Vec<u8>, Refusal>> {
    let refusal = |failure| match failure {
        Failure::Password => Refusal::Password { user: user.to_owned() },
        Failure::Protocol(what) => Refusal::Scram(what),
    };
    let mut mechanisms = Vec::new();
    if end_point.is_some() {
        mechanisms.extend(scram::PLUS.bytes().chain([0]));
    }
    mechanisms.extend(scram::PLAIN.bytes().chain([0, 0]));
    send(stream, &authentication(10, &mechanisms)).await?;

    let initial = match read_response(stream).await? {
        Ok(initial) => initial,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let Some((mechanism, first)) = initial_response(&initial) else {
        return Ok(Err(Refusal::Malformed("malformed SASL initial response")));
    };
    let (exchange, answer) = match scram::begin(subject, mechanism, first, end_point) {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(refusal(failure))),
    };
    send(stream, &authentication(11, answer.as_bytes())).await?;

    let last = match read_response(stream).await? {
        Ok(last) => last,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(exchange.finish(&last).map_err(refusal).map(|signature| {
        let mut answer = authentication(12, signature.as_bytes());
        answer.extend(authentication(0, b""));
        answer
    }))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    stream.flush().await
}

/// An authentication request of this kind.
fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![b'R'];
    message.extend((8 + body.len() as u32).to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(body);
    message
}

/// The body of a `p` message.
async fn read_response<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Result<Vec<u8>, Refusal>> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if kind != b'p' || !(4..=MAX_MESSAGE).contains(&length) {
        return Ok(Err(Refusal::Malformed("expected a SASL response")));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(Ok(body))
}

/// Mechanism and message of a `SASLInitialResponse`.
fn initial_response(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let (mechanism, rest) = (&body[..end], &body[end + 1..]);
    let (length, message) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == message.len()).then_some((mechanism, message))
}
