//! The SQL of grants and their tokens.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Authorization, Introspection, Subject};
use crate::oauth::Scopes;
use crate::users::User;
use crate::{Accepted, Credential, Limits, Principal, Role};
use base::error::{Error, Result};
use base::id::{GrantId, IntegrationId, OauthClientId};
use base::store::{Session, Tx};

pub(super) struct Code {
    pub(super) grant: GrantId,
    pub(super) client: OauthClientId,
    pub(super) scopes: Scopes,
    pub(super) redirect_uri: String,
    pub(super) code_challenge: Option<String>,
    pub(super) expires_at: Timestamp,
    pub(super) is_used: bool,
}

pub(super) struct Refresh {
    pub(super) grant: GrantId,
    pub(super) client: OauthClientId,
    pub(super) scopes: Scopes,
    pub(super) expires_at: Timestamp,
    pub(super) used_at: Option<Timestamp>,
}

pub(super) async fn insert_grant(
    tx: &Tx,
    id: GrantId,
    integration: IntegrationId,
    scopes: Scopes,
    now: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO oauth_grants (id, integration_id, scopes, created_at) VALUES ($1, $2, $3, $4)",
        &[&id.uuid(), &integration.uuid(), &scopes.names(), &now],
    )
    .await?;
    Ok(())
}

pub(super) async fn insert_code(
    tx: &Tx,
    code_hash: &[u8],
    grant: GrantId,
    agreed: &Authorization,
    expires_at: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO oauth_codes (code_hash, grant_id, redirect_uri, code_challenge, expires_at)
         VALUES ($1, $2, $3, $4, $5)",
        &[&code_hash, &grant.uuid(), &agreed.redirect_uri, &agreed.code_challenge, &expires_at],
    )
    .await?;
    Ok(())
}

pub(super) async fn insert_refresh(
    tx: &Tx,
    token_hash: &[u8],
    grant: GrantId,
    scopes: Scopes,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO oauth_refresh_tokens (token_hash, grant_id, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5)",
        &[&token_hash, &grant.uuid(), &scopes.names(), &now, &expires_at],
    )
    .await?;
    Ok(())
}

pub(super) async fn insert_access(
    tx: &Tx,
    token_hash: &[u8],
    grant: GrantId,
    scopes: Scopes,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO oauth_access_tokens (token_hash, grant_id, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5)",
        &[&token_hash, &grant.uuid(), &scopes.names(), &now, &expires_at],
    )
    .await?;
    Ok(())
}

/// A code as it is once nobody else uses its grant.
pub(super) async fn lock_code(tx: &Tx, code_hash: &[u8]) -> Result<Option<Code>> {
    if !lock_grant(tx, "SELECT grant_id FROM oauth_codes WHERE code_hash = $1", code_hash).await? {
        return Ok(None);
    }
    let select = "SELECT o.grant_id, i.client_id, g.scopes, o.redirect_uri, o.code_challenge, o.expires_at,
                         o.used_at IS NOT NULL AS is_used
                    FROM oauth_codes o
                    JOIN oauth_grants g ON g.id = o.grant_id
                    JOIN integrations i ON i.id = g.integration_id
                   WHERE o.code_hash = $1";
    let row = tx.query_opt(select, &[&code_hash]).await?;
    row.map(|row| {
        Ok(Code {
            grant: row.get::<_, Uuid>("grant_id").into(),
            client: read_client(&row)?,
            scopes: read_scopes(&row)?,
            redirect_uri: row.get("redirect_uri"),
            code_challenge: row.get("code_challenge"),
            expires_at: row.get("expires_at"),
            is_used: row.get("is_used"),
        })
    })
    .transpose()
}

/// The same for a refresh token.
pub(super) async fn lock_refresh(tx: &Tx, token_hash: &[u8]) -> Result<Option<Refresh>> {
    if !lock_grant(tx, "SELECT grant_id FROM oauth_refresh_tokens WHERE token_hash = $1", token_hash).await? {
        return Ok(None);
    }
    let select = "SELECT r.grant_id, i.client_id, r.scopes, r.expires_at, r.used_at
                    FROM oauth_refresh_tokens r
                    JOIN oauth_grants g ON g.id = r.grant_id
                    JOIN integrations i ON i.id = g.integration_id
                   WHERE r.token_hash = $1";
    let row = tx.query_opt(select, &[&token_hash]).await?;
    row.map(|row| {
        Ok(Refresh {
            grant: row.get::<_, Uuid>("grant_id").into(),
            client: read_client(&row)?,
            scopes: read_scopes(&row)?,
            expires_at: row.get("expires_at"),
            used_at: row.get("used_at"),
        })
    })
    .transpose()
}

