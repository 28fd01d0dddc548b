//! Regions on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Data;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::query::Query;

/// What a region is: always `region`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum RegionType {
    Region,
}

/// What is made in a region. There is no Accelerate here, so no region has it.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Product {
    Postgres,
    Accelerate,
}

/// Whether a region takes new databases.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum RegionStatus {
    Available,
}

/// A region in which databases can be made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostgresRegion)]
pub(super) struct PostgresRegionWire {
    /// Its id.
    #[schema(example = "us-east-1")]
    id: String,
    /// Always `region`.
    r#type: RegionType,
    /// Its name.
    #[schema(example = "This server")]
    name: String,
    /// Always `available`.
    status: RegionStatus,
}

/// A region.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Region)]
pub(super) struct RegionWire {
    #[serde(flatten)]
    region: PostgresRegionWire,
    /// What is made there.
    product: Product,
}

/// Which regions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RegionQuery {
    /// Only regions in which this is made.
    #[param(inline)]
    product: Option<Product>,
}

fn all(app: &App) -> impl Iterator<Item = PostgresRegionWire> {
    app.regions.list().iter().map(|region| PostgresRegionWire {
        id: region.id.clone(),
        r#type: RegionType::Region,
        name: region.name.clone(),
        status: RegionStatus::Available,
    })
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
) -> Json<Data<Vec<RegionWire>>> {
    let data = match query.product {
        None | Some(Product::Postgres) => {
            all(&app).map(|region| RegionWire { region, product: Product::Postgres }).collect()
        }
        Some(Product::Accelerate) => Vec::new(),
    };
    Json(Data { data })
}

/// List PostgreSQL regions
///
/// The regions in which databases can be made, with whether they take new ones now.
#[utoipa::path(get, path = "/v1/regions/postgres", tag = "Regions", responses(
    (status = 200, description = "The regions.", body = Data<Vec<PostgresRegionWire>>),
    (status = 401, description = "No valid token.", body = ErrorBody),
))]
pub(super) async fn list_postgres_regions(
    State(app): State<Arc<App>>,
    _caller: Caller,
) -> Json<Data<Vec<PostgresRegionWire>>> {
    Json(Data { data: all(&app).collect() })
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
