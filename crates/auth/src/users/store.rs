//! The SQL of accounts.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Account, User};
use base::error::Result;
use base::id::UserId;
use base::page::PageRequest;
use base::store::{Session, Tx};

pub(super) struct Found {
    pub(super) user: User,
    pub(super) password_hash: Option<String>,
    pub(super) has_totp: bool,
    pub(super) is_disabled: bool,
}

pub(super) struct StoredTotp {
    pub(super) sealed: Vec<u8>,
    pub(super) is_confirmed: bool,
    pub(super) last_step: Option<i64>,
}

pub(super) async fn exist(session: &Session) -> Result<bool> {
    Ok(session.query_opt("SELECT FROM users LIMIT 1", &[]).await?.is_some())
}

/// False when the address has an account.
pub(super) async fn insert(tx: &Tx, user: &User, password_hash: Option<&str>, now: Timestamp) -> Result<bool> {
    let inserted = tx
        .execute(
            "INSERT INTO users (id, email, display_name, is_administrator, password_hash, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (lower(email)) DO NOTHING",
            &[&user.id.uuid(), &user.email, &user.display_name, &user.is_administrator, &password_hash, &now],
        )
        .await?;
    Ok(inserted == 1)
}

pub(super) async fn by_email(session: &Session, email: &str) -> Result<Option<Found>> {
    // Text that PostgreSQL cannot hold is nobody's address.
    let email = email.trim().replace('\0', "\u{fffd}");
    let row = session
        .query_opt(
            "SELECT id, email, display_name, is_administrator, password_hash,
                    totp_confirmed_at IS NOT NULL AS has_totp, disabled_at IS NOT NULL AS is_disabled
               FROM users
              WHERE lower(email) = lower($1)",
            &[&email],
        )
        .await?;
    Ok(row.map(|row| Found {
        user: read_user(&row),
        password_hash: row.get("password_hash"),
        has_totp: row.get("has_totp"),
        is_disabled: row.get("is_disabled"),
    }))
}

pub(super) async fn password_hash(session: &Session, user: UserId) -> Result<Option<String>> {
    let row = session.query_opt("SELECT password_hash FROM users WHERE id = $1", &[&user.uuid()]).await?;
    Ok(row.and_then(|row| row.get("password_hash")))
}

pub(super) async fn set_password(session: &Session, user: UserId, password_hash: &str) -> Result<()> {
    session.execute("UPDATE users SET password_hash = $2 WHERE id = $1", &[&user.uuid(), &password_hash]).await?;
    Ok(())
}

pub(super) async fn totp(session: &Session, user: UserId) -> Result<Option<StoredTotp>> {
    read_totp(session.query_opt(TOTP, &[&user.uuid()]).await?)
}

pub(super) async fn lock_totp(tx: &Tx, user: UserId) -> Result<Option<StoredTotp>> {
    read_totp(tx.query_opt(&format!("{TOTP} FOR UPDATE"), &[&user.uuid()]).await?)
}

const TOTP: &str = "SELECT totp_sealed, totp_confirmed_at IS NOT NULL AS is_confirmed, totp_last_step
   FROM users
  WHERE id = $1 AND totp_sealed IS NOT NULL";

fn read_totp(row: Option<Row>) -> Result<Option<StoredTotp>> {
    Ok(row.map(|row| StoredTotp {
        sealed: row.get("totp_sealed"),
        is_confirmed: row.get("is_confirmed"),
        last_step: row.get("totp_last_step"),
    }))
}

/// A secret that is not confirmed yet. One that is stays, and the answer is false.
pub(super) async fn set_totp(tx: &Tx, user: UserId, sealed: &[u8]) -> Result<bool> {
    let update = "UPDATE users SET totp_sealed = $2, totp_last_step = NULL WHERE id = $1 AND totp_confirmed_at IS NULL";
    Ok(tx.execute(update, &[&user.uuid(), &sealed]).await? == 1)
}

pub(super) async fn set_totp_step(tx: &Tx, user: UserId, step: i64) -> Result<()> {
    tx.execute("UPDATE users SET totp_last_step = $2 WHERE id = $1", &[&user.uuid(), &step]).await?;
    Ok(())
}

