//! `howdah databases restore`

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::backups::find_backup;
use super::databases::{find_database, introduce};
use super::failure::Failure;
use super::noun::text;
use super::operations::{Wait, Waited};
use super::prompt;
use super::session::Session;
use crate::client::Started;

const EXAMPLES: &str = "\
Examples:
  howdah databases restore reporting --to-time 2030-01-31T12:00:00Z --as before
  howdah databases restore reporting --backup latest --as copy
  howdah databases restore reporting --to-time 2030-01-31T12:00:00Z --in-place

`howdah backups list` shows the backups and the restore window.";

/// What to bring back, and where to.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("what").required(true).multiple(true).args(["to_time", "backup"]),
    group = ArgGroup::new("where").required(true).args(["as_new", "in_place"]),
)]
pub(super) struct Restore {
    /// The ID or name of the database
    database: String,

    /// Restore to this moment, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    to_time: Option<Timestamp>,

    /// Restore the backup with this ID, or `latest`; with --to-time, start from that backup
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,

    /// Restore to a new database with this name
    #[arg(long = "as", id = "as_new", value_name = "NAME")]
    as_new: Option<String>,

    /// Replace the current data of the database
    ///
    /// Connections and credentials are kept; sessions are closed. The current data stays restorable
    /// for as long as backups are kept. If the restore fails, the database keeps its current data.
    #[arg(long)]
    in_place: bool,

    /// Do not ask for confirmation
    #[arg(long, short, requires = "in_place")]
    yes: bool,

    #[command(flatten)]
    wait: Wait,
}

impl Restore {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let id = find_database(session, &self.database).await?;
        let backup = match &self.backup {
            Some(backup) => Some(find_backup(session, &id, backup).await?),
            None => None,
        };
        match &self.as_new {
            Some(name) => {
                let made = self.beside(session, &id, backup.as_deref(), name).await?;
                show_made(session, made, &self.wait).await
            }
            None => self.over(session, &id, backup.as_deref()).await,
        }
    }

    /// To a new database, where the other one stands: in its project and region, on its branch.
    async fn beside(&self, session: &Session, id: &str, backup: Option<&str>, name: &str) -> Result<Started, Failure> {
        if let Some(backup) = backup {
            let mut body = json!({"targetDatabaseName": name});
            if let Some(moment) = self.to_time {
                body["targetTime"] = moment.to_string().into();
            }
            return Ok(session.client.start(&["databases", id, "backups", backup, "restore"], &body).await?);
        }
        let original = session.client.get(&["databases", id]).await?;
        let body = json!({
            "projectId": original["project"]["id"],
            "name": name,
            "region": original["region"]["id"],
            "branchId": original["branchId"],
            "source": self.source(id, None),
        });
        Ok(session.client.start(&["databases"], &body).await?)
    }

    async fn over(&self, session: &Session, id: &str, backup: Option<&str>) -> Result<(), Failure> {
        let output = &session.output;
        if !self.yes {
            let database = session.client.get(&["databases", id]).await?;
            let (name, project) = (text(&database, "name"), text(&database["project"], "name"));
            let warning = format!(
                "This restores the database {name} of the project {project} to {}. Later changes are removed from \
                 the database, and its sessions are closed.",
                self.target(backup)
            );
            prompt::confirm_by_name(self.yes, &warning, name).await?;
        }
        let begun =
            session.client.start(&["databases", id, "restore"], &json!({"source": self.source(id, backup)})).await?;
        let outcome = self.wait.until_done(session, begun.operation.as_deref()).await;
        let database = match outcome {
            Ok(Waited::GoesOn) => begun.data,
            // As it is now. That it cannot be asked for hides no outcome.
            Ok(Waited::Done) | Err(_) => session.client.get(&["databases", id]).await.unwrap_or(begun.data),
        };
        if output.json() {
            output.value(&database);
            return outcome.map(drop);
        }
        let name = text(&database, "name");
        match outcome? {
            Waited::Done => output.say(&format!("Restored the database {name} to {}.", self.target(backup))),
            Waited::GoesOn => output.say(&format!("The database {name} is being restored to {}.", self.target(backup))),
        }
        Ok(())
    }

    fn source(&self, id: &str, backup: Option<&str>) -> Value {
        let mut source = match backup {
            Some(backup) => json!({"type": "backup", "databaseId": id, "backupId": backup}),
            None => json!({"type": "database", "databaseId": id}),
        };
        if let Some(moment) = self.to_time {
            source["targetTime"] = moment.to_string().into();
        }
        source
    }

    fn target(&self, backup: Option<&str>) -> String {
        match (self.to_time, backup) {
            (Some(moment), _) => moment.to_string(),
            (None, Some(backup)) => format!("the end of the backup {backup}"),
            (None, None) => "its latest state".to_owned(),
        }
    }
}

/// A database that is being made out of what was kept: first its secret, which depends on nothing, then how
/// far it is, until it is ready.
pub(super) async fn show_made(session: &Session, made: Started, wait: &Wait) -> Result<(), Failure> {
    let Started { data: mut database, operation } = made;
    let output = &session.output;
    if !output.json() {
        introduce(session, &database);
    }
    let outcome = wait.until_done(session, operation.as_deref()).await;
    if !matches!(outcome, Ok(Waited::GoesOn))
        && let Ok(now) = session.client.get(&["databases", text(&database, "id")]).await
    {
        for field in ["status", "statusReason"] {
            database[field] = now[field].clone();
        }
    }
    if output.json() {
        output.value(&database);
        return outcome.map(drop);
    }
    match outcome? {
        Waited::Done => output.say("The database is ready."),
        Waited::GoesOn => output.say("The database is being restored; connections wait until it is ready."),
    }
    Ok(())
}
