//! Databases on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::connections::{ApiKey, ConnectionWire, DirectConnection};
use super::{Data, List, PageQuery, Reference, connections, url};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{DatabaseId, ProjectId};
use crate::base::name::{DatabaseName, ProjectName};
use crate::domain::connections::NewCredential;
use crate::domain::databases::{self, Database, NewDatabase};
use crate::domain::projects::{self, Project};
use crate::http::Failure;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;

/// Where a database is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegionReference {
    /// The region's id.
    #[schema(example = "us-east-1")]
    id: String,
    /// The region's name.
    name: String,
}

/// What a database was made from.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceWire {
    /// `empty`.
    #[schema(example = "empty")]
    r#type: &'static str,
}

/// A database without its project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatabaseFields {
    /// Its id.
    #[schema(example = "db_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// Always `database`.
    #[schema(example = "database")]
    r#type: &'static str,
    /// Its address in this API.
    #[schema(format = "uri")]
    url: String,
    /// Its name. Inside PostgreSQL the database is always called `postgres`.
    name: String,
    /// `provisioning`, `ready`, `recovering` or `failure`. `ready` means that SQL has worked
    /// through the address of its connection strings.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why it stands at `failure`, or what keeps it at `provisioning`; null otherwise.
    status_reason: Option<String>,
    /// When it was made.
    #[schema(format = "date-time")]
    created_at: String,
    /// Whether it is its project's default database.
    is_default: bool,
    /// The connection that was made with it, while that exists.
    default_connection_id: Option<String>,
    /// Its connections. Secrets are only in the answer that creates them.
    connections: Vec<ConnectionWire>,
    /// Its region.
    region: Option<RegionReference>,
    /// What it was made from.
    source: Option<SourceWire>,
    /// Its branch, where there is one.
    branch_id: Option<String>,
    /// The identity that an external tool gave it.
    logical_id: Option<String>,
}

/// A database.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// Its project.
    project: Reference,
}

/// A database as the answer that creates it shows it, with the secrets of its first connection.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewDatabaseFields {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// Deprecated: use `connections`.
    #[schema(deprecated)]
    api_keys: Vec<ApiKey>,
    /// Deprecated: use `connections[0].endpoints.direct.connectionString`.
    #[schema(deprecated)]
    connection_string: Option<String>,
    /// Deprecated: use `connections[0].endpoints.direct`.
    #[schema(deprecated)]
    direct_connection: Option<DirectConnection>,
}

/// A new database.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NewDatabaseWire {
    #[serde(flatten)]
    database: NewDatabaseFields,
    /// Its project.
    project: Reference,
}

/// What a new database needs; all of it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"name": "reporting", "region": "us-east-1"}))]
pub(super) struct CreateDatabase {
    /// Its name, 1 to 256 characters; a made-up one when there is none.
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// A region's id, or `inherit` for the project's.
    #[schema(nullable = false, default = "us-east-1")]
    region: Option<String>,
    /// Whether it becomes the project's default database; a project has at most one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
    /// What to make it from; only `empty`.
    #[schema(nullable = false)]
    source: Option<CreateSource>,
    /// Deprecated, and not taken: what `source` was called before.
    #[schema(deprecated, nullable = false, value_type = Object)]
    from_database: Option<serde_json::Value>,
}

/// What to make a database from.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CreateSource {
    /// `empty`.
    #[schema(example = "empty")]
    r#type: String,
}

fn fields(app: &App, database: &Database, credential: Option<&NewCredential>) -> DatabaseFields {
    let id = database.id.to_string();
    let region = app.regions.describe(&database.region);
    DatabaseFields {
        url: url(app, "databases", &id),
        id,
        r#type: "database",
        name: database.name.clone(),
        status: database.status.as_str(),
        status_reason: database.status_reason.clone(),
        created_at: format_timestamp(database.created_at),
        is_default: database.is_default,
        default_connection_id: database.default_connection.map(|id| id.to_string()),
        connections: database
            .connections
            .iter()
            .map(|connection| connections::wire(app, connection, credential))
            .collect(),
        region: Some(RegionReference { id: region.id, name: region.name }),
        source: Some(SourceWire { r#type: "empty" }),
        branch_id: None,
        logical_id: None,
    }
}

fn project_reference(app: &App, database: &Database) -> Reference {
    Reference::new(app, "projects", database.project.to_string(), database.project_name.clone())
}

fn wire(app: &App, database: &Database) -> DatabaseWire {
    DatabaseWire { fields: fields(app, database, None), project: project_reference(app, database) }
}

/// A database with the secrets of the connection that was just made with it.
pub(super) fn wire_new(app: &App, database: &Database, credential: &NewCredential) -> NewDatabaseFields {
    let own = database.connections.iter().filter(|connection| connection.id == credential.id);
    NewDatabaseFields {
        fields: fields(app, database, Some(credential)),
        api_keys: own.map(|connection| connections::api_key(app, connection, credential)).collect(),
        connection_string: Some(connections::connection_string(app, credential)),
        direct_connection: Some(connections::direct_connection(app, credential)),
    }
}

fn parse(id: &str) -> Result<DatabaseId, Error> {
    DatabaseId::parse(id).ok_or_else(|| Error::not_found("database", id))
}

fn parse_project(id: &str) -> Result<ProjectId, Error> {
    ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id))
}

