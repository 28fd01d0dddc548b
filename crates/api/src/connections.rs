//! Connections on the wire. A connection string is in the answer that creates it and nowhere else.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, DatabaseReference, List, PageQuery, filter_id, sample_url, url};
use auth::Principal;
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{ConnectionId, DatabaseId};
use base::name::ConnectionName;
use base::store::Channel;
use domain::app::App;
use domain::connections::{self, Connection, NewCredential};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The addresses of a connection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Endpoints {
    /// The direct address of the database.
    direct: Endpoint,
}

/// A host and a port.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// The host, without the port.
    #[schema(example = "db.example.com")]
    host: String,
    /// The port.
    #[schema(example = 5432)]
    port: u16,
}

/// The addresses of a connection, with secrets.
#[derive(Debug, Serialize, ToSchema)]
struct SecretEndpoints {
    /// The direct address of the database.
    direct: SecretEndpoint,
}

/// A host, a port and the connection string.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SecretEndpoint {
    /// The host, without the port.
    #[schema(example = "db.example.com")]
    host: String,
    /// The port.
    #[schema(example = 5432)]
    port: u16,
    /// The complete connection string.
    #[schema(example = sample_string)]
    connection_string: String,
}

/// Deprecated: the parts of the direct endpoint. Use `endpoints.direct`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DirectConnection {
    /// The host, without the port.
    #[schema(example = "db.example.com")]
    host: String,
    /// The password.
    #[schema(example = json!(SAMPLE_PASSWORD))]
    pass: String,
    /// The port.
    #[schema(example = 5432)]
    port: u16,
    /// The user name.
    #[schema(example = json!(SAMPLE_USER))]
    user: String,
}

/// The resource type: always `connection`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum ConnectionType {
    Connection,
}

/// The protocol of a connection: always `postgres`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum ConnectionKind {
    Postgres,
}

/// The fields of every connection.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectionFields {
    /// The connection's ID.
    #[schema(value_type = ConnectionId)]
    id: String,
    /// Always `connection`.
    r#type: ConnectionType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("connections", "con")))]
    url: String,
    /// The connection's name.
    #[schema(example = "web")]
    name: String,
    /// When the connection was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// Always `postgres`.
    kind: ConnectionKind,
    /// The database that the connection belongs to.
    database: DatabaseReference,
}

/// A connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionWire {
    #[serde(flatten)]
    fields: ConnectionFields,
    /// The connection's addresses.
    endpoints: Endpoints,
}

/// The connection that was created with a database, with its secret, which is returned only once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FirstConnection)]
pub(crate) struct FirstConnectionWire {
    #[serde(flatten)]
    fields: ConnectionFields,
    /// The connection's addresses and connection string.
    endpoints: SecretEndpoints,
    /// Deprecated: use `endpoints.direct`.
    #[schema(deprecated)]
    direct_connection: DirectConnection,
}

/// A connection with its secret, which is returned only once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConnectionWithSecret)]
pub(crate) struct NewConnectionWire {
    #[serde(flatten)]
    fields: ConnectionFields,
    /// The connection's addresses and connection string.
    endpoints: SecretEndpoints,
    /// Deprecated: use `endpoints.direct`.
    #[schema(deprecated)]
    direct_connection: DirectConnection,
    /// Deprecated: use `endpoints.direct.connectionString`.
    #[schema(deprecated, example = sample_string)]
    connection_string: String,
    /// Deprecated: use `endpoints.direct.host`.
    #[schema(deprecated, example = "db.example.com")]
    host: Option<String>,
    /// Deprecated: use the connection string.
    #[schema(deprecated, example = json!(SAMPLE_PASSWORD))]
    pass: Option<String>,
    /// Deprecated: use the connection string.
    #[schema(deprecated, example = json!(SAMPLE_USER))]
    user: Option<String>,
}

/// Deprecated: the connection that was created with a database. Use `connections`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiKey {
    /// The connection's ID.
    #[schema(value_type = ConnectionId)]
    id: String,
    /// Always `connection`.
    r#type: ConnectionType,
    /// The connection's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("connections", "con")))]
    url: String,
    /// The connection's name.
    #[schema(example = "Default")]
    name: String,
    /// When the connection was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// Always `postgres`.
    kind: ConnectionKind,
    /// The connection's addresses.
    endpoints: Endpoints,
    /// The complete connection string.
    #[schema(example = sample_string)]
    connection_string: String,
    /// The parts of the direct endpoint.
    direct_connection: DirectConnection,
}

/// A connection to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "web"}))]
pub(crate) struct CreateConnection {
    /// The connection's name, 1 to 256 characters.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
}

