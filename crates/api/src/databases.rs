//! Databases on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::connections::{ApiKey, ConnectionWire, DirectConnection, FirstConnectionWire};
use super::{Data, List, PageQuery, ProjectReference, backups, connections, filter_id, given, sample_url, url};
use auth::Principal;
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{BackupId, BranchId, ConnectionId, DatabaseId, ProjectId, WorkflowId};
use base::name::{BranchName, DatabaseName, LogicalId, ProjectName};
use domain::app::App;
use domain::branches::Placement;
use domain::connections::{Connection, NewCredential};
use domain::databases::{self, Database, DatabaseChange, Filter, NewDatabase, Status};
use domain::projects::{self, Project};
use domain::restores::{self, Source};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The region of a database.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegionReference {
    /// The region's ID.
    #[schema(example = "us-east-1")]
    id: String,
    /// The region's name.
    #[schema(example = "This server")]
    name: String,
}

/// The resource type: always `database`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum DatabaseType {
    Database,
}

/// The status of a database. `ready` means that a query has succeeded through the address of the connection
/// strings. A database with the status `failure` could not be created.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = "ready")]
enum DatabaseStatus {
    Provisioning,
    Ready,
    Recovering,
    Failure,
}

impl From<Status> for DatabaseStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Provisioning => Self::Provisioning,
            Status::Ready => Self::Ready,
            Status::Recovering => Self::Recovering,
            Status::Failure => Self::Failure,
        }
    }
}

/// The status of a database in the response that creates it. Connections wait while it is still
/// `provisioning`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = "ready")]
enum CreatedDatabaseStatus {
    Provisioning,
    Ready,
}

impl From<Status> for CreatedDatabaseStatus {
    /// Clients know two statuses here; whether a database could be made is said by the next request.
    fn from(status: Status) -> Self {
        match status {
            Status::Ready => Self::Ready,
            Status::Provisioning | Status::Recovering | Status::Failure => Self::Provisioning,
        }
    }
}

/// The source that a database was created from or last restored from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
#[schema(as = DatabaseSource, example = json!({"type": "empty"}))]
pub(crate) enum SourceWire {
    /// No source: the database was created empty.
    Empty,
    /// A backup.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The ID of the backed-up database.
        #[schema(value_type = DatabaseId)]
        database_id: String,
        /// The ID of the backup.
        #[schema(value_type = BackupId)]
        backup_id: String,
    },
    /// Another database.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The ID of that database.
        #[schema(value_type = DatabaseId)]
        database_id: String,
    },
}

/// The fields of every database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DatabaseFields {
    /// The database's ID.
    #[schema(value_type = DatabaseId)]
    id: String,
    /// Always `database`.
    r#type: DatabaseType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("databases", "db")))]
    url: String,
    /// The database's name in this API. The name inside PostgreSQL is always `postgres`.
    #[schema(example = "my_project")]
    name: String,
    /// Why the status is `failure`, why the database is still `provisioning`, or why the last restore failed. Null
    /// otherwise.
    #[schema(example = json!(null))]
    status_reason: Option<String>,
    /// When the database was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// Whether this is the project's default database.
    #[schema(example = true)]
    is_default: bool,
    /// The ID of the connection that was created with the database. Null once that connection is deleted.
    #[schema(value_type = Option<ConnectionId>)]
    default_connection_id: Option<String>,
    /// The database's region.
    region: RegionReference,
    /// The ID of the database's branch.
    #[schema(value_type = BranchId)]
    branch_id: String,
    /// The name of the database's branch. Not part of the Prisma Management API.
    #[schema(example = "main")]
    branch_git_name: String,
    /// The identifier that an external tool assigned to the database.
    #[schema(example = json!(null))]
    logical_id: Option<String>,
    /// The ID of the operation that is changing the database or changed it last. Null once that operation is no longer
    /// stored.
    #[schema(value_type = Option<WorkflowId>)]
    operation_id: Option<String>,
}

/// A database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Database)]
pub(crate) struct DatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// The database's status.
    status: DatabaseStatus,
    /// What the database was created from or last restored from.
    source: SourceWire,
    /// The database's connections, without secrets. Secrets are only in the responses that create connections.
    connections: Vec<ConnectionWire>,
    /// The project that the database belongs to.
    project: ProjectReference,
}

