//! The gateway's view of a connection: who may log in where. No policy, no API shapes.

use uuid::Uuid;

use base::error::Result;
use base::id::{ConnectionId, DatabaseId, InstanceId};
use base::scram::Verifier;
use base::secret::{Secret, random_hex, random_text};
use base::store::{Session, Store, Tx};

/// What a user name leads to.
#[derive(Clone)]
pub struct Credential {
    /// The connection it belongs to; `None` for a platform probe, which counts neither as
    /// activity nor as usage and may pass while the database is still provisioning.
    pub connection: Option<ConnectionId>,
    /// The database it opens.
    pub database: DatabaseId,
    /// The instance that the database lives in now.
    pub instance: InstanceId,
    /// Checks the password.
    pub verifier: Verifier,
    /// Whether a session may begin.
    pub readiness: Readiness,
}

/// Whether a session may begin on a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet; it is being made or brought back. Wait for it.
    Provisioning,
    /// No, and why.
    Failed(String),
}

/// Finds a credential by its user name; `None` when no live connection or probe has it.
pub async fn find_credential(store: &Store, user_name: &str) -> Result<Option<Credential>> {
    let session = store.session().await?;
    let statement = session
        .prepare_cached(
            "SELECT c.id, c.verifier, d.id AS database_id, d.instance_id, d.status, d.status_reason
               FROM (SELECT id, database_id, verifier
                       FROM connections
                      WHERE user_name = $1
                      UNION ALL
                     SELECT NULL, database_id, verifier
                       FROM probes
                      WHERE user_name = $1 AND expires_at > now()) c
               JOIN databases d ON d.id = c.database_id AND d.deleted_at IS NULL",
        )
        .await?;
    let Some(row) = session.query_opt(&statement, &[&user_name]).await? else { return Ok(None) };
    let readiness = match row.get("status") {
        "ready" => Readiness::Ready,
        "failure" => {
            let reason: Option<String> = row.get("status_reason");
            Readiness::Failed(reason.unwrap_or_else(|| "its creation failed".into()))
        }
        _ => Readiness::Provisioning,
    };
    Ok(Some(Credential {
        connection: row.get::<_, Option<Uuid>>("id").map(Into::into),
        database: row.get::<_, Uuid>("database_id").into(),
        instance: row.get::<_, Uuid>("instance_id").into(),
        verifier: Verifier::parse(row.get("verifier"))?,
        readiness,
    }))
}

/// Which of these user names still open a connection, for a listener that was away.
pub async fn still_valid(store: &Store, users: &[String]) -> Result<Vec<String>> {
    let session = store.session().await?;
    let rows = session.query("SELECT user_name FROM connections WHERE user_name = ANY ($1)", &[&users]).await?;
    Ok(rows.iter().map(|row| row.get("user_name")).collect())
}

/// A platform credential that is good for a minute, in no list.
pub struct Probe {
    /// The user name to log in with.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Makes a probe of a database.
pub async fn issue_probe(session: &Session, database: DatabaseId) -> Result<Probe> {
    let probe = Probe { user: random_hex::<32>(), password: Secret::new(random_text::<24>()) };
    let verifier = Verifier::of(&probe.password).to_text();
    let statement = session
        .prepare_cached(
            "INSERT INTO probes (user_name, database_id, verifier, expires_at)
             VALUES ($1, $2, $3, now() + interval '1 minute')",
        )
        .await?;
    session.execute(&statement, &[&probe.user, &database.uuid(), &verifier]).await?;
    Ok(probe)
}

/// Removes the probes that are no longer good, as after a crash between a probe and its end.
pub async fn forget_expired_probes(session: &Session) -> Result<()> {
    session.execute("DELETE FROM probes WHERE expires_at < now()", &[]).await?;
    Ok(())
}

/// Ends every probe of a database.
pub async fn end_probes(tx: &Tx, database: DatabaseId) -> Result<()> {
    let statement = tx.prepare_cached("DELETE FROM probes WHERE database_id = $1").await?;
    tx.execute(&statement, &[&database.uuid()]).await?;
    Ok(())
}
