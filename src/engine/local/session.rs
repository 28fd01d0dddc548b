//! The platform's own short sessions on an instance.
//!
//! They are on the platform's database, with the search path pinned and every wait bounded, and
//! read nothing but catalogs.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::place::Place;
use crate::base::scram::Verifier;
use crate::base::secret::{Secret, random_text};
use crate::engine::{Endpoint, EngineError, PLATFORM_DATABASE, PLATFORM_ROLE};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Endpoint {
    /// Connects, and makes sure that it is this instance's server that listens: the socket lies
    /// in a directory that the instance's user can write, who could put a link to another
    /// instance's socket in its place.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket()).await?;
        let owner = std::fs::symlink_metadata(&self.directory)?.uid();
        if stream.peer_cred()?.uid() != owner {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "somebody else listens on the instance's socket",
            ));
        }
        Ok(stream)
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

/// Asks a question whose answer is rows.
pub(super) async fn rows(place: &Place, question: &str) -> Result<Vec<SimpleQueryRow>, Unanswered> {
    let asking = async {
        let stream = place.endpoint().connect().await.map_err(|error| Unanswered::NotYet(error.to_string()))?;
        let mut config = Config::new();
        config
            .user(PLATFORM_ROLE)
            .dbname(PLATFORM_DATABASE)
            .application_name("howdah")
            .options("-c search_path=pg_catalog -c statement_timeout=8000 -c lock_timeout=5000");
        if let Some(secret) = place.read_secret() {
            config.password(secret.expose());
        }
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(explain)?;
        let answer = tokio::select! {
            answer = client.simple_query(question) => answer.map_err(explain)?,
            ended = connection => {
                return Err(ended.map_or_else(explain, |()| Unanswered::NotYet("the session was closed".into())));
            }
        };
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(Unanswered::NotYet("it does not answer".into())),
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
    if error.code() == Some(&tokio_postgres::error::SqlState::DISK_FULL) {
        return Unanswered::NoSpace;
    }
    Unanswered::NotYet(crate::base::error::describe(&error))
}
