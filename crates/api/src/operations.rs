//! Operations on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, DatabaseReference, List, PageQuery, filter_id, sample_url, url};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{DatabaseId, ProjectId, WorkflowId};
use domain::app::App;
use domain::operations::{self, Filter, Operation, State as WorkflowState};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The resource type: always `operation`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum OperationType {
    Operation,
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schema(example = "succeeded")]
enum OperationState {
    Waiting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<WorkflowState> for OperationState {
    /// What a delete has made pointless is cancelled, as far as its owner is concerned.
    fn from(state: WorkflowState) -> Self {
        match state {
            WorkflowState::Waiting => Self::Waiting,
            WorkflowState::Running => Self::Running,
            WorkflowState::Succeeded => Self::Succeeded,
            WorkflowState::Failed => Self::Failed,
            WorkflowState::Superseded | WorkflowState::Cancelled => Self::Cancelled,
        }
    }
}

/// Work on a database that continues after the request that started it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Operation)]
pub(crate) struct OperationWire {
    /// The operation's ID.
    #[schema(value_type = WorkflowId)]
    id: String,
    /// Always `operation`.
    r#type: OperationType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("operations", "op")))]
    url: String,
    /// The kind of work.
    #[schema(example = "provision_database")]
    kind: String,
    /// The operation's state.
    state: OperationState,
    /// The current step, or the last one of an operation that has ended.
    #[schema(example = "prove_ready")]
    step: String,
    /// The number of failed attempts at this step.
    #[schema(example = 0)]
    attempts: i32,
    /// Why the step is being retried, or why the operation failed or was cancelled. Null otherwise.
    #[schema(example = json!(null))]
    reason: Option<String>,
    /// The progress of the step. Null if unknown.
    progress: Option<ProgressWire>,
    /// The database that the operation works on. May no longer exist.
    database: DatabaseReference,
    /// The ID of the database's project.
    #[schema(value_type = ProjectId)]
    project_id: String,
    /// When the operation was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// When the operation last changed.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.437Z")]
    updated_at: String,
    /// When the step is retried next. Null if no retry is scheduled.
    #[schema(format = "date-time", example = json!(null))]
    next_attempt_at: Option<String>,
    /// When the operation ended. Null until then.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.437Z")]
    ended_at: Option<String>,
    /// Whether the operation can be cancelled now.
    can_cancel: bool,
    /// Whether the operation can be retried now. Restores of damaged backups cannot be retried.
    can_retry: bool,
}

/// The progress of an operation's step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Progress)]
struct ProgressWire {
    /// The number of bytes done.
    #[schema(example = 11534336)]
    done_bytes: i64,
    /// The total number of bytes, as far as known.
    #[schema(example = 23068672)]
    total_bytes: i64,
    /// The progress in percent, 0 to 100.
    #[schema(example = 50)]
    percent: i64,
}

impl From<(i64, i64)> for ProgressWire {
    fn from((done_bytes, total_bytes): (i64, i64)) -> Self {
        let percent = if total_bytes > 0 { (done_bytes.saturating_mul(100) / total_bytes).clamp(0, 100) } else { 0 };
        Self { done_bytes, total_bytes, percent }
    }
}

/// Filters of the list of operations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationQuery {
    /// Return only operations on this database, which may be deleted.
    database_id: Option<String>,
    /// Return only operations on databases of this project.
    project_id: Option<String>,
    /// Return only operations in this state.
    #[param(inline)]
    state: Option<OperationState>,
}

impl OperationQuery {
    fn parse(&self) -> Filter {
        let states = self.state.into_iter().flat_map(|wanted| {
            WorkflowState::ALL.into_iter().filter(move |state| OperationState::from(*state) == wanted)
        });
        Filter {
            database: filter_id(self.database_id.as_deref(), DatabaseId::parse),
            project: filter_id(self.project_id.as_deref(), ProjectId::parse),
            states: states.collect(),
        }
    }
}

