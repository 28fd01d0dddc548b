//! Background tasks that shutdown waits for.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

    /// Ends when shutdown begins.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// True once shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
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
