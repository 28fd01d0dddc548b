//! Usage: what databases have done and how large they are. It is measured while their instances
//! run and when they stop, and kept by the hour, so that reading it wakes none.
//!
//! An operation is a transaction that was committed or rolled back, in any of the databases inside
//! an instance but the platform's own; a statement outside of a transaction block is one of its
//! own. PostgreSQL counts that itself, at no cost and whatever way a client takes, and the count
//! survives stops and the death of Howdah; statements it does not count. Opening a session is no
//! operation, and neither is PostgreSQL's own maintenance of a database in which no client was at
//! work; but each process that it starts to carry out a query in parallel counts as one. The
//! storage is the size of these databases on the disk. Write-ahead log is not in it: how much of
//! that there is, is the platform's choice.
//!
//! PostgreSQL's counters only grow, but a crash begins them anew. So each measurement is compared
//! with the one before, and what was done in between goes to the hour of the measurement. What was
//! done since the last one before a crash (a minute's work) is lost.

mod store;

use std::collections::HashMap;

use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::databases;
use auth::Principal;
use base::error::{Error, Result};
use base::id::{DatabaseId, InstanceId};
use base::store::{Session, Tx};

/// How long hours are kept. The newest one of a database stays: it holds its size.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 400);
/// When the year 0 began, in seconds.
const YEAR_0: i64 = -62_167_219_200;
/// The platform's own work in a new instance: the one question that proved it.
const PROBE: u64 = 1;

/// The counters of one database inside an instance, as they were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// PostgreSQL's own number of the database.
    pub database: u32,
    /// When the counters were zero.
    pub since: i64,
    /// Transactions, without those that open sessions, but with PostgreSQL's own maintenance.
    pub transactions: u64,
    /// Grows whenever a client is at work.
    pub active: u64,
}

/// A measurement of one instance.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of which instance.
    pub instance: InstanceId,
    /// When.
    pub at: Timestamp,
    /// What was counted in each database inside.
    pub counters: Vec<Counters>,
    /// How large these databases are.
    pub storage_bytes: u64,
}

/// What a database used in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Operations in the hours that the period touches.
    pub operations: u64,
    /// The usage's size, as the newest measurement in the period or before found it; 0 without any.
    pub storage_bytes: u64,
    /// When that was.
    pub measured_at: Option<Timestamp>,
}

/// What a database did in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// When the hour began.
    pub start: Timestamp,
    /// Operations in it.
    pub operations: u64,
    /// The database's size, as the last measurement in it found it.
    pub storage_bytes: u64,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    start: Timestamp,
    end: Timestamp,
}

impl Period {
    /// Reads what came in the query: by default from the first of the month until now; an end in
    /// the future counts as the end of today at most. Days and months are those of UTC.
    ///
    /// # Errors
    /// [`Error::Rejected`] for what is no moment, and for a start that comes after the end.
    pub fn parse(start: Option<&str>, end: Option<&str>, now: Timestamp) -> Result<Self> {
        let today = now.to_zoned(TimeZone::UTC);
        let month = today.first_of_month().and_then(|day| day.start_of_day()).map_err(Error::internal)?;
        let tonight = today.end_of_day().map_err(Error::internal)?.timestamp();
        let start = start.map_or(Ok(month.timestamp()), |text| moment("startDate", text))?;
        let end = end.map_or(Ok(now), |text| moment("endDate", text))?.min(tonight);
        if start > end {
            return Err(Error::rejected(
                format!("startDate: {start} is after the end of the period, {end}"),
                "Give an earlier startDate, or a later endDate.",
            ));
        }
        Ok(Self { start, end })
    }

    /// The time up to a moment.
    pub fn until(end: Timestamp, length: SignedDuration) -> Self {
        Self { start: end - length, end }
    }

    /// When it begins.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// When it ends.
    pub fn end(&self) -> Timestamp {
        self.end
    }
}

fn moment(field: &str, text: &str) -> Result<Timestamp> {
    let read = || {
        let pieces = Pieces::parse(text).ok().filter(|pieces| pieces.date().year() >= 0)?;
        let (offset, time) = (pieces.to_numeric_offset()?, pieces.time()?);
        // The last hours of the year 9999 are later than any moment that there is, and what is
        // before the year 0 cannot be written in an answer.
        let moment = offset.to_timestamp(pieces.date().to_datetime(time)).unwrap_or(Timestamp::MAX);
        (moment.as_second() >= YEAR_0).then_some(moment)
    };
    read().ok_or_else(|| {
        let form = "Send a date and time with an offset, such as 2030-01-31T12:00:00Z.";
        Error::rejected(format!("{field}: not a valid timestamp"), form)
    })
}

/// Whether anything was ever done in a database, as far as it was measured, and when that was last.
pub async fn activity(session: &Session, database: DatabaseId) -> Result<(bool, Option<Timestamp>)> {
    store::activity(session, database).await
}

/// A database has another instance, whose counters have nothing to do with those of the one before.
pub async fn begin_anew(tx: &Tx, database: DatabaseId) -> Result<()> {
    store::forget_counters(tx, database).await
}

/// What a database of the caller's used in a period.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live database.
pub async fn get(session: &Session, actor: &Principal, database: DatabaseId, period: &Period) -> Result<Usage> {
    let from = hour(period.start)?;
    store::get(session, &actor.scope(), database, from, period.end)
        .await?
        .ok_or_else(|| Error::not_found("database", database))
}

/// The hours of a period in which a database of the caller's was measured, oldest first; before them the
/// newest one before the period, for the size that it had when the period began.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live database.
pub async fn history(session: &Session, actor: &Principal, database: DatabaseId, period: &Period) -> Result<Vec<Hour>> {
    databases::get(session, actor, database).await?;
    store::history(session, database, hour(period.start)?, period.end).await
}

