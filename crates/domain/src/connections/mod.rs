//! Connections: the credentials of a database. They live in the gateway's table, not in the
//! instance: making and deleting one is instant and works while the database sleeps.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::databases::Database;
use crate::limits::{self, Quotas};
use auth::Principal;
use base::error::{Error, Result};
use base::id::{ConnectionId, DatabaseId, ProjectId};
use base::name::ConnectionName;
use base::page::{Page, PageRequest};
use base::scram::Verifier;
use base::secret::{Secret, random_hex, random_text};
use base::store::{Channel, Session, Tx};

/// A connection, without its secret.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The connection's ID.
    pub id: ConnectionId,
    /// The connection's name.
    pub name: String,
    /// When the connection was created.
    pub created_at: Timestamp,
    /// The connection's database.
    pub database: DatabaseId,
    /// The connection's database's name.
    pub database_name: String,
    /// The connection's database's project.
    pub project: ProjectId,
}

impl Connection {
    /// What the audit log says of a change of it; its credential is no part of that.
    async fn record(&self, tx: &Tx, actor: &Principal, now: Timestamp, action: &'static str) -> Result<()> {
        let shown = || Some(serde_json::json!({"name": self.name, "databaseId": self.database.to_string()}));
        let change = Change {
            action,
            resource: Resource::new("connection", self.id, &self.name),
            project: Some(self.project),
            before: shown().filter(|_| action != "create_connection"),
            after: shown().filter(|_| action != "delete_connection"),
        };
        audit::record(tx, actor, now, change).await
    }
}

/// A connection as it is when it is made: the one time that its secret is known.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// The connection's id.
    pub id: ConnectionId,
    /// The user name: 64 hexadecimal letters, which decide about the database.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl NewCredential {
    fn generate(id: ConnectionId) -> (Self, Verifier) {
        let password = Secret::new(format!("sk_{}", random_text::<24>()));
        let verifier = Verifier::of(&password);
        (Self { id, user: random_hex::<32>(), password }, verifier)
    }
}

/// Makes a connection of a database that the caller has.
///
/// # Errors
/// [`Error::NotFound`] for any other database; [`Error::LimitReached`].
pub async fn create(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    quotas: &Quotas,
    database: DatabaseId,
    name: &ConnectionName,
) -> Result<NewCredential> {
    if !store::lock_database(tx, &actor.scope(), database).await? {
        return Err(Error::not_found("database", database));
    }
    actor.may_change()?;
    let credential = issue(tx, now, database, name).await?;
    limits::check_connections(tx, quotas, actor.workspace(), database).await?;
    get(tx, actor, credential.id).await?.record(tx, actor, now, "create_connection").await?;
    Ok(credential)
}

/// Makes a connection; the caller has checked whose database it is.
pub async fn issue(tx: &Tx, now: Timestamp, database: DatabaseId, name: &ConnectionName) -> Result<NewCredential> {
    let (credential, verifier) = NewCredential::generate(ConnectionId::generate(now));
    store::insert(tx, database, name, &credential, &verifier, now).await?;
    Ok(credential)
}

/// Gives a connection another user name and password. The old ones are no longer good when this
/// commits; the sessions that were opened with them are ended.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such connection.
pub async fn rotate(tx: &Tx, actor: &Principal, now: Timestamp, id: ConnectionId) -> Result<NewCredential> {
    let connection = lock(tx, actor, id).await?;
    let (credential, verifier) = NewCredential::generate(id);
    if !store::replace(tx, &credential, &verifier).await? {
        return Err(Error::not_found("connection", id));
    }
    connection.record(tx, actor, now, "rotate_connection").await?;
    tx.announce(Channel::ConnectionEnded, &id.bare()).await?;
    Ok(credential)
}

/// The connection with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such connection.
pub async fn get(session: &Session, actor: &Principal, id: ConnectionId) -> Result<Connection> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("connection", id))
}

/// A database's connections, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for a database that the caller does not have.
pub async fn list(
    session: &Session,
    actor: &Principal,
    database: DatabaseId,
    page: PageRequest<ConnectionId>,
) -> Result<Page<Connection>> {
    if !store::database_exists(session, &actor.scope(), database).await? {
        return Err(Error::not_found("database", database));
    }
    list_all(session, actor, Some(database), page).await
}

/// The connections of all of the caller's databases, oldest first; those of one, if it is given.
pub async fn list_all(
    session: &Session,
    actor: &Principal,
    database: Option<DatabaseId>,
    page: PageRequest<ConnectionId>,
) -> Result<Page<Connection>> {
    let rows = store::list(session, &actor.scope(), database, page).await?;
    Ok(Page::cut(rows, page.limit, |connection| connection.id.bare()))
}

/// The connections of several databases, oldest first.
pub async fn of_databases(session: &Session, databases: &[Database]) -> Result<Vec<Connection>> {
    store::of_databases(session, databases).await
}

/// Deletes a connection. Its credential is no longer good when this commits; its sessions are ended.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such connection.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: ConnectionId) -> Result<()> {
    let connection = lock(tx, actor, id).await?;
    if !store::remove(tx, &connection).await? {
        return Err(Error::not_found("connection", id));
    }
    connection.record(tx, actor, now, "delete_connection").await?;
    tx.announce(Channel::ConnectionEnded, &id.bare()).await
}

/// A connection that the caller may change. Its database is locked first, as where that is changed or
/// deleted: two orders would be a deadlock. It stays the caller's until the transaction ends.
async fn lock(tx: &Tx, actor: &Principal, id: ConnectionId) -> Result<Connection> {
    let connection = get(tx, actor, id).await?;
    actor.may_change()?;
    if !store::lock_database(tx, &actor.scope(), connection.database).await? {
        return Err(Error::not_found("connection", id));
    }
    Ok(connection)
}

/// Ends every credential of a database that is being deleted.
pub async fn end_all(tx: &Tx, database: DatabaseId) -> Result<()> {
    for id in store::remove_all(tx, database).await? {
        tx.announce(Channel::ConnectionEnded, &id.bare()).await?;
    }
    credential::end_probes(tx, database).await
}
