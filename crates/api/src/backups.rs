//! Backups on the wire, and the ways back from them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::databases::{self as database_wire, CreatedDatabaseWire, RestoringDatabaseWire};
use super::{Data, given, moment};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{BackupId, DatabaseId, ProjectId};
use base::name::DatabaseName;
use domain::app::App;
use domain::backups::{self, Archiving, ArchivingState, Backup, Kind, State as BackupState};
use domain::databases;
use domain::restores::{self, Source};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The page size of backups when the caller names none, and the largest.
const DEFAULT_LIMIT: u32 = 25;
const LARGEST_PAGE: u32 = 100;

/// The resource type: always `backup`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BackupResourceType {
    Backup,
}

/// The type of a backup: `full` contains all files, `differential` the changes since the last full backup, and
/// `incremental` the changes since the last backup of any type.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BackupType {
    Full,
    Differential,
    Incremental,
}

impl From<Kind> for BackupType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Full => Self::Full,
            Kind::Differential => Self::Differential,
            Kind::Incremental => Self::Incremental,
        }
    }
}

impl From<BackupType> for Kind {
    fn from(kind: BackupType) -> Self {
        match kind {
            BackupType::Full => Self::Full,
            BackupType::Differential => Self::Differential,
            BackupType::Incremental => Self::Incremental,
        }
    }
}

/// The status of a backup.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BackupStatus {
    Running,
    Completed,
    Failed,
}

/// A backup of a database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Backup)]
pub(crate) struct BackupWire {
    /// The backup's ID.
    #[schema(value_type = BackupId)]
    id: String,
    /// Always `backup`.
    r#type: BackupResourceType,
    /// The backup's type. Every backup can be restored, whatever its type.
    backup_type: BackupType,
    /// When the backup started.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// The size of the database's files in bytes. Omitted while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 23068672)]
    size: Option<i64>,
    /// The backup's status. Only a completed backup can be restored.
    status: BackupStatus,
    /// Why the backup failed. Null otherwise.
    #[schema(example = json!(null))]
    failure_reason: Option<String>,
    /// When the backup was complete, which is the earliest moment that it can be restored to. Null until then.
    #[schema(format = "date-time", example = "2026-07-09T11:52:19.000Z")]
    completed_at: Option<String>,
    /// When the backup was last verified successfully. Null if it was not verified yet.
    #[schema(format = "date-time", example = json!(null))]
    verified_at: Option<String>,
    /// The speed of the restore in that verification, in bytes per second. Null if the backup was not verified yet.
    #[schema(example = json!(null))]
    restore_bytes_per_second: Option<i64>,
    /// The number of tables and indexes read in that verification, including system catalogs. Null if the backup was
    /// not verified yet.
    #[schema(example = json!(null))]
    verified_relations: Option<i64>,
    /// Why the last verification failed, why a restore found the backup damaged, or which damaged backup it depends on.
    /// Do not rely on such a backup; create another one. Null if the last verification succeeded, or there was none.
    #[schema(example = json!(null))]
    verification_failure: Option<String>,
    /// Whether the backup, or a backup that it depends on, cannot be restored. The reason is in
    /// `verificationFailure`.
    #[schema(example = false)]
    is_damaged: bool,
}

/// Retention, restorable moments and archiving of a database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackupMeta)]
pub(crate) struct BackupMetaWire {
    /// For how many days the database can be restored to any moment.
    #[schema(example = 7)]
    backup_retention_days: i32,
    /// The earliest moment that the database can be restored to. Null if there is none.
    #[schema(format = "date-time", example = "2026-07-02T11:52:19.000Z")]
    earliest_restorable_time: Option<String>,
    /// The latest moment that the database can be restored to from its backup repository alone, for example after a
    /// loss of this server. Null if there is none. While the server is running, `targetTime` can be any moment up to
    /// now: later changes are archived before the restore.
    #[schema(format = "date-time", example = "2026-07-09T12:00:00.000Z")]
    latest_restorable_time: Option<String>,
    /// The periods that the database can be restored to from its backup repository, oldest first. Moments between two
    /// periods cannot be restored. Not part of the Prisma Management API.
    restorable_windows: Vec<RestorableWindowWire>,
    /// The state of archiving the write-ahead log (WAL) to the backup repository. Null until the first backup starts.
    /// Not part of the Prisma Management API.
    archiving: Option<ArchivingWire>,
}

/// A period in which every moment can be restored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestorableWindow)]
pub(crate) struct RestorableWindowWire {
    /// The first restorable moment.
    #[schema(format = "date-time", example = "2026-07-02T11:52:19.000Z")]
    from: String,
    /// The last restorable moment.
    #[schema(format = "date-time", example = "2026-07-09T12:00:00.000Z")]
    until: String,
}

