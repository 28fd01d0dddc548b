//! The audit log on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{List, PageQuery, filter_id, moment};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{AuditEntryId, ProjectId, ServiceTokenId, UserId, WorkspaceId};
use crate::domain::audit::{self, Actor, Entry, Filter, Outcome};
use crate::http::Failure;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;

/// What an entry of the audit log is: always `auditEntry`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum AuditEntryType {
    AuditEntry,
}

/// What became of a request.
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

/// What kind of credential somebody came with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AuditActorType {
    ServiceToken,
    User,
    /// Nobody knows who: in no workspace's log.
    Anonymous,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(super) struct AuditEntryWire {
    /// Its id.
    #[schema(value_type = AuditEntryId)]
    id: String,
    /// Always `auditEntry`.
    r#type: AuditEntryType,
    /// When it happened.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    at: String,
    /// What was asked for: a verb and a noun.
    #[schema(example = "create_database")]
    action: String,
    /// `allowed` when it was carried out, `refused` when it changed nothing.
    outcome: AuditOutcome,
    /// The status of the answer, where it was refused.
    #[schema(example = json!(null))]
    status: Option<u16>,
    /// Why it was refused.
    #[schema(example = json!(null))]
    reason: Option<String>,
    /// Who asked for it.
    actor: AuditActorWire,
    /// The address that the request came from.
    #[schema(example = "192.0.2.7")]
    address: Option<String>,
    /// The `X-Request-Id` of the answer.
    #[schema(example = "5d41402abc4b2a76")]
    request_id: String,
    /// What it was done to, or was to be done to, as far as the request named it.
    resource: Option<AuditResourceWire>,
    /// The project that it was about, if it was about one.
    #[schema(value_type = Option<ProjectId>)]
    project_id: Option<String>,
    /// What the resource was before; null when there was none. Without secrets.
    #[schema(value_type = Option<HashMap<String, Value>>, example = json!(null))]
    before: Option<serde_json::Value>,
    /// What the resource was afterwards; null when it was gone. Without secrets.
    #[schema(value_type = Option<HashMap<String, Value>>, example = json!({"name": "reporting"}))]
    after: Option<serde_json::Value>,
}

/// Who asked for a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct AuditActorWire {
    /// What it came with.
    r#type: AuditActorType,
    /// The token's or the user's id.
    #[schema(example = "itgr_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// The token's name then, or the user's address.
    #[schema(example = "continuous integration")]
    name: String,
    /// The name of the application that acted for the user, where one did.
    #[schema(example = json!(null))]
    application: Option<String>,
}

/// What a change was made to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditResource)]
struct AuditResourceWire {
    /// What it is, such as `database`.
    #[schema(example = "database")]
    r#type: String,
    /// Its id.
    #[schema(example = "db_01jzq6w3c4e5f6g7h8j9k0m1n2")]
    id: String,
    /// Its name then.
    #[schema(example = "reporting")]
    name: Option<String>,
}

/// Which entries; those that fit all that is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only entries of this action, such as `delete_database`.
    action: Option<String>,
    /// Only entries with this outcome.
    #[param(inline)]
    outcome: Option<AuditOutcome>,
    /// Only what this service token did.
    token_id: Option<String>,
    /// Only what this user did, by themselves or through an application.
    user_id: Option<String>,
    /// Only what somebody did who has this in their name or address, or whose application has it in its name.
    actor_name: Option<String>,
    /// Only what is about this project and what is in it.
    project_id: Option<String>,
    /// Only what was done to the thing with this id, with its prefix.
    resource_id: Option<String>,
    /// Only entries of this moment or later.
    #[param(format = "date-time")]
    since: Option<String>,
    /// Only entries before this moment.
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
/// Every change, allowed or refused, newest first: who asked for it, from where, and what the thing was
/// before and afterwards. A token that is limited to projects sees what is about them. Entries are
/// kept for a year.
#[utoipa::path(get, path = "/v1/workspaces/{id}/audit-log", tag = "Workspaces",
    params(("id" = String, Path, description = "The workspace's id."), PageQuery, AuditQuery), responses(
    (status = 200, description = "The entries.", body = List<AuditEntryWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit.", body = ErrorBody),
))]
pub(super) async fn list_audit_log(
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
