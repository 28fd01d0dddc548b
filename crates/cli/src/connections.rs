//! `howdah connections`

use std::fmt;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::databases::find_database;
use super::failure::Failure;
use super::noun::{Listed, Named, Noun, Reference, Rows, Shown, all, find, read, text};
use super::prompt;
use super::session::Session;
use super::table::Cell;
use base::id::ConnectionId;

const EXAMPLES: &str = "\
Examples:
  howdah connections create web --database reporting
  howdah connections list --database reporting
  howdah connections rotate con_01jzq6w3c4e5f6g7h8j9k0m1n2
  howdah connections delete web --database reporting --yes

CONNECTION is an ID (con_…) or the exact name of one connection.";

/// Manage the user names and passwords of databases
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Connections {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List connections, oldest first
    #[command(visible_alias = "ls")]
    List {
        /// List only connections of this database, given by ID or name
        #[arg(long)]
        database: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },

    /// Create a connection
    ///
    /// Prints the connection string, which is not shown again.
    Create {
        /// The name of the connection, up to 256 characters
        name: String,
        /// The ID or name of the database
        #[arg(long)]
        database: String,
    },

    /// Show a connection, without its secret
    Get(Which),

    /// Replace the user name and password of a connection, and close its sessions
    ///
    /// Prints the new connection string, which is not shown again. The old one no longer works.
    Rotate {
        #[command(flatten)]
        which: Which,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },

    /// Delete a connection and close its sessions
    Delete {
        #[command(flatten)]
        which: Which,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// The ID or name of the connection
    connection: String,
    /// Find the name only in this database, given by ID or name
    #[arg(long)]
    database: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    id: String,
    name: String,
    created_at: Timestamp,
    endpoints: Endpoints,
    database: Reference,
}

/// Where a connection leads.
#[derive(Deserialize)]
pub(super) struct Endpoints {
    direct: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    host: String,
    port: u16,
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.direct {
            Some(Endpoint { host, port }) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Some(Endpoint { host, port }) => write!(f, "{host}:{port}"),
            None => f.write_str("-"),
        }
    }
}

impl Noun for Connection {
    const SINGULAR: &'static str = "connection";
}

impl Listed for Connection {
    const PLURAL: &'static str = "connections";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "DATABASE", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.name), Cell::id(&self.id), Cell::new(&self.database.name), Cell::age(self.created_at, now)]
    }
}

impl Shown for Connection {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("Name", Cell::new(&self.name)),
            ("ID", Cell::id(&self.id)),
            ("Database", Cell::new(format!("{} ({})", self.database.name, self.database.id))),
            ("Endpoint", Cell::new(self.endpoints.to_string())),
            ("Created", Cell::time(self.created_at, now)),
        ]
    }
}

impl Named for Connection {
    fn is_id(text: &str) -> bool {
        ConnectionId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("of the database {}", self.database.name)
    }
}

impl Which {
    async fn id(&self, session: &Session) -> Result<String, Failure> {
        if Connection::is_id(&self.connection) {
            return Ok(self.connection.clone());
        }
        let mut query = Vec::new();
        if let Some(database) = &self.database {
            query.push(("databaseId", find_database(session, database).await?));
        }
        find::<Connection>(session, &self.connection, all(&["connections"], &query)).await
    }
}

impl Connections {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { database, rows } => {
                let mut query = Vec::new();
                if let Some(database) = database {
                    query.push(("databaseId", find_database(session, &database).await?));
                }
                let connections = client.list(rows.of(&["connections"], &query)).await?;
                output.list::<Connection>(&connections, session.now())
            }
            Verb::Create { name, database } => {
                let database = find_database(session, &database).await?;
                let body = json!({"databaseId": database, "name": name});
                let made = client.post(&["connections"], &body).await?;
                present(session, "Created", &made)
            }
            Verb::Get(which) => {
                let id = which.id(session).await?;
                output.one::<Connection>(&client.get(&["connections", &id]).await?, session.now())
            }
            Verb::Rotate { which, yes } => {
                let id = which.id(session).await?;
                confirm(session, &id, yes, "Replace the credential of").await?;
                let rotated = client.post(&["connections", &id, "rotate"], &json!({})).await?;
                present(session, "Rotated", &rotated)
            }
            Verb::Delete { which, yes } => {
                let id = which.id(session).await?;
                confirm(session, &id, yes, "Delete").await?;
                client.delete(&["connections", &id]).await?;
                output.say(&format!("Deleted the connection {id}."));
                Ok(())
            }
        }
    }
}

async fn confirm(session: &Session, id: &str, yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let Connection { name, database, .. } = read(&session.client.get(&["connections", id]).await?)?;
    let question = format!("{what} the connection {name} of the database {} and close its sessions?", database.name);
    prompt::confirm(yes, &question).await
}

fn present(session: &Session, what: &str, made: &Value) -> Result<(), Failure> {
    if session.output.json() {
        session.output.value(made);
        return Ok(());
    }
    let (name, id, database) = (text(made, "name"), text(made, "id"), &made["database"]);
    session.output.say(&format!("{what} the connection {name} ({id}) of the database {}.", text(database, "name")));
    show_secret(session, text(database, "id"), made);
    Ok(())
}

/// For people: the connection string of a connection that was just made.
pub(super) fn show_secret(session: &Session, database: &str, connection: &Value) {
    match connection["endpoints"]["direct"]["connectionString"].as_str() {
        Some(secret) => {
            session.output.secret("Connection string (not shown again):", secret);
            session.output.note(
                "The SQL role of every connection is tenant. To change the password, use `howdah connections rotate`.",
            );
        }
        None => session.output.note(&format!(
            "The response with the connection string was lost, and the string is not shown again. \
             Create another connection: howdah connections create again --database {database}"
        )),
    }
}
