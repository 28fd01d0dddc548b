//! Backups on the wire, and the ways back from them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::databases::{self as database_wire, CreatedDatabaseWire, RestoringDatabaseWire};
use super::{Data, given, moment};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{BackupId, DatabaseId, ProjectId};
use crate::base::name::DatabaseName;
use crate::domain::backups::{self, Archiving, ArchivingState, Backup, Kind, State as BackupState};
use crate::domain::databases;
use crate::domain::restores::{self, Source};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// The page size of backups when the caller names none, and the largest.
const DEFAULT_LIMIT: u32 = 25;
const LARGEST_PAGE: u32 = 100;

/// What a backup is: always `backup`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BackupResourceType {
    Backup,
}

/// How much a backup holds by itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum BackupType {
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

/// How a backup stands.
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
pub(super) struct BackupWire {
    /// Its id.
    #[schema(value_type = BackupId)]
    id: String,
    /// Always `backup`.
    r#type: BackupResourceType,
    /// How much it holds by itself. Each can be restored by itself, whatever it is.
    backup_type: BackupType,
    /// When it began.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// How large the database's files were, in bytes; left out while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 23068672)]
    size: Option<i64>,
    /// How it stands. Only a completed one can be restored.
    status: BackupStatus,
    /// Why it failed; null otherwise.
    #[schema(example = json!(null))]
    failure_reason: Option<String>,
    /// The earliest moment that it can be restored to; null while it is not complete.
    #[schema(format = "date-time", example = "2026-07-09T11:52:19.000Z")]
    completed_at: Option<String>,
    /// When it was last restored for a trial and found whole; null when it was not yet.
    #[schema(format = "date-time", example = json!(null))]
    verified_at: Option<String>,
    /// How fast that restore was, in bytes a second; null without one.
    #[schema(example = json!(null))]
    restore_bytes_per_second: Option<i64>,
    /// How many tables and indexes were read then, PostgreSQL's own among them; null without one.
    #[schema(example = json!(null))]
    verified_relations: Option<i64>,
    /// Why the last trial failed, or a restore found it damaged, or that it builds on a backup that is
    /// damaged: do not rely on this backup, and make another one. Null when the last trial went well, or
    /// there was none.
    #[schema(example = json!(null))]
    verification_failure: Option<String>,
    /// Whether the backup does not restore, or builds on one that does not. `verificationFailure` says why.
    #[schema(example = false)]
    is_damaged: bool,
}

/// What holds for all backups of a database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackupMeta)]
pub(super) struct BackupMetaWire {
    /// For how many days every moment stays restorable.
    #[schema(example = 7)]
    backup_retention_days: i32,
    /// The earliest moment that the database can be restored to; null when there is none.
    #[schema(format = "date-time", example = "2026-07-02T11:52:19.000Z")]
    earliest_restorable_time: Option<String>,
    /// The latest moment that the database can be restored to from what is where backups are kept, should this
    /// server be lost; null when there is none. While the server is there a `targetTime` may be later, up to now:
    /// what was written since is archived first.
    #[schema(format = "date-time", example = "2026-07-09T12:00:00.000Z")]
    latest_restorable_time: Option<String>,
    /// All moments that the database can be restored to from what is where backups are kept, oldest first, beyond
    /// the original. What lies between two of these cannot be restored.
    restorable_windows: Vec<RestorableWindowWire>,
    /// How the write-ahead log gets to where backups are kept, beyond the original; null while nothing was
    /// backed up yet.
    archiving: Option<ArchivingWire>,
}

/// Moments that can be restored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RestorableWindow)]
pub(super) struct RestorableWindowWire {
    /// The first.
    #[schema(format = "date-time", example = "2026-07-02T11:52:19.000Z")]
    from: String,
    /// The last.
    #[schema(format = "date-time", example = "2026-07-09T12:00:00.000Z")]
    until: String,
}

/// Whether what is written gets to where backups are kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArchivingState)]
enum ArchivingStateWire {
    Ok,
    Behind,
    Stuck,
    Lost,
}

