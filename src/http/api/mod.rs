//! The JSON API below `/v1`: one file a noun, wire types beside their handlers.

mod audit;
mod branches;
mod connections;
mod databases;
mod integrations;
mod limits;
mod me;
mod operations;
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
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Header, Object, Ref, ResponseBuilder, Type};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::base::error::{Error, Result};
use crate::base::page::{Page, PageRequest};
use crate::http::refusal::Actions;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Howdah Management API",
        version = "v1",
        description = "REST API for managing workspaces, projects, branches, databases and connections. \
                       Every database is a PostgreSQL instance of its own.\n\n\
                       Every answer says how fast requests may come: up to `RateLimit-Limit` at once, \
                       `RateLimit-Remaining` of them now, and all of them again in `RateLimit-Reset` seconds. \
                       Requests beyond that are answered with 429; `Retry-After` says when the next one is taken.\n\n\
                       Every error has a stable `code`, a `message` for people and mostly a `hint` that says what to do. \
                       `X-Request-Id` is on every answer: name it when you ask the operator about one."
    ),
    modifiers(&Bearer),
    security(("Bearer" = [])),
    tags(
        (name = "Projects", description = "A project groups databases."),
        (name = "Databases", description = "A database is a PostgreSQL instance of its own."),
        (name = "Databases Connections", description = "The credentials of one database."),
        (name = "Database Usage", description = "What a database has done and how large it is."),
        (name = "Connections", description = "A connection is a credential of one database."),
        (name = "Branches", description = "A branch is where databases of a project stand."),
        (name = "Operations", description = "An operation is work on a database that goes on after the request that started it."),
        (name = "Integrations", description = "An integration is what a person lets an application do in a workspace."),
        (name = "Service Tokens", description = "A service token is what a program calls this API with."),
        (name = "Workspaces", description = "A workspace owns projects."),
        (name = "Regions", description = "Where databases are made."),
        (name = "Misc", description = "What belongs to no other group."),
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

/// What may happen to every operation, and to every one that takes a body.
struct Failures;

impl Modify for Failures {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        const ANY: [(&str, &str); 5] = [
            ("414", "The address is too long."),
            ("429", "The token or the address sends requests too fast; Retry-After says when to send the next."),
            ("431", "The header fields are too many or too large."),
            ("500", "A fault of the server."),
            ("503", "The server cannot do it right now; Retry-After says when to try again."),
        ];
        const WITH_BODY: [(&str, &str); 3] = [
            ("408", "The body did not arrive in time."),
            ("413", "The body is too large."),
            ("415", "The body is not of type application/json."),
        ];
        let body = || Content::new(Some(Ref::from_schema_name("ErrorBody")));
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete];
            for operation in operations.into_iter().flatten() {
                let with_body = WITH_BODY.iter().filter(|_| operation.request_body.is_some());
                for (status, description) in ANY.iter().chain(with_body) {
                    let mut response =
                        ResponseBuilder::new().description(*description).content("application/json", body());
                    if ["429", "503"].contains(status) {
                        let mut seconds = Header::new(Object::with_type(Type::Integer));
                        seconds.description = Some("In how many seconds to try again.".into());
                        response = response.header("Retry-After", seconds);
                    }
                    operation.responses.responses.insert((*status).into(), response.build().into());
                }
            }
        }
    }
}

/// Every operation of the API, the document about them, and what they are called in the audit log.
pub(super) fn routes() -> (Router<Arc<App>>, utoipa::openapi::OpenApi, Actions) {
    let (router, mut document) = operations().split_for_parts();
    let actions = actions(&document);
    Failures.modify(&mut document);
    (router, document, actions)
}

/// The handlers' names, which are verb and noun.
fn actions(document: &utoipa::openapi::OpenApi) -> Actions {
    let mut actions = HashMap::new();
    for (path, item) in &document.paths.paths {
        let changes = [(Method::POST, &item.post), (Method::PATCH, &item.patch), (Method::DELETE, &item.delete)];
        for (method, operation) in changes {
            if let Some(name) = operation.as_ref().and_then(|operation| operation.operation_id.clone()) {
                actions.insert((method, path.clone()), name);
            }
        }
    }
    Actions(actions)
}

fn operations() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
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
        .routes(routes!(workspaces::get_workspace))
        .routes(routes!(workspaces::get_subscription))
        .routes(routes!(limits::get_limits))
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

/// Tells a null (`Some(None)`) from what was left out (`None`), for a field with a default.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A moment that a caller named.
fn moment(field: &str, text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Error::invalid(
            format!("{field}: not a moment"),
            "Give a date and time with its offset, such as 2030-01-31T12:00:00Z.",
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
