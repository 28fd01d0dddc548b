//! Databases on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::connections::{ApiKey, ConnectionWire, DirectConnection, FirstConnectionWire};
use super::{Data, List, PageQuery, ProjectReference, backups, connections, filter_id, given, sample_url, url};
use crate::app::App;
use crate::auth::Principal;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{BackupId, BranchId, ConnectionId, DatabaseId, ProjectId, WorkflowId};
use crate::base::name::{BranchName, DatabaseName, LogicalId, ProjectName};
use crate::domain::branches::Placement;
use crate::domain::connections::{Connection, NewCredential};
use crate::domain::databases::{self, Database, DatabaseChange, Filter, NewDatabase, Status};
use crate::domain::projects::{self, Project};
use crate::domain::restores::{self, Source};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// Where a database is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RegionReference {
    /// The region's id.
    #[schema(example = "us-east-1")]
    id: String,
    /// The region's name.
    #[schema(example = "This server")]
    name: String,
}

/// What a database is: always `database`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum DatabaseType {
    Database,
}

/// How a database stands. `ready` means that SQL has worked through the address of its connection
/// strings.
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

/// How a database stands in the answer that creates it. A connect waits for one that is still
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

/// What a database was made from, or brought back to last.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
#[schema(as = DatabaseSource, example = json!({"type": "empty"}))]
pub(super) enum SourceWire {
    /// Nothing.
    Empty,
    /// A backup.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The database that the backup is of.
        #[schema(value_type = DatabaseId)]
        database_id: String,
        /// The backup.
        #[schema(value_type = BackupId)]
        backup_id: String,
    },
    /// Another database.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The database.
        #[schema(value_type = DatabaseId)]
        database_id: String,
    },
}

/// What every answer says about a database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatabaseFields {
    /// Its id.
    #[schema(value_type = DatabaseId)]
    id: String,
    /// Always `database`.
    r#type: DatabaseType,
    /// Its address in this API.
    #[schema(format = "uri", example = json!(sample_url("databases", "db")))]
    url: String,
    /// Its name. Inside PostgreSQL the database is always called `postgres`.
    #[schema(example = "my_project")]
    name: String,
    /// Why it stands at `failure`, or what keeps it at `provisioning`; null otherwise.
    #[schema(example = json!(null))]
    status_reason: Option<String>,
    /// When it was made.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// Whether it is its project's default database.
    #[schema(example = true)]
    is_default: bool,
    /// The connection that was made with it, while that exists.
    #[schema(value_type = Option<ConnectionId>)]
    default_connection_id: Option<String>,
    /// Its region.
    region: RegionReference,
    /// The branch that it stands on.
    #[schema(value_type = BranchId)]
    branch_id: String,
    /// Beyond the original: the name of its branch.
    #[schema(example = "main")]
    branch_git_name: String,
    /// The identity that an external tool gave it.
    #[schema(example = json!(null))]
    logical_id: Option<String>,
    /// The operation that is changing it, or changed it last; null when that is forgotten.
    #[schema(value_type = Option<WorkflowId>)]
    operation_id: Option<String>,
}

/// A database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Database)]
pub(super) struct DatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// How it stands.
    status: DatabaseStatus,
    /// What it was made from.
    source: SourceWire,
    /// Its connections. Their secrets were in the answers that created them.
    connections: Vec<ConnectionWire>,
    /// Its project.
    project: ProjectReference,
}

/// A database that is being brought back to a backup, or to a moment after one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestoringDatabase)]
pub(super) struct RestoringDatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// How it stands: `recovering`.
    status: DatabaseStatus,
    /// The backup that it is brought back to, or from which on.
    source: BackupSource,
    /// Its connections. They stay.
    connections: Vec<ConnectionWire>,
    /// Its project.
    project: ProjectReference,
}

/// What is restored: always a backup.
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
    /// The database that the backup is of.
    #[schema(value_type = DatabaseId)]
    database_id: String,
    /// The backup.
    #[schema(value_type = BackupId)]
    backup_id: String,
}