/// A database that is being restored in place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestoringDatabase)]
pub(crate) struct RestoringDatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// The database's status: `recovering`.
    status: DatabaseStatus,
    /// The backup that the restore starts from.
    source: BackupSource,
    /// The database's connections, which the restore keeps.
    connections: Vec<ConnectionWire>,
    /// The project that the database belongs to.
    project: ProjectReference,
}

/// The type of the source: always `backup`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BackupSourceType {
    Backup,
}

/// A backup of a database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BackupSource {
    /// Always `backup`.
    r#type: BackupSourceType,
    /// The ID of the backed-up database.
    #[schema(value_type = DatabaseId)]
    database_id: String,
    /// The ID of the backup.
    #[schema(value_type = BackupId)]
    backup_id: String,
}

/// A new database, with the secret of its first connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedDatabase)]
pub(crate) struct CreatedDatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// The database's status, normally `ready`.
    status: DatabaseStatus,
    /// What the database was created from or last restored from.
    source: SourceWire,
    /// The database's first connection, with its secret, which is not returned again.
    connections: Vec<FirstConnectionWire>,
    /// The project that the database belongs to.
    project: ProjectReference,
}

/// A new database, with the secrets of its first connection.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DatabaseWithSecretFields {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// The database's status, normally `ready`.
    status: CreatedDatabaseStatus,
    /// What the database was created from or last restored from.
    source: SourceWire,
    /// The database's first connection, with its secret, which is not returned again.
    connections: Vec<FirstConnectionWire>,
    /// Deprecated: use `connections`.
    #[schema(deprecated)]
    api_keys: Vec<ApiKey>,
    /// Deprecated: use `connections[0].endpoints.direct.connectionString`.
    #[schema(deprecated, example = connections::sample_string)]
    connection_string: Option<String>,
    /// Deprecated: use `connections[0].endpoints.direct`.
    #[schema(deprecated)]
    direct_connection: Option<DirectConnection>,
}

/// A new database, with its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseWithSecret)]
pub(crate) struct NewDatabaseWire {
    #[serde(flatten)]
    database: DatabaseWithSecretFields,
    /// The project that the database belongs to.
    project: ProjectReference,
}

/// A database to create. All fields are optional.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "reporting", "region": "us-east-1"}))]
pub(crate) struct CreateDatabase {
    /// The database's name, 1 to 256 characters. When omitted, a default database is named after its project, and
    /// any other database gets a generated name.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The ID of a region, or `inherit` for the project's region.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, default = "us-east-1")]
    region: Option<String>,
    /// Whether the database becomes the project's default database. A project has at most one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
    /// What to create the database from: `empty` (the default), a `backup` or a `database`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<CreateSource>,
    /// Deprecated: use `source`.
    #[serde(default, deserialize_with = "given")]
    #[schema(deprecated, nullable = false)]
    from_database: Option<FromDatabase>,
}

/// Deprecated: use `source`. Copies a database or, with `backupId`, restores a backup of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "db_01jzq6w3c4e5f6g7h8j9k0m1n2"}))]
pub(crate) struct FromDatabase {
    /// The ID of the database.
    id: String,
    /// The ID of the backup.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    backup_id: Option<String>,
}

/// What to create a database from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"type": "empty"}))]
pub(crate) enum CreateSource {
    /// No source: the database is empty.
    // Not a unit: serde ignores unknown fields beside the tag of one.
    Empty {},
    /// A backup.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The ID of the backed-up database. A deleted database is accepted while it can be restored.
        database_id: String,
        /// The ID of the backup.
        backup_id: String,
        /// The moment to restore to. Defaults to the end of the backup. Not part of the Prisma Management API.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
    /// Another database, which is copied.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The ID of the database. A deleted database is accepted while it can be restored.
        database_id: String,
        /// The moment to copy the database at. Defaults to now, or to the last restorable moment of a deleted database.
        /// Not part of the Prisma Management API.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
}

/// A database to create, and its project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"projectId": "proj_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "reporting"}))]
pub(crate) struct CreateDatabaseOf {
    /// The ID of the project.
    project_id: String,
    /// The database's name, 1 to 256 characters. When omitted, a default database is named after its project, and
    /// any other database gets a generated name.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The ID of a region, or `inherit` for the project's region.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, default = "us-east-1")]
    region: Option<String>,
    /// Whether the database becomes the project's default database. A project has at most one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
    /// What to create the database from: `empty` (the default), a `backup` or a `database`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<CreateSource>,
    /// The ID of the database's branch. Defaults to the project's default branch.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false)]
    branch_id: Option<Option<String>>,
    /// The name of the database's branch, instead of `branchId`. A missing branch is created.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    branch_git_name: Option<Option<String>>,
    /// An identifier assigned by an external tool. Unique on the branch. Cannot be combined with `branchGitName`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
    /// Deprecated: use `source`.
    #[serde(default, deserialize_with = "given")]
    #[schema(deprecated, nullable = false)]
    from_database: Option<FromDatabase>,
}