/// Keeps the databases that live in these instances as they are until the transaction ends, which records several.
pub async fn hold(tx: &Tx, instances: &[InstanceId]) -> Result<()> {
    store::hold(tx, instances).await
}

/// Adds what was done since the measurement before. That of an instance which belongs to no ready
/// database says nothing: what was done in it comes with the next one.
pub async fn record(tx: &Tx, sample: &Sample) -> Result<()> {
    let Some(database) = store::find_ready(tx, sample.instance).await? else { return Ok(()) };
    let operations = match store::counters(tx, database, sample.instance).await? {
        Some(before) => grown(&before, &sample.counters),
        None => grown(&[], &sample.counters).saturating_sub(PROBE),
    };
    store::set_counters(tx, database, sample.instance, &sample.counters).await?;
    store::add(tx, database, hour(sample.at)?, operations, sample.storage_bytes, sample.at).await
}

/// Removes what was kept long enough.
pub async fn forget_old(session: &Session, now: Timestamp) -> Result<()> {
    store::remove_before(session, now - KEPT).await
}

/// How many operations there were between two measurements of one instance.
fn grown(before: &[Counters], now: &[Counters]) -> u64 {
    let before: HashMap<(u32, i64), &Counters> =
        before.iter().map(|counters| ((counters.database, counters.since), counters)).collect();
    let of_one = |now: &Counters| {
        let (transactions, active) =
            before.get(&(now.database, now.since)).map_or((0, 0), |before| (before.transactions, before.active));
        // Without a client at work it was all maintenance.
        if now.active == active { 0 } else { now.transactions.saturating_sub(transactions) }
    };
    now.iter().map(of_one).sum()
}

/// The hour that a moment is in.
fn hour(moment: Timestamp) -> Result<Timestamp> {
    Timestamp::from_second(moment.as_second().div_euclid(3600) * 3600).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counters(database: u32, since: i64, transactions: u64, active: u64) -> Counters {
        Counters { database, since, transactions, active }
    }

    #[test]
    fn only_what_clients_did_since_then_counts() {
        let before = [counters(1, 7, 100, 50), counters(2, 7, 10, 5)];
        assert_eq!(grown(&before, &before), 0);
        assert_eq!(grown(&before, &[counters(1, 7, 103, 51), counters(2, 7, 11, 6)]), 4);
        // Maintenance of a database that nobody uses, and of one that nobody ever used.
        assert_eq!(grown(&before, &[counters(1, 7, 900, 50), counters(3, 7, 900, 0)]), 0);
        // One that was dropped, and a new one.
        assert_eq!(grown(&before, &[counters(1, 7, 100, 50), counters(3, 7, 20, 1)]), 20);
        // After a crash they begin anew, even when they have more than before by now.
        assert_eq!(grown(&before, &[counters(1, 9, 101, 51), counters(2, 9, 0, 0)]), 101);
        assert_eq!(grown(&before, &[counters(1, 7, 99, 51)]), 0);
    }

    #[test]
    fn default_period_is_the_current_month() {
        let now: Timestamp = "2030-05-17T13:14:15.5Z".parse().unwrap();
        let period =
            |start, end| Period::parse(start, end, now).map(|period| format!("{} {}", period.start, period.end));
        assert_eq!(period(None, None).unwrap(), "2030-05-01T00:00:00Z 2030-05-17T13:14:15.5Z");
        assert_eq!(
            period(Some("2030-01-31T01:00:00+02:00"), Some("2030-02-01T00:00:00Z")).unwrap(),
            "2030-01-30T23:00:00Z 2030-02-01T00:00:00Z"
        );
        assert_eq!(period(None, Some("2030-05-17T20:00:00Z")).unwrap(), "2030-05-01T00:00:00Z 2030-05-17T20:00:00Z");
        assert_eq!(
            period(None, Some("9999-12-31T23:59:59Z")).unwrap(),
            "2030-05-01T00:00:00Z 2030-05-17T23:59:59.999999999Z"
        );
        assert!(period(Some("0000-01-01T00:00:00Z"), None).is_ok());
        for (start, end) in [
            (Some("yesterday"), None),
            (Some(""), None),
            (Some("2030-05-01"), None),
            (Some("2030-05-01T00:00:00"), None),
            (Some("-000001-12-31T23:59:59Z"), None),
            (Some("0000-01-01T00:00:00+01:00"), None),
            (None, Some("2030-13-01T00:00:00Z")),
            (None, Some("2030-04-30T00:00:00Z")),
            (Some("2031-01-01T00:00:00Z"), Some("2032-01-01T00:00:00Z")),
        ] {
            assert!(matches!(period(start, end), Err(Error::Rejected { .. })), "{start:?} {end:?}");
        }
    }

    proptest! {
        #[test]
        fn measuring_more_often_counts_the_same(steps in proptest::collection::vec((0u64..1000, 1u64..1000), 1..20)) {
            let mut all = vec![counters(1, 0, 0, 0)];
            for (transactions, active) in steps {
                let last = all[all.len() - 1];
                all.push(counters(1, 0, last.transactions + transactions, last.active + active));
            }
            let often: u64 = all.windows(2).map(|two| grown(&two[..1], &two[1..])).sum();
            prop_assert_eq!(often, grown(&all[..1], &all[all.len() - 1..]));
        }

        #[test]
        fn every_moment_is_in_its_hour(second in YEAR_0..253_402_207_200) {
            let moment = Timestamp::from_second(second).unwrap();
            let hour = hour(moment).unwrap();
            prop_assert!(hour <= moment && moment < hour + SignedDuration::from_hours(1));
            prop_assert_eq!(hour.as_second() % 3600, 0);
        }
    }
}