/// The state of archiving.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArchivingState)]
enum ArchivingStateWire {
    Ok,
    Behind,
    Stuck,
    Lost,
}

/// The state of archiving, and the reason for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Archiving)]
pub(crate) struct ArchivingWire {
    /// `ok`: WAL is archived as it is written. `behind`: WAL is written faster than it is archived, and waits on the
    /// server's disk. `stuck`: archiving is failing; WAL waits on the server's disk, and archiving is retried. `lost`:
    /// too much WAL was waiting and some of it was discarded; moments until the next backup cannot be restored. That
    /// backup starts as soon as possible.
    state: ArchivingStateWire,
    /// When the state stopped being `ok`. Null while it is `ok`.
    #[schema(format = "date-time", example = json!(null))]
    since: Option<String>,
    /// Why the state is not `ok`. Null while it is `ok`.
    #[schema(example = json!(null))]
    reason: Option<String>,
}

impl From<Archiving> for ArchivingWire {
    fn from(archiving: Archiving) -> Self {
        Self {
            state: match archiving.state {
                ArchivingState::Ok => ArchivingStateWire::Ok,
                ArchivingState::Behind => ArchivingStateWire::Behind,
                ArchivingState::Stuck => ArchivingStateWire::Stuck,
                ArchivingState::Lost => ArchivingStateWire::Lost,
            },
            since: archiving.since.map(format_timestamp),
            reason: archiving.reason,
        }
    }
}

/// The size of the list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackupPagination)]
pub(crate) struct BackupPaginationWire {
    /// Whether there are more, older backups.
    #[schema(example = false)]
    has_more: bool,
    /// The maximum number of backups in the list.
    #[schema(example = 25)]
    limit: Option<u32>,
}

/// The backups of a database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackupList)]
pub(crate) struct BackupListWire {
    data: Vec<BackupWire>,
    /// Retention, restorable moments and archiving of the database.
    meta: BackupMetaWire,
    pagination: BackupPaginationWire,
}

/// A deleted database that can still be restored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeletedDatabase)]
pub(crate) struct DeletedDatabaseWire {
    /// The database's ID. Use it in the `source` of a new database to restore the database.
    #[schema(value_type = DatabaseId)]
    id: String,
    /// The database's name.
    #[schema(example = "my_project")]
    name: String,
    /// The ID of the database's region.
    #[schema(example = "us-east-1")]
    region: String,
    /// When the database was deleted.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    deleted_at: String,
    /// Until when the database can be restored.
    #[schema(format = "date-time", example = "2026-07-16T11:52:15.341Z")]
    restorable_until: String,
}

/// A backup to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"backupType": "full"}))]
pub(crate) struct CreateBackup {
    /// The backup's type. Chosen by the backup schedule when omitted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    backup_type: Option<BackupType>,
}

/// A restore to a new database.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"targetDatabaseName": "before_the_accident"}))]
pub(crate) struct RestoreBackup {
    /// The name of the new database. Must not be the name of another database of the project.
    #[schema(min_length = 1, max_length = 256)]
    target_database_name: String,
    /// The moment to restore to. Defaults to the end of the backup.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = "date-time")]
    target_time: Option<String>,
}

/// A restore in place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"source": {"type": "backup", "databaseId": "db_01jzq6w3c4e5f6g7h8j9k0m1n2", "backupId": "bak_01jzq6w3c4e5f6g7h8j9k0m1n2"}}))]
pub(crate) struct RestoreDatabase {
    /// The backup to restore, or (type `database`) the database and the moment to restore to.
    source: RestoreSource,
}

/// What to restore from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum RestoreSource {
    /// A backup.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The ID of the backed-up database.
        database_id: String,
        /// The ID of the backup.
        backup_id: String,
        /// The moment to restore to. Defaults to the end of the backup. Not part of the Prisma Management API.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
    /// A database at a moment. Howdah chooses the backup. Not part of the Prisma Management API.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The ID of the database.
        database_id: String,
        /// The moment to restore to.
        #[schema(format = "date-time")]
        target_time: String,
    },
}

impl RestoreSource {
    fn parse(&self) -> Result<Source, Error> {
        match self {
            Self::Backup { database_id, backup_id, target_time } => {
                parse_backup(database_id, backup_id, target_time.as_deref())
            }
            Self::Database { database_id, target_time } => parse_copy(database_id, Some(target_time)),
        }
    }
}

/// The page of the list of backups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BackupQuery {
    /// The maximum number of backups to return: 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 25)]
    limit: Option<u32>,
}

/// A backup as a source.
pub(crate) fn parse_backup(database: &str, backup: &str, to: Option<&str>) -> Result<Source, Error> {
    let database = parse_database(database)?;
    let backup = BackupId::parse(backup).ok_or_else(|| Error::not_found("backup", backup))?;
    let to = to.map(|text| moment("source.targetTime", text)).transpose()?;
    Ok(Source::Backup { database, backup, to })
}

