//! `howdah databases psql`: PostgreSQL's own client with a connection of its own.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;

use reqwest::Url;
use serde_json::json;
use tokio::process::Command;

use super::failure::Failure;
use super::session::Session;
use super::wait::interrupted;
use base::secret::{Secret, random_hex};

/// Makes a connection, runs psql with it, and deletes it. Whatever ends psql, the connection goes.
pub(super) async fn run(session: &Session, database: &str, arguments: &[OsString]) -> Result<(), Failure> {
    let name = format!("psql-{}", random_hex::<4>());
    let made = session.client.post(&["connections"], &json!({"databaseId": database, "name": name})).await?;
    let Some(id) = made["id"].as_str() else {
        return Err(Failure::Failed("the response of the server contains no connection ID".into()));
    };
    let ended = match made["endpoints"]["direct"]["connectionString"].as_str().and_then(split) {
        Some((address, password)) => psql(&address, &password, arguments).await,
        None => Err(Failure::Failed("the response with the connection string was lost; try again".into())),
    };
    let deleted = session.client.delete(&["connections", id]).await;
    ended?;
    deleted?;
    Ok(())
}

/// A connection string without its password, and the password: arguments of a program can be seen by
/// everybody on the machine, its environment only by its own user.
fn split(connection: &str) -> Option<(String, Secret)> {
    let mut url = Url::parse(connection).ok()?;
    let password = Secret::new(url.password()?);
    url.set_password(None).ok()?;
    Some((url.to_string(), password))
}

async fn psql(address: &str, password: &Secret, arguments: &[OsString]) -> Result<(), Failure> {
    let mut command = Command::new("psql");
    command.arg("--dbname").arg(address).args(arguments).env("PGPASSWORD", password.expose());
    // These would lead elsewhere, whatever the address says.
    for name in ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"] {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::Failed("psql is not installed; install the PostgreSQL client programs".into())
        }
        _ => Failure::Failed(format!("cannot start psql: {error}")),
    })?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            // On a terminal Ctrl-C is psql's: it cancels the query.
            () = interrupted() => {}
        }
    };
    let status = status.map_err(|error| Failure::Failed(format!("cannot wait for psql: {error}")))?;
    match status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()) {
        0 => Ok(()),
        code => Err(Failure::Ended(u8::try_from(code).unwrap_or(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_connection_string() {
        let (address, password) = split("postgres://user:sk_secret@127.0.0.1:7432/postgres?sslmode=disable").unwrap();
        assert_eq!(address, "postgres://user@127.0.0.1:7432/postgres?sslmode=disable");
        assert_eq!(password.expose(), "sk_secret");
        assert!(split("postgres://user@127.0.0.1:7432/postgres").is_none());
        assert!(split("nonsense").is_none());
    }
}
