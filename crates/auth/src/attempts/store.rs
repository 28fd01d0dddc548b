//! The SQL of attempts. Times are the store's.

use super::Limit;
use base::error::Result;
use base::store::{Session, Tx};

/// Counts one more, if there is one to take; otherwise in how many whole seconds there is. A counter is
/// the moment at which nothing will be missing: each attempt moves it by a period, and it may be as far
/// ahead as the whole burst (the generic cell rate algorithm of ITU-T I.371). Others wait at the row
/// until this transaction ends.
pub(super) async fn take(tx: &Tx, counter: &[u8], limit: Limit) -> Result<Option<u64>> {
    let (period, burst) = (limit.period.as_secs_f64(), f64::from(limit.burst));
    let statement = tx
        .prepare_cached(
            "INSERT INTO sign_in_attempts AS a (counter, full_at)
             VALUES ($1, clock_timestamp() + make_interval(secs => $2::float8))
             ON CONFLICT (counter) DO UPDATE
                SET full_at = greatest(a.full_at, clock_timestamp()) + make_interval(secs => $2::float8)
              WHERE a.full_at <= clock_timestamp() + make_interval(secs => $2::float8 * ($3::float8 - 1))",
        )
        .await?;
    if tx.execute(&statement, &[&counter, &period, &burst]).await? == 1 {
        return Ok(None);
    }
    let statement = tx
        .prepare_cached(
            "SELECT ceil(extract(epoch FROM full_at - clock_timestamp()) - $2::float8 * ($3::float8 - 1))::bigint
               FROM sign_in_attempts
              WHERE counter = $1",
        )
        .await?;
    let row = tx.query_opt(&statement, &[&counter, &period, &burst]).await?;
    // At least one second, so that who waits as long as that does not come too early.
    Ok(Some(row.map_or(1, |row| row.get::<_, i64>(0).max(1).unsigned_abs())))
}

pub(super) async fn give_back(session: &Session, counter: &[u8], limit: Limit) -> Result<()> {
    let statement = session
        .prepare_cached(
            "UPDATE sign_in_attempts SET full_at = full_at - make_interval(secs => $2::float8) WHERE counter = $1",
        )
        .await?;
    session.execute(&statement, &[&counter, &limit.period.as_secs_f64()]).await?;
    Ok(())
}

pub(super) async fn is_known(session: &Session, place: &[u8]) -> Result<bool> {
    let statement = session
        .prepare_cached("SELECT EXISTS (SELECT FROM sign_in_places WHERE place = $1 AND expires_at > now())")
        .await?;
    Ok(session.query_one(&statement, &[&place]).await?.get(0))
}

pub(super) async fn remember(session: &Session, place: &[u8]) -> Result<()> {
    let statement = session
        .prepare_cached(
            "INSERT INTO sign_in_places (place, expires_at)
             VALUES ($1, now() + interval '30 days')
             ON CONFLICT (place) DO UPDATE SET expires_at = excluded.expires_at",
        )
        .await?;
    session.execute(&statement, &[&place]).await?;
    Ok(())
}

pub(super) async fn forget_expired(session: &Session) -> Result<()> {
    session.execute("DELETE FROM sign_in_attempts WHERE full_at < now()", &[]).await?;
    session.execute("DELETE FROM sign_in_places WHERE expires_at < now()", &[]).await?;
    Ok(())
}
