//! `howdah audit`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;

use super::failure::Failure;
use super::noun::{Listed, Noun, Rows};
use super::output::Tone;
use super::projects::find_project;
use super::session::Session;
use super::table::Cell;

const EXAMPLES: &str = "\
Examples:
  howdah audit list --limit 20
  howdah audit list --outcome refused --since 2030-01-31T00:00:00Z
  howdah audit list --json | jq -r '.[] | [.at, .actor.name, .action] | @tsv'";

/// Show the audit log of a workspace
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the audit log of the token's workspace, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Filter by action, such as create_project
        #[arg(long)]
        action: Option<String>,
        /// Filter by outcome
        #[arg(long, value_parser = ["allowed", "refused"])]
        outcome: Option<String>,
        /// Filter by the ID of the service token
        #[arg(long, value_name = "ID")]
        token: Option<String>,
        /// Filter by the ID of the user, including actions through applications
        #[arg(long, value_name = "ID", conflicts_with = "token")]
        user: Option<String>,
        /// Filter by text in the name, email address or application of the actor
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
        /// Filter by project, given by ID or name
        #[arg(long)]
        project: Option<String>,
        /// Filter by the ID of the resource
        #[arg(long, value_name = "ID")]
        resource: Option<String>,
        /// The start of the period, such as 2030-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// The end of the period
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        #[command(flatten)]
        rows: Rows,
    },
}

#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    action: String,
    outcome: String,
    status: Option<u16>,
    actor: Who,
    resource: Option<Who>,
}

/// Who or what an entry is about.
#[derive(Deserialize)]
struct Who {
    id: Option<String>,
    name: Option<String>,
}

impl Who {
    fn cell(&self) -> Cell {
        Cell::maybe(self.name.as_deref().or(self.id.as_deref()))
    }
}

impl Noun for Entry {
    const SINGULAR: &'static str = "audit entry";
}

impl Listed for Entry {
    const PLURAL: &'static str = "audit entries";
    const COLUMNS: &'static [&'static str] = &["TIME (UTC)", "ACTOR", "ACTION", "RESOURCE", "OUTCOME"];

    fn cells(&self, _now: Timestamp) -> Vec<Cell> {
        let tone = if self.outcome == "allowed" { Tone::Plain } else { Tone::Bad };
        vec![
            Cell::id(self.at.strftime("%Y-%m-%d %H:%M:%S").to_string()),
            self.actor.cell(),
            Cell::new(&self.action),
            self.resource.as_ref().map_or_else(|| Cell::maybe(None::<&str>), Who::cell),
            Cell::new(match self.status {
                Some(status) => format!("{} ({status})", self.outcome),
                None => self.outcome.clone(),
            })
            .with(tone),
        ]
    }
}

impl Audit {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Verb::List { action, outcome, token, user, actor, project, resource, since, until, rows } = self.verb;
        let mut query = Vec::new();
        if let Some(project) = project {
            query.push(("projectId", find_project(session, &project).await?));
        }
        let given = [
            ("action", action),
            ("outcome", outcome),
            ("tokenId", token),
            ("userId", user),
            ("actorName", actor),
            ("resourceId", resource),
            ("since", since.map(|time| time.to_string())),
            ("until", until.map(|time| time.to_string())),
        ];
        query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let workspace = session.workspace().await?;
        let entries = session.client.list(rows.of(&["workspaces", &workspace, "audit-log"], &query)).await?;
        session.output.list::<Entry>(&entries, session.now())
    }
}
