//! Backups of instances that may sleep, and restores into new ones.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Instances, Slot, lock};
use crate::EngineError;
use crate::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, BackupLabel, CheckFacts, ProgressSink, RecoverTo,
    RestoreFacts, Retention, Vault,
};
use base::id::InstanceId;

impl Instances {
    /// [`crate::backups::Backups::ensure_archiving`], one verb at a time.
    pub async fn ensure_archiving(self: &Arc<Self>, vault: &Vault) -> Result<(), BackupError> {
        let slot = self.slot(vault.instance);
        let _gate = slot.gate.clone().lock_owned().await;
        self.engine.ensure_archiving(vault).await
    }

    /// [`crate::backups::Backups::archive_pending`].
    pub async fn archive_pending(&self) -> Result<(), EngineError> {
        self.engine.archive_pending().await
    }

    /// [`crate::backups::Backups::archive_changes`].
    pub async fn archive_changes(&self) -> Vec<InstanceId> {
        self.engine.archive_changes().await
    }

    /// [`crate::backups::Backups::archive_status`].
    pub async fn archive_status(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError> {
        self.engine.archive_status(id).await
    }

    /// [`crate::backups::Backups::flush_archive`], of an instance that may have crashed: it is
    /// started then, recovers what it committed, and sleeps again when it is idle.
    pub async fn flush_archive(self: &Arc<Self>, vault: &Vault) -> Result<(), BackupError> {
        match self.engine.flush_archive(vault).await {
            Err(BackupError::Unclean) => {
                let _attached = self.attach_probe(vault.instance).await?;
                self.engine.flush_archive(vault).await
            }
            flushed => flushed,
        }
    }

    /// [`crate::backups::Backups::back_up`] of an instance that may sleep: then it is started for the
    /// backup, which is no activity, and stopped again unless somebody has come to use it. An idle
    /// stop waits for the backup; a stop on purpose, a destroy and the shutdown interrupt it
    /// ([`BackupError::Interrupted`]).
    pub async fn back_up(
        self: &Arc<Self>,
        vault: &Vault,
        kind: BackupKind,
        progress: ProgressSink,
    ) -> Result<BackupFacts, BackupError> {
        let id = vault.instance;
        let slot = self.slot(id);
        let slept = lock(&slot.state).running.is_none();
        let attachment = self.attach_probe(id).await?;
        // A busy session is in no idle stop's way for as long as it is held.
        attachment.touch(true);
        let started = lock(&slot.state).running.as_ref().map(|running| (running.start, running.last_activity));
        let backed_up = tokio::select! {
            backed_up = self.engine.back_up(vault, kind, progress) => backed_up,
            _ = attachment.ended() => Err(BackupError::Interrupted),
        };
        drop(attachment);
        if slept
            && is_as_it_was(&slot, started)
            && let Err(error) = self.stop_if_quiet(id, &slot, Duration::ZERO).await
        {
            tracing::warn!(instance.id = %id, error = %error, "could not stop {id} after its backup; it will be stopped when idle");
        }
        backed_up
    }

    /// [`crate::backups::Backups::backups`].
    pub async fn backups(&self, vault: &Vault) -> Result<Vec<BackupFacts>, BackupError> {
        self.engine.backups(vault).await
    }

    /// [`crate::backups::Backups::restore`]. Whoever attaches to the target meanwhile waits. A
    /// destroy of the target interrupts it ([`BackupError::Interrupted`]), and so does dropping
    /// the future.
    pub async fn restore(
        self: &Arc<Self>,
        target: InstanceId,
        source: &Vault,
        label: &BackupLabel,
        to: RecoverTo,
        progress: ProgressSink,
    ) -> Result<RestoreFacts, BackupError> {
        self.interruptible(target, self.engine.restore(target, source, label, to, progress)).await
    }

    /// [`crate::backups::Backups::copy`] of an instance that sleeps: who attaches to it waits until its
    /// files are copied. It is interrupted as a restore is.
    pub async fn copy(
        self: &Arc<Self>,
        target: InstanceId,
        source: InstanceId,
    ) -> Result<Option<RestoreFacts>, BackupError> {
        let origin = self.slot(source);
        let asleep = origin.gate.clone().lock_owned().await;
        if lock(&origin.state).running.is_some() {
            return Ok(None);
        }
        // While the gate is held the slot must not be forgotten.
        let asleep = Box::new((asleep, origin));
        self.interruptible(target, self.engine.copy(target, source, asleep)).await
    }

    /// [`crate::backups::Backups::check`] of an instance that nobody attaches to. It is
    /// interrupted as a restore is.
    pub async fn check(self: &Arc<Self>, id: InstanceId, progress: ProgressSink) -> Result<CheckFacts, BackupError> {
        // One that was under way when Howdah was killed may have been taken for somebody's.
        self.ensure_stopped(id).await?;
        self.interruptible(id, self.engine.check(id, progress)).await
    }

    /// Runs a verb that a destroy of the instance and the shutdown interrupt.
    async fn interruptible<T>(
        &self,
        id: InstanceId,
        verb: impl Future<Output = Result<T, BackupError>>,
    ) -> Result<T, BackupError> {
        let slot = self.slot(id);
        let _gate = slot.gate.clone().lock_owned().await;
        let interrupt = CancellationToken::new();
        lock(&slot.state).interrupt = Some(interrupt.clone());
        let done = tokio::select! {
            done = verb => done,
            () = interrupt.cancelled() => Err(BackupError::Interrupted),
            () = self.tasks.stopping() => Err(BackupError::Interrupted),
        };
        lock(&slot.state).interrupt = None;
        done
    }

    /// [`crate::backups::Backups::expire`].
    pub async fn expire(&self, vault: &Vault, retention: Retention) -> Result<(), BackupError> {
        self.engine.expire(vault, retention).await
    }

    /// [`crate::backups::Backups::remove_backup`].
    pub async fn remove_backup(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError> {
        self.engine.remove_backup(vault, label).await
    }

    /// [`crate::backups::Backups::verify`].
    pub async fn verify(&self, vault: &Vault) -> Result<(), BackupError> {
        self.engine.verify(vault).await
    }

    /// [`crate::backups::Backups::ensure_forgotten`].
    pub async fn ensure_forgotten(&self, vault: &Vault) -> Result<(), BackupError> {
        self.engine.ensure_forgotten(vault).await
    }
}

/// Whether it is still the same start, and nobody has used it or does.
fn is_as_it_was(slot: &Slot, started: Option<(u64, i64)>) -> bool {
    let state = lock(&slot.state);
    let now = state.running.as_ref();
    now.is_some_and(|now| now.holds.is_empty() && started == Some((now.start, now.last_activity)))
}