/// A connection to create, and its database.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"databaseId": "db_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "web"}))]
pub(crate) struct CreateConnectionOf {
    /// The ID of the database.
    database_id: String,
    /// The connection's name, 1 to 256 characters.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
}

/// Filters of the list of connections.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ConnectionQuery {
    /// Return only connections of this database.
    database_id: Option<String>,
}

/// The string that `psql` and every driver take.
pub(crate) fn connection_string(app: &App, credential: &NewCredential) -> String {
    app.public.connection_string(&credential.user, credential.password.expose())
}

const SAMPLE_USER: &str = "4f6c1d2e8a7b9035c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738";
const SAMPLE_PASSWORD: &str = "sk_example-password-xyz";

/// A connection string for examples.
pub(crate) fn sample_string() -> String {
    format!("postgres://{SAMPLE_USER}:{SAMPLE_PASSWORD}@db.example.com:5432/postgres?sslmode=require")
}

fn endpoints(app: &App) -> Endpoints {
    Endpoints { direct: Endpoint { host: app.public.gateway_host.clone(), port: app.public.gateway_port } }
}

fn secret_endpoints(app: &App, credential: &NewCredential) -> SecretEndpoints {
    SecretEndpoints {
        direct: SecretEndpoint {
            host: app.public.gateway_host.clone(),
            port: app.public.gateway_port,
            connection_string: connection_string(app, credential),
        },
    }
}

/// Deprecated, but still read by older clients.
pub(crate) fn direct_connection(app: &App, credential: &NewCredential) -> DirectConnection {
    DirectConnection {
        host: app.public.gateway_host.clone(),
        pass: credential.password.expose().to_owned(),
        port: app.public.gateway_port,
        user: credential.user.clone(),
    }
}

fn fields(app: &App, connection: &Connection) -> ConnectionFields {
    let id = connection.id.to_string();
    ConnectionFields {
        url: url(app, "connections", &id),
        id,
        r#type: ConnectionType::Connection,
        name: connection.name.clone(),
        created_at: format_timestamp(connection.created_at),
        kind: ConnectionKind::Postgres,
        database: DatabaseReference::new(app, connection.database, connection.database_name.clone()),
    }
}

/// A connection without its secret.
pub(crate) fn wire(app: &App, connection: &Connection) -> ConnectionWire {
    ConnectionWire { fields: fields(app, connection), endpoints: endpoints(app) }
}

/// The connection of a database that was just made, with the secret.
pub(crate) fn wire_first(app: &App, connection: &Connection, credential: &NewCredential) -> FirstConnectionWire {
    FirstConnectionWire {
        fields: fields(app, connection),
        endpoints: secret_endpoints(app, credential),
        direct_connection: direct_connection(app, credential),
    }
}

/// A connection with the secret that it was just given.
fn wire_new(app: &App, connection: &Connection, credential: &NewCredential) -> NewConnectionWire {
    let direct_connection = direct_connection(app, credential);
    let DirectConnection { host, pass, user, .. } = direct_connection.clone();
    NewConnectionWire {
        fields: fields(app, connection),
        endpoints: secret_endpoints(app, credential),
        direct_connection,
        connection_string: connection_string(app, credential),
        host: Some(host),
        pass: Some(pass),
        user: Some(user),
    }
}