async fn lock_grant(tx: &Tx, select: &str, secret_hash: &[u8]) -> Result<bool> {
    let Some(row) = tx.query_opt(select, &[&secret_hash]).await? else { return Ok(false) };
    let grant: Uuid = row.get("grant_id");
    Ok(tx.query_opt("SELECT FROM oauth_grants WHERE id = $1 FOR UPDATE", &[&grant]).await?.is_some())
}

pub(super) async fn spend_code(tx: &Tx, code_hash: &[u8], now: Timestamp) -> Result<()> {
    tx.execute("UPDATE oauth_codes SET used_at = $2 WHERE code_hash = $1", &[&code_hash, &now]).await?;
    Ok(())
}

pub(super) async fn spend_refresh(tx: &Tx, token_hash: &[u8], now: Timestamp) -> Result<()> {
    tx.execute("UPDATE oauth_refresh_tokens SET used_at = $2 WHERE token_hash = $1", &[&token_hash, &now]).await?;
    Ok(())
}

/// Removes a grant, with its code and tokens.
pub(super) async fn end(tx: &Tx, grant: GrantId) -> Result<()> {
    tx.execute("DELETE FROM oauth_grants WHERE id = $1", &[&grant.uuid()]).await?;
    Ok(())
}

/// The application of a grant, as it acts for its user; `None` when they are in the workspace no more.
pub(super) async fn acting(tx: &Tx, grant: GrantId) -> Result<Option<Principal>> {
    let select = format!("SELECT {ACTING} FROM oauth_grants g {OF_GRANT} WHERE g.id = $1");
    let row = tx.query_opt(&select, &[&grant.uuid()]).await?;
    row.map(|row| read_acting(&row, Limits::default())).transpose()
}

/// For whom a grant is; `None` when they may not sign in or are in the workspace no more.
pub(super) async fn subject(session: &Session, grant: GrantId) -> Result<Option<Subject>> {
    let select = "SELECT i.workspace_id, u.id AS user_id, u.email
                    FROM oauth_grants g
                    JOIN integrations i ON i.id = g.integration_id
                    JOIN users u ON u.id = i.user_id AND u.disabled_at IS NULL
                    JOIN memberships m ON m.workspace_id = i.workspace_id AND m.user_id = i.user_id
                   WHERE g.id = $1";
    Ok(session.query_opt(select, &[&grant.uuid()]).await?.as_ref().map(read_subject))
}

pub(super) async fn find_valid(session: &Session, token_hash: &[u8], now: Timestamp) -> Result<Option<Accepted>> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT {ACTING},
                    a.scopes,
                    a.expires_at,
                    i.last_used_at IS NULL OR i.last_used_at < $2::timestamptz - interval '1 minute' AS use_is_stale
               FROM oauth_access_tokens a
               JOIN oauth_grants g ON g.id = a.grant_id {OF_GRANT}
              WHERE a.token_hash = $1 AND a.expires_at > $2 AND u.disabled_at IS NULL",
        ))
        .await?;
    let row = session.query_opt(&statement, &[&token_hash, &now]).await?;
    row.map(|row| {
        // What it grants lasts no longer than itself.
        let limits =
            Limits { read_only: !read_scopes(&row)?.admin, projects: None, expires_at: Some(row.get("expires_at")) };
        Ok(Accepted { principal: read_acting(&row, limits)?, use_is_stale: row.get("use_is_stale") })
    })
    .transpose()
}

/// Columns of an application that acts for a user.
const ACTING: &str = "i.id, i.workspace_id, c.name AS application, u.id AS user_id, u.email, u.display_name,
                      u.is_administrator, m.role";
/// Where they come from.
const OF_GRANT: &str = "JOIN integrations i ON i.id = g.integration_id
                        JOIN oauth_clients c ON c.id = i.client_id
                        JOIN users u ON u.id = i.user_id
                        JOIN memberships m ON m.workspace_id = i.workspace_id AND m.user_id = i.user_id";

fn read_acting(row: &Row, limits: Limits) -> Result<Principal> {
    let role: &str = row.get("role");
    let role = Role::parse(role).ok_or_else(|| Error::internal(format!("a membership has the unknown role {role}")))?;
    let user = User {
        id: row.get::<_, Uuid>("user_id").into(),
        email: row.get("email"),
        display_name: row.get("display_name"),
        is_administrator: row.get("is_administrator"),
    };
    let credential =
        Credential::Integration { id: row.get::<_, Uuid>("id").into(), application: row.get("application"), user };
    Ok(Principal::new(row.get::<_, Uuid>("workspace_id").into(), credential, role, limits))
}

