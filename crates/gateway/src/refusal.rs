//! Why a session is refused or ended: SQLSTATE and sentence of each case.
//!
//! SQLSTATEs are those of PostgreSQL's appendix A; the message's layout is that of
//! `ErrorResponse` (PostgreSQL documentation §55.7 and §55.8).

use engine::instances::EndReason;
use engine::{EngineError, PLATFORM_DATABASE};

/// Why a session does not begin, or why it ends. All are `FATAL`: the connection closes afterwards.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Not protocol 3.
    Protocol { major: u16, minor: u16 },
    /// A packet that breaks the protocol.
    Malformed(&'static str),
    /// A plain connection from another machine.
    PlainFromAfar,
    /// No user name in the startup packet.
    NoUser,
    /// A replication connection.
    Replication,
    /// Wrong password or unknown user; the two look the same.
    Password { user: String },
    /// SCRAM was not spoken as RFC 5802 says; the text says where.
    Scram(&'static str),
    /// Too many connections that have not logged in: a newer one got the place.
    Unauthenticated,
    /// The platform's own database in the instance.
    PlatformDatabase,
    /// The cap on sessions of one database.
    DatabaseSessions { limit: usize },
    /// The cap on sessions in total.
    Sessions { limit: usize },
    /// The database did not become ready in time.
    Provisioning { waited_s: u64 },
    /// The database can't be opened; the reason is a sentence for its owner.
    Failed { reason: String },
    /// The database or the connection was deleted while the session waited.
    Deleted,
    /// The metadata store does not answer.
    Metadata,
    /// The instance did not start.
    Engine(EngineError),
    /// The instance started but no session could be opened.
    Instance,
    /// The session's hold on the instance ended.
    Ended(EndReason),
    /// The connection's credential was deleted.
    CredentialEnded,
    /// The session's own idle timeout.
    Idle { limit_s: u64 },
    /// Howdah shuts down.
    Shutdown,
}

impl Refusal {
    /// The SQLSTATE.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Protocol { .. } | Self::Replication => "0A000",
            Self::Malformed(_) => "08P01",
            Self::PlainFromAfar | Self::NoUser | Self::Scram(_) => "28000",
            Self::Password { .. } => "28P01",
            Self::PlatformDatabase => "42501",
            Self::Unauthenticated | Self::DatabaseSessions { .. } | Self::Sessions { .. } => "53300",
            Self::Engine(EngineError::Full { .. }) => "53300",
            Self::Engine(EngineError::NoSpace { .. } | EngineError::HeldBack { .. })
            | Self::Ended(EndReason::NoRoom) => "53100",
            Self::Deleted => "3D000",
            Self::Provisioning { .. }
            | Self::Failed { .. }
            | Self::Metadata
            | Self::Instance
            | Self::Engine(EngineError::Missing(_) | EngineError::MajorMissing(_) | EngineError::Failed { .. }) => {
                "57P03"
            }
            Self::Ended(_) | Self::CredentialEnded | Self::Idle { .. } | Self::Shutdown => "57P01",
        }
    }

    /// The sentence.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Protocol { major, minor } => {
                format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")
            }
            Self::Malformed(what) | Self::Scram(what) => (*what).to_owned(),
            Self::PlainFromAfar => "connections from other machines need TLS; connect with sslmode=require".to_owned(),
            Self::NoUser => "no PostgreSQL user name specified in startup packet".to_owned(),
            Self::Replication => "replication connections are not supported".to_owned(),
            Self::Password { user } => format!("password authentication failed for user \"{}\"", printable(user)),
            Self::Unauthenticated => {
                "too many connections are authenticating at once; try again in a moment".to_owned()
            }
            Self::PlatformDatabase => {
                format!("the database \"{PLATFORM_DATABASE}\" is reserved for Howdah")
            }
            Self::DatabaseSessions { limit } => {
                format!("too many connections for this database: at most {limit} sessions can be open at a time")
            }
            Self::Sessions { limit } => {
                format!("too many connections: at most {limit} sessions can be open at a time on this server")
            }
            Self::Provisioning { waited_s } => {
                format!("the database is still being provisioned after {waited_s} s; try again in a moment")
            }
            Self::Failed { reason } => format!("the database cannot be opened: {reason}"),
            Self::Deleted => "the database or the connection was deleted".to_owned(),
            Self::Metadata => "the server cannot look up connections right now; try again in a moment".to_owned(),
            Self::Engine(EngineError::Missing(_)) => {
                "the database is not available at the moment; try again in a moment".to_owned()
            }
            Self::Engine(EngineError::Failed { .. }) => {
                "the database could not be started; try again in a moment".to_owned()
            }
            // The engine's own words are for the operator.
            Self::Engine(EngineError::MajorMissing(_)) => {
                "the database's PostgreSQL version is not installed on the server at the moment; try again later".to_owned()
            }
            Self::Engine(EngineError::Full { .. }) => {
                "the server is running its maximum number of databases and cannot wake this one now; try again in a moment".to_owned()
            }
            Self::Engine(EngineError::NoSpace { .. }) => {
                "the server has no disk space left to start the database; try again later".to_owned()
            }
            Self::Engine(EngineError::HeldBack { again_s: Some(seconds) }) => {
                format!("the database was stopped because it grew while the server's disk was almost full; connect again in {seconds} s to delete data")
            }
            Self::Engine(EngineError::HeldBack { again_s: None }) => {
                "the database was stopped because it kept growing while the server's disk was almost full; it can be used again when there is space, and can be deleted now".to_owned()
            }
            Self::Ended(EndReason::NoRoom) => {
                "terminating connection: the database grew while the server's disk was almost full; connect again in a few seconds to delete data".to_owned()
            }
            Self::Instance => "the database started but does not accept sessions yet; try again in a moment".to_owned(),
            Self::Ended(EndReason::Idle) => {
                "terminating connection: the database went to sleep after being idle; connect again to wake it"
                    .to_owned()
            }
            Self::Ended(EndReason::Gone) => {
                "terminating connection: the database was stopped; connect again if it still exists".to_owned()
            }
            Self::Ended(EndReason::Shutdown) | Self::Shutdown => {
                "terminating connection due to administrator command".to_owned()
            }
            Self::CredentialEnded => "terminating connection: its credential was deleted or rotated".to_owned(),
            Self::Idle { limit_s } => {
                format!("terminating connection: the session was idle for {limit_s} s; connect again when needed")
            }
        }
    }

    /// What to do about it, where the sentence does not say.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Failed { .. } => Some("GET /v1/databases/{id} shows the database's status."),
            Self::PlatformDatabase => Some(
                "Run tools on your databases by name instead of on all databases (vacuumdb -d, reindexdb -d); use pg_dumpall with --exclude-database=howdah.",
            ),
            Self::DatabaseSessions { .. } => {
                Some("Close unused sessions, or use a connection pool in the application.")
            }
            _ => None,
        }
    }

    /// The whole `ErrorResponse`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut message = vec![b'E', 0, 0, 0, 0];
        let text = self.message();
        let fields = [
            (b'S', Some("FATAL")),
            (b'V', Some("FATAL")),
            (b'C', Some(self.code())),
            (b'M', Some(text.as_str())),
            (b'H', self.hint()),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                message.push(field);
                message.extend(value.bytes().filter(|byte| *byte != 0));
                message.push(0);
            }
        }
        message.push(0);
        let length = (message.len() - 1) as u32;
        message[1..5].copy_from_slice(&length.to_be_bytes());
        message
    }
}

