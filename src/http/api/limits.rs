//! Limits on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Data, workspaces};
use crate::app::{App, Rate};
use crate::domain::limits::{self, Quota};
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;

/// What a workspace may have and has, and how fast requests may come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Limits)]
pub(super) struct LimitsWire {
    /// Projects of the workspace.
    projects: QuotaWire,
    /// Databases in all of its projects.
    databases: QuotaWire,
    /// Connections of each database; used is what the one with most of them has.
    connections_per_database: QuotaWire,
    /// Requests with one token; null when they are not limited.
    requests_per_token: Option<RateWire>,
    /// Requests from one address, whatever their tokens; null when they are not limited. A tenth of
    /// it holds for requests without a token that is known to be good.
    requests_per_address: Option<RateWire>,
}

/// How much there may be of something, and how much there is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
struct QuotaWire {
    /// How much there may be; null when it is not limited.
    #[schema(example = 1000)]
    limit: Option<u32>,
    /// How much there is. More than the limit when that was lowered.
    #[schema(example = 12)]
    used: u32,
}

/// How fast requests may come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rate)]
struct RateWire {
    /// In the long run.
    #[schema(example = 100)]
    per_second: u32,
    /// At once, after a pause.
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
/// How much it may have, how much of that is used, and how fast requests may come. What would be
/// more than a limit is refused with the code `planLimitReached`; requests that come faster, with
/// `rate-limit-exceeded`. The operator of this server sets the limits.
#[utoipa::path(get, path = "/v1/workspaces/{id}/limits", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id.")), responses(
    (status = 200, description = "The limits.", body = Data<LimitsWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token is limited to projects.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
))]
pub(super) async fn get_limits(
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
