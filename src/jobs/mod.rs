//! Workflows and reconcilers: with the gateway the only callers of the engine.

pub mod audit;
pub mod backup;
pub mod database;
pub mod keys;
pub mod reconcile;
pub mod restore;
pub mod retention;
pub mod usage;

use std::sync::Arc;

use async_trait::async_trait;

use crate::app::JobCtx;
use crate::base::error::Result;
use crate::base::store::Tx;
use crate::domain::{backups, databases, restores};
use crate::queue::{Handler, Job, Reason, StepError};

/// Workflows that copy whole databases. They have workers of their own, so that a create never waits for
/// them.
pub const LONG: &[&str] = &[backups::BACK_UP.name, restores::RESTORE.name, databases::DELETE.name];

/// The table of all workflows.
pub struct Workflows(pub Arc<JobCtx>);

#[async_trait]
impl Handler for Workflows {
    async fn run(&self, job: &Job, kind: &str, step: &str) -> Result<(), StepError> {
        match kind {
            kind if kind == databases::PROVISION.name => database::provision(&self.0, job, step).await,
            kind if kind == databases::DELETE.name => database::delete(&self.0, job, step).await,
            kind if kind == backups::BACK_UP.name => backup::back_up(&self.0, job, step).await,
            kind if kind == restores::RESTORE.name => restore::restore(&self.0, job, step).await,
            other => Err(unknown("workflow", other)),
        }
    }

    /// A delete never gives up: what people wanted gone must go. A restore in place does by itself, since
    /// it has to put things back.
    fn may_give_up(&self, kind: &str) -> bool {
        kind != databases::DELETE.name && kind != restores::RESTORE.name
    }

    async fn failed(&self, tx: &Tx, job: &Job, kind: &str, reason: &Reason) -> Result<()> {
        if kind == databases::PROVISION.name {
            databases::mark_failed(tx, job.subject.into(), reason.explanation()).await?;
        }
        if kind == backups::BACK_UP.name {
            backups::mark_failed(tx, job.subject.into(), reason.explanation()).await?;
        }
        Ok(())
    }
}

/// An older or newer Howdah wrote it; one that knows it may still come.
fn unknown(what: &str, name: &str) -> StepError {
    StepError::Retry(format!("this version of Howdah does not know the {what} {name}").into())
}
