//! The metadata store: a pool, transactions, and what it announces.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::broadcast;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::Result;
use super::tasks::Tasks;

/// A connection of the pool, for single statements.
pub type Session = Object;

/// What the store announces (PostgreSQL's NOTIFY). A payload is a bare id.
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

/// The metadata store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    announcements: Arc<broadcast::Sender<Announcement>>,
}

impl Store {
    /// Opens a pool of at most `connections` on the metadata store and listens for announcements
    /// until `tasks` stop.
    pub fn open(config: Config, connections: usize, tasks: &Tasks) -> Result<Self> {
        let config = noticing_loss(config);
        let manager = Manager::from_config(
            config.clone(),
            connector(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(5)))
            .build()
            .map_err(super::error::Error::internal)?;
        let (sender, _) = broadcast::channel(1024);
        let announcements = Arc::new(sender);
        let (announced, until) = (announcements.clone(), tasks.clone());
        tasks.supervise("metadata announcements", move || listen(config.clone(), announced.clone(), until.clone()));
        Ok(Self { pool, announcements })
    }

    /// A pooled connection for statements that need no transaction.
    pub async fn session(&self) -> Result<Session> {
        Ok(self.pool.get().await?)
    }

    /// Begins a transaction. It rolls back unless [`Tx::commit`] is called.
    pub async fn begin(&self) -> Result<Tx> {
        // A Tx already: one that is given up while it begins is rolled back too.
        let tx = Tx { session: Some(self.pool.get().await?) };
        tx.batch_execute("BEGIN").await?;
        Ok(tx)
    }

    /// Everything that is announced from now on.
    pub fn announcements(&self) -> broadcast::Receiver<Announcement> {
        self.announcements.subscribe()
    }
}

/// A transaction on the metadata store. The caller owns it: handlers and workflow steps
/// begin and commit; domain functions only use it.
pub struct Tx {
    /// `None` once committed.
    session: Option<Session>,
}

impl Tx {
    /// Makes everything done in it true, or nothing.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(session) = &self.session {
            session.batch_execute("COMMIT").await?;
        }
        self.session = None;
        Ok(())
    }

    /// Announces something; listeners hear it when the transaction commits.
    pub async fn announce(&self, channel: Channel, bare_id: &str) -> Result<()> {
        let statement = self.prepare_cached("SELECT pg_notify($1, $2)").await?;
        self.execute(&statement, &[&channel.name(), &bare_id]).await?;
        Ok(())
    }
}

impl std::ops::Deref for Tx {
    type Target = Session;

    fn deref(&self) -> &Session {
        #[expect(clippy::expect_used, reason = "only commit takes the session, and commit takes the Tx")]
        self.session.as_ref().expect("an open transaction has a session")
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // The first poll sends it, and a connection carries out its requests in the order in
            // which they are sent: whoever gets it out of the pool next comes after the rollback.
            let _ = session.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

/// The conditions of a list: those that are wanted, so that each statement is planned for what it
/// asks, and the values of all parameters.
pub struct Conditions<'a> {
    sql: String,
    values: Vec<&'a (dyn ToSql + Sync)>,
}

impl<'a> Conditions<'a> {
    /// None yet, in a statement that has these parameters already.
    pub fn of<const N: usize>(values: [&'a (dyn ToSql + Sync); N]) -> Self {
        Self { sql: String::new(), values: values.to_vec() }
    }

    /// One with this value as its parameter, which it calls `$?`; nothing when there is no value.
    pub fn add<T: ToSql + Sync>(&mut self, condition: &str, value: Option<&'a T>) {
        if let Some(value) = value {
            self.values.push(value);
            let parameter = format!("${}", self.values.len());
            self.sql.push_str(" AND ");
            self.sql.push_str(&condition.replace("$?", &parameter));
        }
    }

    /// What to add to the statement's `WHERE`.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The values of the statement's parameters.
    pub fn values(&self) -> &[&'a (dyn ToSql + Sync)] {
        &self.values
    }
}

/// A store on another machine that went away without a word is noticed within half a minute: a
/// request does not hang on it, and the listener does not stay deaf.
fn noticing_loss(mut config: Config) -> Config {
    config
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(25));
    config
}

/// How a session on the store is encrypted, where its address asks for that: the server's
/// certificate must be for its name and signed by an authority that this machine trusts (those of
/// the file in `SSL_CERT_FILE`, if that is set).
pub fn connector() -> MakeRustlsConnect {
    static CONFIG: LazyLock<rustls::ClientConfig> = LazyLock::new(|| {
        let mut roots = rustls::RootCertStore::empty();
        // What is not there or cannot be read is not trusted: the handshake says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    });
    MakeRustlsConnect::new(CONFIG.clone())
}

/// Keeps one connection that listens, and says each time it is opened that announcements were missed before.
async fn listen(config: Config, announcements: Arc<broadcast::Sender<Announcement>>, tasks: Tasks) {
    while !tasks.is_stopping() {
        let session = async {
            let (client, mut connection) = config.connect(connector()).await?;
            let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
            let channels: String = Channel::ALL.iter().map(|channel| format!("LISTEN {};", channel.name())).collect();
            let listening = client.batch_execute(&channels);
            tokio::pin!(listening);
            let mut ready = false;
            loop {
                tokio::select! {
                    done = &mut listening, if !ready => {
                        done?;
                        ready = true;
                        let _ = announcements.send(Announcement::Missed);
                    }
                    message = messages.next() => match message {
                        Some(Ok(AsyncMessage::Notification(note))) => {
                            let channel = Channel::ALL.into_iter().find(|channel| channel.name() == note.channel());
                            if let Some(channel) = channel {
                                let _ = announcements.send(Announcement::Of(channel, note.payload().to_owned()));
                            }
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error),
                        None => return Ok(()),
                    },
                }
            }
        };
        tokio::select! {
            ended = session => if let Err(error) = ended {
                tracing::warn!(error = %super::error::describe(&error), "lost the listener on the metadata store");
            },
            () = tasks.stopping() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = tasks.stopping() => return,
        }
    }
}
