//! Usage on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use base::clock::format_timestamp;
use base::error::Error;
use base::id::DatabaseId;
use domain::app::App;
use domain::usage::{self, Period};
use web::Failure;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;

/// Bytes in a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// The usage of a database in a period.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Usage)]
pub(crate) struct UsageWire {
    /// The period.
    period: PeriodWire,
    /// The usage in the period.
    metrics: Metrics,
    /// When this response was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    generated_at: String,
    /// When the database was last measured, in the period or before it. Null if it was never measured.
    #[schema(format = "date-time", example = "2026-07-09T11:51:40.002Z")]
    measured_at: Option<String>,
}

/// A period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsagePeriod)]
pub(crate) struct PeriodWire {
    /// The start of the period.
    #[schema(format = "date-time", example = "2026-07-01T00:00:00.000Z")]
    start: String,
    /// The end of the period.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    end: String,
}

/// The usage in a period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageMetrics)]
pub(crate) struct Metrics {
    /// The number of operations.
    operations: Operations,
    /// The size of the database.
    storage: Storage,
}

/// The unit of operations: always `ops`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum OperationsUnit {
    Ops,
}

/// The unit of storage: always `GiB`.
#[derive(Debug, Serialize, ToSchema)]
enum StorageUnit {
    GiB,
}

/// The number of operations.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsedOperations)]
pub(crate) struct Operations {
    /// The number of transactions that were committed or rolled back.
    #[schema(example = 1204)]
    used: u64,
    /// Always `ops`.
    unit: OperationsUnit,
}

/// The size of a database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsedStorage)]
pub(crate) struct Storage {
    /// The size on disk, without the write-ahead log. 0 until the database is measured.
    #[schema(example = 0.021)]
    used: f64,
    /// Always `GiB`.
    unit: StorageUnit,
}

/// The period to report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageQuery {
    /// The start of the period. Defaults to the first day of the current month.
    #[param(format = "date-time")]
    start_date: Option<String>,
    /// The end of the period. Defaults to now. Later moments are limited to the end of the current day.
    #[param(format = "date-time")]
    end_date: Option<String>,
}

/// Get a database's usage
///
/// Returns the number of operations of a database in a period, and the size of its data. The request does not wake a
/// sleeping database.
///
/// An operation is a transaction that was committed or rolled back. A statement outside a transaction block counts as
/// one transaction, and so does each parallel worker of a query. Opening a connection and the server's maintenance of
/// an unused database do not count. Operations are counted per hour, and every hour that overlaps the period counts in
/// full: use whole hours if you add up periods. Counts are stored for 400 days.
///
/// Storage is the size of the data at the last measurement in the period or before it. A database is measured once a
/// minute while it is awake, and when it goes to sleep; `measuredAt` contains the time of the last measurement. Later
/// changes are not included. Days and months are in UTC.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/usage", tag = "Database Usage",
    params(("databaseId" = String, Path, description = "The ID of the database."), UsageQuery), responses(
    (status = 200, description = "The usage, not wrapped in `data`.", body = UsageWire),
    (status = 400, description = "A date is not a timestamp with an offset, or the period ends before it starts.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_usage(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(database): Path<String>,
    query: Result<Query<UsageQuery>, Failure>,
) -> Result<Json<UsageWire>, Failure> {
    let database = DatabaseId::parse(&database).ok_or_else(|| Error::not_found("database", &database))?;
    let Query(query) = query.map_err(|_| {
        Error::rejected(
            "startDate or endDate cannot be read",
            "Send each parameter at most once, as a timestamp such as 2030-01-31T12:00:00Z.",
        )
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