/// Changes to a database. Omitted fields are unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "analytics"}))]
pub(crate) struct UpdateDatabase {
    /// The new name, 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The ID of the branch to move the database to.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false)]
    branch_id: Option<Option<String>>,
    /// The name of the branch to move the database to, instead of `branchId`. A missing branch is created.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    branch_git_name: Option<Option<String>>,
    /// An identifier assigned by an external tool. Unique on the branch. Cannot be combined with a move.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
}

/// Filters of the list of databases.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DatabaseQuery {
    /// Return only databases of this project.
    project_id: Option<String>,
    /// Return only databases with this logical ID: at most one per branch.
    logical_id: Option<String>,
    /// Return only databases on this branch. Every database is on a branch, so `unassigned` returns none.
    branch_id: Option<String>,
    /// Return only databases on branches with this name.
    #[param(min_length = 1, max_length = 256)]
    branch_git_name: Option<String>,
}

impl DatabaseQuery {
    fn parse(&self) -> Result<Filter, Error> {
        Ok(Filter {
            project: filter_id(self.project_id.as_deref(), ProjectId::parse),
            branch: filter_id(self.branch_id.as_deref(), BranchId::parse),
            branch_git_name: self.branch_git_name.as_deref().map(BranchName::parse).transpose()?,
            logical_id: self.logical_id.as_deref().map(LogicalId::parse).transpose()?,
        })
    }
}

/// The branch that a body names, if it names one; `refuse` makes the error of a body that cannot be.
fn placement(
    id: Option<Option<String>>,
    git_name: Option<Option<String>>,
    refuse: impl Fn(&str, &str) -> Error,
) -> Result<Option<Placement>, Error> {
    match (id, git_name) {
        (None, None) => Ok(None),
        (Some(None), _) => {
            Err(refuse("branchId cannot be null: every database is on a branch", "Omit branchId to use the default."))
        }
        (_, Some(None)) => Err(refuse(
            "branchGitName cannot be null: every database is on a branch",
            "Omit branchGitName to use the default.",
        )),
        (Some(_), Some(_)) => {
            Err(refuse("branchId and branchGitName are mutually exclusive", "Send only one of them."))
        }
        (Some(Some(id)), None) => {
            BranchId::parse(&id).map(Placement::Branch).map(Some).ok_or_else(|| Error::not_found("branch", id))
        }
        (None, Some(Some(name))) => BranchName::parse(&name).map(Placement::GitName).map(Some),
    }
}

impl CreateSource {
    fn parse(&self) -> Result<Option<Source>, Error> {
        match self {
            Self::Empty {} => Ok(None),
            Self::Backup { database_id, backup_id, target_time } => {
                backups::parse_backup(database_id, backup_id, target_time.as_deref()).map(Some)
            }
            Self::Database { database_id, target_time } => {
                backups::parse_copy(database_id, target_time.as_deref()).map(Some)
            }
        }
    }
}

impl FromDatabase {
    fn parse(&self) -> Result<Option<Source>, Error> {
        match &self.backup_id {
            Some(backup) => backups::parse_backup(&self.id, backup, None).map(Some),
            None => backups::parse_copy(&self.id, None).map(Some),
        }
    }
}

fn source(database: &Database) -> SourceWire {
    match (database.source, database.source_database, database.source_backup) {
        (restores::SourceType::Backup, Some(of), Some(backup)) => {
            SourceWire::Backup { database_id: of.to_string(), backup_id: backup.to_string() }
        }
        (restores::SourceType::Backup | restores::SourceType::Database, Some(of), _) => {
            SourceWire::Database { database_id: of.to_string() }
        }
        _ => SourceWire::Empty,
    }
}

