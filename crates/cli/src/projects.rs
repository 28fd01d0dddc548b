//! `howdah projects`

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::noun::{Listed, Named, Noun, Reference, Rows, Shown, all, find, read, text};
use super::session::{Session, read_token};
use super::table::Cell;
use super::wait::Patience;
use super::workspaces::{Days, days, kept};
use super::{databases, prompt};
use base::id::ProjectId;

const EXAMPLES: &str = "\
Examples:
  howdah projects create my_project
  howdah projects list
  howdah projects get my_project
  howdah projects delete my_project --yes

PROJECT is an ID (proj_…) or the exact name of one project.";

/// Manage projects, which group databases
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Projects {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List projects, oldest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        rows: Rows,
        /// List only the project with this logical ID
        #[arg(long, value_name = "ID")]
        logical_id: Option<String>,
    },

    /// Create a project and its first database
    ///
    /// Prints the connection string of the database, which is not shown again, and waits until the
    /// database is ready.
    Create(Create),

    /// Show a project
    Get {
        /// The ID or name of the project
        project: String,
    },

    /// Change the name, delete protection or backup retention of a project
    #[command(visible_alias = "rename", group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The ID or name of the project
        project: String,
        /// The new name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Protect the project and its databases from deletion
        #[arg(long, group = "change", value_name = "ON|OFF", value_parser = on_or_off)]
        delete_protection: Option<bool>,
        /// For how many days databases can be restored to any moment: 1 to 365, or `default` for the
        /// workspace's setting
        #[arg(long, group = "change", value_name = "DAYS", value_parser = days)]
        backup_retention: Option<Days>,
    },

    /// Delete a project with all its databases and their data
    Delete {
        /// The ID or name of the project
        project: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },

    /// Transfer a project with its databases to another workspace
    ///
    /// Connection strings keep working. Afterwards this login can no longer access the project.
    Transfer {
        /// The ID or name of the project
        project: String,
        /// A file with a token of the other workspace, `-` for standard input [default: prompt]
        #[arg(long, value_name = "FILE")]
        recipient_token_file: Option<PathBuf>,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah projects create
  howdah projects create my_project --region eu-central-1
  howdah projects create my_project --json | jq -r .database.connectionString")]
struct Create {
    /// The name of the project [default: generated]
    name: Option<String>,
    /// The region of the database; see `howdah regions list`
    #[arg(long)]
    region: Option<String>,
    /// Do not create a database
    #[arg(long)]
    no_database: bool,
    /// An identifier assigned by an external tool, unique in the workspace
    #[arg(long, value_name = "ID")]
    logical_id: Option<String>,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Project {
    id: String,
    name: String,
    logical_id: Option<String>,
    default_region: Option<String>,
    created_at: Timestamp,
    workspace: Reference,
    #[serde(default)]
    delete_protection: bool,
    backup_retention_days: Option<u32>,
}

impl Noun for Project {
    const SINGULAR: &'static str = "project";
}

impl Listed for Project {
    const PLURAL: &'static str = "projects";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "REGION", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::id(&self.id),
            Cell::maybe(self.default_region.as_deref()),
            Cell::age(self.created_at, now),
        ]
    }
}

impl Shown for Project {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("Name", Cell::new(&self.name)),
            ("ID", Cell::id(&self.id)),
            ("Region", Cell::maybe(self.default_region.as_deref())),
            ("Logical ID", Cell::maybe(self.logical_id.as_deref())),
            ("Delete protection", Cell::new(if self.delete_protection { "on" } else { "off" })),
            ("Backup retention", kept(self.backup_retention_days, "workspace")),
            ("Workspace", Cell::new(format!("{} ({})", self.workspace.name, self.workspace.id))),
            ("Created", Cell::time(self.created_at, now)),
        ]
    }
}

impl Named for Project {
    fn is_id(text: &str) -> bool {
        ProjectId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("created {}", self.created_at.strftime("%Y-%m-%d %H:%M UTC"))
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("give on or off".into()),
    }
}

/// The id of the project that a text means.
pub(super) async fn find_project(session: &Session, text: &str) -> Result<String, Failure> {
    find::<Project>(session, text, all(&["projects"], &[])).await
}

impl Projects {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { rows, logical_id } => {
                let query: Vec<_> = logical_id.into_iter().map(|id| ("logicalId", id)).collect();
                let projects = client.list(rows.of(&["projects"], &query)).await?;
                output.list::<Project>(&projects, session.now())
            }
            Verb::Create(new) => new.run(session).await,
            Verb::Get { project } => {
                let id = find_project(session, &project).await?;
                output.one::<Project>(&client.get(&["projects", &id]).await?, session.now())
            }
            Verb::Update { project, name, delete_protection, backup_retention } => {
                let id = find_project(session, &project).await?;
                let mut body = json!({});
                if let Some(name) = name {
                    body["name"] = name.into();
                }
                if let Some(protected) = delete_protection {
                    body["deleteProtection"] = protected.into();
                }
                if let Some(Days(days)) = backup_retention {
                    body["backupRetentionDays"] = days.into();
                }
                let changed = client.patch(&["projects", &id], &body).await?;
                output.one::<Project>(&changed, session.now())
            }
            Verb::Delete { project, yes } => delete(session, &project, yes).await,
            Verb::Transfer { project, recipient_token_file, yes } => {
                let id = find_project(session, &project).await?;
                let token = match recipient_token_file {
                    Some(file) => read_token(&file)?,
                    None if prompt::is_possible() => prompt::secret("Token of the receiving workspace").await?,
                    None => {
                        return Err(Failure::Usage("give the recipient's token with --recipient-token-file".into()));
                    }
                };
                let before: Project = read(&client.get(&["projects", &id]).await?)?;
                prompt::confirm(yes, &format!("Transfer the project {} ({id}) to another workspace?", before.name))
                    .await?;
                let body = json!({"recipientAccessToken": token.expose()});
                let given = client.post(&["projects", &id, "transfer"], &body).await?;
                if output.json() {
                    output.value(&given);
                    return Ok(());
                }
                let now: Project = read(&given)?;
                output.say(&format!("Transferred the project {} to the workspace {}.", now.name, now.workspace.name));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut body = json!({"createDatabase": !self.no_database});
        for (field, value) in [("name", self.name), ("region", self.region), ("logicalId", self.logical_id)] {
            if let Some(value) = value {
                body[field] = value.into();
            }
        }
        let mut made = session.client.post(&["projects"], &body).await?;
        if session.output.json() {
            let outcome = self.patience.until_ready(session, &mut made["database"]).await;
            session.output.value(&made);
            return outcome;
        }
        session.output.say(&format!("Created the project {} ({}).", text(&made, "name"), text(&made, "id")));
        match &mut made["database"] {
            Value::Null => Ok(()),
            database => databases::present(session, database, &self.patience).await,
        }
    }
}

async fn delete(session: &Session, project: &str, yes: bool) -> Result<(), Failure> {
    let id = find_project(session, project).await?;
    if !yes {
        let project: Project = read(&session.client.get(&["projects", &id]).await?)?;
        let databases = session.client.list(all(&["projects", &id, "databases"], &[])).await?.len();
        let with = match databases {
            0 => String::new(),
            1 => " and its database with all data".to_owned(),
            several => format!(" and its {several} databases with all data"),
        };
        prompt::confirm(yes, &format!("Delete the project {}{with}?", project.name)).await?;
    }
    session.client.delete(&["projects", &id]).await?;
    session.output.say(&format!("Deleted the project {id}."));
    Ok(())
}