/// A database that was just made, with the secret of its first connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedDatabase)]
pub(super) struct CreatedDatabaseWire {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// How it stands: normally it is `ready`.
    status: DatabaseStatus,
    /// What it was made from.
    source: SourceWire,
    /// Its first connection, with the secret that is not shown again.
    connections: Vec<FirstConnectionWire>,
    /// Its project.
    project: ProjectReference,
}

/// A database as the answer that creates it shows it, with the secrets of its first connection.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatabaseWithSecretFields {
    #[serde(flatten)]
    fields: DatabaseFields,
    /// How it stands: normally it is `ready`.
    status: CreatedDatabaseStatus,
    /// What it was made from.
    source: SourceWire,
    /// Its first connection, with the secret that is not shown again.
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

/// A new database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseWithSecret)]
pub(super) struct NewDatabaseWire {
    #[serde(flatten)]
    database: DatabaseWithSecretFields,
    /// Its project.
    project: ProjectReference,
}

/// What a new database needs; all of it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "reporting", "region": "us-east-1"}))]
pub(super) struct CreateDatabase {
    /// Its name, 1 to 256 characters. Without one a default database is called like its project,
    /// and any other gets a made-up name.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// A region's id, or `inherit` for the project's.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, default = "us-east-1")]
    region: Option<String>,
    /// Whether it becomes the project's default database; a project has at most one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
    /// What to create it from: `empty`, which is the default, a `backup` or a `database`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<CreateSource>,
    /// Deprecated: use `source`.
    #[serde(default, deserialize_with = "given")]
    #[schema(deprecated, nullable = false)]
    from_database: Option<FromDatabase>,
}

/// Deprecated: a copy of a database, or with `backupId` what a backup of it holds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"id": "db_01jzq6w3c4e5f6g7h8j9k0m1n2"}))]
pub(super) struct FromDatabase {
    /// The database.
    id: String,
    /// The backup.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    backup_id: Option<String>,
}

/// What to make a database from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"type": "empty"}))]
pub(super) enum CreateSource {
    /// Nothing.
    // Not a unit: serde ignores unknown fields beside the tag of one.
    Empty {},
    /// What a backup holds.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The database that the backup is of. It may be deleted, as long as it can be restored.
        database_id: String,
        /// The backup.
        backup_id: String,
        /// The moment to get to, beyond the original; the backup's end when it is left out.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
    /// A copy of another database.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The database. It may be deleted, as long as it can be restored.
        database_id: String,
        /// The moment to get to, beyond the original; now, when it is left out.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
}

/// What a new database needs, and whose it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"projectId": "proj_01jzq6w3c4e5f6g7h8j9k0m1n2", "name": "reporting"}))]
pub(super) struct CreateDatabaseOf {
    /// The project's id.
    project_id: String,
    /// Its name, 1 to 256 characters. Without one a default database is called like its project,
    /// and any other gets a made-up name.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// A region's id, or `inherit` for the project's.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, default = "us-east-1")]
    region: Option<String>,
    /// Whether it becomes the project's default database; a project has at most one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
    /// What to create it from: `empty`, which is the default, a `backup` or a `database`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    source: Option<CreateSource>,
    /// The branch that it stands on; the project's default one when no branch is named.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false)]
    branch_id: Option<Option<String>>,
    /// The branch that it stands on, by name, in place of `branchId`; it is made when it is missing.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    branch_git_name: Option<Option<String>>,
    /// An external tool's own name for it; unique on the branch. Not with `branchGitName`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
    /// Deprecated: use `source`.
    #[serde(default, deserialize_with = "given")]
    #[schema(deprecated, nullable = false)]
    from_database: Option<FromDatabase>,
}

/// What to change about a database; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "analytics"}))]
pub(super) struct UpdateDatabase {
    /// Another name, 1 to 256 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    name: Option<String>,
    /// The branch to move it to.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false)]
    branch_id: Option<Option<String>>,
    /// The branch to move it to, by name, in place of `branchId`; it is made when it is missing.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    branch_git_name: Option<Option<String>>,
    /// An external tool's own name for it; unique on the branch. Not together with a move.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 256)]
    logical_id: Option<String>,
}

