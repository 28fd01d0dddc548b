//! `howdah databases`

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connections::{Endpoints, show_secret};
use super::failure::Failure;
use super::noun::{Listed, Named, Noun, Reference, Rows, Shown, all, find, read, text};
use super::output::Tone;
use super::projects::find_project;
use super::session::Session;
use super::table::Cell;
use super::wait::Patience;
use super::{deleted, prompt, psql, restore, usage};
use base::id::{BranchId, DatabaseId};

const EXAMPLES: &str = "\
Examples:
  howdah databases list --project my_project
  howdah databases create reporting --project my_project
  howdah databases psql reporting
  howdah databases restore reporting --to-time 2030-01-31T12:00:00Z --as before
  howdah databases delete reporting --yes

DATABASE is an ID (db_…) or the exact name of one database.";

/// Manage databases
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Databases {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List databases, oldest first
    #[command(visible_alias = "ls")]
    List {
        /// List only databases of this project, given by ID or name
        #[arg(long)]
        project: Option<String>,
        /// List only databases on this branch, given by ID or by name (in any project)
        #[arg(long)]
        branch: Option<String>,
        /// List only databases with this logical ID
        #[arg(long, value_name = "ID")]
        logical_id: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },

    /// Create a database
    ///
    /// Prints the connection string, which is not shown again, and waits until the database is ready.
    Create(Create),

    /// Show a database
    Get {
        /// The ID or name of the database
        database: String,
    },

    /// Change the name, branch or logical ID of a database
    #[command(visible_alias = "rename", group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The ID or name of the database
        database: String,
        /// The new name
        #[arg(long, group = "change")]
        name: Option<String>,
        /// The branch to move the database to, given by ID or name; a missing branch is created
        #[arg(long, group = "change", conflicts_with = "logical_id")]
        branch: Option<String>,
        /// An identifier assigned by an external tool, unique on the branch
        #[arg(long, group = "change", value_name = "ID")]
        logical_id: Option<String>,
    },

    /// Delete a database and its data
    Delete {
        /// The ID or name of the database
        database: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },

    /// Restore a database to a backup or a moment, in place or as a new database
    Restore(restore::Restore),

    /// List deleted databases that can still be restored
    ///
    /// Databases appear here when their final backup is complete.
    Deleted(deleted::Deleted),

    /// Restore a deleted database
    Undelete(deleted::Undelete),

    /// Show the usage of a database
    Usage(usage::Usage),

    /// Open psql on a database
    ///
    /// Creates a connection and deletes it when psql exits. The password is passed only in psql's
    /// environment.
    Psql {
        /// The ID or name of the database
        database: String,
        /// Arguments for psql, after `--`
        #[arg(last = true, value_name = "OPTIONS")]
        arguments: Vec<std::ffi::OsString>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah databases create reporting --project my_project
  howdah databases create --project my_project --branch feature-1
  howdah databases create copy --project my_project --copy-of reporting
  howdah databases create reporting --project my_project --json --no-wait")]
struct Create {
    /// The name of the database [default: generated]
    name: Option<String>,
    /// The ID or name of the project
    #[arg(long)]
    project: String,
    /// The region, or `inherit` for the project's region; see `howdah regions list`
    #[arg(long)]
    region: Option<String>,
    /// The branch, given by ID or name; a missing branch is created [default: the default branch]
    #[arg(long)]
    branch: Option<String>,
    /// An identifier assigned by an external tool, unique on the branch
    #[arg(long, value_name = "ID")]
    logical_id: Option<String>,
    /// Make the database the project's default database
    #[arg(long)]
    default: bool,
    /// Copy this database, given by ID or name
    #[arg(long, value_name = "DATABASE")]
    copy_of: Option<String>,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Database {
    id: String,
    name: String,
    status: String,
    status_reason: Option<String>,
    created_at: Timestamp,
    is_default: bool,
    connections: Vec<Connection>,
    project: Option<Reference>,
    region: Option<Reference>,
    branch_id: Option<String>,
    logical_id: Option<String>,
    operation_id: Option<String>,
}

#[derive(Deserialize)]
struct Connection {
    id: String,
    name: String,
    endpoints: Endpoints,
}

impl Database {
    fn status(&self) -> Cell {
        let tone = match self.status.as_str() {
            "ready" => Tone::Good,
            "failure" => Tone::Bad,
            _ => Tone::Pending,
        };
        Cell::new(&self.status).with(tone)
    }
}

impl Noun for Database {
    const SINGULAR: &'static str = "database";
}

impl Listed for Database {
    const PLURAL: &'static str = "databases";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "STATUS", "PROJECT", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::id(&self.id),
            self.status(),
            Cell::maybe(self.project.as_ref().map(|project| project.name.as_str())),
            Cell::age(self.created_at, now),
        ]
    }
}

