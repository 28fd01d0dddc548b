//! `howdah operations`

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::databases::find_database;
use super::failure::Failure;
use super::noun::{Listed, Noun, Reference, Rows, Shown, read};
use super::output::Tone;
use super::projects::find_project;
use super::session::Session;
use super::table::Cell;
use super::wait;

const EXAMPLES: &str = "\
Examples:
  howdah operations list --database reporting
  howdah operations list --state failed --limit 10
  howdah operations watch op_01jzq6w3c4e5f6g7h8j9k0m1n2
  howdah operations retry op_01jzq6w3c4e5f6g7h8j9k0m1n2

OPERATION is an ID (op_…); `howdah databases get` shows the last operation of a
database.";

/// Follow long-running operations
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Operations {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List operations, newest first
    #[command(visible_alias = "ls")]
    List {
        /// List only operations on this database, given by ID or name
        #[arg(long)]
        database: Option<String>,
        /// List only operations on databases of this project, given by ID or name
        #[arg(long)]
        project: Option<String>,
        /// List only operations in this state
        #[arg(long, value_parser = ["waiting", "running", "succeeded", "failed", "cancelled"])]
        state: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },

    /// Show an operation
    Get {
        /// The ID of the operation
        operation: String,
    },

    /// Wait for an operation; exits with 1 if it fails
    Watch {
        /// The ID of the operation
        operation: String,
        /// The maximum time to wait; 0: no limit
        #[arg(long, value_name = "TIME", default_value = "0", value_parser = base::options::duration)]
        timeout: Duration,
    },

    /// Cancel a running operation
    Cancel {
        /// The ID of the operation
        operation: String,
    },

    /// Retry a failed or cancelled operation
    Retry {
        /// The ID of the operation
        operation: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    id: String,
    kind: String,
    state: String,
    step: Option<String>,
    attempts: u64,
    reason: Option<String>,
    progress: Option<Progress>,
    database: Option<Reference>,
    project_id: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    next_attempt_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    can_cancel: bool,
    can_retry: bool,
}

/// How far the step of an operation has come.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    done_bytes: u64,
    total_bytes: u64,
    percent: u8,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done_bytes, total_bytes, percent } = *self;
        write!(f, "{percent} %, {} of {}", HumanBytes(done_bytes), HumanBytes(total_bytes))
    }
}

/// Whether to wait for an operation, and how long.
#[derive(Args, Clone, Debug)]
pub(super) struct Wait {
    /// Return immediately instead of waiting for the result
    #[arg(long)]
    no_wait: bool,

    /// The maximum time to wait; 0: no limit
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = base::options::duration, conflicts_with = "no_wait")]
    timeout: Duration,
}

/// How a wait for an operation has ended.
pub(super) enum Waited {
    /// It is done.
    Done,
    /// It goes on: nobody wanted to wait.
    GoesOn,
}

impl Wait {
    /// Waits until an operation is done, and shows how far it is meanwhile.
    pub(super) async fn until_done(&self, session: &Session, operation: Option<&str>) -> Result<Waited, Failure> {
        let Some(id) = operation.filter(|_| !self.no_wait) else { return Ok(Waited::GoesOn) };
        let goes_on = || format!("the operation continues, see `howdah operations watch {id}`");
        let value = match until_ended(session, id, self.timeout).await? {
            wait::Waited::Over(value) => value,
            wait::Waited::Interrupted => {
                session.output.note(&format!("Stopped waiting; {}.", goes_on()));
                return Err(Failure::Interrupted);
            }
            wait::Waited::TimeUp(value) => {
                let so_far = read::<Operation>(&value)?.progress();
                return Err(Failure::Failed(format!("not finished in time ({so_far}); {}", goes_on())));
            }
        };
        let operation: Operation = read(&value)?;
        match operation.state.as_str() {
            "succeeded" => Ok(Waited::Done),
            _ => Err(Failure::Failed(operation.ending())),
        }
    }
}

impl Operation {
    fn tone(&self) -> Tone {
        match self.state.as_str() {
            "succeeded" => Tone::Good,
            "failed" | "cancelled" => Tone::Bad,
            _ => Tone::Pending,
        }
    }

    fn state(&self) -> Cell {
        Cell::new(&self.state).with(self.tone())
    }

    /// For a list, which has no line for the reason.
    fn state_and_reason(&self) -> Cell {
        Cell::new(format!("{}{}", self.state, self.because())).with(self.tone())
    }

    fn has_ended(&self) -> bool {
        !matches!(self.state.as_str(), "waiting" | "running")
    }

    /// What it is about, in words: `provision database`.
    fn kind(&self) -> String {
        self.kind.replace('_', " ")
    }

