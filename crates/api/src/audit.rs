//! The audit log on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{List, PageQuery, filter_id, moment};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{AuditEntryId, ProjectId, ServiceTokenId, UserId, WorkspaceId};
use domain::app::App;
use domain::audit::{self, Actor, Entry, Filter, Outcome};
use web::Failure;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;

/// The resource type: always `auditEntry`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum AuditEntryType {
    AuditEntry,
}

/// The outcome of a request.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum AuditOutcome {
    Allowed,
    Refused,
}

impl From<Outcome> for AuditOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Allowed => Self::Allowed,
            Outcome::Refused => Self::Refused,
        }
    }
}

impl From<AuditOutcome> for Outcome {
    fn from(outcome: AuditOutcome) -> Self {
        match outcome {
            AuditOutcome::Allowed => Self::Allowed,
            AuditOutcome::Refused => Self::Refused,
        }
    }
}

/// The type of an actor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AuditActorType {
    ServiceToken,
    User,
    /// Unknown. The audit log of a workspace contains no such entries.
    Anonymous,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct AuditEntryWire {
    /// The entry's ID.
    #[schema(value_type = AuditEntryId)]
    id: String,
    /// Always `auditEntry`.
    r#type: AuditEntryType,
    /// When the request was handled.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    at: String,
    /// The requested action: a verb and a noun.
    #[schema(example = "create_database")]
    action: String,
    /// `allowed` if the request succeeded, `refused` if it changed nothing.
    outcome: AuditOutcome,
    /// The HTTP status of a refused request. Null otherwise.
    #[schema(example = json!(null))]
    status: Option<u16>,
    /// Why the request was refused. Null otherwise.
    #[schema(example = json!(null))]
    reason: Option<String>,
    /// The caller.
    actor: AuditActorWire,
    /// The IP address of the caller.
    #[schema(example = "192.0.2.7")]
    address: Option<String>,
    /// The `X-Request-Id` of the response.
    #[schema(example = "5d41402abc4b2a76")]
    request_id: String,
    /// The affected resource, if the request identified one.
    resource: Option<AuditResourceWire>,
    /// The ID of the affected project, if any.
    #[schema(value_type = Option<ProjectId>)]
    project_id: Option<String>,
    /// The resource before the change, without secrets. Null if it did not exist.
    #[schema(value_type = Option<HashMap<String, Value>>, example = json!(null))]
    before: Option<serde_json::Value>,
    /// The resource after the change, without secrets. Null if it was deleted.
    #[schema(value_type = Option<HashMap<String, Value>>, example = json!({"name": "reporting"}))]
    after: Option<serde_json::Value>,
}

/// The caller that requested a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct AuditActorWire {
    /// The actor's type.
    r#type: AuditActorType,
    /// The ID of the service token or of the user.
    #[schema(example = "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// The name of the service token at that time, or the user's email address.
    #[schema(example = "continuous integration")]
    name: String,
    /// The name of the application that acted for the user. Null if none did.
    #[schema(example = json!(null))]
    application: Option<String>,
}

/// The resource of a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditResource)]
struct AuditResourceWire {
    /// The resource's type, such as `database`.
    #[schema(example = "database")]
    r#type: String,
    /// The resource's ID.
    #[schema(example = "db_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// The resource's name at that time.
    #[schema(example = "reporting")]
    name: Option<String>,
}

/// Filters of the audit log. Entries must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Return only entries with this action, such as `delete_database`.
    action: Option<String>,
    /// Return only entries with this outcome.
    #[param(inline)]
    outcome: Option<AuditOutcome>,
    /// Return only actions of this service token.
    token_id: Option<String>,
    /// Return only actions of this user, including those through an application.
    user_id: Option<String>,
    /// Return only actions of callers whose name, email address or application name contains this text.
    actor_name: Option<String>,
    /// Return only actions on this project and the resources in it.
    project_id: Option<String>,
    /// Return only actions on the resource with this ID, given with its prefix.
    resource_id: Option<String>,
    /// Return only entries at or after this moment.
    #[param(format = "date-time")]
    since: Option<String>,
    /// Return only entries before this moment.
    #[param(format = "date-time")]
    until: Option<String>,
}

impl AuditQuery {
    fn parse(self) -> Result<Filter, Error> {
        let time = |field, text: Option<String>| -> Result<Option<Timestamp>, Error> {
            text.map(|text| moment(field, &text)).transpose()
        };
        Ok(Filter {
            // A text that cannot be stored is in no entry.
            action: self.action.map(|action| action.replace('\0', "\u{fffd}")),
            outcome: self.outcome.map(Outcome::from),
            actor: filter_id(self.token_id.as_deref(), ServiceTokenId::parse)
                .map(Actor::ServiceToken)
                .or_else(|| filter_id(self.user_id.as_deref(), UserId::parse).map(Actor::User)),
            actor_name: self.actor_name.map(|name| name.replace('\0', "\u{fffd}")),
            workspace: None,
            project: filter_id(self.project_id.as_deref(), ProjectId::parse),
            resource: self.resource_id.map(|id| id.replace('\0', "\u{fffd}")),
            since: time("since", self.since)?,
            until: time("until", self.until)?,
        })
    }
}

fn wire(entry: Entry) -> AuditEntryWire {
    AuditEntryWire {
        id: entry.id.to_string(),
        r#type: AuditEntryType::AuditEntry,
        at: format_timestamp(entry.at),
        action: entry.action,
        outcome: entry.outcome.into(),
        status: entry.status,
        reason: entry.reason,
        actor: AuditActorWire {
            r#type: match entry.actor {
                Actor::ServiceToken(_) => AuditActorType::ServiceToken,
                Actor::User(_) => AuditActorType::User,
                Actor::Anonymous => AuditActorType::Anonymous,
            },
            id: entry.actor.id().unwrap_or_default(),
            name: entry.actor_name,
            application: entry.application,
        },
        address: entry.address,
        request_id: entry.request_id,
        resource: entry.resource.map(|resource| AuditResourceWire {
            r#type: resource.kind,
            id: resource.id,
            name: resource.name,
        }),
        project_id: entry.project.map(|id| id.to_string()),
        before: entry.before,
        after: entry.after,
    }
}

/// List the audit log of a workspace
///
/// Returns all changes in a workspace, allowed and refused, newest first: the caller, its address, and the resource
/// before and after the change. A token that is limited to projects gets only the entries about them. Entries are
/// stored for 365 days.
#[utoipa::path(get, path = "/v1/workspaces/{id}/audit-log", tag = "Workspaces",
    params(("id" = String, Path, description = "The ID of the workspace."), PageQuery, AuditQuery), responses(
    (status = 200, description = "The entries.", body = List<AuditEntryWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The workspace does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid.", body = ErrorBody),
))]
pub(crate) async fn list_audit_log(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(workspace): Path<String>,
    Query(page): Query<PageQuery>,
    Query(filter): Query<AuditQuery>,
) -> Result<Json<List<AuditEntryWire>>, Failure> {
    let workspace = WorkspaceId::parse(&workspace).ok_or_else(|| Error::not_found("workspace", &workspace))?;
    let (page, filter) = (page.parse(AuditEntryId::parse)?, filter.parse()?);
    let found = audit::list(&app.store.session().await?, &actor, workspace, &filter, page).await?;
    Ok(Json(List::of(found, wire)))
}