/// A database as a source.
pub(crate) fn parse_copy(database: &str, to: Option<&str>) -> Result<Source, Error> {
    let to = to.map(|text| moment("source.targetTime", text)).transpose()?;
    Ok(Source::Database { database: parse_database(database)?, to })
}

fn wire(backup: Backup) -> BackupWire {
    BackupWire {
        id: backup.id.to_string(),
        r#type: BackupResourceType::Backup,
        backup_type: backup.kind.into(),
        created_at: format_timestamp(backup.created_at),
        size: backup.size,
        status: match backup.state {
            BackupState::Running => BackupStatus::Running,
            BackupState::Completed => BackupStatus::Completed,
            BackupState::Failed => BackupStatus::Failed,
        },
        failure_reason: backup.failure_reason,
        completed_at: backup.completed_at.map(format_timestamp),
        verified_at: backup.verified_at.map(format_timestamp),
        restore_bytes_per_second: backup.restore_bytes_per_second,
        verified_relations: backup.verified_relations,
        verification_failure: backup.verification_failure,
        is_damaged: backup.damaged,
    }
}

fn parse_database(id: &str) -> Result<DatabaseId, Error> {
    DatabaseId::parse(id).ok_or_else(|| Error::not_found("database", id))
}

/// List backups of a database
///
/// Returns the backups of a database, newest first, including a running backup and backups that failed in the last 7
/// days. The database can be restored to any moment within `restorableWindows`, not only to the ends of backups.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/backups", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The ID of the database."), BackupQuery), responses(
    (status = 200, description = "The backups.", body = BackupListWire),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_backups(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(database): Path<String>,
    Query(query): Query<BackupQuery>,
) -> Result<Json<BackupListWire>, Failure> {
    let database = parse_database(&database)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let hint = format!("Use a limit from 1 to {LARGEST_PAGE}.");
        return Err(Error::invalid(format!("limit: {limit} is out of range"), hint).into());
    }
    let session = app.store.session().await?;
    let of = databases::get(&session, &actor, database).await?;
    let (found, has_more) = backups::list(&session, &actor, database, limit).await?;
    let window = backups::window(&session, database, app.clock.now()).await?;
    let meta = BackupMetaWire {
        backup_retention_days: backups::retention_days(&session, of.project).await?,
        earliest_restorable_time: window.earliest().map(format_timestamp),
        latest_restorable_time: window.latest().map(format_timestamp),
        restorable_windows: window
            .spans()
            .iter()
            .map(|span| RestorableWindowWire { from: format_timestamp(span.from), until: format_timestamp(span.until) })
            .collect(),
        archiving: backups::archiving(&session, database).await?.map(ArchivingWire::from),
    };
    Ok(Json(BackupListWire {
        data: found.into_iter().map(wire).collect(),
        meta,
        pagination: BackupPaginationWire { has_more, limit: Some(limit) },
    }))
}

