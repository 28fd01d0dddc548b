//! The SQL of sessions.

use jiff::Timestamp;
use uuid::Uuid;

use super::{SignedIn, SignedInBrowser};
use crate::Origin;
use crate::users::User;
use base::error::Result;
use base::id::{SessionId, UserId};
use base::store::{Session, Tx};

#[expect(clippy::too_many_arguments, reason = "one for each column")]
pub(super) async fn insert(
    tx: &Tx,
    id: SessionId,
    user: UserId,
    token_hash: &[u8],
    now: Timestamp,
    expires_at: Timestamp,
    origin: &Origin,
    user_agent: Option<String>,
) -> Result<()> {
    let address = origin.address.map(|address| address.to_string());
    tx.execute(
        "INSERT INTO sessions (id, user_id, token_hash, created_at, last_used_at, expires_at, address, user_agent)
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7)",
        &[&id.uuid(), &user.uuid(), &token_hash, &now, &expires_at, &address, &user_agent],
    )
    .await?;
    Ok(())
}

pub(super) async fn find(
    session: &Session,
    token_hash: &[u8],
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Option<SignedIn>> {
    let statement = session
        .prepare_cached(
            "SELECT s.id, s.created_at, u.id AS user_id, u.email, u.display_name, u.is_administrator,
                    s.last_used_at < $2::timestamptz - interval '1 minute' AS use_is_stale
               FROM sessions s
               JOIN users u ON u.id = s.user_id
              WHERE s.token_hash = $1 AND s.expires_at > $2 AND s.last_used_at > $3 AND u.disabled_at IS NULL",
        )
        .await?;
    let row = session.query_opt(&statement, &[&token_hash, &now, &idle_since]).await?;
    Ok(row.map(|row| SignedIn {
        id: row.get::<_, Uuid>("id").into(),
        user: User {
            id: row.get::<_, Uuid>("user_id").into(),
            email: row.get("email"),
            display_name: row.get("display_name"),
            is_administrator: row.get("is_administrator"),
        },
        since: row.get("created_at"),
        use_is_stale: row.get("use_is_stale"),
    }))
}

pub(super) async fn record_use(session: &Session, id: SessionId, now: Timestamp) -> Result<()> {
    session.execute("UPDATE sessions SET last_used_at = $2 WHERE id = $1", &[&id.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn list(
    session: &Session,
    user: UserId,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Vec<SignedInBrowser>> {
    let rows = session
        .query(
            "SELECT id, created_at, last_used_at, address, user_agent
               FROM sessions
              WHERE user_id = $1 AND expires_at > $2 AND last_used_at > $3
              ORDER BY id DESC",
            &[&user.uuid(), &now, &idle_since],
        )
        .await?;
    let read = |row: &tokio_postgres::Row| SignedInBrowser {
        id: row.get::<_, Uuid>("id").into(),
        since: row.get("created_at"),
        last_used_at: row.get("last_used_at"),
        address: row.get("address"),
        user_agent: row.get("user_agent"),
    };
    Ok(rows.iter().map(read).collect())
}

pub(super) async fn end(session: &Session, user: UserId, id: SessionId) -> Result<bool> {
    let delete = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
    Ok(session.execute(delete, &[&id.uuid(), &user.uuid()]).await? == 1)
}

pub(super) async fn end_others(session: &Session, user: UserId, kept: Option<SessionId>) -> Result<()> {
    let delete = "DELETE FROM sessions WHERE user_id = $1 AND ($2::uuid IS NULL OR id <> $2)";
    session.execute(delete, &[&user.uuid(), &kept.map(|id| id.uuid())]).await?;
    Ok(())
}

pub(super) async fn forget_ended(session: &Session, now: Timestamp, idle_since: Timestamp) -> Result<()> {
    let delete = "DELETE FROM sessions WHERE expires_at <= $1 OR last_used_at <= $2";
    session.execute(delete, &[&now, &idle_since]).await?;
    Ok(())
}
