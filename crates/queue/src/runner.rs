//! The worker's loop: claim, run steps, retry with back-off, give up with a reason.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use super::{Job, Lane, Reason, State, StepError, store};
use base::error::{Result, describe};
use base::id::WorkflowId;
use base::store::{Announcement, Channel, Store, Tx, in_background};
use base::tasks::Tasks;

/// A third of the lease: one failed renewal does not lose it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often to look for work without a notification. A lost NOTIFY delays work by at most this.
const POLL: Duration = Duration::from_secs(5);
/// How long a running step may take to end by itself at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// Runs the steps of workflows. The product has one implementation, the table of all workflows; tests have others.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs one step: does its one thing, then writes the result and the next step with
    /// [`Job::advance`] or an end in one transaction.
    async fn run(&self, job: &Job, kind: &str, step: &str) -> Result<(), StepError>;

    /// Whether a workflow of this kind fails when a step is past its deadline.
    fn may_give_up(&self, kind: &str) -> bool;

    /// The longest back-off of this kind, if it differs from the default.
    fn longest_back_off(&self, _kind: &str) -> Option<Duration> {
        None
    }

    /// Records the failure on the workflow's subject, in the transaction that ends the workflow.
    async fn failed(&self, tx: &Tx, job: &Job, kind: &str, reason: &Reason) -> Result<()>;
}

/// A fault that tests inject at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The worker fails before the step does anything.
    Before,
    /// The step acts, but its result is not written.
    BeforeWrite,
    /// The worker fails after the step's result was written.
    After,
    /// The step runs twice, to the end.
    Repeat,
}

/// Which faults to inject: decides by kind, step and how many times that step was begun.
pub type Faults = Arc<dyn Fn(&str, &str) -> Option<Fault> + Send + Sync>;

/// Runs workflows.
#[derive(Clone)]
pub struct Runner {
    store: Store,
    handler: Arc<dyn Handler>,
    tasks: Tasks,
    faults: Option<Faults>,
}

impl Runner {
    /// A runner of all workflows in `store`.
    pub fn new(store: Store, handler: Arc<dyn Handler>, tasks: Tasks) -> Self {
        Self { store, handler, tasks, faults: None }
    }

