//! Workflows and reconcilers. They and the gateway are the only callers of the engine.

pub mod audit;
pub mod backup;
pub mod context;
pub mod database;
pub mod keys;
pub mod mail;
pub mod metadata;
pub mod reconcile;
pub mod recovery;
pub mod restore;
pub mod retention;
pub mod trial;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::context::JobCtx;
use base::error::Result;
use base::store::Tx;
use domain::{backups, databases, mail as domain_mail, recoveries, restores};
use queue::{Handler, Job, Reason, StepError};

/// Workflows that copy whole databases. They have their own workers, so that a create never waits for them.
pub const LONG: &[&str] = &[
    backups::BACK_UP.name,
    backups::VERIFY.name,
    restores::RESTORE.name,
    recoveries::RECOVER.name,
    databases::COPY.name,
    databases::DELETE.name,
];

/// Workflows that wait for a mail server. They have their own workers, so that an unresponsive mail server delays
/// nothing else.
pub const MAIL: &[&str] = &[domain_mail::SEND.name];

/// All kinds with their own workers.
pub const APART: &[&[&str]] = &[LONG, MAIL];

/// The longest back-off of a mail, which is retried for up to a day.
const LONGEST_BACK_OFF_OF_MAIL: Duration = Duration::from_secs(300);

/// The table of all workflows.
pub struct Workflows(pub Arc<JobCtx>);

#[async_trait]
impl Handler for Workflows {
    async fn run(&self, job: &Job, kind: &str, step: &str) -> Result<(), StepError> {
        match kind {
            kind if kind == databases::PROVISION.name || kind == databases::COPY.name => {
                database::provision(&self.0, job, step).await
            }
            kind if kind == databases::DELETE.name => database::delete(&self.0, job, step).await,
            kind if kind == backups::BACK_UP.name => backup::back_up(&self.0, job, step).await,
            kind if kind == backups::VERIFY.name => trial::verify(&self.0, job, step).await,
            kind if kind == restores::RESTORE.name => restore::restore(&self.0, job, step).await,
            kind if kind == recoveries::RECOVER.name => recovery::recover(&self.0, job, step).await,
            kind if kind == domain_mail::SEND.name => mail::send(&self.0, job, step).await,
            other => Err(unknown("workflow", other)),
        }
    }

    /// A delete never fails, because the data must be removed. Nor does a recovery, which is the only way back.
    /// Restores in place and verifications fail in their own steps, because they have to undo their work.
    fn may_give_up(&self, kind: &str) -> bool {
        let steadfast = [databases::DELETE, recoveries::RECOVER, restores::RESTORE, backups::VERIFY];
        !steadfast.iter().any(|steadfast| steadfast.name == kind)
    }

    fn longest_back_off(&self, kind: &str) -> Option<Duration> {
        (kind == domain_mail::SEND.name).then_some(LONGEST_BACK_OFF_OF_MAIL)
    }

    async fn failed(&self, tx: &Tx, job: &Job, kind: &str, reason: &Reason) -> Result<()> {
        if kind == databases::PROVISION.name || kind == databases::COPY.name {
            databases::mark_failed(tx, job.subject.into(), reason.explanation()).await?;
        }
        if kind == backups::BACK_UP.name {
            backups::mark_failed(tx, job.subject.into(), reason.explanation()).await?;
        }
        if kind == recoveries::RECOVER.name {
            restores::put_back(tx, job.subject.into(), Some(reason.explanation())).await?;
            restores::finish(tx, job.subject.into()).await?;
        }
        if kind == domain_mail::SEND.name {
            domain_mail::mark_failed(tx, job.subject.into(), reason.explanation()).await?;
        }
        Ok(())
    }
}

/// Another version of Howdah wrote it, and a version that knows it may be started later.
fn unknown(what: &str, name: &str) -> StepError {
    StepError::Retry(format!("this version of Howdah does not know the {what} {name}").into())
}
