//! `howdah backups`

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::databases::find_database;
use super::failure::Failure;
use super::noun::{Listed, Noun, Shown, read, text};
use super::operations::{Wait, Waited};
use super::output::Tone;
use super::session::Session;
use super::table::Cell;

const EXAMPLES: &str = "\
Examples:
  howdah backups list reporting
  howdah backups create reporting
  howdah backups create reporting --type full --no-wait
  howdah databases restore reporting --backup latest --as before

DATABASE is an ID (db_…) or the exact name of one database. To restore a backup,
use `howdah databases restore`; it can restore any moment in the restore window,
not only the ends of backups.";

/// The most backups that the API lists.
const MOST: u32 = 100;

/// Create and list backups
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Backups {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the backups and the restore window of a database, newest first
    #[command(visible_alias = "ls")]
    List {
        /// The ID or name of the database
        database: String,
        /// The maximum number of backups to list, up to 100
        #[arg(long, value_name = "N", default_value_t = MOST, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
        limit: u32,
    },

    /// Show the restore window of a database
    Window {
        /// The ID or name of the database
        database: String,
    },

    /// Create a backup of a database and wait until it is complete
    ///
    /// Backups are also created on the schedule of the server. Backing up a sleeping database does
    /// not wake it for clients.
    Create {
        /// The ID or name of the database
        database: String,
        /// The type of the backup [default: automatic]
        #[arg(long = "type", value_name = "TYPE", value_parser = ["full", "differential", "incremental"])]
        kind: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backup {
    id: String,
    backup_type: String,
    created_at: Timestamp,
    size: Option<u64>,
    status: String,
    failure_reason: Option<String>,
    verified_at: Option<Timestamp>,
    verification_failure: Option<String>,
    /// Missing from servers that do not tell.
    #[serde(default)]
    is_damaged: bool,
}

impl Backup {
    fn status(&self) -> Cell {
        let (status, tone, reason) = match self.status.as_str() {
            "completed" if self.is_damaged => ("damaged", Tone::Bad, &self.verification_failure),
            "completed" => ("completed", Tone::Good, &None),
            "failed" => ("failed", Tone::Bad, &self.failure_reason),
            other => (other, Tone::Pending, &None),
        };
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Cell::new(format!("{status}{reason}")).with(tone)
    }

    fn verified(&self, now: Timestamp) -> Cell {
        match self.verified_at {
            _ if self.verification_failure.is_some() => Cell::new("FAILED").with(Tone::Bad),
            Some(time) => Cell::age(time, now),
            None => Cell::new("not yet").with(Tone::Faint),
        }
    }

    fn size(&self) -> Option<String> {
        self.size.map(|bytes| HumanBytes(bytes).to_string())
    }
}

impl Noun for Backup {
    const SINGULAR: &'static str = "backup";
}

impl Listed for Backup {
    const PLURAL: &'static str = "backups";
    const COLUMNS: &'static [&'static str] = &["ID", "TYPE", "SIZE", "STATUS", "CREATED", "VERIFIED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::id(&self.id),
            Cell::new(&self.backup_type),
            Cell::maybe(self.size()),
            self.status(),
            Cell::age(self.created_at, now),
            self.verified(now),
        ]
    }
}

/// What holds for all backups of a database.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Window {
    backup_retention_days: u32,
    earliest_restorable_time: Option<Timestamp>,
    latest_restorable_time: Option<Timestamp>,
}

impl Window {
    /// In a sentence, for under a table that shows so many damaged backups. Moments with their thousandths:
    /// they are copied into `--to-time`.
    fn sentence(&self, damaged: usize) -> String {
        let kept = match self.backup_retention_days {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        match (self.earliest_restorable_time, self.latest_restorable_time) {
            (Some(earliest), Some(latest)) => {
                format!("Restore window: {earliest:.3} to {latest:.3}. Retention: {kept}.")
            }
            _ if damaged > 0 => "Nothing can be restored: every backup is damaged. Check the backup storage, then run \
                                 `howdah backups create DATABASE --type full`."
                .to_owned(),
            _ => format!(
                "Nothing can be restored yet: there is no complete backup. The first one is created automatically soon \
                 after the database is used, or by `howdah backups create DATABASE`. Retention: {kept}."
            ),
        }
    }
}

impl Noun for Window {
    const SINGULAR: &'static str = "restore window";
}

impl Shown for Window {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let moment = |time: Option<Timestamp>| time.map_or_else(|| Cell::maybe(None::<&str>), |at| Cell::time(at, now));
        vec![
            ("Earliest", moment(self.earliest_restorable_time)),
            ("Latest", moment(self.latest_restorable_time)),
            ("Retention", Cell::new(format!("{} days", self.backup_retention_days))),
        ]
    }
}