/// The deprecated form of the connection that was made with a database.
pub(crate) fn api_key(app: &App, connection: &Connection, credential: &NewCredential) -> ApiKey {
    let ConnectionFields { id, r#type, url, name, created_at, kind, .. } = fields(app, connection);
    ApiKey {
        id,
        r#type,
        url,
        name,
        created_at,
        kind,
        endpoints: endpoints(app),
        connection_string: connection_string(app, credential),
        direct_connection: direct_connection(app, credential),
    }
}

fn parse_database(id: &str) -> Result<DatabaseId, Error> {
    DatabaseId::parse(id).ok_or_else(|| Error::not_found("database", id))
}

fn parse(id: &str) -> Result<ConnectionId, Error> {
    ConnectionId::parse(id).ok_or_else(|| Error::not_found("connection", id))
}

/// List connections of a database
///
/// Returns the connections of a database, oldest first, without their secrets.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/connections", tag = "Databases Connections",
    params(("databaseId" = String, Path, description = "The ID of the database."), PageQuery), responses(
    (status = 200, description = "The connections.", body = List<ConnectionWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_connections(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(database): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<ConnectionWire>>, Failure> {
    let database = parse_database(&database)?;
    let page = page.parse(ConnectionId::parse)?;
    let found = connections::list(&app.store.session().await?, &actor, database, page).await?;
    Ok(Json(List::of(found, |connection| wire(&app, &connection))))
}

/// Create a connection
///
/// Creates a user name and a password for the database. They work immediately. The response contains the connection
/// string, which is not returned again. Requires the developer role.
///
/// In SQL, every connection has the role `tenant`; the user name is used for authentication only. To change the
/// password, rotate the connection: `ALTER ROLE` does not change it.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/connections", tag = "Databases Connections",
    params(("databaseId" = String, Path, description = "The ID of the database.")),
    request_body = CreateConnection, responses(
    (status = 200, description = "The connection, with its secret.", body = Data<NewConnectionWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The database has reached its limit of connections (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_connection(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(database): Path<String>,
    body::Json(new): body::Json<CreateConnection>,
) -> Result<Answer, Failure> {
    create(&app, &actor, &repeatable, StatusCode::OK, &database, &new.name).await
}

async fn create(
    app: &App,
    actor: &Principal,
    repeatable: &Repeatable,
    status: StatusCode,
    database: &str,
    name: &str,
) -> Result<Answer, Failure> {
    let database = parse_database(database)?;
    let name = ConnectionName::parse(name)?;
    let tx = app.store.begin().await?;
    let credential = connections::create(&tx, actor, app.clock.now(), &app.quotas, database, &name).await?;
    let connection = connections::get(&tx, actor, credential.id).await?;
    let answer = Answer::of(status, &Data { data: wire_new(app, &connection, &credential) })?;
    Ok(repeatable.commit(app, tx, answer).await?)
}

/// List connections
///
/// Returns the connections of all databases that the token can access, oldest first, without their secrets. The list
/// is empty if the database in the filter does not exist.
#[utoipa::path(get, path = "/v1/connections", tag = "Connections", params(PageQuery, ConnectionQuery), responses(
    (status = 200, description = "The connections.", body = List<ConnectionWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_all_connections(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(page): Query<PageQuery>,
    Query(filter): Query<ConnectionQuery>,
) -> Result<Json<List<ConnectionWire>>, Failure> {
    let page = page.parse(ConnectionId::parse)?;
    let database = filter_id(filter.database_id.as_deref(), DatabaseId::parse);
    let found = connections::list_all(&app.store.session().await?, &actor, database, page).await?;
    Ok(Json(List::of(found, |connection| wire(&app, &connection))))
}

/// Create a connection of a database
///
/// Creates a user name and a password for the database. They work immediately. The response contains the connection
/// string, which is not returned again. Requires the developer role.
///
/// In SQL, every connection has the role `tenant`; the user name is used for authentication only. To change the
/// password, rotate the connection: `ALTER ROLE` does not change it.
#[utoipa::path(post, path = "/v1/connections", tag = "Connections", request_body = CreateConnectionOf, responses(
    (status = 201, description = "The connection, with its secret.", body = Data<NewConnectionWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The database has reached its limit of connections (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_connection_of(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    body::Json(new): body::Json<CreateConnectionOf>,
) -> Result<Answer, Failure> {
    create(&app, &actor, &repeatable, StatusCode::CREATED, &new.database_id, &new.name).await
}

/// Get a connection
///
/// Returns a connection without its secret, which only the response that created it contains.
#[utoipa::path(get, path = "/v1/connections/{id}", tag = "Connections",
    params(("id" = String, Path, description = "The ID of the connection.")), responses(
    (status = 200, description = "The connection.", body = Data<ConnectionWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The connection does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_connection(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<ConnectionWire>>, Failure> {
    let connection = connections::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, &connection) }))
}

/// Rotate a connection's credential
///
/// Replaces the user name and the password of a connection; its ID and name are unchanged. The old credential stops
/// working immediately, and the sessions that it opened are closed. The response contains the new connection string,
/// which is not returned again. Requires the developer role.
#[utoipa::path(post, path = "/v1/connections/{id}/rotate", tag = "Connections",
    params(("id" = String, Path, description = "The ID of the connection.")), responses(
    (status = 200, description = "The connection, with its new secret.", body = Data<NewConnectionWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The connection does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn rotate_connection(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    _: body::Json<body::Nothing>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let credential = connections::rotate(&tx, &actor, app.clock.now(), id).await?;
    let connection = connections::get(&tx, &actor, id).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire_new(&app, &connection, &credential) })?;
    let answer = repeatable.commit(&app, tx, answer).await?;
    // Sessions end by the connection's id: one that is opened with the new credential must not
    // come before the gateway has heard of it.
    app.hear(&mut announcements, Channel::ConnectionEnded, &id.bare()).await;
    Ok(answer)
}

/// Delete a connection
///
/// Deletes a connection. Its user name and password stop working immediately, and its sessions are closed. Requires
/// the developer role.
#[utoipa::path(delete, path = "/v1/connections/{id}", tag = "Connections",
    params(("id" = String, Path, description = "The ID of the connection.")), responses(
    (status = 204, description = "The connection was deleted."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The connection does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn delete_connection(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    connections::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
