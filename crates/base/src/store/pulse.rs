//! Whether the metadata store answers, so that nobody waits for it in vain.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a request or a new session of the gateway waits for one answer. With the second that a create waits for its
/// workflow, it stays below the five seconds after which clients are promised an answer.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_millis(3500);
/// How long work in the background waits for one.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(60);

tokio::task_local! {
    static BACKGROUND: ();
}

/// Runs work that may wait longer for the store than a request may: workflows and reconcilers, which would only
/// have to repeat what they have done.
pub async fn in_background<T>(work: impl Future<Output = T>) -> T {
    BACKGROUND.scope((), work).await
}

fn is_background() -> bool {
    BACKGROUND.try_with(|()| ()).is_ok()
}

/// How long the current task waits for one answer of the store.
pub(super) fn limit() -> Duration {
    if is_background() { BACKGROUND_LIMIT } else { REQUEST_LIMIT }
}

/// What is known of the store's answers. The store is silent when somebody gave up on an answer and nobody else got
/// one since that wait began.
#[derive(Debug)]
pub(super) struct Pulse {
    origin: Instant,
    /// When the last answer came, in milliseconds since `origin`.
    answered: AtomicU64,
    silent: AtomicBool,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), answered: AtomicU64::new(0), silent: AtomicBool::new(false) }
    }

    /// Milliseconds since the store was opened.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Whether the current task may ask now. Requests don't wait for a silent store.
    pub(super) fn may_ask(&self) -> bool {
        !self.is_silent() || is_background()
    }

    /// The store has answered.
    pub(super) fn answered(&self) {
        self.answered.store(self.now(), Ordering::Relaxed);
        if self.is_silent() && self.silent.swap(false, Ordering::Relaxed) {
            tracing::info!("the metadata store is responding again");
        }
    }

    /// Somebody who began to wait at `since` gave up. True when that makes the store silent.
    pub(super) fn gave_up(&self, since: u64) -> bool {
        let fell_silent = self.answered.load(Ordering::Relaxed) <= since && !self.silent.swap(true, Ordering::Relaxed);
        if fell_silent {
            tracing::error!("the metadata store is not responding; requests fail until it responds");
        }
        fell_silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_do_not_wait_for_a_silent_store() {
        let pulse = Pulse::new();
        assert!(pulse.may_ask());
        assert!(pulse.gave_up(pulse.now()));
        assert!(!pulse.gave_up(pulse.now()), "it is silent already");
        assert!(!pulse.may_ask());
        assert!(in_background(async { pulse.may_ask() }).await, "background work waits");
        pulse.answered();
        assert!(pulse.may_ask());
    }

    #[tokio::test]
    async fn store_that_answers_others_is_not_silent() {
        let pulse = Pulse::new();
        let since = pulse.now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        pulse.answered();
        assert!(!pulse.gave_up(since));
        assert!(pulse.may_ask());
    }

    #[tokio::test]
    async fn background_work_waits_longer() {
        assert_eq!(limit(), REQUEST_LIMIT);
        assert_eq!(in_background(async { limit() }).await, BACKGROUND_LIMIT);
    }
}
