//! Instances that are held back: each was stopped because it grew while the disk was almost full. Its owner can come
//! in to delete data, a few times; sessions are read-only by default then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{EndReason, Instances, Reopen, lock, micros};
use crate::{DiskUsage, EngineError};
use base::id::InstanceId;

/// How long sessions get to read why they end. What they run goes on meanwhile, so it is short.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long an instance stays closed after it was held back for the first time: twice as long after each next time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// How often an instance may grow again before it stays closed.
const CHANCES: u32 = 3;

/// What is known of an instance that is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldBack {
    times: u32,
    /// Microseconds.
    closed_until: i64,
}

impl Instances {
    /// The instances that run now.
    pub fn running(&self) -> Vec<InstanceId> {
        let all = self.all_slots().into_iter();
        all.filter(|(_, slot)| lock(&slot.state).running.is_some()).map(|(id, _)| id).collect()
    }

    /// [`crate::Engine::disk_usage`].
    pub async fn disk_usage(&self, id: InstanceId) -> Result<DiskUsage, EngineError> {
        self.engine.disk_usage(id).await
    }

    /// Stops an instance that grows while the disk is almost full, and keeps it from doing so again.
    pub async fn hold_back(self: &Arc<Self>, id: InstanceId) {
        let now = self.now();
        let times = {
            let mut all = lock(&self.held_back);
            let held = all.entry(id).or_insert(HeldBack { times: 0, closed_until: now });
            held.times += 1;
            held.closed_until = now.saturating_add(micros(FIRST_PAUSE.saturating_mul(1 << held.times.min(8))));
            held.times
        };
        tracing::warn!(instance.id = %id, times, "stopping {id}, because it is growing while the disk is almost full");
        let slot = self.slot(id);
        // Who attaches from now on is refused, so nobody has to wait for the verb under way.
        if let Some(running) = &lock(&slot.state).running {
            running.end_all(EndReason::NoRoom);
        }
        let _ = tokio::time::timeout(FAREWELL, slot.emptied()).await;
        let reopen: Reopen = self.close(&slot, EndReason::NoRoom).await;
        if let Err(error) = self.finish_stop(id, &slot, reopen, false, Duration::ZERO).await {
            tracing::error!(instance.id = %id, %error, "could not stop {id}, which is growing while the disk is almost full");
        }
    }

    /// The instances that are held back.
    pub fn held_back(&self) -> Vec<InstanceId> {
        lock(&self.held_back).keys().copied().collect()
    }

    /// There is room again: all are open as before.
    pub fn release_held_back(&self) {
        lock(&self.held_back).clear();
    }

    /// Whether there is room enough for owners to delete data.
    pub fn allow_clean_up(&self, allowed: bool) {
        self.clean_up_allowed.store(allowed, Ordering::Relaxed);
    }

    /// Whether a session of the tenant's may begin: `true` for a clean-up only.
    pub(super) fn check_held_back(&self, id: InstanceId) -> Result<bool, EngineError> {
        let Some(held) = lock(&self.held_back).get(&id).copied() else { return Ok(false) };
        let wait = held.closed_until.saturating_sub(self.now());
        if held.times > CHANCES || (wait <= 0 && !self.clean_up_allowed.load(Ordering::Relaxed)) {
            return Err(EngineError::HeldBack { again_s: None });
        }
        match wait {
            ..=0 => Ok(true),
            _ => Err(EngineError::HeldBack { again_s: Some(wait.unsigned_abs().div_ceil(1_000_000)) }),
        }
    }
}
