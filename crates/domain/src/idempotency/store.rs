//! The SQL of idempotency keys. Times are the store's.

use uuid::Uuid;

use super::IdempotencyKey;
use base::error::Result;
use base::store::{Session, Tx};

pub(super) struct Found {
    pub(super) id: Uuid,
    pub(super) request_hash: Vec<u8>,
    pub(super) answer: Option<Vec<u8>>,
    pub(super) settled: bool,
}

/// The process that has the claim `k` is gone: none of its sessions is left (`Store::open` names them).
const HOLDER_IS_GONE: &str = "k.holder IS NOT NULL
                              AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = k.holder)";

/// The row's id when the claim is granted: the key is new, or its 24 hours are over, or whoever had
/// the claim died or lost it before the change was made.
pub(super) async fn claim(
    session: &Session,
    principal: Uuid,
    key: &IdempotencyKey,
    request_hash: &[u8],
    fence: Uuid,
) -> Result<Option<Uuid>> {
    let statement = session
        .prepare_cached(&format!(
            "INSERT INTO idempotency_keys AS k
                    (id, principal_id, key, request_hash, claim, claimed_until, expires_at, holder)
             VALUES ($4, $1, $2, $3, $4, now() + interval '1 minute', now() + interval '24 hours',
                     current_setting('application_name'))
             ON CONFLICT (principal_id, key) DO UPDATE
                SET request_hash = excluded.request_hash,
                    claim = excluded.claim,
                    claimed_until = excluded.claimed_until,
                    answer = NULL,
                    settled = false,
                    expires_at = excluded.expires_at,
                    holder = excluded.holder
              WHERE k.expires_at < now()
                 OR k.answer IS NULL
                    AND k.request_hash = excluded.request_hash
                    AND (k.claimed_until < now() OR {HOLDER_IS_GONE})
          RETURNING id"
        ))
        .await?;
    let row = session.query_opt(&statement, &[&principal, &key.as_str(), &request_hash, &fence]).await?;
    Ok(row.map(|row| row.get("id")))
}

pub(super) async fn find(session: &Session, principal: Uuid, key: &IdempotencyKey) -> Result<Option<Found>> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT id, request_hash, answer, settled OR claimed_until < now() OR {HOLDER_IS_GONE} AS settled
               FROM idempotency_keys k
              WHERE principal_id = $1 AND key = $2"
        ))
        .await?;
    let row = session.query_opt(&statement, &[&principal, &key.as_str()]).await?;
    Ok(row.map(|row| Found {
        id: row.get("id"),
        request_hash: row.get("request_hash"),
        answer: row.get("answer"),
        settled: row.get("settled"),
    }))
}

/// False when somebody else has the claim.
pub(super) async fn keep(tx: &Tx, id: Uuid, fence: Uuid, sealed: &[u8], settled: bool) -> Result<bool> {
    let statement =
        tx.prepare_cached("UPDATE idempotency_keys SET answer = $3, settled = $4 WHERE id = $1 AND claim = $2").await?;
    Ok(tx.execute(&statement, &[&id, &fence, &sealed, &settled]).await? == 1)
}

/// Waits for a transaction of the same request that is about to commit an answer, and settles that.
pub(super) async fn release(tx: &Tx, id: Uuid, fence: Uuid) -> Result<()> {
    let statement =
        tx.prepare_cached("DELETE FROM idempotency_keys WHERE id = $1 AND claim = $2 AND answer IS NULL").await?;
    if tx.execute(&statement, &[&id, &fence]).await? == 0 {
        let statement = tx
            .prepare_cached("UPDATE idempotency_keys SET settled = true WHERE id = $1 AND claim = $2 AND NOT settled")
            .await?;
        tx.execute(&statement, &[&id, &fence]).await?;
    }
    Ok(())
}

pub(super) async fn forget_expired(session: &Session) -> Result<()> {
    session.execute("DELETE FROM idempotency_keys WHERE expires_at < now()", &[]).await?;
    Ok(())
}
