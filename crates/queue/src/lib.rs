//! Durable work. A workflow is an enum of steps; a step does one idempotent thing, decided from
//! rows that it reads now, and then writes its result and the next step in one transaction.
//!
//! A workflow is claimed with a lease that is renewed while a step runs; when its worker dies the
//! lease runs out and the step runs again elsewhere. Leases compare the store's clock only.
//! Only one workflow per subject runs at a time. There is no undo: a workflow goes forward, or is destroyed from any
//! step. This module knows no resources of the API.

mod runner;
mod store;

use std::borrow::Cow;
use std::time::Duration;

pub use runner::{Fault, Faults, Handler, Runner};

use base::error::{Error, Result};
use base::id::WorkflowId;
use base::store::{Announcement, Channel, Store, Tx};
use uuid::Uuid;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The step may succeed later: retry with back-off until the step's deadline.
    #[error("{0}")]
    Retry(Reason),
    /// The step needs something that the operator has to provide, such as disk space: retry with back-off, without a
    /// deadline.
    #[error("{0}")]
    Wait(Reason),
    /// The step can never succeed. The workflow fails with this reason.
    #[error("{0}")]
    Fail(Reason),
}

/// A reason with two texts: the cause for the operator's log, and the explanation for the owner of the workflow's
/// subject, a tenant who must not learn about the server.
#[derive(Clone, Debug)]
pub struct Reason {
    cause: String,
    explanation: Cow<'static, str>,
}

impl Reason {
    /// A reason with a cause for the operator and an explanation for the owner.
    pub fn new(cause: impl Into<String>, explanation: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: cause.into(), explanation: explanation.into() }
    }

    /// The explanation for the owner.
    pub fn explanation(&self) -> &str {
        &self.explanation
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

impl<Cause: Into<String>> From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        Self::new(cause, "an internal error occurred; details are in the server's log under the ID of this operation")
    }
}

impl StepError {
    fn reason(&self) -> &Reason {
        match self {
            Self::Retry(reason) | Self::Wait(reason) | Self::Fail(reason) => reason,
        }
    }
}

impl From<Error> for StepError {
    /// Unknown errors are retried: only a proven dead end fails the workflow.
    fn from(error: Error) -> Self {
        Self::Retry(base::error::describe(&error).into())
    }
}

/// The state of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for a worker, or for the next attempt.
    Waiting,
    /// A worker holds its lease.
    Running,
    /// All steps succeeded.
    Succeeded,
    /// The workflow failed, for the recorded reason.
    Failed,
    /// Another workflow of the same subject made it pointless.
    Superseded,
    /// The workflow was cancelled.
    Cancelled,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Succeeded, Self::Failed, Self::Superseded, Self::Cancelled];

    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses the name in the store.
    ///
    /// # Errors
    /// [`Error::Internal`] for any other word.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::internal(format!("a workflow has the unknown state {text}")))
    }

    /// Whether the workflow has ended.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Superseded | Self::Cancelled => true,
        }
    }
}

/// A claimed workflow, in a worker's hands.
#[derive(Debug)]
pub struct Job {
    /// The workflow's ID.
    pub id: WorkflowId,
    /// The ID of the resource that the workflow works on.
    pub subject: Uuid,
    kind: String,
    step: String,
    fence: i64,
    attempts: i32,
    overdue: bool,
    fault: Option<Fault>,
}

