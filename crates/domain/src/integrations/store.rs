//! The SQL of integrations. Who is limited to projects sees none.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Integration, OauthClient, User};
use auth::Scope;
use base::error::{Error, Result};
use base::id::{IntegrationId, OauthClientId, UserId, WorkspaceId};
use base::page::PageRequest;
use base::store::{Session, Tx};

const SELECT: &str = "SELECT i.id,
        i.created_at,
        i.scopes,
        c.id AS client_id,
        c.name AS client_name,
        c.created_at AS client_created_at,
        u.id AS user_id,
        u.email,
        u.display_name
   FROM integrations i
   JOIN oauth_clients c ON c.id = i.client_id
   JOIN users u ON u.id = i.user_id
  WHERE i.workspace_id = $1 AND $2::uuid[] IS NULL";

pub(super) async fn remove_all_of(tx: &Tx, user: UserId) -> Result<()> {
    tx.execute("DELETE FROM integrations WHERE user_id = $1", &[&user.uuid()]).await?;
    Ok(())
}

pub(super) async fn upsert(
    tx: &Tx,
    id: IntegrationId,
    workspace: WorkspaceId,
    client: &OauthClientId,
    user: UserId,
    scopes: &[&str],
    now: Timestamp,
) -> Result<IntegrationId> {
    let row = tx
        .query_one(
            "INSERT INTO integrations AS i (id, workspace_id, client_id, user_id, scopes, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (workspace_id, client_id, user_id) DO UPDATE
                SET scopes = ARRAY(SELECT DISTINCT unnest(i.scopes || excluded.scopes) ORDER BY 1 DESC)
          RETURNING id",
            &[&id.uuid(), &workspace.uuid(), &client.bare(), &user.uuid(), &scopes, &now],
        )
        .await?;
    Ok(row.get::<_, Uuid>("id").into())
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    workspace: WorkspaceId,
    page: PageRequest<IntegrationId>,
) -> Result<Vec<Integration>> {
    let statement = session
        .prepare_cached(&format!(
            "{SELECT} AND i.workspace_id = $3 AND ($4::uuid IS NULL OR i.id > $4) ORDER BY i.id LIMIT $5"
        ))
        .await?;
    let after = page.after.map(|id| id.uuid());
    let limit = i64::from(page.limit) + 1;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&scope.workspace, &scope.projects, &workspace.uuid(), &after, &limit];
    session.query(&statement, &values).await?.iter().map(read).collect()
}

pub(super) async fn get(session: &Session, scope: &Scope, id: IntegrationId) -> Result<Option<Integration>> {
    let statement = session.prepare_cached(&format!("{SELECT} AND i.id = $3")).await?;
    let row = session.query_opt(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await?;
    row.as_ref().map(read).transpose()
}

pub(super) async fn of_client(
    tx: &Tx,
    scope: &Scope,
    workspace: WorkspaceId,
    client: &OauthClientId,
) -> Result<Vec<IntegrationId>> {
    let statement = tx
        .prepare_cached(
            "SELECT id
               FROM integrations
              WHERE workspace_id = $1 AND $2::uuid[] IS NULL AND workspace_id = $3 AND client_id = $4
              ORDER BY id
                FOR UPDATE",
        )
        .await?;
    let rows = tx.query(&statement, &[&scope.workspace, &scope.projects, &workspace.uuid(), &client.bare()]).await?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>("id").into()).collect())
}

/// False when the caller has no such integration.
pub(super) async fn remove(tx: &Tx, scope: &Scope, id: IntegrationId) -> Result<bool> {
    let statement = tx
        .prepare_cached("DELETE FROM integrations WHERE workspace_id = $1 AND $2::uuid[] IS NULL AND id = $3")
        .await?;
    Ok(tx.execute(&statement, &[&scope.workspace, &scope.projects, &id.uuid()]).await? == 1)
}

fn read(row: &Row) -> Result<Integration> {
    let client: &str = row.get("client_id");
    Ok(Integration {
        id: row.get::<_, Uuid>("id").into(),
        created_at: row.get("created_at"),
        scopes: row.get("scopes"),
        client: OauthClient {
            id: OauthClientId::parse(client)
                .ok_or_else(|| Error::internal(format!("an application has the id {client}")))?,
            name: row.get("client_name"),
            created_at: row.get("client_created_at"),
        },
        user: User {
            id: row.get::<_, Uuid>("user_id").into(),
            email: row.get("email"),
            display_name: row.get("display_name"),
        },
    })
}