fn wire(app: &App, operation: Operation) -> OperationWire {
    let id = operation.id.to_string();
    let superseded = operation.state == WorkflowState::Superseded;
    OperationWire {
        url: url(app, "operations", &id),
        id,
        r#type: OperationType::Operation,
        state: operation.state.into(),
        can_cancel: operation.can_cancel(),
        can_retry: operation.can_retry(),
        kind: operation.kind,
        step: operation.step,
        progress: operation.progress.map(Into::into),
        attempts: operation.attempts,
        reason: if superseded {
            Some("the database was deleted before the operation ended".into())
        } else {
            operation.reason
        },
        database: DatabaseReference::new(app, operation.database, operation.database_name),
        project_id: operation.project.to_string(),
        created_at: format_timestamp(operation.created_at),
        updated_at: format_timestamp(operation.updated_at),
        next_attempt_at: operation.next_attempt_at.map(format_timestamp),
        ended_at: operation.ended_at.map(format_timestamp),
    }
}

fn parse(id: &str) -> Result<WorkflowId, Error> {
    WorkflowId::parse(id).ok_or_else(|| Error::not_found("operation", id))
}

/// List operations
///
/// Returns the operations on all databases that the token can access, including deleted databases, newest first.
/// Operations are stored for 30 days after they end.
#[utoipa::path(get, path = "/v1/operations", tag = "Operations", params(PageQuery, OperationQuery), responses(
    (status = 200, description = "The operations.", body = List<OperationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_operations(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Query(page): Query<PageQuery>,
    Query(filter): Query<OperationQuery>,
) -> Result<Json<List<OperationWire>>, Failure> {
    let (page, filter) = (page.parse(WorkflowId::parse)?, filter.parse());
    let found = operations::list(&app.store.session().await?, &actor, &filter, page).await?;
    Ok(Json(List::of(found, |operation| wire(&app, operation))))
}

/// List operations of a database
///
/// Returns the operations on a database, newest first.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/operations", tag = "Operations",
    params(("databaseId" = String, Path, description = "The ID of the database."), PageQuery), responses(
    (status = 200, description = "The operations.", body = List<OperationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The database does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_database_operations(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(database): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<List<OperationWire>>, Failure> {
    let database = DatabaseId::parse(&database).ok_or_else(|| Error::not_found("database", &database))?;
    let page = page.parse(WorkflowId::parse)?;
    let found = operations::list_of_database(&app.store.session().await?, &actor, database, page).await?;
    Ok(Json(List::of(found, |operation| wire(&app, operation))))
}

/// Get an operation
///
/// Returns an operation with its state and its progress. Poll it to follow work that continues after a response.
#[utoipa::path(get, path = "/v1/operations/{operationId}", tag = "Operations",
    params(("operationId" = String, Path, description = "The ID of the operation.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The operation does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_operation(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<OperationWire>>, Failure> {
    let operation = operations::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, operation) }))
}

/// Cancel an operation
///
/// Cancels an operation that is creating a database, creating a backup, or restoring a database in place. A database
/// whose creation is cancelled gets the status `failure`: retry the operation, or delete the database. A restore in
/// place can be cancelled until the restored data replaces the current data; the database keeps its current data, and
/// the operation ends when the restored data has been removed. Other operations cannot be cancelled; see `canCancel`.
/// Requires the developer role.
#[utoipa::path(post, path = "/v1/operations/{operationId}/cancel", tag = "Operations",
    params(("operationId" = String, Path, description = "The ID of the operation.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The operation does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The operation has ended, is of a kind that cannot be cancelled, or is a restore whose data has already replaced the current data.", body = ErrorBody),
))]
pub(crate) async fn cancel_operation(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    _: body::Json<body::Nothing>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    let operation = operations::cancel(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, operation) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Retry an operation
///
/// Retries an operation that was creating a database and failed or was cancelled. It continues with the step that it
/// ended at. Requires the developer role.
#[utoipa::path(post, path = "/v1/operations/{operationId}/retry", tag = "Operations",
    params(("operationId" = String, Path, description = "The ID of the operation.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The operation does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The operation did not fail and was not cancelled, does not create a database, is not the last operation of its database, or restores a damaged backup.", body = ErrorBody),
))]
pub(crate) async fn retry_operation(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    _: body::Json<body::Nothing>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let operation = operations::retry(&tx, &actor, app.clock.now(), id).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, operation) })?;
    repeatable.commit_unsettled(&app, tx, &answer.naming([id])).await?;
    app.settle(&mut announcements, id).await?;
    let operation = operations::get(&app.store.session().await?, &actor, id).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, operation) })?;
    Ok(repeatable.settle(&app, answer.naming([id])).await?)
}