/// Which databases.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct DatabaseQuery {
    /// Only the databases of this project.
    project_id: Option<String>,
    /// Only the database with this logical id, on each branch.
    logical_id: Option<String>,
    /// Only the databases on this branch. Every database is on one, so `unassigned` finds none.
    branch_id: Option<String>,
    /// Only the databases on branches of this name.
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
            Err(refuse("branchId: every database is on a branch, so it cannot be null", "Leave it out."))
        }
        (_, Some(None)) => {
            Err(refuse("branchGitName: every database is on a branch, so it cannot be null", "Leave it out."))
        }
        (Some(_), Some(_)) => Err(refuse("branchId and branchGitName exclude each other", "Use one of them.")),
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

pub(super) fn wire_restoring(app: &App, database: &Database) -> RestoringDatabaseWire {
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
pub(super) fn wire_new(app: &App, database: &Database, credential: &NewCredential) -> DatabaseWithSecretFields {
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
    (status = 409, description = "The workspace has reached its limit of databases (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_database(
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
        (Some(_), Some(_)) => Err(Error::rejected("source and fromDatabase exclude each other", "Use source.")),
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
pub(super) async fn restore_beside(
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
        let message = format!("targetDatabaseName: a database of the project is called {:?}", name.as_str());
        return Err(Error::conflict(message, "Choose another name, or rename that database first.").into());
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
/// Those of every project that the token reaches, oldest first; with filters, those that fit all
/// of them. A project or a branch that is not there has none.
#[utoipa::path(get, path = "/v1/databases", tag = "Databases", params(PageQuery, DatabaseQuery), responses(
    (status = 200, description = "The databases.", body = List<DatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_all_databases(
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
/// A PostgreSQL instance of its own, on a branch of the project: the default one, unless
/// `branchId` or `branchGitName` names another. The answer holds the connection string of its first
/// connection, which is not shown again. It is normally `ready`; when it is still `provisioning`, a
/// connect waits for it.
#[utoipa::path(post, path = "/v1/databases", tag = "Databases", request_body = CreateDatabaseOf, responses(
    (status = 201, description = "The database, with the secrets of its first connection.", body = Data<CreatedDatabaseWire>),
    (status = 400, description = "The project has a default database already, the branch is null or named twice, `logicalId` comes with `branchGitName`, or the body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not do this.", body = ErrorBody),
    (status = 404, description = "There is no such project, or the project has no such branch.", body = ErrorBody),
    (status = 409, description = "Another database of the branch has the logical id, or the workspace has reached its limit of databases (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_database_of(
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
        return Err(Error::rejected(message, "Name the branch by branchId instead.").into());
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

/// Update a database
///
/// Another name, another branch of its project, or another logical id. A branch that is named and
/// missing is made. Moving and giving a logical id are two requests.
#[utoipa::path(patch, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The database's id.")),
    request_body = UpdateDatabase, responses(
    (status = 200, description = "The database.", body = Data<DatabaseWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not do this.", body = ErrorBody),
    (status = 404, description = "There is no such database, or its project has no such branch.", body = ErrorBody),
    (status = 409, description = "Another database of the branch has the logical id.", body = ErrorBody),
    (status = 422, description = "A value does not fit, or excludes another one.", body = ErrorBody),
))]
pub(super) async fn update_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(change): body::Json<UpdateDatabase>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let placement = placement(change.branch_id, change.branch_git_name, |message, hint| Error::invalid(message, hint))?;
    if placement.is_some() && change.logical_id.is_some() {
        let message = "logicalId cannot be combined with another branch";
        return Err(Error::invalid(message, "Move the database first, and give it the logical id then.").into());
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
/// Deletes a database and returns it as it was. Its credentials stop working at once, and its sessions are ended. A
/// last backup is kept, with the earlier ones, for as long as the operator configured (a week by default): until then
/// the database can be restored, in the console or with `howdah databases undelete`. Its files on the server are
/// removed as soon as the last backup is complete. The default database can only be deleted with its project.
#[utoipa::path(delete, path = "/v1/databases/{databaseId}", tag = "Databases",
    params(("databaseId" = String, Path, description = "The database's id.")), responses(
    (status = 200, description = "The database as it was.", body = Data<DatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "It is its project's default database, the project has delete protection, or the token may not.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
))]
pub(super) async fn delete_database(
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
