//! Regions on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Data;
use domain::app::App;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::query::Query;

/// The resource type: always `region`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum RegionType {
    Region,
}

/// A product of a region. Howdah has only `postgres`; `accelerate` exists for compatibility.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Product {
    Postgres,
    Accelerate,
}

/// Whether databases can be created in a region.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum RegionStatus {
    Available,
}

/// A region for databases.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostgresRegion)]
pub(crate) struct PostgresRegionWire {
    /// The region's ID.
    #[schema(example = "us-east-1")]
    id: String,
    /// Always `region`.
    r#type: RegionType,
    /// The region's name.
    #[schema(example = "This server")]
    name: String,
    /// Always `available`.
    status: RegionStatus,
}

/// A region.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Region)]
pub(crate) struct RegionWire {
    #[serde(flatten)]
    region: PostgresRegionWire,
    /// The product that is available in the region.
    product: Product,
}

/// Filters of the list of regions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RegionQuery {
    /// Return only regions with this product.
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
/// Returns the regions in which databases can be created.
#[utoipa::path(get, path = "/v1/regions", tag = "Regions", params(RegionQuery), responses(
    (status = 200, description = "The regions.", body = Data<Vec<RegionWire>>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_regions(
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
/// Returns the regions in which databases can be created, with their status.
#[utoipa::path(get, path = "/v1/regions/postgres", tag = "Regions", responses(
    (status = 200, description = "The regions.", body = Data<Vec<PostgresRegionWire>>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
))]
pub(crate) async fn list_postgres_regions(
    State(app): State<Arc<App>>,
    _caller: Caller,
) -> Json<Data<Vec<PostgresRegionWire>>> {
    Json(Data { data: all(&app).collect() })
}

/// List Accelerate regions
///
/// Returns an empty list: Howdah does not provide Prisma Accelerate. The route exists for compatibility.
#[utoipa::path(get, path = "/v1/regions/accelerate", tag = "Regions", responses(
    (status = 200, description = "An empty list.", body = Data<Vec<RegionWire>>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
))]
pub(crate) async fn list_accelerate_regions(_caller: Caller) -> Json<Data<Vec<RegionWire>>> {
    Json(Data { data: Vec::new() })
}
