//! Durable work. A workflow is an enum of steps; a step does one idempotent thing, decided from
//! rows that it reads now, and then writes its result and the next step in one transaction.
//!
//! A workflow is claimed with a lease that is renewed while a step runs; when its worker dies the
//! lease runs out and the step runs again elsewhere. Leases compare the store's clock only.
//! For one subject one workflow runs at a time. There is no undo: forward, or destroy from any step.
//! Knows no resource.

mod runner;
mod store;

use std::borrow::Cow;
use std::time::Duration;

pub use runner::{Fault, Faults, Handler, Runner};

use base::error::{Error, Result};
use base::id::WorkflowId;
use base::store::{Announcement, Channel, Store, Tx};
use uuid::Uuid;

/// Why a step did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It may work later: try again with back-off, until the step's deadline.
    #[error("{0}")]
    Retry(Reason),
    /// It lacks something that somebody has to bring, such as room: try again with back-off, for
    /// as long as it takes.
    #[error("{0}")]
    Wait(Reason),
    /// It never will. The workflow fails with this reason.
    #[error("{0}")]
    Fail(Reason),
}

/// A reason in two halves: what the operator reads in the log, and what the owner of the workflow's
/// subject may know of it, who is a tenant.
#[derive(Clone, Debug)]
pub struct Reason {
    cause: String,
    explanation: Cow<'static, str>,
}

impl Reason {
    /// A cause for the operator, and a sentence for the owner.
    pub fn new(cause: impl Into<String>, explanation: impl Into<Cow<'static, str>>) -> Self {
        Self { cause: cause.into(), explanation: explanation.into() }
    }

    /// The sentence for the owner.
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
        Self::new(cause, "something on the server did not work; its log says what, under this operation's id")
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
    /// Unknown means retry: only a proven dead end fails.
    fn from(error: Error) -> Self {
        Self::Retry(base::error::describe(&error).into())
    }
}

/// How a workflow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a worker, or for its next try.
    Waiting,
    /// A worker holds its lease.
    Running,
    /// It did all it was to do.
    Succeeded,
    /// It gave up; the reason says why.
    Failed,
    /// Another workflow of the same subject made it pointless.
    Superseded,
    /// Somebody called it off.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Succeeded, Self::Failed, Self::Superseded, Self::Cancelled];

    /// Its word in the store.
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

    /// Reads its word in the store.
    ///
    /// # Errors
    /// [`Error::Internal`] for any other word.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::internal(format!("a workflow has the unknown state {text}")))
    }

    /// Whether nothing more will happen.
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
    /// Which workflow.
    pub id: WorkflowId,
    /// What it works on.
    pub subject: Uuid,
    kind: String,
    step: String,
    fence: i64,
    attempts: i32,
    overdue: bool,
    fault: Option<Fault>,
}

impl Job {
    /// The step that it is at.
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

    /// Ends the workflow well. Part of the last step's own transaction.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn succeed(&self, tx: &Tx) -> Result<()> {
        self.fail_on_purpose()?;
        store::end(tx, self, State::Succeeded, None).await
    }

    /// Ends the workflow well, with something that its owner has to know. Part of the last step's own transaction.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn succeed_with(&self, tx: &Tx, remark: &Reason) -> Result<()> {
        self.fail_on_purpose()?;
        store::end(tx, self, State::Succeeded, Some(remark)).await
    }

    /// Ends the workflow badly. Part of the transaction that makes that visible on its subject.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn fail(&self, tx: &Tx, reason: &Reason) -> Result<()> {
        store::end(tx, self, State::Failed, Some(reason)).await
    }

    /// How often this step was tried without success.
    pub fn attempts(&self) -> i32 {
        self.attempts
    }

    /// The step has been tried for too long.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Ends the workflow because its subject is to be deleted.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn give_way(&self, tx: &Tx) -> Result<()> {
        store::end(tx, self, State::Superseded, None).await
    }

    /// Ends the workflow because somebody has called it off, after what that needs was done.
    ///
    /// # Errors
    /// When the lease was lost: the transaction must not commit then.
    pub async fn call_off(&self, tx: &Tx, reason: &Reason) -> Result<()> {
        store::end(tx, self, State::Cancelled, Some(reason)).await
    }

    /// Says how far the step has come, in bytes. Nothing depends on it.
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

/// Which kinds of workflows a worker takes, so that long ones do not keep quick ones waiting.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// All of them.
    Any,
    /// These.
    Only(&'static [&'static str]),
    /// All but those that other lanes take.
    AllBut(&'static [&'static [&'static str]]),
}

/// A kind of workflow, as the one who starts it sees it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, a verb and a noun.
    pub name: &'static str,
    /// The step that it begins with.
    pub first_step: &'static str,
}

/// Starts a workflow. It begins when the transaction commits.
pub async fn start(tx: &Tx, id: WorkflowId, kind: Kind, subject: Uuid) -> Result<()> {
    store::insert(tx, id, kind.name, subject, kind.first_step).await?;
    tx.announce(Channel::WorkflowStarted, &id.bare()).await
}

/// Wakes up whatever waits for its next try on this subject, so that a delete need not wait for
/// a long back-off.
pub async fn hurry(tx: &Tx, subject: Uuid) -> Result<()> {
    store::hurry(tx, subject).await
}

/// Calls a workflow off, whoever works on it: a step that is under way can no longer write its result.
/// False when it has ended already.
pub async fn cancel(tx: &Tx, id: WorkflowId, explanation: &str) -> Result<bool> {
    if !store::cancel(tx, id, explanation).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowEnded, &id.bare()).await?;
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Has a workflow go on at another step, whoever works on it: a step that is under way can no longer
/// write its result, and has ended by the time that the other one begins. False when the workflow has
/// ended.
pub async fn divert(tx: &Tx, id: WorkflowId, step: &str) -> Result<bool> {
    if !store::divert(tx, id, step).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Starts a workflow that failed or was called off again, at the step where it was. False when it is
/// in any other state.
pub async fn retry(tx: &Tx, id: WorkflowId) -> Result<bool> {
    if !store::restart(tx, id).await? {
        return Ok(false);
    }
    tx.announce(Channel::WorkflowStarted, &id.bare()).await?;
    Ok(true)
}

/// Lets all workflows of a kind that have not ended begin with their first step, whoever works on them;
/// given `ended_badly`, those too that failed or were called off will do so when they are tried again.
pub async fn begin_anew(tx: &Tx, kind: Kind, ended_badly: bool) -> Result<()> {
    store::begin_anew(tx, kind, ended_badly).await
}

/// Ends all workflows that are of none of these kinds, as failed.
pub async fn end_others(tx: &Tx, kinds: &[Kind], explanation: &str) -> Result<()> {
    store::end_others(tx, kinds, explanation).await
}

/// How a workflow ended, or `None` when it has not within `limit`. Holds no transaction meanwhile.
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