/// Create a backup of a database
///
/// Starts a backup of a database and returns it. Backups also run on a schedule. The work continues after the response;
/// the `Howdah-Operation` header contains the ID of the operation to follow. Backing up a sleeping database does not
/// wake it for clients. If a scheduled backup is already running, it is returned instead of a new one, unless another
/// type is requested. Requires the developer role.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The ID of the database.")),
    request_body = CreateBackup, responses(
    (status = 202, description = "The running backup.", body = Data<BackupWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The database is not `ready`, or another backup of it is running.", body = ErrorBody),
    (status = 422, description = "A value is invalid.", body = ErrorBody),
))]
pub(crate) async fn create_backup(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(database): Path<String>,
    body::Json(new): body::Json<CreateBackup>,
) -> Result<Answer, Failure> {
    let database = parse_database(&database)?;
    let kind = new.backup_type.map(Kind::from);
    let tx = app.store.begin().await?;
    let (backup, operation) = backups::create(&tx, &actor, app.clock.now(), &app.keyring, database, kind).await?;
    let answer = Answer::of(StatusCode::ACCEPTED, &Data { data: wire(backup) })?.naming([operation]);
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Verify a backup
///
/// Restores a backup into a test instance that clients cannot reach, reads all tables and indexes there, and removes
/// the instance. The database is not affected. The work continues after the response; the result is in `verifiedAt`,
/// `restoreBytesPerSecond` and `verificationFailure` of the backup. The newest backups of databases in use are also
/// verified on a schedule, in turn. Requires the developer role.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups/{backupId}/verify", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The ID of the database."),
        ("backupId" = String, Path, description = "The ID of the backup.")), responses(
    (status = 202, description = "The backup that is being verified.", body = Data<BackupWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database or the backup does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The backup is not complete, or is already being verified.", body = ErrorBody),
))]
pub(crate) async fn verify_backup(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path((database, backup)): Path<(String, String)>,
    _: body::Json<body::Nothing>,
) -> Result<Answer, Failure> {
    let database = parse_database(&database)?;
    let backup = BackupId::parse(&backup).ok_or_else(|| Error::not_found("backup", &backup))?;
    let tx = app.store.begin().await?;
    let (backup, operation) = backups::verify(&tx, &actor, app.clock.now(), database, backup).await?;
    let answer = Answer::of(StatusCode::ACCEPTED, &Data { data: wire(backup) })?.naming([operation]);
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Restore a backup to a new database
///
/// Creates a database from a backup, in the same project, region and branch. The response contains the connection
/// string of its first connection, which is not returned again. With `targetTime`, the new database has the state of
/// that moment after the end of the backup. The work continues after the response; connections wait until the database
/// is ready. Requires the developer role.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups/{backupId}/restore", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The ID of the database."),
        ("backupId" = String, Path, description = "The ID of the backup.")),
    request_body = RestoreBackup, responses(
    (status = 202, description = "The new database, with the secrets of its first connection.", body = Data<CreatedDatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database or the backup does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "Another database of the project has the name, the backup is not complete, or the workspace has reached its limit of databases (`planLimitReached`).", body = ErrorBody),
    (status = 422, description = "A value is invalid, or the database cannot be restored to that moment.", body = ErrorBody),
))]
pub(crate) async fn restore_backup(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path((database, backup)): Path<(String, String)>,
    body::Json(wanted): body::Json<RestoreBackup>,
) -> Result<Answer, Failure> {
    let database = parse_database(&database)?;
    let backup = BackupId::parse(&backup).ok_or_else(|| Error::not_found("backup", &backup))?;
    let name = DatabaseName::parse_field("targetDatabaseName", &wanted.target_database_name)?;
    let to = wanted.target_time.as_deref().map(|text| moment("targetTime", text)).transpose()?;
    let source = Source::Backup { database, backup, to };
    database_wire::restore_beside(&app, &actor, &repeatable, database, name, source).await
}

/// Restore a database in place
///
/// Restores a database in place to a backup or a moment. Changes made after that moment are discarded; to get them
/// back, restore the database to a later moment while that can still be restored. Connections and credentials are
/// kept; sessions are closed when the restored data replaces the current data. The status is `recovering` until the
/// restore has finished. If the restore fails, the database keeps its current data, and `statusReason` contains the
/// reason. Requires the developer role.
#[utoipa::path(post, path = "/v1/databases/{targetDatabaseId}/restore", tag = "Database Backups",
    params(("targetDatabaseId" = String, Path, description = "The ID of the database.")),
    request_body = RestoreDatabase, responses(
    (status = 200, description = "The database that is being restored.", body = Data<RestoringDatabaseWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The database or the backup does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The database is being created or restored, was never created, or the backup is not complete.", body = ErrorBody),
    (status = 422, description = "A value is invalid, or the database cannot be restored to that moment.", body = ErrorBody),
))]
pub(crate) async fn restore_database(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(target): Path<String>,
    body::Json(wanted): body::Json<RestoreDatabase>,
) -> Result<Answer, Failure> {
    let target = parse_database(&target)?;
    let source = wanted.source.parse()?;
    let tx = app.store.begin().await?;
    let (database, operation) = restores::start_in_place(&tx, &actor, app.clock.now(), target, &source).await?;
    let data = database_wire::wire_restoring(&app, &database);
    let answer = Answer::of(StatusCode::OK, &Data { data })?.naming([operation]);
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// List deleted databases of a project
///
/// Returns the deleted databases of a project that can still be restored, last deleted first. To restore one, use it
/// as the `source` of a new database. The project itself may be deleted.
#[utoipa::path(get, path = "/v1/projects/{projectId}/deleted-databases", tag = "Database Backups",
    params(("projectId" = String, Path, description = "The ID of the project.")), responses(
    (status = 200, description = "The deleted databases.", body = Data<Vec<DeletedDatabaseWire>>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The project never existed, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn list_deleted_databases(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(project): Path<String>,
) -> Result<Json<Data<Vec<DeletedDatabaseWire>>>, Failure> {
    let project = ProjectId::parse(&project).ok_or_else(|| Error::not_found("project", &project))?;
    let found = databases::list_deleted(&app.store.session().await?, &actor, project).await?;
    let wire = |deleted: databases::Deleted| DeletedDatabaseWire {
        id: deleted.id.to_string(),
        name: deleted.name,
        region: deleted.region,
        deleted_at: format_timestamp(deleted.deleted_at),
        restorable_until: format_timestamp(deleted.restorable_until),
    };
    Ok(Json(Data { data: found.into_iter().map(wire).collect() }))
}
