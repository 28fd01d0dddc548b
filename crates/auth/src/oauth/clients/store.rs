//! The SQL of applications as OAuth's clients.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Client, ClientOrigin, NewClient, OwnerWorkspace};
use crate::oauth::RedirectUri;
use base::error::{Error, Result};
use base::id::{OauthClientId, WorkspaceId};
use base::store::{Session, Tx};

pub(super) async fn insert(
    tx: &Tx,
    id: &OauthClientId,
    workspace: Option<WorkspaceId>,
    origin: ClientOrigin,
    new: &NewClient,
    secret_hash: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<()> {
    let redirects: Vec<&str> = new.redirect_uris.iter().map(RedirectUri::as_str).collect();
    tx.execute(
        "INSERT INTO oauth_clients
                (id, name, description, workspace_id, redirect_uris, secret_hash, origin, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            &id.bare(),
            &new.name.as_str(),
            &new.description.as_ref().map(|description| description.as_str()),
            &workspace.map(|workspace| workspace.uuid()),
            &redirects,
            &secret_hash,
            &origin.as_str(),
            &now,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn ensure(
    tx: &Tx,
    id: &str,
    name: &str,
    description: &str,
    redirects: &[String],
    now: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO oauth_clients (id, name, description, redirect_uris, origin, created_at)
         VALUES ($1, $2, $3, $4, 'built_in', $5)
         ON CONFLICT (id) DO UPDATE
            SET name = excluded.name,
                description = excluded.description,
                redirect_uris = excluded.redirect_uris,
                origin = excluded.origin",
        &[&id, &name, &description, &redirects, &now],
    )
    .await?;
    Ok(())
}

/// With the hash of its secret, if it has one.
pub(super) async fn find(session: &Session, id: &OauthClientId) -> Result<Option<(Client, Option<Vec<u8>>)>> {
    let statement = session
        .prepare_cached(
            "SELECT c.name, c.description, c.redirect_uris, c.secret_hash, c.origin,
                    w.id AS workspace_id, w.name AS workspace_name
               FROM oauth_clients c
               LEFT JOIN workspaces w ON w.id = c.workspace_id
              WHERE c.id = $1",
        )
        .await?;
    let Some(row) = session.query_opt(&statement, &[&id.bare()]).await? else { return Ok(None) };
    let (secret_hash, origin): (Option<Vec<u8>>, &str) = (row.get("secret_hash"), row.get("origin"));
    let redirects: Vec<String> = row.get("redirect_uris");
    let client = Client {
        id: id.clone(),
        name: row.get("name"),
        description: row.get("description"),
        redirect_uris: redirects.into_iter().map(RedirectUri::stored).collect(),
        is_public: secret_hash.is_none(),
        workspace: row
            .get::<_, Option<Uuid>>("workspace_id")
            .map(|id| OwnerWorkspace { id: id.into(), name: row.get("workspace_name") }),
        origin: ClientOrigin::parse(origin)
            .ok_or_else(|| Error::internal(format!("an application has the unknown origin {origin}")))?,
    };
    Ok(Some((client, secret_hash)))
}

pub(super) async fn set_secret(tx: &Tx, id: &OauthClientId, secret_hash: &[u8]) -> Result<()> {
    tx.execute("UPDATE oauth_clients SET secret_hash = $2 WHERE id = $1", &[&id.bare(), &secret_hash]).await?;
    Ok(())
}

const IS_UNUSED: &str =
    "origin = 'registration' AND NOT EXISTS (SELECT FROM integrations i WHERE i.client_id = oauth_clients.id)";

pub(super) async fn count_unused(session: &Session) -> Result<i64> {
    let count = format!("SELECT count(*) FROM oauth_clients WHERE {IS_UNUSED}");
    Ok(session.query_one(&count, &[]).await?.get(0))
}

pub(super) async fn forget_unused(session: &Session, before: Timestamp) -> Result<()> {
    session.execute(&format!("DELETE FROM oauth_clients WHERE {IS_UNUSED} AND created_at < $1"), &[&before]).await?;
    Ok(())
}
