//! `howdah databases usage`

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;

use super::databases::find_database;
use super::failure::Failure;
use super::noun::{Noun, Shown};
use super::session::Session;
use super::table::Cell;

#[derive(Args, Debug)]
pub(super) struct Usage {
    /// The ID or name of the database
    database: String,
    /// The start of the period, such as 2030-01-01T00:00:00Z [default: the first day of this month]
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// The end of the period [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    period: Period,
    metrics: Metrics,
    measured_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Period {
    start: Timestamp,
    end: Timestamp,
}

#[derive(Deserialize)]
struct Metrics {
    operations: Metric,
    storage: Metric,
}

#[derive(Deserialize)]
struct Metric {
    used: f64,
    unit: String,
}

impl Metric {
    /// A count as it is, a size with three digits behind the point.
    fn cell(&self) -> Cell {
        let digits = if self.used.fract() == 0.0 { 0 } else { 3 };
        Cell::new(format!("{:.digits$} {}", self.used, self.unit))
    }
}

impl Noun for Used {
    const SINGULAR: &'static str = "usage";
}

impl Shown for Used {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("From", Cell::time(self.period.start, now)),
            ("To", Cell::time(self.period.end, now)),
            ("Operations", self.metrics.operations.cell()),
            ("Storage", self.metrics.storage.cell()),
            ("Measured", self.measured_at.map_or_else(|| Cell::new("never"), |time| Cell::time(time, now))),
        ]
    }
}

impl Usage {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let id = find_database(session, &self.database).await?;
        let given = [("startDate", self.since), ("endDate", self.until)];
        let query: Vec<_> = given.into_iter().filter_map(|(name, time)| Some((name, time?.to_string()))).collect();
        // This one answer of the API has no envelope.
        let used = session.client.get_bare(&["databases", &id, "usage"], &query).await?;
        session.output.one::<Used>(&used, session.now())
    }
}
