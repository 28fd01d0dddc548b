//! Startup packets: the first bytes of a connection, before anybody is trusted.
//!
//! Layouts: PostgreSQL documentation §55.2.1 (start-up), §55.2.8 (cancelling), §55.2.10 and
//! §55.2.11 (encryption) and §55.7 (message formats). Protocol 3.2's longer cancel keys are those
//! of PostgreSQL 18.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::refusal::Refusal;

/// PostgreSQL's limit (`MAX_STARTUP_PACKET_LENGTH`).
pub(crate) const MAX_LENGTH: usize = 10_000;
/// The newest minor version of protocol 3 that the gateway speaks to clients.
pub(crate) const NEWEST_MINOR: u16 = 2;

const CANCEL: u32 = 1234 << 16 | 5678;
const SSL: u32 = 1234 << 16 | 5679;
const GSS: u32 = 1234 << 16 | 5680;
/// Longest cancel key of protocol 3.2.
const MAX_CANCEL_KEY: usize = 256;

/// What a first packet asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// `SSLRequest`.
    Ssl,
    /// `GSSENCRequest`.
    Gss,
    /// `CancelRequest`.
    Cancel(CancelKey),
    /// `StartupMessage`.
    Startup(Startup),
}

/// What a `CancelRequest` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CancelKey {
    /// The process id of `BackendKeyData`.
    pub(crate) process: u32,
    /// Its secret.
    pub(crate) key: Vec<u8>,
}

/// A parameter's name and value.
type Parameter = (Vec<u8>, Vec<u8>);

/// A `StartupMessage` of protocol 3.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    /// The minor version that the client asks for.
    pub(crate) minor: u16,
    /// Names and values as they came; PostgreSQL does not say their encoding.
    pub(crate) parameters: Vec<Parameter>,
}

/// Reads one packet. Memory grows with the bytes that arrive, never by what the length says.
/// `None`: the client closed before a packet began.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    max_length: usize,
) -> io::Result<Option<Result<Packet, Refusal>>> {
    let mut header = [0; 4];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..]).await?;
    let length = u32::from_be_bytes(header) as usize;
    if !(8..=max_length).contains(&length) {
        return Ok(Some(Err(Refusal::Malformed("invalid length of startup packet"))));
    }
    let mut body = Vec::new();
    stream.take(length as u64 - 4).read_to_end(&mut body).await?;
    if body.len() != length - 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(parse(&body)))
}

/// Reads a packet without its length.
pub(crate) fn parse(body: &[u8]) -> Result<Packet, Refusal> {
    let Some((code, rest)) = body.split_first_chunk::<4>() else {
        return Err(Refusal::Malformed("invalid length of startup packet"));
    };
    match u32::from_be_bytes(*code) {
        SSL if rest.is_empty() => Ok(Packet::Ssl),
        GSS if rest.is_empty() => Ok(Packet::Gss),
        SSL | GSS => Err(Refusal::Malformed("invalid length of startup packet")),
        CANCEL => match rest.split_first_chunk::<4>() {
            Some((process, key)) if (1..=MAX_CANCEL_KEY).contains(&key.len()) => {
                Ok(Packet::Cancel(CancelKey { process: u32::from_be_bytes(*process), key: key.to_vec() }))
            }
            _ => Err(Refusal::Malformed("invalid length of cancel request")),
        },
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Err(Refusal::Protocol { major, minor });
            }
            Ok(Packet::Startup(Startup { minor, parameters: parse_parameters(rest)? }))
        }
    }
}

/// Pairs of zero-terminated texts, ended by an empty name at the packet's end.
fn parse_parameters(mut rest: &[u8]) -> Result<Vec<Parameter>, Refusal> {
    const LAYOUT: Refusal = Refusal::Malformed("invalid startup packet layout: expected terminator as last byte");
    let mut text = || -> Option<&[u8]> {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (text, after) = rest.split_at(end);
        rest = &after[1..];
        Some(text)
    };
    let mut parameters = Vec::new();
    loop {
        let name = text().ok_or(LAYOUT)?;
        if name.is_empty() {
            break;
        }
        let value = text().ok_or(LAYOUT)?;
        parameters.push((name.to_vec(), value.to_vec()));
    }
    if rest.is_empty() { Ok(parameters) } else { Err(LAYOUT) }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Full,
    /// To delete data while the disk is almost full: transactions are read-only unless the client says otherwise, so
    /// that what filled the disk does not go on by itself.
    CleanUp,
}

