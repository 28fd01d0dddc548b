//! What an instance's statistics tell.

use std::str::FromStr;

use tokio_postgres::SimpleQueryRow;

use super::place::Place;
use super::session::rows;
use crate::{Counters, EngineError, Measured};

const DOING: &str = "measure the instance";

/// One row for each database, of the [`MOST_ROWS`](super::session::MOST_ROWS) oldest: what is kept of a
/// measurement has a limit, however many databases a tenant creates. Opening a session is a transaction of its own to PostgreSQL. The
/// statistics of the whole server say when a crash has begun all of them anew.
const QUESTION: &str = "SELECT datid,
        (extract(epoch FROM greatest(stats_reset, pg_stat_get_bgwriter_stat_reset_time())) * 1000000)::bigint,
        greatest(xact_commit + xact_rollback - sessions, 0),
        (active_time * 1000)::bigint,
        (SELECT sum(pg_database_size(oid)) FROM pg_database WHERE datname <> 'howdah'),
        (SELECT count(*)
           FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM 'howdah')
   FROM pg_stat_database
  WHERE datname <> 'howdah'
  ORDER BY datid
  LIMIT 1000";

/// Asks the server that runs in `place`.
pub(super) async fn ask(place: &Place) -> Result<Measured, EngineError> {
    let rows = rows(place, QUESTION).await.map_err(|unanswered| unanswered.while_doing(DOING))?;
    read(&rows)
        .ok_or_else(|| EngineError::Failed { doing: DOING, reason: "the instance returned an invalid result".into() })
}

fn read(rows: &[SimpleQueryRow]) -> Option<Measured> {
    let counters = |row: &SimpleQueryRow| {
        Some(Counters {
            database: number(row, 0)?,
            since: number(row, 1)?,
            transactions: number(row, 2)?,
            active: number(row, 3)?,
        })
    };
    Some(Measured {
        databases: rows.iter().map(counters).collect::<Option<_>>()?,
        storage_bytes: number(rows.first()?, 4)?,
        sessions: number(rows.first()?, 5)?,
    })
}

fn number<T: FromStr>(row: &SimpleQueryRow, column: usize) -> Option<T> {
    row.get(column)?.parse().ok()
}