pub(super) async fn confirm_totp(tx: &Tx, user: UserId, now: Timestamp) -> Result<()> {
    tx.execute("UPDATE users SET totp_confirmed_at = $2 WHERE id = $1", &[&user.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn remove_totp(tx: &Tx, user: UserId) -> Result<()> {
    tx.execute(
        "UPDATE users SET totp_sealed = NULL, totp_confirmed_at = NULL, totp_last_step = NULL WHERE id = $1",
        &[&user.uuid()],
    )
    .await?;
    tx.execute("DELETE FROM recovery_codes WHERE user_id = $1", &[&user.uuid()]).await?;
    Ok(())
}

pub(super) async fn replace_recovery_codes(tx: &Tx, user: UserId, hashes: Vec<Vec<u8>>) -> Result<()> {
    tx.execute("DELETE FROM recovery_codes WHERE user_id = $1", &[&user.uuid()]).await?;
    tx.execute(
        "INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, hash FROM unnest($2::bytea[]) AS hash",
        &[&user.uuid(), &hashes],
    )
    .await?;
    Ok(())
}

pub(super) async fn use_recovery_code(tx: &Tx, user: UserId, code_hash: &[u8], now: Timestamp) -> Result<bool> {
    let used = tx
        .execute(
            "UPDATE recovery_codes SET used_at = $3 WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL",
            &[&user.uuid(), &code_hash, &now],
        )
        .await?;
    Ok(used == 1)
}

const ACCOUNT: &str = "SELECT id, email, display_name, is_administrator, created_at, disabled_at,
        password_hash IS NOT NULL AS has_password,
        EXISTS (SELECT FROM user_identities i WHERE i.user_id = u.id) AS is_vouched_for,
        totp_confirmed_at IS NOT NULL AS has_totp,
        (SELECT count(*) FROM recovery_codes c WHERE c.user_id = u.id AND c.used_at IS NULL) AS recovery_codes
   FROM users u";

pub(super) async fn get(session: &Session, user: UserId) -> Result<Option<Account>> {
    let row = session.query_opt(&format!("{ACCOUNT} WHERE id = $1"), &[&user.uuid()]).await?;
    Ok(row.as_ref().map(read_account))
}

pub(super) async fn list(session: &Session, page: PageRequest<UserId>) -> Result<Vec<Account>> {
    let after = page.after.map(|id| id.uuid());
    let rows = session
        .query(
            &format!("{ACCOUNT} WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2"),
            &[&after, &(i64::from(page.limit) + 1)],
        )
        .await?;
    Ok(rows.iter().map(read_account).collect())
}

pub(super) async fn rename(session: &Session, user: UserId, name: &str) -> Result<()> {
    session.execute("UPDATE users SET display_name = $2 WHERE id = $1", &[&user.uuid(), &name]).await?;
    Ok(())
}

pub(super) async fn set_disabled(tx: &Tx, user: UserId, since: Option<Timestamp>) -> Result<()> {
    tx.execute("UPDATE users SET disabled_at = $2 WHERE id = $1", &[&user.uuid(), &since]).await?;
    Ok(())
}

pub(super) async fn set_administrator(tx: &Tx, user: UserId, is_administrator: bool) -> Result<()> {
    tx.execute("UPDATE users SET is_administrator = $2 WHERE id = $1", &[&user.uuid(), &is_administrator]).await?;
    Ok(())
}

/// The locks order those who would each leave the other as the last one.
pub(super) async fn has_another_administrator(tx: &Tx, user: UserId) -> Result<bool> {
    let rows = tx
        .query("SELECT id FROM users WHERE is_administrator AND disabled_at IS NULL ORDER BY id FOR NO KEY UPDATE", &[])
        .await?;
    Ok(rows.iter().any(|row| row.get::<_, Uuid>("id") != user.uuid()))
}

pub(super) async fn by_identity(session: &Session, issuer: &str, subject: &str) -> Result<Option<UserId>> {
    let select = "SELECT user_id FROM user_identities WHERE issuer = $1 AND subject = $2";
    let row = session.query_opt(select, &[&issuer, &subject]).await?;
    Ok(row.map(|row| row.get::<_, Uuid>("user_id").into()))
}

/// Locks the user's row, so that two who come at once do not both find that there is none.
pub(super) async fn has_identity(tx: &Tx, issuer: &str, user: UserId) -> Result<bool> {
    tx.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", &[&user.uuid()]).await?;
    let select = "SELECT FROM user_identities WHERE issuer = $1 AND user_id = $2";
    Ok(tx.query_opt(select, &[&issuer, &user.uuid()]).await?.is_some())
}

pub(super) async fn remove_identities(tx: &Tx, user: UserId) -> Result<()> {
    tx.execute("DELETE FROM user_identities WHERE user_id = $1", &[&user.uuid()]).await?;
    Ok(())
}

pub(super) async fn add_identity(tx: &Tx, issuer: &str, subject: &str, user: UserId, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO user_identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)",
        &[&issuer, &subject, &user.uuid(), &now],
    )
    .await?;
    Ok(())
}

fn read_user(row: &Row) -> User {
    User {
        id: row.get::<_, Uuid>("id").into(),
        email: row.get("email"),
        display_name: row.get("display_name"),
        is_administrator: row.get("is_administrator"),
    }
}

fn read_account(row: &Row) -> Account {
    Account {
        user: read_user(row),
        created_at: row.get("created_at"),
        has_password: row.get("has_password"),
        is_vouched_for: row.get("is_vouched_for"),
        has_totp: row.get("has_totp"),
        recovery_codes: row.get("recovery_codes"),
        disabled_at: row.get("disabled_at"),
    }
}