impl Job {
    /// The current step.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Writes the next step. Part of the step's own transaction.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn advance(&self, tx: &Tx, step: &str) -> Result<()> {
        self.fail_on_purpose()?;
        store::advance(tx, self, step).await
    }

    /// Marks the workflow as succeeded. Part of the last step's own transaction.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn succeed(&self, tx: &Tx) -> Result<()> {
        self.fail_on_purpose()?;
        store::end(tx, self, State::Succeeded, None).await
    }

    /// Marks the workflow as succeeded, with a reason that its owner has to know. Part of the last step's own
    /// transaction.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn succeed_with(&self, tx: &Tx, remark: &Reason) -> Result<()> {
        self.fail_on_purpose()?;
        store::end(tx, self, State::Succeeded, Some(remark)).await
    }

    /// Marks the workflow as failed. Part of the transaction that makes that visible on its subject.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn fail(&self, tx: &Tx, reason: &Reason) -> Result<()> {
        store::end(tx, self, State::Failed, Some(reason)).await
    }

    /// The number of failed attempts at this step.
    pub fn attempts(&self) -> i32 {
        self.attempts
    }

    /// Whether the step is past its deadline.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Ends the workflow because its subject is being deleted.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn give_way(&self, tx: &Tx) -> Result<()> {
        store::end(tx, self, State::Superseded, None).await
    }

    /// Ends a cancelled workflow after its clean-up.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn call_off(&self, tx: &Tx, reason: &Reason) -> Result<()> {
        store::end(tx, self, State::Cancelled, Some(reason)).await
    }

    /// Records the progress of the step, in bytes, for display only.
    pub async fn report(&self, store: &Store, done: u64, total: u64) -> Result<()> {
        store::report(store, self, done, total).await
    }

    fn fail_on_purpose(&self) -> Result<()> {
        match self.fault {
            Some(Fault::BeforeWrite) => Err(Error::internal("injected: the step acted, its result was not written")),
            Some(Fault::Before | Fault::After | Fault::Repeat) | None => Ok(()),
        }
    }
}

/// The kinds of workflows that a worker takes. Long workflows have their own lane, so that quick ones do not wait.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// All kinds.
    Any,
    /// Only these kinds.
    Only(&'static [&'static str]),
    /// All kinds except these, which other lanes take.
    AllBut(&'static [&'static [&'static str]]),
}

/// A kind of workflow.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The kind's name, a verb and a noun.
    pub name: &'static str,
    /// The first step.
    pub first_step: &'static str,
}

/// Starts a workflow when the transaction commits.
pub async fn start(tx: &Tx, id: WorkflowId, kind: Kind, subject: Uuid) -> Result<()> {
    store::insert(tx, id, kind.name, subject, kind.first_step).await?;
    tx.announce(Channel::WorkflowStarted, &id.bare()).await
}

/// Ends the back-off of all workflows on this subject, so that a delete does not wait for it.
pub async fn hurry(tx: &Tx, subject: Uuid) -> Result<()> {
    store::hurry(tx, subject).await
}

/// Cancels a workflow: a running step can no longer write its result. Returns false if the workflow has already
/// ended.
pub async fn cancel(tx: &Tx, id: WorkflowId, explanation: &str) -> Result<bool> {
    if !store::cancel(tx, id, explanation).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowEnded, &id.bare()).await?;
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Continues a workflow at another step: a running step can no longer write its result, and has ended before the
/// other step begins. Returns false if the workflow has ended.
pub async fn divert(tx: &Tx, id: WorkflowId, step: &str) -> Result<bool> {
    if !store::divert(tx, id, step).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Restarts a failed or cancelled workflow at the step that it ended at. Returns false in any other state.
pub async fn retry(tx: &Tx, id: WorkflowId) -> Result<bool> {
    if !store::restart(tx, id).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Resets all workflows of a kind that have not ended to their first step; with `ended_badly`, also those that failed
/// or were cancelled, for when they are retried.
pub async fn begin_anew(tx: &Tx, kind: Kind, ended_badly: bool) -> Result<()> {
    store::begin_anew(tx, kind, ended_badly).await
}

/// Marks all workflows of other kinds than these as failed.
pub async fn end_others(tx: &Tx, kinds: &[Kind], explanation: &str) -> Result<()> {
    store::end_others(tx, kinds, explanation).await
}

/// Waits until a workflow ends and returns its state; `None` after `limit`. Holds no transaction while waiting.
///
/// `announcements` must have been subscribed before the workflow's transaction committed.
pub async fn wait(
    store: &Store,
    announcements: &mut tokio::sync::broadcast::Receiver<Announcement>,
    id: WorkflowId,
    limit: Duration,
) -> Result<Option<State>> {
    let ended = async {
        loop {
            match announcements.recv().await {
                Ok(Announcement::Of(Channel::WorkflowEnded, ended)) if ended == id.bare() => return,
                Ok(Announcement::Of(..)) => {}
                Ok(Announcement::Missed) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    let _ = tokio::time::timeout(limit, ended).await;
    Ok(store::state(&store.session().await?, id).await?.filter(|state| state.has_ended()))
}
