//! The metadata store's schema, and what must be true of the store before it is used.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Config;

use base::error::{Error, Result, describe};
use base::id::InstallationId;
use base::store::{QueryError, Tx, connector};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How long a session on the metadata store may take to open.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Any number: the key of the advisory lock under which migrations run.
const MIGRATION_LOCK: i64 = 0x686f_7764_6168;

/// Brings the store's schema up to date; processes that start together take turns. Returns the
/// names of the migrations that it applied.
///
/// # Errors
/// [`Error::Unavailable`] when the store does not answer; [`Error::Internal`] when a migration
/// fails or the store was made by a newer Howdah.
pub async fn migrate(config: &Config) -> Result<Vec<String>> {
    let opening = timeout(CONNECT_LIMIT, config.connect(connector()));
    let (mut client, connection) = opening.await.map_err(|_| QueryError::Silent)??;
    let work = async {
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        // Without this, every start would say that tables exist already.
        client.batch_execute("SET client_min_messages = warning").await?;
        let report = embedded::migrations::runner().run_async(&mut client).await.map_err(|cause| {
            Error::internal(format!("bring the metadata store's schema up to date: {}", describe(&cause)))
        });
        drop(client);
        Ok(report?.applied_migrations().iter().map(ToString::to_string).collect())
    };
    tokio::select! {
        done = work => done,
        Err(error) = connection => Err(error.into()),
    }
}

/// Asks the store for a sign of life.
///
/// # Errors
/// What the driver or the server says.
pub async fn check(config: &Config) -> std::result::Result<(), QueryError> {
    let asking = async {
        let (client, connection) = config.connect(connector()).await?;
        tokio::select! {
            answer = client.batch_execute("SELECT 1") => answer,
            Err(error) = connection => Err(error),
        }
    };
    Ok(timeout(CONNECT_LIMIT, asking).await.map_err(|_| QueryError::Silent)??)
}

/// Which installation the store belongs to, if it has been used.
pub async fn installation(tx: &Tx) -> Result<Option<InstallationId>> {
    let row = tx.query_opt("SELECT id FROM installation", &[]).await?;
    Ok(row.map(|row| row.get::<_, uuid::Uuid>("id").into()))
}

/// Makes a new store belong to an installation.
pub async fn claim(tx: &Tx, id: InstallationId, now: jiff::Timestamp) -> Result<()> {
    tx.execute("INSERT INTO installation (id, created_at) VALUES ($1, $2)", &[&id.uuid(), &now]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    /// A migration that has landed is never edited: whoever has run it would have another schema.
    #[test]
    fn migrations_are_numbered_without_gaps() {
        let versions: Vec<i32> = super::embedded::migrations::runner()
            .get_migrations()
            .iter()
            .map(|migration| migration.version())
            .collect();
        assert_eq!(versions, (1..=versions.len() as i32).collect::<Vec<_>>());
    }
}