/// The backups of a database, with what holds for all of them.
async fn ask(session: &Session, database: &str, limit: u32) -> Result<Value, Failure> {
    let query = [("limit", limit.to_string())];
    Ok(session.client.get_bare(&["databases", database, "backups"], &query).await?)
}

/// The id of the backup that a text means: its id, or `latest`.
pub(super) async fn find_backup(session: &Session, database: &str, text: &str) -> Result<String, Failure> {
    if text != "latest" {
        return Ok(text.to_owned());
    }
    let answer = ask(session, database, MOST).await?;
    let completed: Vec<Backup> = answer["data"].as_array().into_iter().flatten().map(read).collect::<Result<_, _>>()?;
    let completed: Vec<Backup> = completed.into_iter().filter(|backup| backup.status == "completed").collect();
    let has_damaged = completed.iter().any(|backup| backup.is_damaged);
    let newest = completed.into_iter().find(|backup| !backup.is_damaged);
    newest.map(|backup| backup.id).ok_or_else(|| {
        Failure::NotFound(match has_damaged {
            true => format!(
                "every backup of the database {database} is damaged; create another one with `howdah backups create`, or \
                 give the ID of a damaged backup to try to restore it"
            ),
            false => format!("the database {database} has no completed backup; create one with `howdah backups create`"),
        })
    })
}

impl Backups {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let output = &session.output;
        match self.verb {
            Verb::List { database, limit } => {
                let id = find_database(session, &database).await?;
                let answer = ask(session, &id, limit).await?;
                let backups = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
                output.list::<Backup>(backups, session.now())?;
                let damaged = backups.iter().filter(|backup| backup["isDamaged"] == true).count();
                let window: Window = read(&answer["meta"])?;
                output.say(&window.sentence(damaged));
                if damaged > 0 && window.earliest_restorable_time.is_some() {
                    output.note(&match damaged {
                        1 => "1 of these backups is damaged. Restore another one.".to_owned(),
                        some => format!("{some} of these backups are damaged. Restore another one."),
                    });
                }
                if answer["pagination"]["hasMore"] == true {
                    output.note(&format!("Only the newest {} backups are listed.", backups.len()));
                }
                Ok(())
            }
            Verb::Window { database } => {
                let id = find_database(session, &database).await?;
                output.one::<Window>(&ask(session, &id, 1).await?["meta"], session.now())
            }
            Verb::Create { database, kind, wait } => create(session, &database, kind, &wait).await,
        }
    }
}

async fn create(session: &Session, database: &str, kind: Option<String>, wait: &Wait) -> Result<(), Failure> {
    let id = find_database(session, database).await?;
    let mut body = json!({});
    if let Some(kind) = kind {
        body["backupType"] = kind.into();
    }
    let begun = session.client.start(&["databases", &id, "backups"], &body).await?;
    let mut backup = begun.data;
    let outcome = wait.until_done(session, begun.operation.as_deref()).await;
    if !matches!(outcome, Ok(Waited::GoesOn)) {
        // As it is now. That it cannot be asked for hides no outcome.
        let listed = ask(session, &id, MOST).await.unwrap_or_default();
        let now = listed["data"].as_array().into_iter().flatten().find(|listed| listed["id"] == backup["id"]);
        backup = now.cloned().unwrap_or(backup);
    }
    if session.output.json() {
        session.output.value(&backup);
        return outcome.map(drop);
    }
    let name = text(&backup, "id");
    match outcome? {
        Waited::Done => {
            let Backup { backup_type, size, .. } = read(&backup)?;
            let size = size.map(|bytes| format!(" of {}", HumanBytes(bytes))).unwrap_or_default();
            session.output.say(&format!("Created the {backup_type} backup {name}{size}."));
        }
        Waited::GoesOn => {
            session.output.say(&format!("The backup {name} is running."));
            if let Some(operation) = begun.operation {
                session.output.note(&format!("Follow it with `howdah operations watch {operation}`."));
            }
        }
    }
    Ok(())
}
