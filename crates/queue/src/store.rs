//! The queue's SQL.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{Job, Kind, Lane, Reason, State, StepError};
use base::error::{Error, Result};
use base::id::WorkflowId;
use base::store::{Channel, Session, Store, Tx};

pub(super) async fn insert(tx: &Tx, id: WorkflowId, kind: &str, subject: Uuid, step: &str) -> Result<()> {
    let statement = tx
        .prepare_cached("INSERT INTO workflows (id, kind, subject, step, state) VALUES ($1, $2, $3, $4, 'waiting')")
        .await?;
    tx.execute(&statement, &[&id.uuid(), &kind, &subject, &step]).await?;
    Ok(())
}

pub(super) async fn hurry(tx: &Tx, subject: Uuid) -> Result<()> {
    let statement =
        tx.prepare_cached("UPDATE workflows SET run_after = now() WHERE subject = $1 AND state = 'waiting'").await?;
    tx.execute(&statement, &[&subject]).await?;
    Ok(())
}

/// The lease of a claim without renewal. After a crash, work continues after this time.
const LEASE: Duration = Duration::from_secs(15);

/// No worker has claimed a workflow on the subject of the workflow `c`.
const UNBLOCKED: &str = "NOT EXISTS (SELECT
                                       FROM workflows o
                                      WHERE o.subject = c.subject
                                        AND o.id <> c.id
                                        AND o.state = 'running')";

/// Claims the oldest due workflow whose subject has no other claimed workflow.
pub(super) async fn claim(store: &Store, only: Option<WorkflowId>, lane: Lane) -> Result<Option<Job>> {
    let tx = store.begin().await?;
    // A claim that is lost in a crash is made again, so the commit does not wait for the disk.
    tx.batch_execute("SET LOCAL synchronous_commit = off").await?;
    let statement = tx
        .prepare_cached(&format!(
            "UPDATE workflows w
                SET state = 'running',
                    fence = w.fence + 1,
                    lease_expires_at = now() + make_interval(secs => $1),
                    step_deadline = coalesce(w.step_deadline, now() + interval '15 minutes'),
                    updated_at = now()
               FROM (SELECT id
                       FROM workflows c
                      WHERE ($2::uuid IS NULL OR c.id = $2)
                        AND ($3::text[] IS NULL OR c.kind = ANY ($3))
                        AND ($4::text[] IS NULL OR c.kind <> ALL ($4))
                        AND (c.state = 'waiting' AND c.run_after <= now()
                             OR c.state = 'running' AND c.lease_expires_at < now())
                        AND {UNBLOCKED}
                      ORDER BY run_after, id
                      LIMIT 1
                        FOR UPDATE SKIP LOCKED) due
              WHERE w.id = due.id
          RETURNING w.id, w.kind, w.subject, w.step, w.fence, w.attempts, w.step_deadline < now() AS overdue"
        ))
        .await?;
    let only = only.map(|id| id.uuid());
    let (among, but) = match lane {
        Lane::Any => (None, None),
        Lane::Only(kinds) => (Some(kinds), None),
        Lane::AllBut(groups) => (None, Some(groups.concat())),
    };
    let row = match tx.query_opt(&statement, &[&LEASE.as_secs_f64(), &only, &among, &but]).await {
        Ok(row) => row,
        // Another worker claimed a workflow of the same subject at the same instant.
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    tx.commit().await?;
    Ok(row.map(|row| Job {
        id: WorkflowId::from(row.get::<_, Uuid>("id")),
        subject: row.get("subject"),
        kind: row.get("kind"),
        step: row.get("step"),
        fence: row.get("fence"),
        attempts: row.get("attempts"),
        overdue: row.get("overdue"),
        fault: None,
    }))
}

/// Renews the lease. Returns false if it was lost.
pub(super) async fn renew(store: &Store, job: &Job) -> Result<bool> {
    let session = store.session().await?;
    let statement = session
        .prepare_cached(
            "UPDATE workflows SET lease_expires_at = now() + make_interval(secs => $3)
              WHERE id = $1 AND fence = $2 AND state = 'running'",
        )
        .await?;
    Ok(session.execute(&statement, &[&job.id.uuid(), &job.fence, &LEASE.as_secs_f64()]).await? == 1)
}

pub(super) async fn report(store: &Store, job: &Job, done: u64, total: u64) -> Result<()> {
    let session = store.session().await?;
    let statement = session
        .prepare_cached(
            "UPDATE workflows SET progress_done = $3, progress_total = $4
              WHERE id = $1 AND fence = $2 AND state = 'running'",
        )
        .await?;
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    session.execute(&statement, &[&job.id.uuid(), &job.fence, &bytes(done), &bytes(total)]).await?;
    Ok(())
}

/// Advances to the next step, which begins with a full lease.
pub(super) async fn advance(tx: &Tx, job: &Job, step: &str) -> Result<()> {
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET step = $3,
                    attempts = 0,
                    reason = NULL,
                    explanation = NULL,
                    progress_done = NULL,
                    progress_total = NULL,
                    step_deadline = NULL,
                    lease_expires_at = now() + make_interval(secs => $4),
                    updated_at = now()
              WHERE id = $1 AND fence = $2 AND state = 'running'",
        )
        .await?;
    held(tx.execute(&statement, &[&job.id.uuid(), &job.fence, &step, &LEASE.as_secs_f64()]).await?)
}

