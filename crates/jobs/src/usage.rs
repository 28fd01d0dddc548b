//! Measurement of the usage of databases. It keeps no database awake.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::context::JobCtx;
use base::error::{Error, Result, describe};
use base::id::InstanceId;
use domain::usage::{self, Counters, Sample};
use engine::Measurement;

/// How often running instances are measured.
const ROUND: Duration = Duration::from_secs(60);
/// How many measurements are recorded in one transaction.
const AT_ONCE: usize = 64;
/// How long to wait for an unresponsive metadata store.
const PAUSE: Duration = Duration::from_secs(5);

/// Measures running instances on a timer. Other instances are measured when they stop.
pub async fn measure(ctx: Arc<JobCtx>) {
    let tasks = ctx.app.tasks.clone();
    while !tasks.is_stopping() {
        tokio::select! {
            () = async {
                ctx.instances.measure_running().await;
                tokio::time::sleep(ROUND).await;
            } => {}
            () = tasks.stopping() => {}
        }
    }
}

/// Records measurements until the last instance has stopped and no more arrive.
pub async fn record(ctx: Arc<JobCtx>, measurements: Arc<Mutex<UnboundedReceiver<Measurement>>>) {
    let mut measurements = measurements.lock().await;
    let tasks = ctx.app.tasks.clone();
    let mut batch = Vec::new();
    while measurements.recv_many(&mut batch, AT_ONCE).await > 0 {
        loop {
            match record_all(&ctx, &batch).await {
                Ok(()) => break,
                Err(error @ Error::Unavailable { .. }) if !tasks.is_stopping() => {
                    tracing::warn!(error = %describe(&error), "could not record usage; retrying");
                }
                Err(error) => {
                    tracing::error!(error = %describe(&error), "could not record usage; it will be recorded with the next measurement");
                    break;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = tasks.stopping() => {}
            }
        }
        batch.clear();
    }
}

async fn record_all(ctx: &JobCtx, batch: &[Measurement]) -> Result<()> {
    let tx = ctx.app.store.begin().await?;
    let instances: Vec<InstanceId> = batch.iter().map(|measurement| measurement.instance).collect();
    usage::hold(&tx, &instances).await?;
    for measurement in batch {
        usage::record(&tx, &sample(measurement)).await?;
    }
    tx.commit().await
}

fn sample(measurement: &Measurement) -> Sample {
    let counters = measurement.measured.databases.iter().map(|counters| Counters {
        database: counters.database,
        since: counters.since,
        transactions: counters.transactions,
        active: counters.active,
    });
    Sample {
        instance: measurement.instance,
        at: measurement.at,
        counters: counters.collect(),
        storage_bytes: measurement.measured.storage_bytes,
    }
}
