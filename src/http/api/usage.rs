//! Usage on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::DatabaseId;
use crate::domain::usage::{self, Period};
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;

/// Bytes in a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// What a database used in a period.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Usage)]
pub(super) struct UsageWire {
    /// From when to when.
    period: PeriodWire,
    /// What was used.
    metrics: Metrics,
    /// When this answer was made.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    generated_at: String,
    /// When the database was measured last, in the period or before; null when it never was.
    #[schema(format = "date-time", example = "2026-07-09T11:51:40.002Z")]
    measured_at: Option<String>,
}

/// From when to when.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsagePeriod)]
pub(super) struct PeriodWire {
    /// When it begins.
    #[schema(format = "date-time", example = "2026-07-01T00:00:00.000Z")]
    start: String,
    /// When it ends.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    end: String,
}

/// What was used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageMetrics)]
pub(super) struct Metrics {
    /// How much was done.
    operations: Operations,
    /// How large the database is.
    storage: Storage,
}

/// What operations are counted in: always `ops`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum OperationsUnit {
    Ops,
}

/// What storage is measured in: always `GiB`.
#[derive(Debug, Serialize, ToSchema)]
enum StorageUnit {
    GiB,
}

/// How much was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsedOperations)]
pub(super) struct Operations {
    /// Transactions that were committed or rolled back.
    #[schema(example = 1204)]
    used: u64,
    /// Always `ops`.
    unit: OperationsUnit,
}

/// How large a database is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsedStorage)]
pub(super) struct Storage {
    /// Its size on the disk, without write-ahead log; 0 until it has been measured.
    #[schema(example = 0.021)]
    used: f64,
    /// Always `GiB`.
    unit: StorageUnit,
}

/// Which period.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// When the period begins; the first of this month when it is left out.
    #[param(format = "date-time")]
    start_date: Option<String>,
    /// When the period ends; now when it is left out. A moment after today counts as the end of today.
    #[param(format = "date-time")]
    end_date: Option<String>,
}

/// Get a database's usage
///
/// How many operations the database has carried out in a period, and how much storage it takes.
/// Asking does not wake a database that sleeps.
///
/// An operation is a transaction that was committed or rolled back; a statement outside of a
/// transaction block is one of its own, and so is each process that the server starts to carry out
/// a query in parallel. Opening a connection is none, nor is the server's maintenance of a database
/// that nobody uses. Operations are counted by the hour: an hour that the period touches counts as
/// a whole, so give whole hours where periods are to be added up. The hours of the last 400 days
/// are kept.
///
/// Storage is the size of the data, as it was measured last in the period or before it. A database
/// is measured once a minute while it is awake, and when it goes to sleep; `measuredAt` says when
/// that was. What was done since is not in the answer yet. Days and months are those of UTC.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/usage", tag = "Database Usage",
    params(("databaseId" = String, Path, description = "The database's id."), UsageQuery), responses(
    (status = 200, description = "The usage; not wrapped in `data`.", body = UsageWire),
    (status = 400, description = "A date is not a moment with its offset, or the period ends before it begins.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
))]
pub(super) async fn get_usage(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(database): Path<String>,
    query: Result<Query<UsageQuery>, Failure>,
) -> Result<Json<UsageWire>, Failure> {
    let database = DatabaseId::parse(&database).ok_or_else(|| Error::not_found("database", &database))?;
    let Query(query) = query.map_err(|_| {
        Error::rejected("startDate and endDate cannot be read", "Give each of them once at most, and as text.")
    })?;
    let now = app.clock.now();
    let period = Period::parse(query.start_date.as_deref(), query.end_date.as_deref(), now)?;
    let used = usage::get(&app.store.session().await?, &actor, database, &period).await?;
    Ok(Json(UsageWire {
        period: PeriodWire { start: format_timestamp(period.start()), end: format_timestamp(period.end()) },
        metrics: Metrics {
            operations: Operations { used: used.operations, unit: OperationsUnit::Ops },
            storage: Storage { used: used.storage_bytes as f64 / GIB, unit: StorageUnit::GiB },
        },
        generated_at: format_timestamp(now),
        measured_at: used.measured_at.map(format_timestamp),
    }))
}