pub(super) async fn record_use(session: &Session, integration: IntegrationId, now: Timestamp) -> Result<()> {
    let statement = session
        .prepare_cached(
            "WITH used AS (
                 UPDATE integrations
                    SET last_used_at = $2
                  WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')
              RETURNING client_id
             )
             UPDATE oauth_clients c
                SET last_used_at = $2
               FROM used
              WHERE c.id = used.client_id
                AND (c.last_used_at IS NULL OR c.last_used_at < $2::timestamptz - interval '1 minute')",
        )
        .await?;
    session.execute(&statement, &[&integration.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn owner_of_access(session: &Session, token_hash: &[u8]) -> Result<Option<OauthClientId>> {
    let select = "SELECT i.client_id
                    FROM oauth_access_tokens a
                    JOIN oauth_grants g ON g.id = a.grant_id
                    JOIN integrations i ON i.id = g.integration_id
                   WHERE a.token_hash = $1";
    session.query_opt(select, &[&token_hash]).await?.as_ref().map(read_client).transpose()
}

pub(super) async fn remove_access(tx: &Tx, token_hash: &[u8]) -> Result<()> {
    tx.execute("DELETE FROM oauth_access_tokens WHERE token_hash = $1", &[&token_hash]).await?;
    Ok(())
}

/// An access token that is good.
pub(super) async fn introspect_access(
    session: &Session,
    token_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Introspection>> {
    introspect(session, "oauth_access_tokens", "", token_hash, now)
        .await
        .map(|found| found.map(|found| Introspection { is_access: true, ..found }))
}

/// A refresh token that is good.
pub(super) async fn introspect_refresh(
    session: &Session,
    token_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Introspection>> {
    introspect(session, "oauth_refresh_tokens", "AND t.used_at IS NULL", token_hash, now).await
}

async fn introspect(
    session: &Session,
    table: &str,
    condition: &str,
    token_hash: &[u8],
    now: Timestamp,
) -> Result<Option<Introspection>> {
    let select = format!(
        "SELECT t.scopes, t.created_at, t.expires_at, i.client_id, i.workspace_id, u.id AS user_id, u.email
           FROM {table} t
           JOIN oauth_grants g ON g.id = t.grant_id
           JOIN integrations i ON i.id = g.integration_id
           JOIN users u ON u.id = i.user_id AND u.disabled_at IS NULL
           JOIN memberships m ON m.workspace_id = i.workspace_id AND m.user_id = i.user_id
          WHERE t.token_hash = $1 AND t.expires_at > $2 {condition}"
    );
    let row = session.query_opt(&select, &[&token_hash, &now]).await?;
    row.map(|row| {
        Ok(Introspection {
            scopes: read_scopes(&row)?,
            client: read_client(&row)?,
            subject: read_subject(&row),
            is_access: false,
            created_at: row.get("created_at"),
            expires_at: row.get("expires_at"),
        })
    })
    .transpose()
}

pub(super) async fn forget_expired(session: &Session, now: Timestamp, codes: Timestamp) -> Result<()> {
    session.execute("DELETE FROM oauth_access_tokens WHERE expires_at <= $1", &[&now]).await?;
    session.execute("DELETE FROM oauth_refresh_tokens WHERE expires_at <= $1", &[&now]).await?;
    session.execute("DELETE FROM oauth_codes WHERE expires_at <= $1", &[&codes]).await?;
    session
        .execute(
            "DELETE FROM oauth_grants g
              WHERE created_at <= $1
                AND NOT EXISTS (SELECT FROM oauth_codes t WHERE t.grant_id = g.id)
                AND NOT EXISTS (SELECT FROM oauth_refresh_tokens t WHERE t.grant_id = g.id)
                AND NOT EXISTS (SELECT FROM oauth_access_tokens t WHERE t.grant_id = g.id)",
            &[&codes],
        )
        .await?;
    Ok(())
}

fn read_client(row: &Row) -> Result<OauthClientId> {
    let id: &str = row.get("client_id");
    OauthClientId::parse(id).ok_or_else(|| Error::internal(format!("an application has the id {id}")))
}

fn read_scopes(row: &Row) -> Result<Scopes> {
    let names: Vec<&str> = row.get("scopes");
    Scopes::of(names).ok_or_else(|| Error::internal("a grant has an unknown scope"))
}

fn read_subject(row: &Row) -> Subject {
    Subject {
        user: row.get::<_, Uuid>("user_id").into(),
        email: row.get("email"),
        workspace: row.get::<_, Uuid>("workspace_id").into(),
    }
}
