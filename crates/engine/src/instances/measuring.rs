//! Measuring instances: while they run, and a last time before they stop, so that nobody has to
//! wake one to learn what it has done. It is nobody's activity and keeps none awake.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Instances, Slot, lock, micros};
use crate::Measured;
use base::id::InstanceId;

/// How many running instances are measured at a time; few, since nobody waits for it.
const AT_ONCE: usize = 2;
/// What was done longer ago is in the statistics: PostgreSQL's sessions report within ten seconds.
const REPORTED: Duration = Duration::from_secs(15);
/// How long a stop waits for sessions that were told to end to report what they did.
const LAST_REPORTS: Duration = Duration::from_millis(200);
/// How often it looks whether they have.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a stop waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was measured of an instance, and when.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The instance.
    pub instance: InstanceId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub measured: Measured,
}

impl Instances {
    /// Every measurement from now on, those of one instance in order; it ends after
    /// [`Instances::shutdown`]. Without anybody who takes them, nothing is measured.
    pub fn measurements(&self) -> mpsc::UnboundedReceiver<Measurement> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.measurements) = Some(sender);
        receiver
    }

    /// One round of the measuring reconciler: measures each running instance in which something
    /// may have happened since the last time.
    pub async fn measure_running(self: &Arc<Self>) {
        let mut running = self.all_slots();
        running.retain(|(_, slot)| slot.has_news(self.now()));
        stream::iter(running)
            .for_each_concurrent(AT_ONCE, |(id, slot)| async move {
                self.measure(id, &slot).await;
            })
            .await;
    }

    /// Measures an instance whose sessions have been ended, before its server is stopped. What is
    /// missed nevertheless stays in the instance's statistics, and shows when it runs again.
    pub(super) async fn measure_last(&self, id: InstanceId, slot: &Slot) {
        let begun = Instant::now();
        while let Ok(Some(sessions)) = timeout(PATIENCE, self.measure(id, slot)).await {
            if sessions == 0 || begun.elapsed() >= LAST_REPORTS {
                return;
            }
            sleep(INTERVAL).await;
        }
    }

    /// Nobody will be told of measurements any more.
    pub(super) fn end_measurements(&self) {
        lock(&self.measurements).take();
    }

    /// Measures a running instance and passes it on; answers how many sessions are open in it.
    async fn measure(&self, id: InstanceId, slot: &Slot) -> Option<u64> {
        let measurements = lock(&self.measurements).clone()?;
        let _in_order = slot.measuring.lock().await;
        let start = lock(&slot.state).running.as_ref()?.start;
        let at = self.clock.now();
        let measured = match self.engine.measure(id).await {
            Ok(measured) => measured?,
            Err(error) => {
                if !lock(&slot.state).closing {
                    tracing::warn!(instance.id = %id, error = %error, "could not measure {id}; retrying");
                }
                return None;
            }
        };
        let sessions = measured.sessions;
        measurements.send(Measurement { instance: id, at, measured }).ok()?;
        if let Some(running) = lock(&slot.state).running.as_mut().filter(|running| running.start == start) {
            running.measured = Some(at.as_microsecond());
        }
        Some(sessions)
    }
}

impl Slot {
    /// Whether something may have happened in it that no measurement has seen.
    fn has_news(&self, now: i64) -> bool {
        let runs = {
            let state = lock(&self.state);
            state.running.is_some() && !state.closing
        };
        runs && self.quiet_since(now).is_none_or(|last| !self.is_measured_after(last))
    }

    /// Whether it was measured when everything that was done until `last` had been reported.
    pub(super) fn is_measured_after(&self, last: i64) -> bool {
        let state = lock(&self.state);
        let measured = state.running.as_ref().and_then(|running| running.measured);
        measured.is_some_and(|measured| measured >= last.saturating_add(micros(REPORTED)))
    }
}