impl Shown for Database {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let mut facts = vec![("Name", Cell::new(&self.name)), ("ID", Cell::id(&self.id)), ("Status", self.status())];
        facts.extend(self.status_reason.as_ref().map(|reason| ("Reason", Cell::new(reason))));
        facts.extend(self.operation_id.as_ref().map(|id| ("Operation", Cell::id(id))));
        let named = |reference: &Reference| Cell::new(format!("{} ({})", reference.name, reference.id));
        facts.extend(self.project.as_ref().map(|project| ("Project", named(project))));
        facts.extend([
            ("Default", Cell::new(if self.is_default { "yes" } else { "no" })),
            ("Region", self.region.as_ref().map_or_else(|| Cell::maybe(None::<&str>), named)),
            ("Branch", Cell::maybe(self.branch_id.as_deref())),
            ("Logical ID", Cell::maybe(self.logical_id.as_deref())),
            ("Created", Cell::time(self.created_at, now)),
        ]);
        for connection in &self.connections {
            let at = connection.endpoints.to_string();
            facts.push(("Connection", Cell::new(format!("{} ({}) at {at}", connection.name, connection.id))));
        }
        facts
    }
}

impl Named for Database {
    fn is_id(text: &str) -> bool {
        DatabaseId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        self.project.as_ref().map_or_else(String::new, |project| format!("in the project {}", project.name))
    }
}

/// The id of the database that a text means.
pub(super) async fn find_database(session: &Session, text: &str) -> Result<String, Failure> {
    find::<Database>(session, text, all(&["databases"], &[])).await
}

/// The field of the API that names a branch by what was given: an id or a name.
fn branch_field(text: &str) -> &'static str {
    if BranchId::parse(text).is_some() { "branchId" } else { "branchGitName" }
}

impl Databases {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { project, branch, logical_id, rows } => {
                let mut query = Vec::new();
                if let Some(project) = project {
                    query.push(("projectId", find_project(session, &project).await?));
                }
                query.extend(branch.map(|branch| (branch_field(&branch), branch)));
                query.extend(logical_id.map(|id| ("logicalId", id)));
                let databases = client.list(rows.of(&["databases"], &query)).await?;
                output.list::<Database>(&databases, session.now())
            }
            Verb::Create(new) => new.run(session).await,
            Verb::Get { database } => {
                let id = find_database(session, &database).await?;
                output.one::<Database>(&client.get(&["databases", &id]).await?, session.now())
            }
            Verb::Update { database, name, branch, logical_id } => {
                let id = find_database(session, &database).await?;
                let mut body = json!({});
                let branch = branch.map(|branch| (branch_field(&branch), branch));
                let changes = [name.map(|name| ("name", name)), branch, logical_id.map(|id| ("logicalId", id))];
                for (field, value) in changes.into_iter().flatten() {
                    body[field] = value.into();
                }
                let changed = client.patch(&["databases", &id], &body).await?;
                output.one::<Database>(&changed, session.now())
            }
            Verb::Delete { database, yes } => delete(session, &database, yes).await,
            Verb::Restore(restore) => restore.run(session).await,
            Verb::Deleted(deleted) => deleted.run(session).await,
            Verb::Undelete(undelete) => undelete.run(session).await,
            Verb::Usage(usage) => usage.run(session).await,
            Verb::Psql { database, arguments } => {
                let id = find_database(session, &database).await?;
                psql::run(session, &id, &arguments).await
            }
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let project = find_project(session, &self.project).await?;
        let mut body = json!({"projectId": project, "isDefault": self.default});
        let branch = self.branch.map(|branch| (branch_field(&branch), branch));
        let given = [
            self.name.map(|name| ("name", name)),
            self.region.map(|region| ("region", region)),
            branch,
            self.logical_id.map(|id| ("logicalId", id)),
        ];
        for (field, value) in given.into_iter().flatten() {
            body[field] = value.into();
        }
        if let Some(original) = &self.copy_of {
            body["source"] = json!({"type": "database", "databaseId": find_database(session, original).await?});
        }
        let mut made = session.client.post(&["databases"], &body).await?;
        if session.output.json() {
            let outcome = self.patience.until_ready(session, &mut made).await;
            session.output.value(&made);
            return outcome;
        }
        present(session, &mut made, &self.patience).await
    }
}

/// For people: a new database with its secret, which depends on nothing and waits for nothing; then
/// waits until it is ready.
pub(super) async fn present(session: &Session, made: &mut Value, patience: &Patience) -> Result<(), Failure> {
    introduce(session, made);
    patience.until_ready(session, made).await?;
    match made["status"].as_str() {
        Some("ready") => session.output.say("The database is ready."),
        _ => session.output.say("The database is being created; connections wait until it is ready."),
    }
    Ok(())
}

/// For people: a new database with its secret.
pub(super) fn introduce(session: &Session, made: &Value) {
    let id = text(made, "id");
    session.output.say(&format!("Created the database {} ({id}).", text(made, "name")));
    show_secret(session, id, &made["connections"][0]);
}

async fn delete(session: &Session, database: &str, yes: bool) -> Result<(), Failure> {
    let id = find_database(session, database).await?;
    if !yes {
        let database: Database = read(&session.client.get(&["databases", &id]).await?)?;
        let of = database.project.map(|project| format!(" of the project {}", project.name)).unwrap_or_default();
        prompt::confirm(yes, &format!("Delete the database {}{of} with all its data?", database.name)).await?;
    }
    let deleted = session.client.delete(&["databases", &id]).await?;
    if session.output.json() {
        session.output.value(&deleted);
    }
    session.output.say(&format!("Deleted the database {id}."));
    Ok(())
}
