//! Announcements of the metadata store (PostgreSQL's LISTEN and NOTIFY).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, Config};

use super::connector;
use super::pulse::Pulse;
use super::session::Source;
use crate::error::{Error, Result, describe};

/// How often to make sure that the connection which listens still answers.
const CHECK: Duration = Duration::from_secs(5);
/// How long it may take to answer, and to open.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause before it is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// An announcement of the store (PostgreSQL's NOTIFY). Its payload is a bare id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A workflow was started or has to be looked at again.
    WorkflowStarted,
    /// A workflow ended, well or not.
    WorkflowEnded,
    /// A database's status changed.
    DatabaseChanged,
    /// A connection's credential is no longer valid.
    ConnectionEnded,
    /// A request with an idempotency key was answered, or given up.
    AnswerStored,
    /// Something was written to the audit log.
    AuditRecorded,
    /// There is another key that signs tokens.
    KeyMade,
}

impl Channel {
    const ALL: [Self; 7] = [
        Self::WorkflowStarted,
        Self::WorkflowEnded,
        Self::DatabaseChanged,
        Self::ConnectionEnded,
        Self::AnswerStored,
        Self::AuditRecorded,
        Self::KeyMade,
    ];

    /// Its name in PostgreSQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkflowStarted => "howdah_workflow_started",
            Self::WorkflowEnded => "howdah_workflow_ended",
            Self::DatabaseChanged => "howdah_database_changed",
            Self::ConnectionEnded => "howdah_connection_ended",
            Self::AnswerStored => "howdah_answer_stored",
            Self::AuditRecorded => "howdah_audit_recorded",
            Self::KeyMade => "howdah_key_made",
        }
    }
}

/// One announcement.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// Something happened to the thing with this bare id.
    Of(Channel, String),
    /// The listener was away for a while: look at everything again.
    Missed,
}

/// Keeps one connection that listens, and says each time it was opened that announcements were missed before.
pub(super) async fn listen(config: Config, announcements: Arc<broadcast::Sender<Announcement>>, source: Arc<Source>) {
    let (pulse, tasks) = (&source.pulse, &source.tasks);
    let mut lost = false;
    while !tasks.is_stopping() {
        let session = async {
            let opening = timeout(ANSWER, config.connect(connector())).await;
            let (client, mut connection) = opening.map_err(|_| silent())??;
            let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
            let receiving = async {
                while let Some(message) = messages.next().await {
                    if let AsyncMessage::Notification(note) = message? {
                        let channel = Channel::ALL.into_iter().find(|channel| channel.name() == note.channel());
                        if let Some(channel) = channel {
                            let _ = announcements.send(Announcement::Of(channel, note.payload().to_owned()));
                        }
                    }
                }
                Ok(())
            };
            let checking = async {
                let channels: String =
                    Channel::ALL.iter().map(|channel| format!("LISTEN {};", channel.name())).collect();
                ask(&client, &channels, pulse).await?;
                if std::mem::take(&mut lost) {
                    tracing::info!("reconnected to the notifications of the metadata store");
                }
                let _ = announcements.send(Announcement::Missed);
                loop {
                    sleep(CHECK).await;
                    ask(&client, "", pulse).await?;
                }
            };
            tokio::select! {
                ended = receiving => ended,
                failed = checking => failed,
            }
        };
        let ended: Result<()> = tokio::select! {
            ended = session => ended,
            () = tasks.stopping() => return,
        };
        if !std::mem::replace(&mut lost, true) {
            let error = ended.err().map(|error| describe(&error));
            tracing::warn!(error, "lost the connection for notifications of the metadata store; reconnecting");
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = tasks.stopping() => return,
        }
    }
}

async fn ask(client: &Client, sql: &str, pulse: &Pulse) -> Result<()> {
    timeout(ANSWER, client.batch_execute(sql)).await.map_err(|_| silent())??;
    pulse.answered();
    Ok(())
}

fn silent() -> Error {
    Error::store_unavailable("no answer in time")
}