/// How archiving goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Archiving)]
pub(super) struct ArchivingWire {
    /// `behind`: more is written than is archived, and waits on the server's disk. `stuck`: nothing can be archived;
    /// what is written waits, and is tried again. When too much waits it is given up: then the state is `lost` until
    /// the next backup, which follows as soon as one can be made, and the moments until that cannot be restored.
    state: ArchivingStateWire,
    /// Since when it is not `ok`; null otherwise.
    #[schema(format = "date-time", example = json!(null))]
    since: Option<String>,
    /// Why it is not `ok`; null otherwise.
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

/// How much of the list this is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackupPagination)]
pub(super) struct BackupPaginationWire {
    /// Whether there are older backups than these.
    #[schema(example = false)]
    has_more: bool,
    /// How many were asked for.
    #[schema(example = 25)]
    limit: Option<u32>,
}

/// The backups of a database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackupList)]
pub(super) struct BackupListWire {
    data: Vec<BackupWire>,
    /// What holds for all of them.
    meta: BackupMetaWire,
    pagination: BackupPaginationWire,
}

/// A deleted database that can still be restored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeletedDatabase)]
pub(super) struct DeletedDatabaseWire {
    /// Its id, to name it as the `source` of a new database.
    #[schema(value_type = DatabaseId)]
    id: String,
    /// Its name.
    #[schema(example = "my_project")]
    name: String,
    /// Its region's id.
    #[schema(example = "us-east-1")]
    region: String,
    /// When it was deleted.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    deleted_at: String,
    /// Until when it can be restored.
    #[schema(format = "date-time", example = "2026-07-16T11:52:15.341Z")]
    restorable_until: String,
}

/// What a new backup is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"backupType": "full"}))]
pub(super) struct CreateBackup {
    /// How much it holds by itself; what is due when it is left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    backup_type: Option<BackupType>,
}

/// Where a backup is restored to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"targetDatabaseName": "before_the_accident"}))]
pub(super) struct RestoreBackup {
    /// The name of the new database; no live database of the project has it.
    #[schema(min_length = 1, max_length = 256)]
    target_database_name: String,
    /// The moment to get to; the end of the backup when it is left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = "date-time")]
    target_time: Option<String>,
}

/// What a database is brought back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"source": {"type": "backup", "databaseId": "db_01jzq6w3c4e5f6g7h8j9k0m1n2", "backupId": "bak_01jzq6w3c4e5f6g7h8j9k0m1n2"}}))]
pub(super) struct RestoreDatabase {
    /// The backup, or with `type` `database` and `targetTime` the database and the moment.
    source: RestoreSource,
}

/// What to restore from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum RestoreSource {
    /// A backup.
    #[serde(rename_all = "camelCase")]
    Backup {
        /// The database that it is of.
        database_id: String,
        /// The backup.
        backup_id: String,
        /// The moment to get to, beyond the original; the backup's end when it is left out.
        #[serde(default, deserialize_with = "given")]
        #[schema(nullable = false, format = "date-time")]
        target_time: Option<String>,
    },
    /// A moment, for which the right backup is chosen; beyond the original.
    #[serde(rename_all = "camelCase")]
    Database {
        /// The database.
        database_id: String,
        /// The moment to get to.
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

/// Which backups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BackupQuery {
    /// How many backups to answer at most: 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 25)]
    limit: Option<u32>,
}

/// A backup as a source.
pub(super) fn parse_backup(database: &str, backup: &str, to: Option<&str>) -> Result<Source, Error> {
    let database = parse_database(database)?;
    let backup = BackupId::parse(backup).ok_or_else(|| Error::not_found("backup", backup))?;
    let to = to.map(|text| moment("source.targetTime", text)).transpose()?;
    Ok(Source::Backup { database, backup, to })
}

/// A database as a source.
pub(super) fn parse_copy(database: &str, to: Option<&str>) -> Result<Source, Error> {
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
/// What the repository holds, newest first, with what is being made and what failed in the last week. Any
/// moment within `restorableWindows` can be restored to, not only the ends of backups.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/backups", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The database's id."), BackupQuery), responses(
    (status = 200, description = "The backups.", body = BackupListWire),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_backups(
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
/// Besides those that are made by themselves. It goes on after the answer; `Howdah-Operation` names
/// the operation that tells how far it is. A database that sleeps is backed up without being woken
/// for anybody else. A backup under way that was started by itself, such as the first one of a copy, is answered
/// instead of another one, unless another type is wanted.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The database's id.")),
    request_body = CreateBackup, responses(
    (status = 202, description = "The backup, which is being made.", body = Data<BackupWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
    (status = 409, description = "The database is not `ready`, or a backup of it is under way.", body = ErrorBody),
    (status = 422, description = "A value does not fit.", body = ErrorBody),
))]
pub(super) async fn create_backup(
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
/// Restores it for a trial into an instance that nobody is routed to, reads all tables and indexes there,
/// and throws that away; the database is not touched. It goes on after the answer; `verifiedAt`,
/// `restoreBytesPerSecond` and `verificationFailure` say how it went. The newest backups of databases in
/// use are verified by themselves, in turn.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups/{backupId}/verify", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The database's id."),
        ("backupId" = String, Path, description = "The backup's id.")), responses(
    (status = 202, description = "The backup, which is being verified.", body = Data<BackupWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such database or backup.", body = ErrorBody),
    (status = 409, description = "The backup is not complete, or is being verified.", body = ErrorBody),
))]
pub(super) async fn verify_backup(
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
/// In the same project, region and branch, with a connection of its own, whose secret is in the answer.
/// With `targetTime`, to a moment after the backup's end. It goes on after the answer; a connect
/// waits for it.
#[utoipa::path(post, path = "/v1/databases/{databaseId}/backups/{backupId}/restore", tag = "Database Backups",
    params(("databaseId" = String, Path, description = "The database's id."),
        ("backupId" = String, Path, description = "The backup's id.")),
    request_body = RestoreBackup, responses(
    (status = 202, description = "The new database, with the secrets of its first connection.", body = Data<CreatedDatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such database or backup.", body = ErrorBody),
    (status = 409, description = "A live database of the project has the name, the backup is not complete, or the workspace has as many databases as it may have.", body = ErrorBody),
    (status = 422, description = "A value does not fit, or the moment cannot be restored.", body = ErrorBody),
))]
pub(super) async fn restore_backup(
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
/// To a backup, or to a moment. At once and for good: what was written since is gone, unless that moment
/// is still restorable. Connections and credentials stay; sessions are ended when the restored
/// database takes over. The status is `recovering` until it is done; a restore that does not work
/// leaves the database as it was, with the reason in `statusReason`.
#[utoipa::path(post, path = "/v1/databases/{targetDatabaseId}/restore", tag = "Database Backups",
    params(("targetDatabaseId" = String, Path, description = "The database's id.")),
    request_body = RestoreDatabase, responses(
    (status = 200, description = "The database, which is being restored.", body = Data<RestoringDatabaseWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such database or backup.", body = ErrorBody),
    (status = 409, description = "The database is being made or restored, or the backup is not complete.", body = ErrorBody),
    (status = 422, description = "A value does not fit, or the moment cannot be restored.", body = ErrorBody),
))]
pub(super) async fn restore_database(
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
/// Those that can still be restored, the last one first: name one as the `source` of a new database. The
/// project may be deleted itself.
#[utoipa::path(get, path = "/v1/projects/{projectId}/deleted-databases", tag = "Database Backups",
    params(("projectId" = String, Path, description = "The project's id.")), responses(
    (status = 200, description = "The deleted databases.", body = Data<Vec<DeletedDatabaseWire>>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is and was no such project.", body = ErrorBody),
))]
pub(super) async fn list_deleted_databases(
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