    /// A runner that injects faults.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Claims and runs workflows of a lane, at most `concurrency` at a time, until the tasks stop.
    pub async fn serve(&self, lane: Lane, concurrency: usize) {
        let slots = Arc::new(Semaphore::new(concurrency));
        let mut announcements = self.store.announcements();
        while !self.tasks.is_stopping() {
            let slot = tokio::select! {
                slot = slots.clone().acquire_owned() => slot,
                () = self.tasks.stopping() => return,
            };
            let Ok(slot) = slot else { return };
            match store::claim(&self.store, None, lane).await {
                Ok(Some(job)) => {
                    let runner = self.clone();
                    self.tasks.spawn(async move {
                        in_background(runner.work(job)).await;
                        drop(slot);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = %describe(&error), "could not claim a workflow; retrying"),
            }
            drop(slot);
            let pause = self.pause().await;
            let announced = async {
                while let Ok(Announcement::Of(channel, _)) = announcements.recv().await {
                    if channel == Channel::WorkflowStarted {
                        return;
                    }
                }
            };
            tokio::select! {
                () = announced => {}
                () = tokio::time::sleep(pause) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    /// How long to wait before the next claim, unless a notification arrives.
    pub async fn pause(&self) -> Duration {
        store::next_due(&self.store).await.ok().flatten().unwrap_or(POLL).min(POLL)
    }

    /// Runs one workflow until it ends, ignoring back-off. For tests.
    pub async fn drive(&self, id: WorkflowId) -> Result<Option<State>> {
        loop {
            let session = self.store.session().await?;
            match store::state(&session, id).await? {
                Some(state) if !state.has_ended() => {}
                ended => return Ok(ended),
            }
            session.execute("UPDATE workflows SET run_after = now() WHERE id = $1", &[&id.uuid()]).await?;
            drop(session);
            if let Some(job) = store::claim(&self.store, Some(id), Lane::Any).await? {
                self.work(job).await;
            }
        }
    }

    /// Removes workflows that ended long ago.
    pub async fn forget(&self) -> Result<()> {
        store::forget(&self.store).await
    }

    /// Runs the job's steps one after the other, as long as its lease holds.
    async fn work(&self, mut job: Job) {
        loop {
            let repeat = match self.run_step(&mut job).await {
                Ok(repeat) => repeat,
                Err(StepError::Fail(reason)) => return self.give_up(&job, &reason).await,
                Err(_) if self.tasks.is_stopping() => return self.release(&job, Duration::ZERO, None).await,
                Err(StepError::Retry(reason)) if job.overdue && self.handler.may_give_up(&job.kind) => {
                    let cause = format!("the step did not succeed within 15 minutes: {reason}");
                    return self.give_up(&job, &Reason::new(cause, reason.explanation().to_owned())).await;
                }
                Err(error) => {
                    tracing::warn!(
                        workflow.id = %job.id, workflow.kind = job.kind, workflow.step = job.step,
                        attempts = job.attempts + 1, reason = %error, "workflow step failed; retrying"
                    );
                    let longest = self.handler.longest_back_off(&job.kind).unwrap_or(LONGEST_BACK_OFF);
                    return self.release(&job, back_off(job.attempts, longest), Some(&error)).await;
                }
            };
            if repeat && let Err(error) = store::rewind(&self.store, &job).await {
                tracing::warn!(error = %describe(&error), "could not rewind a workflow");
            }
            match store::current_step(&self.store, &job).await {
                Ok(Some(step)) if self.tasks.is_stopping() => {
                    job.step = step;
                    return self.release(&job, Duration::ZERO, None).await;
                }
                Ok(Some(step)) => {
                    job.step = step;
                    job.attempts = 0;
                    job.overdue = false;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(workflow.id = %job.id, error = %describe(&error), "could not continue a workflow");
                    return;
                }
            }
        }
    }

    /// Runs the current step while renewing the lease. True when the test helper wants it repeated.
    async fn run_step(&self, job: &mut Job) -> Result<bool, StepError> {
        job.fault = self.faults.as_ref().and_then(|faults| faults(&job.kind, &job.step));
        if job.fault == Some(Fault::Before) {
            return Err(StepError::Retry("injected: before the step".into()));
        }
        let job = &*job;
        let heartbeat = async {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                match store::renew(&self.store, job).await {
                    Ok(true) => {}
                    Ok(false) => return StepError::Retry("the lease was lost to another worker".into()),
                    Err(error) => {
                        tracing::warn!(workflow.id = %job.id, error = %describe(&error), "could not renew the lease of a workflow");
                    }
                }
            }
        };
        let running = AssertUnwindSafe(self.handler.run(job, &job.kind, &job.step)).catch_unwind();
        tokio::select! {
            done = running => done.unwrap_or_else(|_| Err(StepError::Retry("the step panicked".into())))?,
            lost = heartbeat => return Err(lost),
            () = self.out_of_time() => return Err(StepError::Retry("Howdah is shutting down".into())),
        }
        match job.fault {
            Some(Fault::After) => Err(StepError::Retry("injected: after the step".into())),
            Some(Fault::Repeat) => Ok(true),
            Some(Fault::Before | Fault::BeforeWrite) | None => Ok(false),
        }
    }

    /// Returns when shutdown has begun and the grace period of running steps is over.
    async fn out_of_time(&self) {
        self.tasks.stopping().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    }

    async fn release(&self, job: &Job, delay: Duration, why: Option<&StepError>) {
        if let Err(error) = store::release(&self.store, job, delay, why).await {
            // Not released: the lease expires instead.
            tracing::warn!(workflow.id = %job.id, error = %describe(&error), "could not release a workflow");
        }
    }

    /// Ends the workflow and records the failure on its subject in one transaction: a worker that lost its lease must
    /// not fail a workflow that another worker is finishing.
    async fn give_up(&self, job: &Job, reason: &Reason) {
        let ended = async {
            let tx = self.store.begin().await?;
            // The subject's row first, as in every step that writes its result.
            self.handler.failed(&tx, job, &job.kind, reason).await?;
            store::end(&tx, job, State::Failed, Some(reason)).await?;
            tx.commit().await
        };
        match ended.await {
            Ok(()) => tracing::error!(
                workflow.id = %job.id, workflow.kind = job.kind, workflow.step = job.step, %reason,
                "workflow failed"
            ),
            Err(error) => {
                tracing::warn!(workflow.id = %job.id, error = %describe(&error), "could not mark a workflow as failed");
            }
        }
    }
}

/// 0.2 s, doubled with each attempt, up to the longest.
fn back_off(attempts: i32, longest: Duration) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << attempts.clamp(0, 16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_and_has_an_end() {
        let back_off = |attempts| back_off(attempts, LONGEST_BACK_OFF);
        assert_eq!(back_off(0), Duration::from_millis(200));
        assert_eq!(back_off(3), Duration::from_millis(1600));
        assert_eq!(back_off(9), LONGEST_BACK_OFF);
        assert_eq!(back_off(i32::MAX), LONGEST_BACK_OFF);
        assert_eq!(super::back_off(i32::MAX, Duration::from_secs(300)), Duration::from_secs(300));
    }
}
