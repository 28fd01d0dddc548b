//! The SQL of links that set passwords.

use jiff::Timestamp;
use uuid::Uuid;

use crate::users::User;
use base::error::Result;
use base::id::{AccountLinkId, UserId};
use base::store::{Session, Tx};

pub(super) async fn remove_set_up(tx: &Tx) -> Result<()> {
    tx.execute("DELETE FROM account_links WHERE purpose = 'set_up'", &[]).await?;
    Ok(())
}

pub(super) async fn remove_resets(tx: &Tx, user: UserId) -> Result<()> {
    tx.execute("DELETE FROM account_links WHERE purpose = 'reset_password' AND user_id = $1", &[&user.uuid()]).await?;
    Ok(())
}

pub(super) async fn insert(
    tx: &Tx,
    id: AccountLinkId,
    purpose: &str,
    user: Option<UserId>,
    token_hash: &[u8],
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO account_links (id, purpose, user_id, token_hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[&id.uuid(), &purpose, &user.map(|id| id.uuid()), &token_hash, &now, &expires_at],
    )
    .await?;
    Ok(())
}

pub(super) async fn is_set_up(session: &Session, now: Timestamp, token_hash: &[u8]) -> Result<bool> {
    let select = "SELECT FROM account_links WHERE purpose = 'set_up' AND token_hash = $1 AND expires_at > $2";
    Ok(session.query_opt(select, &[&token_hash, &now]).await?.is_some())
}

pub(super) async fn take_set_up(tx: &Tx, now: Timestamp, token_hash: &[u8]) -> Result<bool> {
    let delete = "DELETE FROM account_links WHERE purpose = 'set_up' AND token_hash = $1 AND expires_at > $2";
    Ok(tx.execute(delete, &[&token_hash, &now]).await? == 1)
}

pub(super) async fn find_reset(session: &Session, now: Timestamp, token_hash: &[u8]) -> Result<Option<User>> {
    let row = session
        .query_opt(
            "SELECT u.id, u.email, u.display_name, u.is_administrator
               FROM account_links l
               JOIN users u ON u.id = l.user_id
              WHERE l.purpose = 'reset_password' AND l.token_hash = $1 AND l.expires_at > $2
                AND u.disabled_at IS NULL",
            &[&token_hash, &now],
        )
        .await?;
    Ok(row.map(|row| User {
        id: row.get::<_, Uuid>("id").into(),
        email: row.get("email"),
        display_name: row.get("display_name"),
        is_administrator: row.get("is_administrator"),
    }))
}

pub(super) async fn take_reset(tx: &Tx, now: Timestamp, token_hash: &[u8]) -> Result<Option<UserId>> {
    let row = tx
        .query_opt(
            "DELETE FROM account_links
              WHERE purpose = 'reset_password' AND token_hash = $1 AND expires_at > $2
          RETURNING user_id",
            &[&token_hash, &now],
        )
        .await?;
    Ok(row.map(|row| row.get::<_, Uuid>("user_id").into()))
}

pub(super) async fn forget_expired(session: &Session, now: Timestamp) -> Result<()> {
    session.execute("DELETE FROM account_links WHERE expires_at <= $1", &[&now]).await?;
    Ok(())
}
