//! What reads bytes from clients and from instances, for the fuzz targets in `fuzz/`. Each function
//! panics when the bytes are read wrongly.

use futures_util::FutureExt as _;

use super::framing::Activity;
use super::scram::{self, PLAIN, PLUS, Subject};
use super::startup::{self, Packet};
use super::{backend, login};
use base::scram::Verifier;
use base::secret::Secret;

/// A first packet: what the instance is sent of it is a packet again, and names the tenant alone.
pub fn startup(bytes: &[u8]) {
    let whole = startup::read(&mut &bytes[..], startup::MAX_LENGTH).now_or_never();
    assert!(whole.is_some(), "reading waits for more than there is");
    let Ok(Packet::Startup(startup)) = startup::parse(bytes) else { return };
    let _ = (startup.user(), startup.wants_replication(), startup.cancel_key_length());
    if let Some(message) = startup.negotiation() {
        assert_eq!(message.len() - 1, u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize);
    }
    let message = startup.for_instance("tenant", "postgres", startup::Access::Full);
    assert_eq!(message.len(), u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize);
    let Ok(Packet::Startup(sent)) = startup::parse(&message[4..]) else { panic!("the instance is sent no packet") };
    assert!(matches!(sent.user().as_deref(), Ok("tenant")) && !sent.wants_replication());
    assert_eq!(sent.parameters.iter().filter(|(name, _)| name == b"user" || name == b"database").count(), 2);
}

/// Both directions of a session, in pieces: a byte with a direction and a length, and so many bytes.
/// How the bytes are cut makes no difference.
pub fn framing(mut bytes: &[u8]) {
    let (mut whole, mut single) = (Activity::new(b'I'), Activity::new(b'I'));
    while let Some((head, rest)) = bytes.split_first() {
        let (piece, rest) = rest.split_at(usize::from(head & 0x7f).min(rest.len()));
        bytes = rest;
        if head & 0x80 == 0 {
            whole.client_sent(piece);
            piece.chunks(1).for_each(|byte| single.client_sent(byte));
        } else {
            let boundary = whole.backend_sent(piece);
            let mut last = None;
            for (place, byte) in piece.chunks(1).enumerate() {
                last = single.backend_sent(byte).map(|_| place + 1).or(last);
            }
            assert_eq!(boundary, last);
        }
        let state = |activity: &Activity| (activity.is_busy(), activity.at_boundary(), activity.is_terminated());
        assert_eq!(state(&whole), state(&single));
    }
}

/// A client's side of a login: as bytes of the wire, and as lines with a mechanism and two messages. Nobody
/// gets in as a user who does not exist.
pub fn login(bytes: &[u8]) {
    let bound = bytes.first().is_some_and(|byte| byte & 1 == 1).then_some(&b"hash"[..]);
    let mut stream = tokio::io::join(bytes, tokio::io::sink());
    let read = login::authenticate(&mut stream, Subject::new(None, "eve", &[7; 32]), "eve", bound).now_or_never();
    assert!(!matches!(read, None | Some(Ok(Ok(_)))), "reading waits, or somebody got in");

    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(mechanism), Some(first), Some(last)) = (lines.next(), lines.next(), lines.next()) else { return };
    let known = Verifier::with_salt(&Secret::new("pencil"), *b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81");
    for verifier in [None, Some(&known)] {
        let subject = Subject::new(verifier, "user", &[7; 32]);
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        let Ok((exchange, answer)) = scram::begin_with(subject, mechanism, first, bound, nonce) else { continue };
        assert!(mechanism == PLAIN.as_bytes() || (mechanism == PLUS.as_bytes() && bound.is_some()));
        assert!(answer.starts_with("r=") && answer.split(',').count() == 3, "{answer}");
        assert!(verifier.is_some() || exchange.finish(last).is_err(), "somebody got in");
    }
}

/// What an instance sends before a session is ready.
pub fn greeting(bytes: &[u8]) {
    let read = backend::read_greeting(&mut &bytes[..]).now_or_never();
    let Some(read) = read else { panic!("reading waits for more than there is") };
    if let Ok(backend::Greeting::Ready { key, greeting, .. }) = read {
        let key = key.map_or(0, |key| key.key.len());
        assert!(greeting.len() + key < bytes.len());
        assert!(!bytes.starts_with(b"E"), "a refusal is no session");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::testing::corpus;
    use proptest::prelude::*;

    #[test]
    fn the_corpora_are_read() {
        for (name, target) in
            [("startup", startup as fn(&[u8])), ("framing", framing), ("login", login), ("greeting", greeting)]
        {
            corpus(name).iter().for_each(|bytes| target(bytes));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            [startup, framing, login, greeting].iter().for_each(|target| target(&bytes));
        }
    }
}