/// The region that a create means; `inherit` is the project's.
fn region(app: &App, asked: Option<&str>, project: &Project) -> Result<String, Error> {
    let id = match asked {
        Some("inherit") => project.default_region.as_deref().unwrap_or(app.regions.default_id()),
        Some(id) => id,
        None => app.regions.default_id(),
    };
    app.regions.check(id)?;
    Ok(id.to_owned())
}

/// List databases of a project
///
/// Oldest first.
#[utoipa::path(get, path = "/v1/projects/{projectId}/databases", tag = "Databases",
    params(("projectId" = String, Path, description = "The project's id."), PageQuery), responses(
    (status = 200, description = "The databases.", body = List<DatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_databases(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(project): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<DatabaseWire>>, Failure> {
    let project = parse_project(&project)?;
    let page = page.parse(DatabaseId::parse)?;
    let found = databases::list(&app.store.session().await?, &actor, project, page).await?;
    Ok(Json(List::of(found, |database| wire(&app, &database))))
}

/// Create a database
///
/// A PostgreSQL instance of its own. The answer holds the connection string of its first
/// connection, which is not shown again. It is normally `ready`; when it is still
/// `provisioning`, a connect waits for it.
#[utoipa::path(post, path = "/v1/projects/{projectId}/databases", tag = "Databases",
    params(("projectId" = String, Path, description = "The project's id.")),
    request_body = CreateDatabase, responses(
    (status = 201, description = "The database, with its secrets.", body = Data<NewDatabaseWire>),
    (status = 400, description = "The project has a default database already, or the body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not do this.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(project): Path<String>,
    body::Json(new): body::Json<CreateDatabase>,
) -> Result<(StatusCode, Json<Data<NewDatabaseWire>>), Failure> {
    let project = parse_project(&project)?;
    let name = match new.name.as_deref() {
        Some(name) => DatabaseName::parse(name)?,
        None => ProjectName::generate().into(),
    };
    if let Some(source) = new.source.filter(|source| source.r#type != "empty") {
        let message = format!("source.type: a database cannot be made from {:?} yet", source.r#type);
        return Err(Error::invalid(message, "Use empty, or leave source out.").into());
    }
    // Left unread, it would give an empty database to somebody who wants a copy.
    if new.from_database.is_some() {
        let message = "fromDatabase: a database cannot be made from another one yet";
        return Err(Error::invalid(message, "Leave it out to get an empty database.").into());
    }
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let owner = projects::get(&tx, &actor, project).await?;
    let region = region(&app, new.region.as_deref(), &owner)?;
    let new = NewDatabase { name, region, is_default: new.is_default };
    let created = databases::create(&tx, &actor, app.clock.now(), project, new).await?;
    tx.commit().await?;
    app.settle(&mut announcements, created.workflow).await?;
    let database = databases::get(&app.store.session().await?, &actor, created.database).await?;
    let data = NewDatabaseWire {
        database: wire_new(&app, &database, &created.credential),
        project: project_reference(&app, &database),
    };
    Ok((StatusCode::CREATED, Json(Data { data })))
}

/// Get a database
#[utoipa::path(get, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The database's id.")), responses(
    (status = 200, description = "The database.", body = Data<DatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
))]
pub(super) async fn get_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<DatabaseWire>>, Failure> {
    let database = databases::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, &database) }))
}

/// Delete a database
///
/// Its credentials are no longer good when this answers; its sessions are ended and its files
/// removed. The default database goes only with its project.
#[utoipa::path(delete, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The database's id.")), responses(
    (status = 200, description = "The database as it was.", body = Data<DatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "It is its project's default database.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
))]
pub(super) async fn delete_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<DatabaseWire>>, Failure> {
    let id = parse(&id)?;
    let tx = app.store.begin().await?;
    let database = databases::delete(&tx, &actor, app.clock.now(), id).await?;
    tx.commit().await?;
    Ok(Json(Data { data: wire(&app, &database) }))
}
