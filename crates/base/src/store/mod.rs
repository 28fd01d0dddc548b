//! The metadata store: a pool, transactions, and what it announces.
//!
//! Nobody waits for the store without end. A request gives up on an answer after a few seconds, work in the background
//! after a minute ([`in_background`]); while the store is silent, requests fail at once.

mod announcements;
mod pulse;
mod session;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio::sync::broadcast;
use tokio_postgres::Config;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::announcements::{Announcement, Channel};
use self::pulse::Pulse;
pub use self::pulse::in_background;
use self::session::Source;
pub use self::session::{QueryError, Session};
use super::error::Result;
use super::secret::random_hex;
use super::tasks::Tasks;

/// The metadata store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    source: Arc<Source>,
    announcements: Arc<broadcast::Sender<Announcement>>,
}

impl Store {
    /// Opens a pool of at most `connections` on the metadata store and listens for announcements
    /// until `tasks` stop. All its sessions have one application name, which no other store has: the others see by
    /// it whether this one is still there.
    pub fn open(config: Config, connections: usize, tasks: &Tasks) -> Result<Self> {
        let mut config = noticing_loss(config);
        config.application_name(format!("howdah-{}", random_hex::<8>()));
        let manager = Manager::from_config(
            config.clone(),
            connector(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager).max_size(connections).build().map_err(super::error::Error::internal)?;
        let (sender, _) = broadcast::channel(1024);
        let announcements = Arc::new(sender);
        let source = Arc::new(Source { pool, pulse: Pulse::new(), tasks: tasks.clone() });
        let (announced, asked) = (announcements.clone(), source.clone());
        tasks.supervise("metadata announcements", move || {
            announcements::listen(config.clone(), announced.clone(), asked.clone())
        });
        Ok(Self { source, announcements })
    }

    /// A pooled connection for statements that need no transaction.
    pub async fn session(&self) -> Result<Session> {
        Session::open(&self.source).await
    }

    /// Begins a transaction. It rolls back unless [`Tx::commit`] is called.
    pub async fn begin(&self) -> Result<Tx> {
        // A Tx already: one that is given up while it begins is rolled back too.
        let tx = Tx { session: Some(self.session().await?) };
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
            session.send_rollback();
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
