//! One connection of the pool. Each statement has a limit, and a connection on which one was given up is not handed
//! to somebody else before the store has dealt with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object, Pool};
use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, SimpleQueryMessage, Statement, ToStatement};

use super::pulse::{self, Pulse};
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// How long to wait for an answer of a silent store before it is asked on another connection.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// The pause in between.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// Where sessions come from.
pub(super) struct Source {
    pub(super) pool: Pool,
    pub(super) pulse: Pulse,
    pub(super) tasks: Tasks,
}

impl Source {
    /// Somebody who began to wait at `since` gave up. A store that is silent now is asked until it answers.
    fn gave_up(self: &Arc<Self>, since: u64) {
        if self.pulse.gave_up(since) {
            let this = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = this.ask_until_it_answers() => {}
                    () = this.tasks.stopping() => {}
                }
            });
        }
    }

    async fn ask_until_it_answers(&self) {
        while self.pulse.is_silent() {
            if let Ok(Ok(connection)) = timeout(PROBE_LIMIT, self.pool.get()).await {
                match timeout(PROBE_LIMIT, connection.batch_execute("")).await {
                    Ok(Ok(())) => return self.pulse.answered(),
                    Ok(Err(_)) | Err(_) => drop(Object::take(connection)),
                }
            }
            sleep(PROBE_PAUSE).await;
        }
    }
}

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// What PostgreSQL or the driver says.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// There was no answer in time.
    #[error("no answer in time")]
    Silent,
}

impl QueryError {
    /// PostgreSQL's own error.
    pub fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Postgres(error) => error.as_db_error(),
            Self::Silent => None,
        }
    }

    /// Its SQLSTATE.
    pub fn code(&self) -> Option<&SqlState> {
        self.as_db_error().map(DbError::code)
    }
}

impl From<QueryError> for Error {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Postgres(error) => error.into(),
            QueryError::Silent => Self::store_unavailable(QueryError::Silent),
        }
    }
}

/// A connection of the pool, for single statements.
pub struct Session {
    /// `None` once dropped.
    connection: Option<Object>,
    /// Statements that were sent and not answered yet.
    open: AtomicUsize,
    /// A statement was not answered in time: the next ones fail at once.
    lost: AtomicBool,
    source: Arc<Source>,
}

impl Session {
    /// Takes a connection out of the pool, or opens one.
    pub(super) async fn open(source: &Arc<Source>) -> Result<Self> {
        if !source.pulse.may_ask() {
            return Err(QueryError::Silent.into());
        }
        let since = source.pulse.now();
        match timeout(pulse::limit(), source.pool.get()).await {
            Ok(connection) => Ok(Self {
                connection: Some(connection?),
                open: AtomicUsize::new(0),
                lost: AtomicBool::new(false),
                source: source.clone(),
            }),
            Err(_) => {
                source.gave_up(since);
                Err(QueryError::Silent.into())
            }
        }
    }

    fn client(&self) -> &ClientWrapper {
        #[expect(clippy::expect_used, reason = "only drop takes the connection")]
        self.connection.as_ref().expect("a session has a connection")
    }

    /// Waits for the answer to a statement, which a session that is given up meanwhile still waits for.
    async fn answer<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(QueryError::Silent);
        }
        let since = self.source.pulse.now();
        self.open.fetch_add(1, Ordering::Relaxed);
        match timeout(pulse::limit(), statement).await {
            Ok(answer) => {
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.source.pulse.answered();
                Ok(answer?)
            }
            Err(_) => {
                self.lost.store(true, Ordering::Relaxed);
                self.source.gave_up(since);
                Err(QueryError::Silent)
            }
        }
    }

    /// [`tokio_postgres::Client::prepare`], once for each connection and statement.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Statement, QueryError> {
        self.answer(self.client().prepare_cached(sql)).await
    }

    /// [`tokio_postgres::Client::query`].
    pub async fn query<S: ?Sized + ToStatement>(
        &self,
        statement: &S,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        self.answer(self.client().query(statement, values)).await
    }

    /// [`tokio_postgres::Client::query_one`].
    pub async fn query_one<S: ?Sized + ToStatement>(
        &self,
        statement: &S,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, QueryError> {
        self.answer(self.client().query_one(statement, values)).await
    }

    /// [`tokio_postgres::Client::query_opt`].
    pub async fn query_opt<S: ?Sized + ToStatement>(
        &self,
        statement: &S,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, QueryError> {
        self.answer(self.client().query_opt(statement, values)).await
    }

    /// [`tokio_postgres::Client::execute`].
    pub async fn execute<S: ?Sized + ToStatement>(
        &self,
        statement: &S,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, QueryError> {
        self.answer(self.client().execute(statement, values)).await
    }

    /// [`tokio_postgres::Client::simple_query`].
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, QueryError> {
        self.answer(self.client().simple_query(sql)).await
    }

    /// [`tokio_postgres::Client::batch_execute`].
    pub async fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        self.answer(self.client().batch_execute(sql)).await
    }

    /// Sends a rollback without waiting for its answer. A connection carries out what it is sent in that order: who
    /// gets it out of the pool next comes after the rollback.
    pub(super) fn send_rollback(&self) {
        let _ = self.client().batch_execute("ROLLBACK").now_or_never();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if *self.open.get_mut() == 0 || connection.is_closed() {
            return;
        }
        if *self.lost.get_mut() || tokio::runtime::Handle::try_current().is_err() {
            // Out of the pool, and closed.
            return drop(Object::take(connection));
        }
        // A request ended, mostly because its client went away, while a statement ran. The connection keeps its place
        // in the pool until that statement has ended, so that no client can pile them up in the store.
        let source = self.source.clone();
        self.source.tasks.spawn(async move {
            let since = source.pulse.now();
            match timeout(pulse::REQUEST_LIMIT, connection.batch_execute("")).await {
                Ok(Ok(())) => source.pulse.answered(),
                Ok(Err(_)) => drop(Object::take(connection)),
                Err(_) => {
                    source.gave_up(since);
                    drop(Object::take(connection));
                }
            }
        });
    }
}