    /// How far it is, for a line that is overwritten.
    fn progress(&self) -> String {
        let step = self.step.as_ref().map(|step| format!(", {}", step.replace('_', " "))).unwrap_or_default();
        let attempts = if self.attempts > 1 { format!(", attempt {}", self.attempts) } else { String::new() };
        let progress = self.progress.map(|progress| format!(", {progress}")).unwrap_or_default();
        format!("{} {}{step}{progress}{attempts}{}", self.kind(), self.state, self.because())
    }

    fn because(&self) -> String {
        self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
    }

    /// How it ended, in a sentence.
    fn ending(&self) -> String {
        format!("the operation {} ended with the state {}{}", self.id, self.state, self.because())
    }
}

impl Noun for Operation {
    const SINGULAR: &'static str = "operation";
}

impl Listed for Operation {
    const PLURAL: &'static str = "operations";
    const COLUMNS: &'static [&'static str] = &["ID", "KIND", "STATE", "DATABASE", "STARTED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::id(&self.id),
            Cell::new(self.kind()),
            self.state_and_reason(),
            Cell::maybe(self.database.as_ref().map(|database| database.name.as_str())),
            Cell::age(self.created_at, now),
        ]
    }
}

impl Shown for Operation {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let named = |reference: &Reference| Cell::new(format!("{} ({})", reference.name, reference.id));
        let mut facts = vec![("ID", Cell::id(&self.id)), ("Kind", Cell::new(self.kind())), ("State", self.state())];
        facts.extend(self.step.as_ref().map(|step| ("Step", Cell::new(step.replace('_', " ")))));
        facts.extend(self.progress.map(|progress| ("Progress", Cell::new(progress.to_string()))));
        facts.push(("Attempts", Cell::new(self.attempts.to_string())));
        facts.extend(self.reason.as_ref().map(|reason| ("Reason", Cell::new(reason))));
        facts.extend(self.database.as_ref().map(|database| ("Database", named(database))));
        facts.extend(self.project_id.as_ref().map(|id| ("Project", Cell::id(id))));
        facts.push(("Started", Cell::time(self.created_at, now)));
        facts.push(("Updated", Cell::time(self.updated_at, now)));
        facts.extend(self.next_attempt_at.map(|time| ("Next attempt", Cell::time(time, now))));
        facts.extend(self.ended_at.map(|time| ("Ended", Cell::time(time, now))));
        if self.can_cancel {
            facts.push(("Actions", Cell::new("cancel")));
        }
        if self.can_retry {
            facts.push(("Actions", Cell::new("retry")));
        }
        facts
    }
}

impl Operations {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { database, project, state, rows } => {
                let mut query = Vec::new();
                if let Some(database) = database {
                    query.push(("databaseId", find_database(session, &database).await?));
                }
                if let Some(project) = project {
                    query.push(("projectId", find_project(session, &project).await?));
                }
                query.extend(state.map(|state| ("state", state)));
                let operations = client.list(rows.of(&["operations"], &query)).await?;
                output.list::<Operation>(&operations, session.now())
            }
            Verb::Get { operation } => {
                output.one::<Operation>(&client.get(&["operations", &operation]).await?, session.now())
            }
            Verb::Watch { operation, timeout } => watch(session, &operation, timeout).await,
            Verb::Cancel { operation } => {
                let now = client.post(&["operations", &operation, "cancel"], &json!({})).await?;
                output.one::<Operation>(&now, session.now())
            }
            Verb::Retry { operation } => {
                let now = client.post(&["operations", &operation, "retry"], &json!({})).await?;
                output.one::<Operation>(&now, session.now())
            }
        }
    }
}

/// Looks at an operation until it has ended.
async fn until_ended(session: &Session, id: &str, timeout: Duration) -> Result<wait::Waited, Failure> {
    let limit = Some(timeout).filter(|limit| !limit.is_zero());
    let has_ended = |value: &Value| read::<Operation>(value).is_ok_and(|operation| operation.has_ended());
    let progress = |value: &Value| read::<Operation>(value).map_or_else(|_| String::new(), |now| now.progress());
    wait::until(session, &["operations", id], limit, has_ended, progress).await
}

async fn watch(session: &Session, id: &str, timeout: Duration) -> Result<(), Failure> {
    match until_ended(session, id, timeout).await? {
        wait::Waited::Interrupted => Err(Failure::Interrupted),
        wait::Waited::TimeUp(value) => {
            session.output.one::<Operation>(&value, session.now())?;
            Err(Failure::Failed(format!("the operation {id} did not end in time")))
        }
        wait::Waited::Over(value) => {
            session.output.one::<Operation>(&value, session.now())?;
            let operation: Operation = read(&value)?;
            match operation.state.as_str() {
                "succeeded" => Ok(()),
                _ => Err(Failure::Failed(operation.ending())),
            }
        }
    }
}
