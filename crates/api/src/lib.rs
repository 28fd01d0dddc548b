//! The JSON API below `/v1`: one file a noun, wire types beside their handlers.

mod audit;
mod backups;
mod branches;
mod ca;
mod connections;
mod databases;
pub mod document;
mod integrations;
mod limits;
mod me;
mod operations;
pub mod pages;
mod projects;
mod regions;
mod service_tokens;
mod usage;
mod workspaces;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use base::error::{Error, Result};
use base::id::{DatabaseId, ProjectId, WorkspaceId};
use base::page::{Page, PageRequest};
use domain::app::App;
use domain::regions::Regions;
use web::refusal::Actions;

/// The routes of the API, the document about them, and what they are called in the audit log.
pub struct Routes {
    /// Those that need a token.
    pub authenticated: Router<Arc<App>>,
    /// Those that anybody may call.
    pub open: Router<Arc<App>>,
    pub document: utoipa::openapi::OpenApi,
    pub actions: Actions,
}

/// Every operation of the API.
pub fn routes(regions: &Regions) -> Routes {
    let (authenticated, mut document) = operations().split_for_parts();
    let (open, about_open) = OpenApiRouter::new().routes(routes!(ca::get_ca)).split_for_parts();
    document.merge(about_open);
    let actions = actions(&document);
    document::complete(&mut document, regions);
    Routes { authenticated, open, document, actions }
}

/// The handlers' names, which are verb and noun. A second route to the same action has a handler whose name
/// ends in `_of`.
fn actions(document: &utoipa::openapi::OpenApi) -> Actions {
    let mut actions = HashMap::new();
    for (path, item) in &document.paths.paths {
        let changes = [(Method::POST, &item.post), (Method::PATCH, &item.patch), (Method::DELETE, &item.delete)];
        for (method, operation) in changes {
            if let Some(name) = operation.as_ref().and_then(|operation| operation.operation_id.clone()) {
                let action = name.strip_suffix("_of").map_or(name.clone(), str::to_owned);
                actions.insert((method, path.clone()), action);
            }
        }
    }
    Actions(actions)
}

fn operations() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(document::begin())
        .routes(routes!(projects::list_projects, projects::create_project))
        .routes(routes!(projects::get_project, projects::update_project, projects::delete_project))
        .routes(routes!(projects::transfer_project))
        .routes(routes!(databases::list_databases, databases::create_database))
        .routes(routes!(databases::list_all_databases, databases::create_database_of))
        .routes(routes!(databases::get_database, databases::update_database, databases::delete_database))
        .routes(routes!(usage::get_usage))
        .routes(routes!(connections::list_connections, connections::create_connection))
        .routes(routes!(connections::list_all_connections, connections::create_connection_of))
        .routes(routes!(connections::get_connection, connections::delete_connection))
        .routes(routes!(connections::rotate_connection))
        .routes(routes!(branches::list_branches, branches::create_branch))
        .routes(routes!(branches::get_branch, branches::update_branch, branches::delete_branch))
        .routes(routes!(workspaces::list_workspaces, workspaces::create_workspace))
        .routes(routes!(workspaces::get_workspace, workspaces::update_workspace, workspaces::delete_workspace))
        .routes(routes!(workspaces::get_subscription))
        .routes(routes!(limits::get_limits))
        .routes(routes!(backups::list_backups, backups::create_backup))
        .routes(routes!(backups::restore_backup))
        .routes(routes!(backups::verify_backup))
        .routes(routes!(backups::restore_database))
        .routes(routes!(backups::list_deleted_databases))
        .routes(routes!(audit::list_audit_log))
        .routes(routes!(operations::list_operations))
        .routes(routes!(operations::list_database_operations))
        .routes(routes!(operations::get_operation))
        .routes(routes!(operations::cancel_operation))
        .routes(routes!(operations::retry_operation))
        .routes(routes!(integrations::list_all_integrations))
        .routes(routes!(integrations::get_integration, integrations::delete_integration))
        .routes(routes!(integrations::list_integrations))
        .routes(routes!(integrations::delete_integrations_of_client))
        .routes(routes!(service_tokens::list_service_tokens, service_tokens::create_service_token))
        .routes(routes!(service_tokens::delete_service_token))
        .routes(routes!(me::get_me))
        .routes(routes!(regions::list_regions))
        .routes(routes!(regions::list_postgres_regions))
        .routes(routes!(regions::list_accelerate_regions))
}

/// One resource.
#[derive(Debug, Serialize, ToSchema)]
struct Data<T> {
    data: T,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

/// The position of a page in its list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Pagination {
    /// The `cursor` of the next page. Null on the last page.
    #[schema(example = json!(null))]
    next_cursor: Option<String>,
    /// Whether there is a next page.
    has_more: bool,
}

/// The page to return.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// The `pagination.nextCursor` of the previous page.
    cursor: Option<String>,
    /// The maximum number of items on a page: 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

impl PageQuery {
    fn parse<Id>(&self, read: impl Fn(&str) -> Option<Id>) -> Result<PageRequest<Id>> {
        PageRequest::parse(self.cursor.as_deref(), self.limit, read)
    }
}

/// For a field that may be left out but not be null: a null would be read as one thing by some and as
/// another by others. (`T` itself can be an option; null is `Some(None)` then.)
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A moment that a caller named.
fn moment(field: &str, text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Error::invalid(
            format!("{field}: not a valid timestamp"),
            "Send a date and time with an offset, such as 2030-01-31T12:00:00Z.",
        )
    })
}

/// An id to filter a list by. What is no id names nothing, and nothing has the nil id: the list is
/// empty then, as it is for the id of something that is not there.
fn filter_id<Id: From<Uuid>>(text: Option<&str>, parse: impl Fn(&str) -> Option<Id>) -> Option<Id> {
    text.map(|text| parse(text).unwrap_or_else(|| Uuid::nil().into()))
}

impl<T> List<T> {
    fn of<U>(page: Page<U>, wire: impl FnMut(U) -> T) -> Self {
        let page = page.map(wire);
        let pagination = Pagination { has_more: page.next.is_some(), next_cursor: page.next };
        Self { data: page.items, pagination }
    }
}

/// Other resources, as they are named inside an answer: type, id, what its address is made of, and
/// a name for examples.
macro_rules! references {
    ($($(#[$doc:meta])* $name:ident($id:ident, $collection:literal, $sample:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        struct $name {
            /// The resource's ID.
            #[schema(value_type = $id)]
            id: String,
            /// The resource's URL in this API.
            #[schema(format = "uri", example = json!(sample_url($collection, $id::PREFIX)))]
            url: String,
            /// The resource's name.
            #[schema(example = $sample)]
            name: String,
        }

        impl $name {
            fn new(app: &App, id: $id, name: String) -> Self {
                let id = id.to_string();
                Self { url: url(app, $collection, &id), id, name }
            }
        }
    )*};
}

references! {
    /// A reference to a workspace.
    WorkspaceReference(WorkspaceId, "workspaces", "Personal");
    /// A reference to a project.
    ProjectReference(ProjectId, "projects", "my_project");
    /// A reference to a database.
    DatabaseReference(DatabaseId, "databases", "my_project");
}

/// The address of a resource in this API.
fn url(app: &App, collection: &str, id: &str) -> String {
    format!("{}/v1/{collection}/{id}", app.public.api)
}

/// Such an address in examples.
fn sample_url(collection: &str, prefix: &str) -> String {
    format!("https://howdah.example.com/v1/{collection}/{prefix}_{}", base::id_schema::SAMPLE)
}
