//! The private metadata instance is kept running.

use std::sync::Arc;
use std::time::Duration;

use base::error::describe;
use base::health::Health;
use base::tasks::{Tasks, pauses};
use engine::local::MetadataInstance;

/// The pauses between attempts to start it again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Restarts the metadata instance whenever its server ends, until shutdown begins.
pub(super) async fn keep_running(instance: Arc<MetadataInstance>, health: Arc<Health>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.stopping() => return,
            () = instance.exited() => {}
        }
        if tasks.is_stopping() {
            return;
        }
        health.ended();
        tracing::error!(
            "the metadata instance ended unexpectedly; restarting it; API requests fail until it runs again"
        );
        for pause in pauses(FIRST_PAUSE, LONGEST_PAUSE) {
            // Not called off at shutdown: a server that is just being started could not be stopped then.
            match instance.ensure_started().await {
                Ok(_) => {
                    let milliseconds = u64::try_from(health.recovered().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(milliseconds, "the metadata instance is running again");
                    break;
                }
                Err(error) => {
                    health.start_failed();
                    let error = describe(&error);
                    tracing::error!(error, "the metadata instance could not be restarted; retrying in {pause:?}");
                }
            }
            tokio::select! {
                () = tasks.stopping() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
