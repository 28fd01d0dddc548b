//! `howdah regions`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;

use super::failure::Failure;
use super::noun::{Listed, Noun, all};
use super::output::Tone;
use super::session::Session;
use super::table::Cell;

/// List regions for databases
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub struct Regions {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List regions
    #[command(visible_alias = "ls")]
    List,
}

#[derive(Deserialize)]
struct Region {
    id: String,
    name: String,
    status: String,
}

impl Noun for Region {
    const SINGULAR: &'static str = "region";
}

impl Listed for Region {
    const PLURAL: &'static str = "regions";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATUS"];

    fn cells(&self, _now: Timestamp) -> Vec<Cell> {
        let tone = if self.status == "available" { Tone::Good } else { Tone::Bad };
        vec![Cell::id(&self.id), Cell::new(&self.name), Cell::new(&self.status).with(tone)]
    }
}

impl Regions {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self.verb {
            Verb::List => {
                let regions = session.client.list(all(&["regions", "postgres"], &[])).await?;
                session.output.list::<Region>(&regions, session.now())
            }
        }
    }
}
