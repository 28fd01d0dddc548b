//! Whether the private metadata instance runs, as `/readyz` and `/healthz` report it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After so long without a metadata instance, and a start that failed, the process is unhealthy. A crash recovery
/// that makes progress is no failed start, however long it takes.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The state of the private metadata instance. Without one, nothing is ever reported here.
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<Outage>>);

/// The metadata instance does not run.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    since: Instant,
    failed_starts: u32,
}

impl Health {
    /// The instance ended.
    pub fn ended(&self) {
        self.outage_mut().get_or_insert(Outage { since: Instant::now(), failed_starts: 0 });
    }

    /// It could not be started again.
    pub fn start_failed(&self) {
        if let Some(outage) = self.outage_mut().as_mut() {
            outage.failed_starts = outage.failed_starts.saturating_add(1);
        }
    }

    /// It runs again. Returns for how long it did not.
    pub fn recovered(&self) -> Duration {
        self.outage_mut().take().map(|outage| outage.since.elapsed()).unwrap_or_default()
    }

    /// The outage under way.
    pub fn outage(&self) -> Option<Outage> {
        *self.outage_mut()
    }

    fn outage_mut(&self) -> MutexGuard<'_, Option<Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outage {
    /// Whether to report the process as unhealthy.
    pub fn is_unhealthy(&self) -> bool {
        self.failed_starts > 0 && self.since.elapsed() >= UNHEALTHY_AFTER
    }
}

impl std::fmt::Display for Outage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.since.elapsed().as_secs();
        write!(f, "the metadata instance ended {seconds} s ago and is being restarted")?;
        match self.failed_starts {
            0 => Ok(()),
            1 => f.write_str("; 1 attempt failed, see the log"),
            failed => write!(f, "; {failed} attempts failed, see the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outage_is_unhealthy_only_after_a_failed_start() {
        let health = Health::default();
        assert!(health.outage().is_none());
        health.start_failed();
        assert!(health.outage().is_none(), "a first start that fails ends the process instead");
        health.ended();
        let outage = health.outage().unwrap();
        assert_eq!(outage.to_string(), "the metadata instance ended 0 s ago and is being restarted");
        let Some(long_ago) = outage.since.checked_sub(UNHEALTHY_AFTER) else { return };
        assert!(!Outage { since: long_ago, ..outage }.is_unhealthy(), "it recovers");
        health.start_failed();
        let outage = health.outage().unwrap();
        assert!(!outage.is_unhealthy(), "it has just ended");
        assert!(Outage { since: long_ago, ..outage }.is_unhealthy());
        assert!(outage.to_string().ends_with("; 1 attempt failed, see the log"), "{outage}");
        health.ended();
        assert_eq!(health.outage().unwrap().failed_starts, 1, "the same outage goes on");
        health.recovered();
        assert!(health.outage().is_none());
    }
}
