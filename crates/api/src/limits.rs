//! Limits on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Data, workspaces};
use domain::app::{App, Rate};
use domain::limits::{self, Quota};
use web::Failure;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;

/// The limits of a workspace, their usage, and the rate limits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Limits)]
pub(crate) struct LimitsWire {
    /// The projects of the workspace.
    projects: QuotaWire,
    /// The databases in all projects of the workspace.
    databases: QuotaWire,
    /// The connections of each database. `used` is the highest number of connections of one database.
    connections_per_database: QuotaWire,
    /// The rate limit of each token. Null if there is none.
    requests_per_token: Option<RateWire>,
    /// The rate limit of each IP address, across all tokens. Null if there is none. Requests without a valid token are
    /// limited to a tenth of it.
    requests_per_address: Option<RateWire>,
}

/// A limit and its usage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
struct QuotaWire {
    /// The limit. Null if there is none.
    #[schema(example = 1000)]
    limit: Option<u32>,
    /// The current usage. Exceeds the limit if the limit was lowered.
    #[schema(example = 12)]
    used: u32,
}

/// A rate limit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rate)]
struct RateWire {
    /// The number of requests per second in the long run.
    #[schema(example = 100)]
    per_second: u32,
    /// The number of requests that can be sent at once after a pause.
    #[schema(example = 1000)]
    burst: u32,
}

impl From<Quota> for QuotaWire {
    fn from(Quota { limit, used }: Quota) -> Self {
        Self { limit, used }
    }
}

impl From<Rate> for RateWire {
    fn from(Rate { per_second, burst }: Rate) -> Self {
        Self { per_second: per_second.get(), burst: burst.get() }
    }
}

/// Get a workspace's limits
///
/// Returns the limits of a workspace, their usage, and the rate limits. Requests that would exceed a limit fail with
/// the code `planLimitReached`; requests that exceed a rate limit fail with `rate-limit-exceeded`. The operator of this
/// server sets the limits.
#[utoipa::path(get, path = "/v1/workspaces/{id}/limits", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace.")), responses(
    (status = 200, description = "The limits.", body = Data<LimitsWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is limited to projects.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_limits(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<LimitsWire>>, Failure> {
    let workspace = workspaces::parse(&id)?;
    let standing = limits::get(&app.store.session().await?, &actor, &app.quotas, workspace).await?;
    let data = LimitsWire {
        projects: standing.projects.into(),
        databases: standing.databases.into(),
        connections_per_database: standing.connections_per_database.into(),
        requests_per_token: app.rates.token.map(Into::into),
        requests_per_address: app.rates.address.map(Into::into),
    };
    Ok(Json(Data { data }))
}
