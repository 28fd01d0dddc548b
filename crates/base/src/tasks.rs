//! Background tasks that shutdown waits for.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pause before a supervised task is started again for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A task that ran for this long restarts with the shortest pause again.
const STEADY: Duration = Duration::from_secs(60);

/// The tracked spawner: nothing in Howdah runs in the background without it.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `task` in the background. It should end soon after [`Tasks::stopping`] does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "the tracked spawner itself")]
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Keeps a task running until shutdown begins. When the task panics or returns earlier, the log has an
    /// error with its name, and `start` starts it again after a pause. Use it for everything that runs for as
    /// long as Howdah does.
    pub fn supervise<Task>(&self, name: &'static str, mut start: impl FnMut() -> Task + Send + 'static)
    where
        Task: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.spawn(async move {
            let mut upcoming = pauses(FIRST_PAUSE, LONGEST_PAUSE);
            loop {
                let begun = Instant::now();
                let ended = AssertUnwindSafe(async { start().await }).catch_unwind().await;
                if tasks.is_stopping() {
                    return;
                }
                if begun.elapsed() >= STEADY {
                    upcoming = pauses(FIRST_PAUSE, LONGEST_PAUSE);
                }
                let pause = upcoming.next().unwrap_or(LONGEST_PAUSE);
                let how = if ended.is_ok() { "returned" } else { "panicked" };
                tracing::error!(task = name, "task {name} {how}; restarting it in {pause:?}");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = tasks.stopping() => return,
                }
            }
        });
    }

    /// Tasks that stop together with these and that [`Tasks::finished`] waits for separately.
    pub fn separate(&self) -> Self {
        Self { tracker: TaskTracker::new(), stop: self.stop.clone() }
    }

    /// Ends when shutdown begins.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// True once shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Is cancelled when shutdown begins.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Begins shutdown.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every task has ended.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Pauses between attempts: each is twice as long as the one before, up to the longest.
pub fn pauses(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> + Send {
    std::iter::successors(Some(first), move |pause| Some(pause.saturating_mul(2).min(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn supervised_task_is_restarted_after_a_panic_and_after_a_return() {
        let tasks = Tasks::default();
        let (starts, (running, mut runs)) = (Arc::new(AtomicUsize::new(0)), tokio::sync::mpsc::channel(1));
        let (counted, stopping) = (starts.clone(), tasks.clone());
        tasks.supervise("example", move || {
            let start = counted.fetch_add(1, Ordering::SeqCst);
            assert!(start != 0, "panics before it returns a future");
            let (running, stopping) = (running.clone(), stopping.clone());
            async move {
                assert!(start != 1, "panics while it runs");
                if start > 2 {
                    running.send(()).await.unwrap();
                    stopping.stopping().await;
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(30), runs.recv()).await.expect("the task runs again").unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 4, "a panic in `start`, a panic, a return, and the one that runs");
        tasks.stop();
        tasks.finished().await;
        assert_eq!(starts.load(Ordering::SeqCst), 4, "a task that ends at shutdown is not restarted");
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<u64> =
            pauses(Duration::from_secs(1), Duration::from_secs(5)).take(5).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
    }
}
