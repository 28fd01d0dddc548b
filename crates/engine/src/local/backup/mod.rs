//! Backups with pgBackRest.
//!
//! ```text
//! <data directory>/
//!   backup-user            the number of the user that pgBackRest runs as, when Howdah is root
//!   backup-place           the mark of the directory that backups are kept in
//!   backups/<id>/          the vault of an instance, where no other repository is configured
//!   pgbackrest/<id>/       locks, and files on their way into a vault and out of it
//!   restores/<id>/         an instance that is being restored; moved to instances/ when it is whole
//! ```
//!
//! All of it but the last is the backup user's alone. Nothing is run by an instance's user: WAL is
//! taken from an instance's `pg_wal` and put into a restored one's by Howdah.

mod archiver;
mod back_up;
mod check;
mod confine;
mod copy;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod mark;
mod program;
mod queue;
mod record;
mod recovery;
mod repository;
mod restore;
mod segment;
#[cfg(test)]
mod tests;
mod vault;

use async_trait::async_trait;

pub use repository::{BackupConfig, Repository, S3};

pub(super) use archiver::Archives;

use super::LocalEngine;
use crate::EngineError;
use crate::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, BackupLabel, Backups, CheckFacts, ProgressSink, RecoverTo,
    RestoreFacts, Retention, Vault,
};
use base::id::InstanceId;

#[async_trait]
impl Backups for LocalEngine {
    async fn ensure_archiving(&self, vault: &Vault) -> Result<(), BackupError> {
        self.begin_archiving(vault).await
    }

    async fn archive_pending(&self) -> Result<(), EngineError> {
        self.archive_everything().await
    }

    async fn archive_changes(&self) -> Vec<InstanceId> {
        self.changed_archives().await
    }

    async fn archive_status(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError> {
        self.status_of_archive(id).await
    }

    async fn flush_archive(&self, vault: &Vault) -> Result<(), BackupError> {
        self.flush(vault).await
    }

    async fn back_up(
        &self,
        vault: &Vault,
        kind: BackupKind,
        progress: ProgressSink,
    ) -> Result<BackupFacts, BackupError> {
        self.back_up_running(vault, kind, progress).await
    }

    async fn backups(&self, vault: &Vault) -> Result<Vec<BackupFacts>, BackupError> {
        match self.holdings(vault).await {
            Err(BackupError::MissingVault(_)) => Ok(Vec::new()),
            holdings => Ok(holdings?.backups),
        }
    }

    async fn restore(
        &self,
        target: InstanceId,
        source: &Vault,
        label: &BackupLabel,
        to: RecoverTo,
        progress: ProgressSink,
    ) -> Result<RestoreFacts, BackupError> {
        self.restore_into(target, source, label, to, progress).await
    }

    async fn copy(
        &self,
        target: InstanceId,
        source: InstanceId,
        asleep: Box<dyn Send>,
    ) -> Result<Option<RestoreFacts>, BackupError> {
        self.copy_sleeping(target, source, asleep).await
    }

    async fn check(&self, id: InstanceId, progress: ProgressSink) -> Result<CheckFacts, BackupError> {
        self.check_restored(id, &progress).await
    }

    async fn expire(&self, vault: &Vault, retention: Retention) -> Result<(), BackupError> {
        self.expire_backups(vault, retention).await
    }

    async fn remove_backup(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError> {
        self.remove_one(vault, label).await
    }

    async fn verify(&self, vault: &Vault) -> Result<(), BackupError> {
        self.verify_vault(vault).await
    }

    async fn ensure_forgotten(&self, vault: &Vault) -> Result<(), BackupError> {
        self.forget_vault(vault).await
    }
}
