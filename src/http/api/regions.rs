//! Regions on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Data;
use crate::app::App;
use crate::base::error::Error;
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::query::Query;

/// A region.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegionWire {
    /// Its id.
    #[schema(example = "us-east-1")]
    id: String,
    /// Always `region`.
    #[schema(example = "region")]
    r#type: &'static str,
    /// Its name.
    #[schema(example = "US East (N. Virginia)")]
    name: String,
    /// What is made there; `postgres`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "postgres")]
    product: Option<&'static str>,
    /// `available` or `unavailable`.
    #[schema(example = "available")]
    status: &'static str,
}

/// Which regions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RegionQuery {
    /// `postgres`, or `accelerate`, of which there is none here.
    product: Option<String>,
}

fn all(app: &App, product: Option<&'static str>) -> Vec<RegionWire> {
    let regions = app.regions.list().iter();
    regions
        .map(|region| RegionWire {
            id: region.id.clone(),
            r#type: "region",
            name: region.name.clone(),
            product,
            status: "available",
        })
        .collect()
}

/// List regions
///
/// The regions in which databases can be made.
#[utoipa::path(get, path = "/v1/regions", tag = "Regions", params(RegionQuery), responses(
    (status = 200, description = "The regions.", body = Data<Vec<RegionWire>>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_regions(
    State(app): State<Arc<App>>,
    _caller: Caller,
    Query(query): Query<RegionQuery>,
) -> Result<Json<Data<Vec<RegionWire>>>, Failure> {
    let data = match query.product.as_deref() {
        None | Some("postgres") => all(&app, Some("postgres")),
        Some("accelerate") => Vec::new(),
        Some(other) => {
            return Err(Error::invalid(
                format!("product: there is no product {other:?}"),
                "Use postgres, or leave it out.",
            )
            .into());
        }
    };
    Ok(Json(Data { data }))
}

/// List PostgreSQL regions
///
/// The regions in which databases can be made, with whether they take new ones now.
#[utoipa::path(get, path = "/v1/regions/postgres", tag = "Regions", responses(
    (status = 200, description = "The regions.", body = Data<Vec<RegionWire>>),
    (status = 401, description = "No valid token.", body = ErrorBody),
))]
pub(super) async fn list_postgres_regions(State(app): State<Arc<App>>, _caller: Caller) -> Json<Data<Vec<RegionWire>>> {
    Json(Data { data: all(&app, None) })
}

/// List Accelerate regions
///
/// There is no Accelerate here, so the list is empty.
#[utoipa::path(get, path = "/v1/regions/accelerate", tag = "Regions", responses(
    (status = 200, description = "The regions: none.", body = Data<Vec<RegionWire>>),
    (status = 401, description = "No valid token.", body = ErrorBody),
))]
pub(super) async fn list_accelerate_regions(_caller: Caller) -> Json<Data<Vec<RegionWire>>> {
    Json(Data { data: Vec::new() })
}
