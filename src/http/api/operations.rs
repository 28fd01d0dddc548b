//! Operations on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, DatabaseReference, List, PageQuery, filter_id, sample_url, url};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{DatabaseId, ProjectId, WorkflowId};
use crate::domain::operations::{self, Filter, Operation, State as WorkflowState};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// What an operation is: always `operation`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum OperationType {
    Operation,
}

/// How an operation stands.
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

/// Work on a database that goes on after the request that started it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Operation)]
pub(super) struct OperationWire {
    /// Its id.
    #[schema(value_type = WorkflowId)]
    id: String,
    /// Always `operation`.
    r#type: OperationType,
    /// Its address in this API.
    #[schema(format = "uri", example = json!(sample_url("operations", "op")))]
    url: String,
    /// What it does.
    #[schema(example = "provision_database")]
    kind: String,
    /// How it stands.
    state: OperationState,
    /// The step that it is at, or ended at.
    #[schema(example = "prove_ready")]
    step: String,
    /// How often this step was tried without success.
    #[schema(example = 0)]
    attempts: i32,
    /// What keeps it from getting further, or why it ended as it did; null while all is well.
    #[schema(example = json!(null))]
    reason: Option<String>,
    /// How far its step has come; null where that cannot be told.
    progress: Option<ProgressWire>,
    /// The database that it works on. After a delete it is there no more.
    database: DatabaseReference,
    /// The project of that database.
    #[schema(value_type = ProjectId)]
    project_id: String,
    /// When it began.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// When something happened to it last.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.437Z")]
    updated_at: String,
    /// When its step is tried again, while it waits for that; null otherwise.
    #[schema(format = "date-time", example = json!(null))]
    next_attempt_at: Option<String>,
    /// When it ended; null while it has not.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.437Z")]
    ended_at: Option<String>,
    /// Whether it can be cancelled now.
    can_cancel: bool,
    /// Whether it can be retried now. It cannot while the backup that it restores is damaged.
    can_retry: bool,
}

/// How far the step of an operation has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Progress)]
struct ProgressWire {
    /// In bytes.
    #[schema(example = 11534336)]
    done_bytes: i64,
    /// All there is to do, as far as that is known.
    #[schema(example = 23068672)]
    total_bytes: i64,
    /// Of a hundred.
    #[schema(example = 50)]
    percent: i64,
}

impl From<(i64, i64)> for ProgressWire {
    fn from((done_bytes, total_bytes): (i64, i64)) -> Self {
        let percent = if total_bytes > 0 { (done_bytes.saturating_mul(100) / total_bytes).clamp(0, 100) } else { 0 };
        Self { done_bytes, total_bytes, percent }
    }
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct OperationQuery {
    /// Only the operations on this database, which may be gone.
    database_id: Option<String>,
    /// Only the operations on databases of this project.
    project_id: Option<String>,
    /// Only operations in this state.
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
        reason: if superseded { Some("the database was deleted meanwhile".into()) } else { operation.reason },
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
/// The work on the databases that the token reaches, and on those that it has deleted, newest first.
/// Operations that ended more than 30 days ago are forgotten.
#[utoipa::path(get, path = "/v1/operations", tag = "Operations", params(PageQuery, OperationQuery), responses(
    (status = 200, description = "The operations.", body = List<OperationWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_operations(
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
/// Newest first.
#[utoipa::path(get, path = "/v1/databases/{databaseId}/operations", tag = "Operations",
    params(("databaseId" = String, Path, description = "The database's id."), PageQuery), responses(
    (status = 200, description = "The operations.", body = List<OperationWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such database.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_database_operations(
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
#[utoipa::path(get, path = "/v1/operations/{operationId}", tag = "Operations",
    params(("operationId" = String, Path, description = "The operation's id.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such operation.", body = ErrorBody),
))]
pub(super) async fn get_operation(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<OperationWire>>, Failure> {
    let operation = operations::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, operation) }))
}

/// Cancel an operation
///
/// Calls off the making of a database, which then stands at `failure`: it can be retried, or the
/// database deleted; a backup; and a restore in place that has not taken over: the database is at once what
/// it was before, and the operation ends when what was restored has been removed. Everything else goes
/// through and cannot be cancelled; `canCancel` says so.
#[utoipa::path(post, path = "/v1/operations/{operationId}/cancel", tag = "Operations",
    params(("operationId" = String, Path, description = "The operation's id.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such operation.", body = ErrorBody),
    (status = 409, description = "It has ended, is one that cannot be cancelled, or is a restore that has taken over.", body = ErrorBody),
))]
pub(super) async fn cancel_operation(
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
/// Tries an operation again that failed or was cancelled. It goes on at the step where it was.
#[utoipa::path(post, path = "/v1/operations/{operationId}/retry", tag = "Operations",
    params(("operationId" = String, Path, description = "The operation's id.")), responses(
    (status = 200, description = "The operation.", body = Data<OperationWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such operation.", body = ErrorBody),
    (status = 409, description = "It neither failed nor was cancelled, or another one came after it.", body = ErrorBody),
))]
pub(super) async fn retry_operation(
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
