//! `howdah workspaces limits`

use jiff::Timestamp;
use serde::Deserialize;

use super::noun::{Noun, Shown};
use super::output::Tone;
use super::table::Cell;

/// What a workspace may have and has, and how fast requests may come.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limits {
    projects: Quota,
    databases: Quota,
    connections_per_database: Quota,
    requests_per_token: Option<Rate>,
    requests_per_address: Option<Rate>,
}

#[derive(Deserialize)]
struct Quota {
    limit: Option<u64>,
    used: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    per_second: u64,
    burst: u64,
}

impl Quota {
    fn cell(&self) -> Cell {
        match self.limit {
            Some(limit) if self.used >= limit => Cell::new(format!("{} of {limit}", self.used)).with(Tone::Bad),
            Some(limit) => Cell::new(format!("{} of {limit}", self.used)),
            None => Cell::new(format!("{} (no limit)", self.used)),
        }
    }
}

impl Rate {
    fn cell(rate: Option<&Self>) -> Cell {
        rate.map_or_else(
            || Cell::new("no limit"),
            |Self { per_second, burst }| Cell::new(format!("{per_second} per second, {burst} at once")),
        )
    }
}

impl Noun for Limits {
    const SINGULAR: &'static str = "limits";
}

impl Shown for Limits {
    fn details(&self, _now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("Projects", self.projects.cell()),
            ("Databases", self.databases.cell()),
            ("Connections per database", self.connections_per_database.cell()),
            ("Requests per token", Rate::cell(self.requests_per_token.as_ref())),
            ("Requests per IP address", Rate::cell(self.requests_per_address.as_ref())),
        ]
    }
}