fn fields(app: &App, database: &Database) -> DatabaseFields {
    let id = database.id.to_string();
    let region = app.regions.describe(&database.region);
    DatabaseFields {
        url: url(app, "databases", &id),
        id,
        r#type: DatabaseType::Database,
        name: database.name.clone(),
        status_reason: database.status_reason.clone(),
        created_at: format_timestamp(database.created_at),
        is_default: database.is_default,
        default_connection_id: database.default_connection.map(|id| id.to_string()),
        region: RegionReference { id: region.id, name: region.name },
        branch_id: database.branch.to_string(),
        branch_git_name: database.branch_git_name.clone(),
        logical_id: database.logical_id.clone(),
        operation_id: database.operation.map(|id| id.to_string()),
    }
}

fn project_reference(app: &App, database: &Database) -> ProjectReference {
    ProjectReference::new(app, database.project, database.project_name.clone())
}

pub(crate) fn wire_restoring(app: &App, database: &Database) -> RestoringDatabaseWire {
    RestoringDatabaseWire {
        fields: fields(app, database),
        status: database.status.into(),
        source: BackupSource {
            r#type: BackupSourceType::Backup,
            database_id: database.source_database.map(|id| id.to_string()).unwrap_or_default(),
            backup_id: database.source_backup.map(|id| id.to_string()).unwrap_or_default(),
        },
        connections: database.connections.iter().map(|connection| connections::wire(app, connection)).collect(),
        project: project_reference(app, database),
    }
}

fn wire(app: &App, database: &Database) -> DatabaseWire {
    DatabaseWire {
        fields: fields(app, database),
        status: database.status.into(),
        source: source(database),
        connections: database.connections.iter().map(|connection| connections::wire(app, connection)).collect(),
        project: project_reference(app, database),
    }
}

/// The connection that was just made with a database.
fn first<'a>(database: &'a Database, credential: &NewCredential) -> impl Iterator<Item = &'a Connection> {
    let id = credential.id;
    database.connections.iter().filter(move |connection| connection.id == id)
}

/// A database with the secrets of the connection that was just made with it.
pub(crate) fn wire_new(app: &App, database: &Database, credential: &NewCredential) -> DatabaseWithSecretFields {
    DatabaseWithSecretFields {
        fields: fields(app, database),
        status: database.status.into(),
        source: source(database),
        connections: first(database, credential).map(|own| connections::wire_first(app, own, credential)).collect(),
        api_keys: first(database, credential)
            .map(|connection| connections::api_key(app, connection, credential))
            .collect(),
        connection_string: Some(connections::connection_string(app, credential)),
        direct_connection: Some(connections::direct_connection(app, credential)),
    }
}