pub(super) async fn end(tx: &Tx, job: &Job, state: State, reason: Option<&Reason>) -> Result<()> {
    if !state.has_ended() {
        return Err(Error::internal("a workflow cannot end unfinished"));
    }
    let (cause, explanation) = (reason.map(ToString::to_string), reason.map(Reason::explanation));
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET state = $3,
                    reason = $4,
                    explanation = $5,
                    lease_expires_at = NULL,
                    ended_at = now(),
                    updated_at = now()
              WHERE id = $1 AND fence = $2 AND state = 'running'",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&job.id.uuid(), &job.fence, &state.as_str(), &cause, &explanation];
    held(tx.execute(&statement, &values).await?)?;
    tx.announce(Channel::WorkflowEnded, &job.id.bare()).await?;
    // Another workflow of the same subject may be waiting for the end of this one.
    tx.announce(Channel::WorkflowStarted, &job.id.bare()).await
}

fn held(rows: u64) -> Result<()> {
    match rows {
        1 => Ok(()),
        _ => Err(Error::internal("the workflow's lease was lost to another worker")),
    }
}

/// Releases the job: its step runs again after `delay`. Waiting time does not count towards the step's deadline.
pub(super) async fn release(store: &Store, job: &Job, delay: Duration, why: Option<&StepError>) -> Result<()> {
    let reason = why.map(ToString::to_string);
    let explanation = why.map(|why| why.reason().explanation());
    let waits = matches!(why, Some(StepError::Wait(_)));
    let session = store.session().await?;
    let statement = session
        .prepare_cached(
            "UPDATE workflows
                SET state = 'waiting',
                    attempts = attempts + CASE WHEN $4::text IS NULL THEN 0 ELSE 1 END,
                    reason = coalesce($4, reason),
                    explanation = coalesce($6, explanation),
                    run_after = now() + make_interval(secs => $3),
                    step_deadline = CASE WHEN NOT $5 THEN step_deadline END,
                    lease_expires_at = NULL,
                    updated_at = now()
              WHERE id = $1 AND fence = $2 AND state = 'running'",
        )
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&job.id.uuid(), &job.fence, &delay.as_secs_f64(), &reason, &waits, &explanation];
    session.execute(&statement, &values).await?;
    // Another workflow of the same subject, such as a delete, may run now.
    session.execute("SELECT pg_notify($1, '')", &[&Channel::WorkflowStarted.name()]).await?;
    Ok(())
}

/// Increments the fence, so that a running step loses its lease. Returns false if the workflow has ended.
pub(super) async fn cancel(tx: &Tx, id: WorkflowId, explanation: &str) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET state = 'cancelled',
                    explanation = $2,
                    fence = fence + 1,
                    lease_expires_at = NULL,
                    ended_at = now(),
                    updated_at = now()
              WHERE id = $1 AND state IN ('waiting', 'running')",
        )
        .await?;
    Ok(tx.execute(&statement, &[&id.uuid(), &explanation]).await? == 1)
}

/// Increments the fence, so that a running step loses its lease. The other step begins only after that lease has
/// expired, because its worker may still be running.
pub(super) async fn divert(tx: &Tx, id: WorkflowId, step: &str) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET step = $2,
                    fence = fence + 1,
                    attempts = 0,
                    reason = NULL,
                    explanation = NULL,
                    progress_done = NULL,
                    progress_total = NULL,
                    step_deadline = NULL,
                    run_after = now(),
                    updated_at = now()
              WHERE id = $1 AND state IN ('waiting', 'running')",
        )
        .await?;
    Ok(tx.execute(&statement, &[&id.uuid(), &step]).await? == 1)
}

