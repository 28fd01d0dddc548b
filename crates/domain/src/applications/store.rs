//! The SQL of a workspace's applications. Who is limited to projects sees none.

use tokio_postgres::Row;

use super::{Application, ApplicationChange};
use auth::Scope;
use auth::oauth::RedirectUri;
use base::error::{Error, Result};
use base::id::{OauthClientId, WorkspaceId};
use base::store::{Session, Tx};

const SELECT: &str = "SELECT c.id,
        c.name,
        c.description,
        c.redirect_uris,
        c.secret_hash IS NULL AS is_public,
        c.created_at,
        c.last_used_at,
        (SELECT count(*) FROM integrations i WHERE i.client_id = c.id) AS integrations
   FROM oauth_clients c
  WHERE c.workspace_id = $1 AND $2::uuid[] IS NULL";

pub(super) async fn list(session: &Session, scope: &Scope) -> Result<Vec<Application>> {
    let rows = session.query(&format!("{SELECT} ORDER BY c.id"), &[&scope.workspace, &scope.projects]).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn get(session: &Session, scope: &Scope, id: &OauthClientId) -> Result<Option<Application>> {
    let select = format!("{SELECT} AND c.id = $3");
    let row = session.query_opt(&select, &[&scope.workspace, &scope.projects, &id.bare()]).await?;
    row.as_ref().map(read).transpose()
}

/// The lock orders creates: the later one counts the earlier.
pub(super) async fn count(tx: &Tx, workspace: WorkspaceId) -> Result<i64> {
    tx.query("SELECT FROM workspaces WHERE id = $1 FOR NO KEY UPDATE", &[&workspace.uuid()]).await?;
    let count = "SELECT count(*) FROM oauth_clients WHERE workspace_id = $1";
    Ok(tx.query_one(count, &[&workspace.uuid()]).await?.get(0))
}

pub(super) async fn update(tx: &Tx, scope: &Scope, id: &OauthClientId, change: &ApplicationChange) -> Result<()> {
    let redirects: Vec<&str> = change.redirect_uris.iter().map(RedirectUri::as_str).collect();
    tx.execute(
        "UPDATE oauth_clients
            SET name = $4, description = $5, redirect_uris = $6
          WHERE workspace_id = $1 AND $2::uuid[] IS NULL AND id = $3",
        &[
            &scope.workspace,
            &scope.projects,
            &id.bare(),
            &change.name.as_str(),
            &change.description.as_ref().map(|description| description.as_str()),
            &redirects,
        ],
    )
    .await?;
    Ok(())
}

/// False when the workspace has no such application.
pub(super) async fn remove(tx: &Tx, scope: &Scope, id: &OauthClientId) -> Result<bool> {
    let delete = "DELETE FROM oauth_clients WHERE workspace_id = $1 AND $2::uuid[] IS NULL AND id = $3";
    Ok(tx.execute(delete, &[&scope.workspace, &scope.projects, &id.bare()]).await? == 1)
}

fn read(row: &Row) -> Result<Application> {
    let id: &str = row.get("id");
    Ok(Application {
        id: OauthClientId::parse(id).ok_or_else(|| Error::internal(format!("an application has the id {id}")))?,
        name: row.get("name"),
        description: row.get("description"),
        redirect_uris: row.get("redirect_uris"),
        is_public: row.get("is_public"),
        created_at: row.get("created_at"),
        last_used_at: row.get("last_used_at"),
        integrations: row.get("integrations"),
    })
}
