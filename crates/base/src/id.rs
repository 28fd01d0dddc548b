//! Every id of the API, typed and prefixed: `proj_…`, `db_…`.
//!
//! 128 sortable bits (a UUID of version 7), written as 26 lower-case letters and digits
//! (Crockford's base 32), so that text order, byte order and creation order agree.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

fn encode(id: Uuid) -> String {
    let bits = id.as_u128();
    (0..LENGTH).rev().map(|place| char::from(ALPHABET[(bits >> (5 * place)) as usize & 31])).collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != LENGTH {
        return None;
    }
    let mut bits: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)? as u128;
        if place == 0 && value > 7 {
            return None; // 26 letters hold 130 bits
        }
        bits = bits << 5 | value;
    }
    Some(Uuid::from_u128(bits))
}

/// Keeps what this process records one after the other in order: a counter within each millisecond
/// (RFC 9562, section 6.2, method 1), which does not go back while requests that began at other moments
/// make ids too.
struct Sequence(Mutex<(i64, u16)>);

impl Sequence {
    /// How far the clock may be behind the last id before that counts as a clock that was set back.
    const SLACK_MS: i64 = 1000;
    /// 12 bits.
    const MOST: u16 = 0xfff;

    /// The millisecond and the count of the next id.
    fn next(&self, now: i64) -> (i64, u16) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (millis, count) = *last;
        *last = match millis - now {
            behind if !(0..=Self::SLACK_MS).contains(&behind) => (now, 0),
            _ if count == Self::MOST => (millis + 1, 0),
            _ => (millis, count + 1),
        };
        *last
    }
}

static SEQUENCE: Sequence = Sequence(Mutex::new((0, 0)));

/// A new id's bits: milliseconds of `now`, a count, then random ones.
fn generate(now: Timestamp) -> Uuid {
    let mut random = [0u8; 10];
    super::secret::fill_random(&mut random);
    let (millis, count) = SEQUENCE.next(now.as_millisecond().max(0));
    [random[0], random[1]] = count.to_be_bytes();
    uuid::Builder::from_unix_timestamp_millis(millis as u64, &random).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What stands before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later: to the millisecond, and within one those of this process.
            pub fn generate(now: Timestamp) -> Self {
                Self(generate(now))
            }

            /// Reads an id with or without its prefix; `None` for anything else.
            pub fn parse(text: &str) -> Option<Self> {
                let bare = text.strip_prefix(concat!($prefix, "_")).unwrap_or(text);
                decode(bare).map(Self)
            }

            /// The id without its prefix, as it stands in paths and tokens.
            pub fn bare(&self) -> String {
                encode(self.0)
            }

            /// The bits, as the metadata store keeps them.
            pub fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.bare())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// A workspace: who owns projects.
    WorkspaceId = "wksp";
    /// A project: a set of databases.
    ProjectId = "proj";
    /// A branch: where a project's databases stand.
    BranchId = "br";
    /// A database, as the API shows it.
    DatabaseId = "db";
    /// A connection: one credential of one database.
    ConnectionId = "con";
    /// A service token.
    ServiceTokenId = "itgr";
    /// What a person lets an application do in a workspace.
    IntegrationId = "itgr";
    /// A person.
    UserId = "usr";
    /// A browser in which a person has signed in.
    SessionId = "ses";
    /// A link that sets an account's password.
    AccountLinkId = "lnk";
    /// A form of the console as it was shown once.
    FormId = "form";
    /// An invitation to a workspace.
    InvitationId = "inv";
    /// A mail that Howdah writes.
    MailId = "mail";
    /// One authorization of an application: the family of its tokens.
    GrantId = "grt";
    /// A PostgreSQL instance of an engine; a database has one at a time.
    InstanceId = "inst";
    /// A workflow in the queue, which the API calls an operation.
    WorkflowId = "op";
    /// A backup.
    BackupId = "bak";
    /// An entry of the audit log.
    AuditEntryId = "aud";
    /// This installation: which data directory and which metadata store belong together.
    InstallationId = "hwdh";
}

/// An application that acts for people. Text, since some come with an id of their own, which
/// clients have built in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthClientId(String);

impl OauthClientId {
    /// A new id; ids made later sort later.
    pub fn generate(now: Timestamp) -> Self {
        Self(encode(generate(now)))
    }

    /// Reads an id with or without its prefix `itgr_`; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix("itgr_").unwrap_or(text);
        let fits = (1..=64).contains(&bare.len())
            && bare.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        fits.then(|| Self(bare.to_owned()))
    }

    /// The id without its prefix.
    pub fn bare(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OauthClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "itgr_{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_survive_a_round_trip(bits: u128) {
            let id = DatabaseId::from(Uuid::from_u128(bits));
            prop_assert_eq!(DatabaseId::parse(&id.to_string()), Some(id));
            prop_assert_eq!(DatabaseId::parse(&id.bare()), Some(id));
        }

        #[test]
        fn text_order_is_bit_order(a: u128, b: u128) {
            let (a, b) = (Uuid::from_u128(a), Uuid::from_u128(b));
            prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Some(id) = ProjectId::parse(&text) {
                prop_assert!(text == id.bare() || text == id.to_string());
            }
        }
    }

    #[test]
    fn applications_may_bring_their_own_id() {
        for text in ["cmm3lndn701oo0uefvxzo0ivw", "itgr_cmm3lndn701oo0uefvxzo0ivw"] {
            let id = OauthClientId::parse(text).unwrap();
            assert_eq!(
                (id.bare(), id.to_string().as_str()),
                ("cmm3lndn701oo0uefvxzo0ivw", "itgr_cmm3lndn701oo0uefvxzo0ivw")
            );
        }
        for text in ["", "itgr_", "itgr_itgr_x", "UPPER", "a b", "a\0b", &"x".repeat(65)] {
            assert_eq!(OauthClientId::parse(text), None);
        }
    }

    #[test]
    fn ids_are_in_the_order_in_which_they_were_made() {
        let sequence = Sequence(Mutex::new((0, 0)));
        let moments = [5000, 5000, 5001, 5000, 4001, 5002].into_iter().chain([5002; 5000]);
        let made: Vec<_> = moments.map(|now| sequence.next(now)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(made.last().map(|last| last.0), Some(5003), "a millisecond has no room for 5000");
        assert_eq!(sequence.next(1000), (1000, 0), "the clock was set back");
    }

    #[test]
    fn another_prefix_is_refused() {
        let id = ProjectId::from(Uuid::from_u128(7));
        assert_eq!(DatabaseId::parse(&id.to_string()), None);
    }
}