/// Returns false if the workflow neither failed nor was cancelled.
pub(super) async fn restart(tx: &Tx, id: WorkflowId) -> Result<bool> {
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET state = 'waiting',
                    attempts = 0,
                    reason = NULL,
                    explanation = NULL,
                    step_deadline = NULL,
                    run_after = now(),
                    ended_at = NULL,
                    updated_at = now()
              WHERE id = $1 AND state IN ('failed', 'cancelled')",
        )
        .await?;
    Ok(tx.execute(&statement, &[&id.uuid()]).await? == 1)
}

/// Increments the fence, as [`cancel`] does.
pub(super) async fn begin_anew(tx: &Tx, kind: Kind, ended_badly: bool) -> Result<()> {
    let open = tx
        .prepare_cached(
            "UPDATE workflows
                SET step = $2,
                    state = 'waiting',
                    attempts = 0,
                    reason = NULL,
                    explanation = NULL,
                    progress_done = NULL,
                    progress_total = NULL,
                    fence = fence + 1,
                    step_deadline = NULL,
                    lease_expires_at = NULL,
                    run_after = now(),
                    updated_at = now()
              WHERE kind = $1 AND state IN ('waiting', 'running')",
        )
        .await?;
    tx.execute(&open, &[&kind.name, &kind.first_step]).await?;
    if ended_badly {
        let ended = tx
            .prepare_cached("UPDATE workflows SET step = $2 WHERE kind = $1 AND state IN ('failed', 'cancelled')")
            .await?;
        tx.execute(&ended, &[&kind.name, &kind.first_step]).await?;
    }
    Ok(())
}

pub(super) async fn end_others(tx: &Tx, kinds: &[Kind], explanation: &str) -> Result<()> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let statement = tx
        .prepare_cached(
            "UPDATE workflows
                SET state = 'failed',
                    reason = $2,
                    explanation = $2,
                    fence = fence + 1,
                    lease_expires_at = NULL,
                    ended_at = now(),
                    updated_at = now()
              WHERE kind <> ALL ($1) AND state IN ('waiting', 'running')",
        )
        .await?;
    tx.execute(&statement, &[&names, &explanation]).await?;
    Ok(())
}

/// The step that the workflow is at now, while this job's lease holds.
pub(super) async fn current_step(store: &Store, job: &Job) -> Result<Option<String>> {
    let session = store.session().await?;
    let statement =
        session.prepare_cached("SELECT step FROM workflows WHERE id = $1 AND fence = $2 AND state = 'running'").await?;
    let row = session.query_opt(&statement, &[&job.id.uuid(), &job.fence]).await?;
    Ok(row.map(|row| row.get("step")))
}

/// For the test helper: makes an ended or advanced workflow run `step` again.
pub(super) async fn rewind(store: &Store, job: &Job) -> Result<()> {
    let session = store.session().await?;
    session
        .execute(
            "UPDATE workflows SET step = $2, state = 'waiting', run_after = now(), ended_at = NULL WHERE id = $1",
            &[&job.id.uuid(), &job.step],
        )
        .await?;
    Ok(())
}

pub(super) async fn state(session: &Session, id: WorkflowId) -> Result<Option<State>> {
    let statement = session.prepare_cached("SELECT state FROM workflows WHERE id = $1").await?;
    let row = session.query_opt(&statement, &[&id.uuid()]).await?;
    row.map(|row| State::parse(row.get("state"))).transpose()
}

/// The time until a workflow can be claimed. Workflows that wait for another one of their subject are left out: its end
/// is announced.
pub(super) async fn next_due(store: &Store) -> Result<Option<Duration>> {
    let session = store.session().await?;
    let statement = session
        .prepare_cached(&format!(
            "SELECT extract(epoch FROM min(coalesce(c.lease_expires_at, c.run_after)) - now())::float8 AS seconds
               FROM workflows c
              WHERE c.state IN ('waiting', 'running') AND {UNBLOCKED}"
        ))
        .await?;
    let seconds: Option<f64> = session.query_one(&statement, &[]).await?.get("seconds");
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.05, 60.0))))
}

/// Removes workflows that ended long ago.
pub(super) async fn forget(store: &Store) -> Result<()> {
    let session = store.session().await?;
    session.execute("DELETE FROM workflows WHERE ended_at < now() - interval '30 days'", &[]).await?;
    Ok(())
}
