//! The platform's own short sessions on an instance.
//!
//! They connect to the platform's database, pin the search path, and read nothing but catalogs. Time,
//! bytes and rows of an answer are bounded: the server may not be PostgreSQL any more.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::place::Place;
use crate::bounded::Bounded;
use crate::{Endpoint, EngineError, PLATFORM_DATABASE, PLATFORM_ROLE};
use base::scram::Verifier;
use base::secret::{Secret, random_text};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes that a server may send in one session. The longest answer, a measurement, has
/// about 150 bytes in each of its rows.
const MOST_BYTES: usize = 1 << 20;
/// How many characters of what a server says are passed on.
const LONGEST_REASON: usize = 500;
/// The most rows of one answer.
pub(super) const MOST_ROWS: usize = 1000;

impl Endpoint {
    /// Connects, and makes sure that it is this instance's server that listens: the socket lies
    /// in a directory that the instance's user can write, who could put a link to another
    /// instance's socket in its place.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket()).await?;
        if stream.peer_cred()?.uid() != self.owner()? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another process is listening on the instance's socket",
            ));
        }
        Ok(stream)
    }

    /// The user whom the instance's server runs as.
    fn owner(&self) -> io::Result<u32> {
        Ok(std::fs::symlink_metadata(&self.directory)?.uid())
    }
}

/// Why a question was not answered.
pub(super) enum Unanswered {
    /// It may be answered a moment later.
    NotYet(String),
    /// The disk is full.
    NoSpace,
}

impl Unanswered {
    /// What it means to who was `doing` something.
    pub(super) fn while_doing(self, doing: &'static str) -> EngineError {
        match self {
            Self::NoSpace => EngineError::NoSpace { doing },
            Self::NotYet(reason) => EngineError::Failed { doing, reason },
        }
    }
}

/// Asks a question whose answer is true or false.
pub(super) async fn ask(place: &Place, question: &str) -> Result<bool, Unanswered> {
    Ok(ask_for_text(place, question).await?.as_deref() == Some("t"))
}

/// Asks a question whose answer is the first column of the first row.
pub(super) async fn ask_for_text(place: &Place, question: &str) -> Result<Option<String>, Unanswered> {
    Ok(rows(place, question).await?.first().and_then(|row| row.get(0)).map(str::to_owned))
}

/// Asks a question whose answer is rows, [`MOST_ROWS`] at most.
pub(super) async fn rows(place: &Place, question: &str) -> Result<Vec<SimpleQueryRow>, Unanswered> {
    rows_within(PATIENCE, place, question).await
}

async fn rows_within(patience: Duration, place: &Place, question: &str) -> Result<Vec<SimpleQueryRow>, Unanswered> {
    let asking = async {
        let endpoint = place.endpoint();
        let stream = endpoint.connect().await.map_err(|error| Unanswered::NotYet(error.to_string()))?;
        let stream = Bounded::new(stream, MOST_BYTES);
        let mut config = Config::new();
        config
            .user(PLATFORM_ROLE)
            .dbname(PLATFORM_DATABASE)
            .application_name("howdah")
            .options("-c search_path=pg_catalog -c statement_timeout=8000 -c lock_timeout=5000");
        // An instance with a user of its own knows Howdah by `peer`. It gets no password: in a SCRAM
        // exchange its server would choose how many rounds of hashing Howdah goes through.
        let is_shared = endpoint.owner().is_ok_and(|owner| owner == rustix::process::geteuid().as_raw());
        if let Some(secret) = place.read_secret().filter(|_| is_shared) {
            config.password(secret.expose());
        }
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(explain)?;
        let answer = async {
            let mut messages = pin!(client.simple_query_raw(question).await.map_err(explain)?);
            let mut rows = Vec::new();
            while let Some(message) = messages.try_next().await.map_err(explain)? {
                let SimpleQueryMessage::Row(row) = message else { continue };
                if rows.len() == MOST_ROWS {
                    return Err(Unanswered::NotYet(format!("the server answered with more than {MOST_ROWS} rows")));
                }
                rows.push(row);
            }
            Ok(rows)
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => {
                Err(ended.map_or_else(explain, |()| Unanswered::NotYet("the session was closed".into())))
            }
        }
    };
    match tokio::time::timeout(patience, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(Unanswered::NotYet(format!("no response within {} s", patience.as_secs()))),
    }
}