fn wire_created(app: &App, database: &Database, credential: &NewCredential) -> CreatedDatabaseWire {
    CreatedDatabaseWire {
        fields: fields(app, database),
        status: database.status.into(),
        source: source(database),
        connections: first(database, credential).map(|own| connections::wire_first(app, own, credential)).collect(),
        project: project_reference(app, database),
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
/// Returns the databases of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{projectId}/databases", tag = "Databases",
    params(("projectId" = String, Path, description = "The ID of the project."), PageQuery), responses(
    (status = 200, description = "The databases.", body = List<DatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_databases(
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
/// Creates a database, which is a separate PostgreSQL instance, on the project's default branch. The response contains
/// the connection string of its first connection, which is not returned again. The database is normally `ready`; if it
/// is still `provisioning`, connections wait until it is ready. Requires the developer role.
#[utoipa::path(post, path = "/v1/projects/{projectId}/databases", tag = "Databases",
    params(("projectId" = String, Path, description = "The ID of the project.")),
    request_body = CreateDatabase, responses(
    (status = 201, description = "The database, with its secrets.", body = Data<NewDatabaseWire>),
    (status = 400, description = "The project already has a default database, `source` and `fromDatabase` are both given, or the body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project, or the source, does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The source cannot be used now (the backup is not complete, or the database is not `ready`), or the workspace has reached its limit of databases (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(project): Path<String>,
    body::Json(new): body::Json<CreateDatabase>,
) -> Result<Answer, Failure> {
    let project = parse_project(&project)?;
    let source = parse_source(new.source.as_ref(), new.from_database.as_ref())?;
    let CreateDatabase { name, region, is_default, .. } = new;
    let wanted = Wanted { name, region, is_default, source, placement: Placement::Default, logical_id: None };
    create(&app, &actor, &repeatable, project, wanted, |database, credential| {
        let data = NewDatabaseWire {
            database: wire_new(&app, database, credential),
            project: project_reference(&app, database),
        };
        Answer::of(StatusCode::CREATED, &Data { data })
    })
    .await
}

/// What a create names to be made from, in the one way or the other.
fn parse_source(source: Option<&CreateSource>, from: Option<&FromDatabase>) -> Result<Option<Source>, Error> {
    match (source, from) {
        (Some(_), Some(_)) => Err(Error::rejected(
            "source and fromDatabase are mutually exclusive",
            "Send only source; fromDatabase is deprecated.",
        )),
        (Some(source), None) => source.parse(),
        (None, Some(from)) => from.parse(),
        (None, None) => Ok(None),
    }
}

/// What a create asks for, whichever way it came.
struct Wanted {
    name: Option<String>,
    region: Option<String>,
    is_default: bool,
    source: Option<Source>,
    placement: Placement,
    logical_id: Option<LogicalId>,
}

/// Restores to a new database in the project, region and branch of the one that a backup is of.
pub(crate) async fn restore_beside(
    app: &App,
    actor: &Principal,
    repeatable: &Repeatable,
    of: DatabaseId,
    name: DatabaseName,
    source: Source,
) -> Result<Answer, Failure> {
    let session = app.store.session().await?;
    let kept = databases::get(&session, actor, of).await?;
    if databases::has_name(&session, kept.project, &name).await? {
        let message = format!("targetDatabaseName: the project already has a database named {:?}", name.as_str());
        return Err(Error::conflict(message, "Choose another name, or rename the existing database first.").into());
    }
    drop(session);
    let wanted = Wanted {
        name: Some(name.as_str().to_owned()),
        region: Some(kept.region),
        is_default: false,
        source: Some(source),
        placement: Placement::Branch(kept.branch),
        logical_id: None,
    };
    create(app, actor, repeatable, kept.project, wanted, |database, credential| {
        Answer::of(StatusCode::ACCEPTED, &Data { data: wire_created(app, database, credential) })
    })
    .await
}

async fn create(
    app: &App,
    actor: &Principal,
    repeatable: &Repeatable,
    project: ProjectId,
    wanted: Wanted,
    answer: impl Fn(&Database, &NewCredential) -> Result<Answer, Error>,
) -> Result<Answer, Failure> {
    let name = wanted.name.as_deref().map(DatabaseName::parse).transpose()?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let owner = projects::get(&tx, actor, project).await?;
    let region = region(app, wanted.region.as_deref(), &owner)?;
    let Wanted { is_default, ref placement, ref logical_id, .. } = wanted;
    let (placement, logical_id) = (placement.clone(), logical_id.clone());
    let name = match name {
        Some(name) => name,
        None if is_default => DatabaseName::parse(&owner.name)?,
        None => ProjectName::generate().into(),
    };
    let source = match &wanted.source {
        Some(source) => Some(restores::resolve(&tx, actor, app.clock.now(), source).await?),
        None => None,
    };
    let new = NewDatabase { name, region, is_default, placement, logical_id, source };
    app.check_room()?;
    let created = databases::create(&tx, actor, app.clock.now(), &app.quotas, project, new).await?;
    let database = databases::get(&tx, actor, created.database).await?;
    let so_far = answer(&database, &created.credential)?.naming([created.workflow]);
    repeatable.commit_unsettled(app, tx, &so_far).await?;
    app.settle(&mut announcements, created.workflow).await?;
    let database = databases::get(&app.store.session().await?, actor, created.database).await?;
    let answer = answer(&database, &created.credential)?.naming([created.workflow]);
    Ok(repeatable.settle(app, answer).await?)
}

/// List databases
///
/// Returns the databases of all projects that the token can access, oldest first. If several filters are given,
/// databases must match all of them. The list is empty if a project or branch in a filter does not exist.
#[utoipa::path(get, path = "/v1/databases", tag = "Databases", params(PageQuery, DatabaseQuery), responses(
    (status = 200, description = "The databases.", body = List<DatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_all_databases(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(page): Query<PageQuery>,
    Query(filter): Query<DatabaseQuery>,
) -> Result<Json<List<DatabaseWire>>, Failure> {
    let (page, filter) = (page.parse(DatabaseId::parse)?, filter.parse()?);
    let found = databases::list_all(&app.store.session().await?, &actor, &filter, page).await?;
    Ok(Json(List::of(found, |database| wire(&app, &database))))
}

/// Create a database of a project
///
/// Creates a database, which is a separate PostgreSQL instance, on a branch of the project: the default branch, unless
/// `branchId` or `branchGitName` selects another one. The response contains the connection string of its first
/// connection, which is not returned again. The database is normally `ready`; if it is still `provisioning`,
/// connections wait until it is ready. Requires the developer role.
#[utoipa::path(post, path = "/v1/databases", tag = "Databases", request_body = CreateDatabaseOf, responses(
    (status = 201, description = "The database, with the secrets of its first connection.", body = Data<CreatedDatabaseWire>),
    (status = 400, description = "The project already has a default database, `branchId` or `branchGitName` is null, both are given, `logicalId` is combined with `branchGitName`, `source` and `fromDatabase` are both given, or the body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project, the branch, or the source does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "Another database on the branch has the logical ID, the source cannot be used now (the backup is not complete, or the database is not `ready`), or the workspace has reached its limit of databases (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_database_of(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    body::Json(new): body::Json<CreateDatabaseOf>,
) -> Result<Answer, Failure> {
    let project = parse_project(&new.project_id)?;
    let placement = placement(new.branch_id, new.branch_git_name, |message, hint| Error::rejected(message, hint))?
        .unwrap_or(Placement::Default);
    if matches!(placement, Placement::GitName(_)) && new.logical_id.is_some() {
        let message = "logicalId cannot be combined with branchGitName";
        return Err(Error::rejected(message, "Send branchId instead of branchGitName.").into());
    }
    let logical_id = new.logical_id.as_deref().map(LogicalId::parse).transpose()?;
    let source = parse_source(new.source.as_ref(), new.from_database.as_ref())?;
    let CreateDatabaseOf { name, region, is_default, .. } = new;
    let wanted = Wanted { name, region, is_default, source, placement, logical_id };
    create(&app, &actor, &repeatable, project, wanted, |database, credential| {
        Answer::of(StatusCode::CREATED, &Data { data: wire_created(&app, database, credential) })
    })
    .await
}

/// Get a database
///
/// Returns a database with its status and its connections, without their secrets.
#[utoipa::path(get, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The ID of the database.")), responses(
    (status = 200, description = "The database.", body = Data<DatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<DatabaseWire>>, Failure> {
    let database = databases::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, &database) }))
}

/// Update a database
///
/// Changes the name, the branch or the logical ID of a database. If `branchGitName` names a missing branch, the branch
/// is created. A move to another branch and a change of the logical ID need two requests. Requires the developer role.
#[utoipa::path(patch, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The ID of the database.")),
    request_body = UpdateDatabase, responses(
    (status = 200, description = "The database.", body = Data<DatabaseWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database does not exist, the token cannot access it, or its project does not have the branch.", body = ErrorBody),
    (status = 409, description = "Another database on the branch has the logical ID.", body = ErrorBody),
    (status = 422, description = "A value is invalid, or two values are mutually exclusive.", body = ErrorBody),
))]
pub(crate) async fn update_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(change): body::Json<UpdateDatabase>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let placement = placement(change.branch_id, change.branch_git_name, |message, hint| Error::invalid(message, hint))?;
    if placement.is_some() && change.logical_id.is_some() {
        let message = "logicalId cannot be combined with a move to another branch";
        return Err(Error::invalid(message, "Send two requests: move the database first, then set logicalId.").into());
    }
    let change = DatabaseChange {
        name: change.name.as_deref().map(DatabaseName::parse).transpose()?,
        placement,
        logical_id: change.logical_id.as_deref().map(LogicalId::parse).transpose()?,
    };
    let tx = app.store.begin().await?;
    let database = databases::update(&tx, &actor, app.clock.now(), id, &change).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, &database) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Delete a database
///
/// Deletes a database and returns its last state. Its credentials stop working immediately, and its sessions are
/// closed. A final backup is kept, with the earlier ones, for as long as the operator configured (7 days by default);
/// until then the database can be restored: use it as the `source` of a new database, or run `howdah databases
/// undelete`. Its files on the server are removed when the final backup is complete. The default database can only be
/// deleted together with its project. Requires the developer role.
#[utoipa::path(delete, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The ID of the database.")), responses(
    (status = 200, description = "The deleted database.", body = Data<DatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The database is the project's default database, the project has delete protection, the token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn delete_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let tx = app.store.begin().await?;
    let database = databases::delete(&tx, &actor, app.clock.now(), id).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, &database) })?.naming(database.operation);
    Ok(repeatable.commit(&app, tx, answer).await?)
}