/// A warning for a session that is there to delete data only, as a `NoticeResponse`.
pub(crate) fn warning_of_clean_up() -> Vec<u8> {
    let fields = [
        (b'S', "WARNING"),
        (b'V', "WARNING"),
        (b'C', "01000"),
        (
            b'M',
            "the server's disk is almost full and this database grew: transactions are read-only by default, and the database is stopped again when it grows",
        ),
        (b'H', "To delete data: BEGIN READ WRITE; DROP TABLE ...; COMMIT;"),
    ];
    let mut message = vec![b'N', 0, 0, 0, 0];
    for (field, value) in fields {
        message.push(field);
        message.extend(value.bytes());
        message.push(0);
    }
    message.push(0);
    let length = (message.len() - 1) as u32;
    message[1..5].copy_from_slice(&length.to_be_bytes());
    message
}

/// A name from outside, cut to PostgreSQL's length of names and without control characters.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(63).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::message::backend::Message;

    #[test]
    fn a_refusal_is_an_error_response() {
        let refusal = Refusal::Password { user: format!("eve\n\0{}", "x".repeat(200)) };
        let mut bytes = bytes::BytesMut::from(&refusal.encode()[..]);
        let Some(Message::ErrorResponse(body)) = Message::parse(&mut bytes).unwrap() else { panic!("an error") };
        assert!(bytes.is_empty());
        let _ = body;
        let encoded = refusal.encode();
        let text = String::from_utf8_lossy(&encoded);
        assert!(text.contains("\0C28P01\0Mpassword authentication failed for user \"eve??xxx"));
        assert!(encoded.len() < 150);
    }

    #[test]
    fn the_engine_s_reasons_have_their_codes_and_tell_tenants_nothing_else() {
        let full = Refusal::Engine(EngineError::Full { running: 3 });
        assert_eq!(full.code(), "53300");
        assert!(!full.message().contains("--") && !full.message().contains('3'), "{}", full.message());
        assert_eq!(Refusal::Engine(EngineError::NoSpace { doing: "start" }).code(), "53100");
        assert_eq!(Refusal::Engine(EngineError::MajorMissing(engine::Major(14))).code(), "57P03");
    }
}