impl Startup {
    fn value(&self, name: &str) -> Option<&[u8]> {
        // The last one counts, as in PostgreSQL.
        self.parameters.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The user name, which decides the database.
    pub(crate) fn user(&self) -> Result<String, Refusal> {
        match self.value("user") {
            None | Some(b"") => Err(Refusal::NoUser),
            Some(name) => Ok(String::from_utf8_lossy(name).into_owned()),
        }
    }

    /// The database that it asks for, if it names one. libpq names the user's when it is given none; no database is
    /// called like that.
    pub(crate) fn database(&self) -> Option<&[u8]> {
        self.value("database").filter(|name| !name.is_empty() && Some(*name) != self.value("user"))
    }

    /// Whether it asks for a replication connection.
    pub(crate) fn wants_replication(&self) -> bool {
        let off = ["off", "false", "0", "no"];
        self.value("replication").is_some_and(|value| !off.iter().any(|off| value.eq_ignore_ascii_case(off.as_bytes())))
    }

    /// `NegotiateProtocolVersion`, when the client asks for something that the gateway does not know:
    /// the newest version and the names of the protocol options that are not supported.
    pub(crate) fn negotiation(&self) -> Option<Vec<u8>> {
        let unknown: Vec<&[u8]> =
            self.parameters.iter().map(|(name, _)| name.as_slice()).filter(|name| name.starts_with(b"_pq_.")).collect();
        if self.minor <= NEWEST_MINOR && unknown.is_empty() {
            return None;
        }
        let mut message = vec![b'v', 0, 0, 0, 0];
        message.extend((3 << 16 | u32::from(self.minor.min(NEWEST_MINOR))).to_be_bytes());
        message.extend((unknown.len() as u32).to_be_bytes());
        for name in unknown {
            message.extend(name);
            message.push(0);
        }
        let length = (message.len() - 1) as u32;
        message[1..5].copy_from_slice(&length.to_be_bytes());
        Some(message)
    }

    /// How long the session's cancel key is (32 bytes since protocol 3.2).
    pub(crate) fn cancel_key_length(&self) -> usize {
        if self.minor >= 2 { 32 } else { 4 }
    }

    /// The `StartupMessage` for the instance: its own role, the client's database and parameters.
    /// Always protocol 3.0, which every PostgreSQL knows.
    pub(crate) fn for_instance(&self, role: &str, default_database: &str, access: Access) -> Vec<u8> {
        let database = self.database().unwrap_or(default_database.as_bytes());
        let mut message = vec![0, 0, 0, 0];
        message.extend((3u32 << 16).to_be_bytes());
        // A role setting of the tenant's own that names a missing library would refuse every later
        // session, and with it the way to take the setting back.
        let own = [(&b"user"[..], role.as_bytes()), (b"database", database), (b"local_preload_libraries", b"")];
        // Settings of roles and databases do not get in its way; the client's own does.
        let read_only = (access == Access::CleanUp).then_some((&b"default_transaction_read_only"[..], &b"on"[..]));
        let theirs =
            self.parameters.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).filter(|(name, _)| {
                !matches!(*name, b"user" | b"database" | b"replication") && !name.starts_with(b"_pq_.")
            });
        for (name, value) in own.into_iter().chain(read_only).chain(theirs) {
            for text in [name, value] {
                message.extend(text);
                message.push(0);
            }
        }
        message.push(0);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_be_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
        body.push(0);
        body
    }

    fn parsed(parameters: &[(&str, &str)]) -> Startup {
        match parse(&startup(3 << 16 | 2, parameters)).unwrap() {
            Packet::Startup(startup) => startup,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_parameters_are_read_or_refused(minor: u16, bytes: Vec<u8>) {
            let body = [&(3u32 << 16 | u32::from(minor)).to_be_bytes()[..], &bytes].concat();
            if let Ok(Packet::Startup(startup)) = parse(&body) {
                let total: usize = startup.parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
                prop_assert_eq!(total + 1, bytes.len());
                let _ = (startup.user(), startup.negotiation(), startup.for_instance("tenant", "postgres", Access::Full));
            }
        }

        #[test]
        fn the_client_s_names_never_route(name in "[a-z_]{1,12}", database in "[a-z]{13,20}") {
            let message = parsed(&[("user", &name), ("database", &database), ("user", "x")])
                .for_instance("tenant", "postgres", Access::Full);
            let expected = format!("user\0tenant\0database\0{database}\0local_preload_libraries\0\0\0");
            prop_assert_eq!(&message[8..], expected.as_bytes());
        }
    }

    #[test]
    fn the_user_s_name_as_database_means_the_default_one() {
        let message = parsed(&[("user", "abc"), ("database", "abc")]).for_instance("tenant", "postgres", Access::Full);
        assert!(message[8..].starts_with(b"user\0tenant\0database\0postgres\0"));
    }

    #[tokio::test]
    async fn wrong_length_is_rejected_before_memory_is_allocated() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 1][..], &[0, 0, 0, 7, 1], &[0, 0, 0x27, 0x11]] {
            let read = read(&mut &bytes[..], MAX_LENGTH).await.unwrap().unwrap();
            assert!(matches!(read, Err(Refusal::Malformed(_))));
        }
        assert!(read(&mut &[0, 0, 0, 9, 0, 3][..], MAX_LENGTH).await.is_err());
        assert!(read(&mut &[][..], MAX_LENGTH).await.unwrap().is_none());
    }

    #[test]
    fn replication_is_seen() {
        for value in ["database", "true", "1", "yes", ""] {
            assert!(parsed(&[("replication", value)]).wants_replication(), "{value}");
        }
        for value in ["off", "FALSE", "0", "no"] {
            assert!(!parsed(&[("replication", value)]).wants_replication(), "{value}");
        }
    }

    #[test]
    fn unknown_options_and_versions_are_negotiated() {
        assert_eq!(parsed(&[("user", "a")]).negotiation(), None);
        let message = parsed(&[("user", "a"), ("_pq_.x", "1")]).negotiation().unwrap();
        assert_eq!(message, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
        let newer = Startup { minor: 9999, parameters: vec![] };
        assert_eq!(newer.negotiation().unwrap(), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0");
    }

    #[test]
    fn other_majors_are_refused() {
        assert!(matches!(parse(&startup(2 << 16, &[])), Err(Refusal::Protocol { major: 2, .. })));
        assert!(matches!(parse(&startup(4 << 16, &[])), Err(Refusal::Protocol { major: 4, .. })));
    }
}