/// Gives the platform's role a new password, which the next questions are asked with where one is
/// needed.
pub(super) async fn renew_password(place: &Place) -> Result<Secret, Unanswered> {
    let secret = Secret::new(random_text::<24>());
    let verifier = Verifier::of(&secret).to_text();
    ask_for_text(place, &format!("ALTER ROLE {PLATFORM_ROLE} PASSWORD '{verifier}'")).await?;
    let (place, kept) = (place.clone(), secret.clone());
    let written = tokio::task::spawn_blocking(move || place.write_secret(&kept)).await;
    match written.map_err(io::Error::other).flatten() {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(Unanswered::NoSpace),
        Err(error) => Err(Unanswered::NotYet(error.to_string())),
    }
}

fn explain(error: tokio_postgres::Error) -> Unanswered {
    let is_shared_memory = error.as_db_error().is_some_and(|error| error.message().contains("shared memory"));
    if error.code() == Some(&tokio_postgres::error::SqlState::DISK_FULL) && !is_shared_memory {
        return Unanswered::NoSpace;
    }
    // It quotes the server, which may say anything.
    let reason = base::error::describe(&error);
    Unanswered::NotYet(reason.chars().filter(|letter| !letter.is_control()).take(LONGEST_REASON).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::EngineError;

    const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    /// One column without a name, and rows of it.
    const COLUMNS: &[u8] = b"T\0\0\0\x19\0\x01\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
    const ROW: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01t";

    /// Listens on an instance's socket in the place of its server. Sends `greeting`, waits for a query if that
    /// was complete, and sends `rest` without end. The thread returns how many bytes it could send.
    fn impostor(
        greeting: &'static [u8],
        begin: Vec<u8>,
        rest: Vec<u8>,
    ) -> (tempfile::TempDir, Place, JoinHandle<usize>) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        std::fs::create_dir(place.socket()).unwrap();
        let listener = UnixListener::bind(place.endpoint().socket()).unwrap();
        let sending = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            std::io::copy(&mut (&stream).take(u64::from(u32::from_be_bytes(length)) - 4), &mut std::io::sink())
                .unwrap();
            stream.write_all(greeting).unwrap();
            if greeting == READY {
                stream.read_exact(&mut [0]).unwrap();
            }
            stream.write_all(&begin).unwrap();
            let mut sent = begin.len();
            while !rest.is_empty() && stream.write_all(&rest).is_ok() {
                sent += rest.len();
            }
            let _ = stream.read_to_end(&mut Vec::new());
            sent
        });
        (directory, place, sending)
    }

    async fn reason(patience: Duration, place: &Place) -> String {
        match rows_within(patience, place, "SELECT true").await.map_err(|unanswered| unanswered.while_doing("ask")) {
            Err(EngineError::Failed { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let endless = |text: &[u8]| text.repeat(4096);
        let header = |kind: u8, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
        let notice = [header(b'N', 10), b"M12345\0\0".to_vec()].concat();
        for (what, greeting, begin, rest, expected) in [
            ("rows", READY, COLUMNS.to_vec(), endless(ROW), "more than 1000 rows"),
            ("one message", READY, header(b'D', i32::MAX as u32), endless(b"x"), "more than 1048576 bytes"),
            ("notices", &READY[..9], Vec::new(), endless(&notice), "more than 1048576 bytes"),
            ("settings", READY, Vec::new(), endless(b"S\0\0\0\x08a\0b\0"), "more than 1048576 bytes"),
        ] {
            let (_directory, place, sending) = impostor(greeting, begin, rest);
            let reason = reason(PATIENCE, &place).await;
            let sent = sending.join().unwrap();
            assert!(reason.contains(expected), "{what}: {reason}");
            assert!(sent < 4 << 20, "{what}: {sent} bytes were read");
        }
    }

    #[tokio::test]
    async fn silent_server_is_given_up() {
        let (_directory, place, _) = impostor(&READY[..5], Vec::new(), Vec::new());
        let patience = Duration::from_secs(1);
        assert_eq!(reason(patience, &place).await, "no response within 1 s");
    }

    #[tokio::test]
    async fn server_output_is_quoted_in_part() {
        let text = "x".repeat(60_000);
        let fields = format!("SFATAL\0C42501\0M{text}\n\0\0");
        let message = [&b"E"[..], &(fields.len() as u32 + 4).to_be_bytes(), fields.as_bytes()].concat();
        let (_directory, place, _) = impostor(b"", message, Vec::new());
        let reason = reason(PATIENCE, &place).await;
        assert!(reason.contains("xxx") && reason.len() == LONGEST_REASON, "{} bytes", reason.len());
    }
}
