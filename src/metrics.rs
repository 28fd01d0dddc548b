//! `/metrics`, for Prometheus (OpenMetrics 1.0). It tells about all workspaces, so it has an address of
//! its own, which is for whoever runs the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use base::disk::{Disk, Look};
use base::error::{Error, Result};
use domain::app::App;
use domain::metrics::{self, Snapshot};
use web::failure::{self, Failure};
use web::server;

/// Few ask for numbers.
const CONNECTIONS: usize = 16;
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the numbers until the tasks stop.
pub async fn serve(listener: &TcpListener, app: Arc<App>) {
    let tasks = app.tasks.clone();
    let router = Router::new().route("/metrics", get(show)).fallback(failure::unknown_route).with_state(app);
    server::serve(listener, router, CONNECTIONS, &[], &tasks).await;
}

async fn show(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let snapshot = metrics::take(&app.store.session().await?).await?;
    let text = write(&snapshot, app.metadata_at_risk.load(Ordering::Relaxed), &app.disks)?;
    Ok(([(header::CONTENT_TYPE, TYPE)], text).into_response())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindAndState {
    kind: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDisk {
    disk: &'static str,
}

fn write(snapshot: &Snapshot, metadata_at_risk: bool, disks: &[Arc<Disk>]) -> Result<String> {
    let mut registry = Registry::with_prefix("howdah");
    let mut one = |name: &str, help: &str, value: i64| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    one("workspaces", "Workspaces", snapshot.workspaces);
    one("projects", "Projects", snapshot.projects);
    one("archives_stuck", "Databases whose changes cannot be archived now", snapshot.archives_stuck);
    one(
        "metadata_at_risk",
        "1 when Howdah's own metadata could not be backed up the last time",
        metadata_at_risk.into(),
    );
    let statuses = ["provisioning", "ready", "recovering", "failure"].map(|status| (status.to_owned(), 0));
    let databases = Family::<Status, Gauge>::default();
    for (status, count) in statuses.iter().chain(&snapshot.databases) {
        databases.get_or_create(&Status { status: status.clone() }).set(*count);
    }
    registry.register("databases", "Databases by status", databases);
    let trials = Family::<Outcome, Gauge>::default();
    let outcomes = ["passed", "failed"].map(|outcome| (outcome.to_owned(), 0));
    for (outcome, count) in outcomes.iter().chain(&snapshot.trials) {
        trials.get_or_create(&Outcome { outcome: outcome.clone() }).set(*count);
    }
    registry.register("backup_trials", "Backups that were restored for a trial, by how the last one went", trials);
    let families = [
        ("backups", "Backups by kind and state", &snapshot.backups),
        ("operations", "Operations that are open or changed within a day, by kind and state", &snapshot.operations),
    ];
    for (name, help, counts) in families {
        let family = Family::<KindAndState, Gauge>::default();
        for (kind, state, count) in counts {
            family.get_or_create(&KindAndState { kind: kind.clone(), state: state.clone() }).set(*count);
        }
        registry.register(name, help, family);
    }
    type OfLook = fn(&Look) -> u64;
    let of_disk: [(&str, &str, OfLook); 5] = [
        ("disk_free_bytes", "Bytes that are free on a disk that Howdah writes to", |look| look.bytes.free),
        ("disk_bytes", "Bytes that such a disk has", |look| look.bytes.total),
        ("disk_free_inodes", "Inodes that are free on it", |look| look.files.free),
        ("disk_inodes", "Inodes that it has; 0 where there is no limit", |look| look.files.total),
        (
            "disk_level",
            "How tight it is: 0 plenty, 1 low, 2 no new instances, 3 growing instances are stopped, 4 exhausted",
            |look| look.level() as u64,
        ),
    ];
    for (name, help, value) in of_disk {
        let family = Family::<OfDisk, Gauge>::default();
        for (disk, look) in disks.iter().filter_map(|disk| Some((disk.name(), disk.last()?))) {
            family.get_or_create(&OfDisk { disk }).set(i64::try_from(value(&look)).unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    }
    let build = Family::<Version, Gauge>::default();
    build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("build", "The version that runs", build);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(Error::internal)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_include_zeros() {
        let snapshot = Snapshot { databases: vec![("ready".into(), 3)], ..Snapshot::default() };
        let text = write(&snapshot, true, &[]).unwrap();
        for line in [
            "howdah_databases{status=\"ready\"} 3",
            "howdah_databases{status=\"failure\"} 0",
            "howdah_backup_trials{outcome=\"failed\"} 0",
            "howdah_metadata_at_risk 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}
