//! `howdah workspaces`

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::limits::Limits;
use super::noun::{Listed, Named, Noun, Rows, Shown, all, find, read};
use super::output::Tone;
use super::prompt;
use super::session::Session;
use super::table::Cell;
use base::id::WorkspaceId;

/// Manage workspaces, which own projects
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub struct Workspaces {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the workspaces that the token can access
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        rows: Rows,
    },

    /// Show a workspace
    Get {
        /// The ID (wksp_…) or name of the workspace [default: the token's workspace]
        workspace: Option<String>,
    },

    /// Change the name or backup retention of a workspace
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The ID (wksp_…) or name of the workspace [default: the token's workspace]
        workspace: Option<String>,
        /// The new name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// For how many days databases can be restored to any moment, unless their project has its own
        /// setting: 1 to 365, or `default` for 7
        #[arg(long, group = "change", value_name = "DAYS", value_parser = days)]
        backup_retention: Option<Days>,
    },

    /// Delete a workspace without projects
    ///
    /// Requires the owner role and the access token of an application; service tokens cannot delete
    /// workspaces.
    Delete {
        /// The ID (wksp_…) or name of the workspace
        workspace: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },

    /// Show the limits of a workspace and their usage
    Limits {
        /// The ID (wksp_…) or name of the workspace [default: the token's workspace]
        workspace: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workspace {
    id: String,
    name: String,
    created_at: Timestamp,
    backup_retention_days: Option<u32>,
}

/// For how long backups are kept; without a number, as whoever is above says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Days(pub(super) Option<u32>);

/// Reads a number of days; the server says how many there may be.
pub(super) fn days(text: &str) -> Result<Days, String> {
    match text {
        "default" => Ok(Days(None)),
        text => text.parse().map(|days| Days(Some(days))).map_err(|_| "give a number of days, or default".into()),
    }
}

/// For how long backups are kept, as facts show it.
pub(super) fn kept(days: Option<u32>, above: &str) -> Cell {
    match days {
        None => Cell::new(format!("{above} default")).with(Tone::Faint),
        Some(1) => Cell::new("1 day"),
        Some(days) => Cell::new(format!("{days} days")),
    }
}

impl Noun for Workspace {
    const SINGULAR: &'static str = "workspace";
}

impl Listed for Workspace {
    const PLURAL: &'static str = "workspaces";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.name), Cell::id(&self.id), Cell::age(self.created_at, now)]
    }
}

impl Shown for Workspace {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("Name", Cell::new(&self.name)),
            ("ID", Cell::id(&self.id)),
            ("Backup retention", kept(self.backup_retention_days, "server")),
            ("Created", Cell::time(self.created_at, now)),
        ]
    }
}

impl Named for Workspace {
    fn is_id(text: &str) -> bool {
        WorkspaceId::parse(text).is_some()
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

/// The id of the workspace that a text means; without one, of the token's own.
async fn find_workspace(session: &Session, text: Option<String>) -> Result<String, Failure> {
    match text {
        Some(text) => find::<Workspace>(session, &text, all(&["workspaces"], &[])).await,
        None => session.workspace().await,
    }
}

impl Workspaces {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { rows } => {
                let workspaces = client.list(rows.of(&["workspaces"], &[])).await?;
                output.list::<Workspace>(&workspaces, session.now())
            }
            Verb::Get { workspace } => {
                let id = find_workspace(session, workspace).await?;
                output.one::<Workspace>(&client.get(&["workspaces", &id]).await?, session.now())
            }
            Verb::Update { workspace, name, backup_retention } => {
                let id = find_workspace(session, workspace).await?;
                let mut body = json!({});
                if let Some(name) = name {
                    body["name"] = name.into();
                }
                if let Some(Days(days)) = backup_retention {
                    body["backupRetentionDays"] = days.into();
                }
                output.one::<Workspace>(&client.patch(&["workspaces", &id], &body).await?, session.now())
            }
            Verb::Delete { workspace, yes } => {
                let id = find_workspace(session, Some(workspace)).await?;
                let workspace: Workspace = read(&client.get(&["workspaces", &id]).await?)?;
                let warning = format!("This deletes the workspace {} with its tokens.", workspace.name);
                prompt::confirm_by_name(yes, &warning, &workspace.name).await?;
                client.delete(&["workspaces", &id]).await?;
                output.say(&format!("Deleted the workspace {id}."));
                Ok(())
            }
            Verb::Limits { workspace } => {
                let id = find_workspace(session, workspace).await?;
                output.one::<Limits>(&client.get(&["workspaces", &id, "limits"]).await?, session.now())
            }
        }
    }
}
