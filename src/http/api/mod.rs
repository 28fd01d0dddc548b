//! The JSON API below `/v1`: one file a noun, wire types beside their handlers.

mod connections;
mod databases;
mod projects;
mod regions;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::base::error::Result;
use crate::base::id::WorkflowId;
use crate::base::page::{Page, PageRequest};
use crate::base::store::Announcement;
use crate::queue;

/// How long a create waits for its workflow before it answers with what is true by then.
const CREATE_PATIENCE: Duration = Duration::from_millis(1000);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Howdah Management API",
        version = "v1",
        description = "REST API for managing workspaces, projects, databases and connections. \
                       Every database is a PostgreSQL instance of its own."
    ),
    modifiers(&Bearer),
    security(("Bearer" = [])),
    tags(
        (name = "Projects", description = "A project groups databases."),
        (name = "Databases", description = "A database is a PostgreSQL instance of its own."),
        (name = "Databases Connections", description = "The credentials of one database."),
        (name = "Connections", description = "A connection is a credential of one database."),
        (name = "Workspaces", description = "A workspace owns projects."),
        (name = "Regions", description = "Where databases are made."),
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".into());
        scheme.description = Some("A service token.".into());
        document.components.get_or_insert_default().add_security_scheme("Bearer", SecurityScheme::Http(scheme));
    }
}

/// Every operation of the API with its part of the document.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(projects::list_projects, projects::create_project))
        .routes(routes!(projects::get_project, projects::delete_project))
        .routes(routes!(databases::list_databases, databases::create_database))
        .routes(routes!(databases::get_database, databases::delete_database))
        .routes(routes!(connections::list_connections, connections::create_connection))
        .routes(routes!(connections::get_connection, connections::delete_connection))
        .routes(routes!(workspaces::list_workspaces))
        .routes(routes!(regions::list_regions))
        .routes(routes!(regions::list_postgres_regions))
}

/// One thing.
#[derive(Debug, Serialize, ToSchema)]
struct Data<T> {
    data: T,
}

/// One page of things.
#[derive(Debug, Serialize, ToSchema)]
struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

/// Where the next page begins.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    /// Give this as `cursor` to get the next page; null on the last one.
    next_cursor: Option<String>,
    /// Whether there is a next page.
    has_more: bool,
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// `pagination.nextCursor` of the page before.
    cursor: Option<String>,
    /// How many things a page has at most: 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

impl PageQuery {
    fn parse<Id>(&self, read: impl Fn(&str) -> Option<Id>) -> Result<PageRequest<Id>> {
        PageRequest::parse(self.cursor.as_deref(), self.limit, read)
    }
}

impl<T> List<T> {
    fn of<U>(page: Page<U>, wire: impl FnMut(U) -> T) -> Self {
        let page = page.map(wire);
        let pagination = Pagination { has_more: page.next.is_some(), next_cursor: page.next };
        Self { data: page.items, pagination }
    }
}

/// Another resource, as it is named inside an answer.
#[derive(Debug, Serialize, ToSchema)]
struct Reference {
    /// Its id.
    id: String,
    /// Its address in this API.
    #[schema(format = "uri")]
    url: String,
    /// Its name.
    name: String,
}

impl Reference {
    fn new(app: &App, collection: &str, id: String, name: String) -> Self {
        Self { url: url(app, collection, &id), id, name }
    }
}

/// The address of a resource in this API.
fn url(app: &App, collection: &str, id: &str) -> String {
    format!("{}/v1/{collection}/{id}", app.public.api)
}

/// Waits a short while for what a create has started; the answer then says what is true.
async fn settle(app: &App, announcements: &mut broadcast::Receiver<Announcement>, workflow: WorkflowId) -> Result<()> {
    queue::wait(&app.store, announcements, workflow, CREATE_PATIENCE).await.map(drop)
}
