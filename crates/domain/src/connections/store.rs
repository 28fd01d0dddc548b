//! The SQL of connections.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Connection, NewCredential};
use crate::databases::Database;
use auth::Scope;
use base::error::Result;
use base::id::{ConnectionId, DatabaseId};
use base::name::ConnectionName;
use base::page::PageRequest;
use base::scram::Verifier;
use base::store::{Conditions, Session, Tx};

const SELECT: &str = "SELECT c.id, c.name, c.created_at, c.database_id, d.name AS database_name, d.project_id
   FROM connections c
   JOIN databases d ON d.id = c.database_id AND d.deleted_at IS NULL";

/// Makes a concurrent delete of the database wait, and whoever else adds to it. False when the caller
/// has no such database.
pub(super) async fn lock_database(tx: &Tx, scope: &Scope, database: DatabaseId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "SELECT
               FROM databases
              WHERE workspace_id = $1
                AND ($2::uuid[] IS NULL OR project_id = ANY ($2))
                AND id = $3
                AND deleted_at IS NULL
                FOR NO KEY UPDATE",
        )
        .await?;
    Ok(tx.query_opt(&statement, &[&scope.workspace, &scope.projects, &database.uuid()]).await?.is_some())
}

pub(super) async fn database_exists(session: &Session, scope: &Scope, database: DatabaseId) -> Result<bool> {
    let statement = session
        .prepare_cached(
            "SELECT
               FROM databases d
               JOIN projects p ON p.id = d.project_id
              WHERE p.workspace_id = $1
                AND ($2::uuid[] IS NULL OR p.id = ANY ($2))
                AND d.id = $3
                AND d.deleted_at IS NULL",
        )
        .await?;
    Ok(session.query_opt(&statement, &[&scope.workspace, &scope.projects, &database.uuid()]).await?.is_some())
}

pub(super) async fn insert(
    tx: &Tx,
    database: DatabaseId,
    name: &ConnectionName,
    credential: &NewCredential,
    verifier: &Verifier,
    now: Timestamp,
) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO connections (id, database_id, workspace_id, name, user_name, verifier, created_at)
             SELECT $1, d.id, d.workspace_id, $3, $4, $5, $6
               FROM databases d
              WHERE d.id = $2",
        )
        .await?;
    tx.execute(
        &statement,
        &[&credential.id.uuid(), &database.uuid(), &name.as_str(), &credential.user, &verifier.to_text(), &now],
    )
    .await?;
    Ok(())
}

pub(super) async fn get(session: &Session, scope: &Scope, id: ConnectionId) -> Result<Option<Connection>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT}
               JOIN projects p ON p.id = d.project_id
              WHERE p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2)) AND c.id = $3"
        ))
        .await?;
    Ok(session.query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?.as_ref().map(read))
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    database: Option<DatabaseId>,
    page: PageRequest<ConnectionId>,
) -> Result<Vec<Connection>> {
    let (after, limit) = (page.after.map_or(Uuid::nil(), |id| id.uuid()), i64::from(page.limit) + 1);
    let database = database.map(|id| id.uuid());
    let mut wanted = Conditions::of([&scope.workspace, &after, &limit]);
    wanted.add("d.project_id = ANY ($?)", scope.projects.as_ref());
    wanted.add("c.database_id = $?", database.as_ref());
    let statement = session
        .prepare_cached(&format!(
            "{SELECT} WHERE c.workspace_id = $1 AND (c.workspace_id, c.id) > ($1, $2) {} ORDER BY c.workspace_id, c.id LIMIT $3",
            wanted.sql()
        ))
        .await?;
    let rows = session.query(&statement, wanted.values()).await?;
    Ok(rows.iter().map(read).collect())
}

/// In order for each database: looked up one by one, whatever the planner thinks of so many.
pub(super) async fn of_databases(session: &Session, databases: &[Database]) -> Result<Vec<Connection>> {
    let statement = session
        .prepare_cached(
            "SELECT c.id, c.name, c.created_at, d.id AS database_id, d.name AS database_name, d.project_id
               FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS d (id, name, project_id)
              CROSS JOIN LATERAL
                    (SELECT id, name, created_at FROM connections WHERE database_id = d.id ORDER BY id) AS c",
        )
        .await?;
    let ids: Vec<Uuid> = databases.iter().map(|database| database.id.uuid()).collect();
    let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let projects: Vec<Uuid> = databases.iter().map(|database| database.project.uuid()).collect();
    Ok(session.query(&statement, &[&ids, &names, &projects]).await?.iter().map(read).collect())
}

/// The caller has the database, and a lock on it. False when it has no such connection.
pub(super) async fn replace(tx: &Tx, credential: &NewCredential, verifier: &Verifier) -> Result<bool> {
    let statement = tx.prepare_cached("UPDATE connections SET user_name = $2, verifier = $3 WHERE id = $1").await?;
    let verifier = verifier.to_text();
    Ok(tx.execute(&statement, &[&credential.id.uuid(), &credential.user, &verifier]).await? == 1)
}

/// The caller has the database, and a lock on it. False when it has no such connection.
pub(super) async fn remove(tx: &Tx, connection: &Connection) -> Result<bool> {
    let clear = tx
        .prepare_cached(
            "UPDATE databases SET default_connection_id = NULL WHERE id = $1 AND default_connection_id = $2",
        )
        .await?;
    let remove = tx.prepare_cached("DELETE FROM connections WHERE id = $1").await?;
    let (id, database) = (connection.id.uuid(), connection.database.uuid());
    tx.execute(&clear, &[&database, &id]).await?;
    Ok(tx.execute(&remove, &[&id]).await? == 1)
}

pub(super) async fn remove_all(tx: &Tx, database: DatabaseId) -> Result<Vec<ConnectionId>> {
    let statement = tx.prepare_cached("DELETE FROM connections WHERE database_id = $1 RETURNING id").await?;
    let rows = tx.query(&statement, &[&database.uuid()]).await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("id").into()).collect())
}

fn read(row: &Row) -> Connection {
    Connection {
        id: row.get::<_, Uuid>("id").into(),
        name: row.get("name"),
        created_at: row.get("created_at"),
        database: row.get::<_, Uuid>("database_id").into(),
        database_name: row.get("database_name"),
        project: row.get::<_, Uuid>("project_id").into(),
    }
}
