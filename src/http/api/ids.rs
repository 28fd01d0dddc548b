//! How ids look in the document.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::base::id::{
    AuditEntryId, BackupId, BranchId, ConnectionId, DatabaseId, IntegrationId, ProjectId, ServiceTokenId, WorkflowId,
    WorkspaceId,
};

/// What stands behind the prefix in every example.
pub(super) const SAMPLE: &str = "01jzq6w3c4e5f6g7h8j9k0m1n2";

/// The form of an id in an answer.
fn id(prefix: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(r"^{prefix}_([cC][^\s-]{{8,}}|[a-z0-9]+)$")))
        .examples([format!("{prefix}_{SAMPLE}")])
        .build()
}

/// The form of an id in a request, where the prefix may be left out.
pub(super) fn given_id(prefix: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(r"^({prefix}_)?([cC][^\s-]{{8,}}|[a-z0-9]+)$")))
        .examples([format!("{prefix}_{SAMPLE}")])
        .build()
}

/// What an id in a path names.
pub(in crate::http) struct Named {
    /// The noun in error messages.
    pub(in crate::http) kind: &'static str,
    /// What stands before the underscore.
    pub(in crate::http) prefix: &'static str,
}

/// What this parameter of a path names: that is told by what stands before it.
pub(in crate::http) fn named_by(path: &str, parameter: &str) -> Option<Named> {
    let (before, _) = path.split_once(&format!("/{{{parameter}}}"))?;
    let (kind, prefix) = match before.rsplit('/').next()? {
        "workspaces" => ("workspace", WorkspaceId::PREFIX),
        "projects" => ("project", ProjectId::PREFIX),
        "branches" => ("branch", BranchId::PREFIX),
        "databases" => ("database", DatabaseId::PREFIX),
        "backups" => ("backup", BackupId::PREFIX),
        "connections" => ("connection", ConnectionId::PREFIX),
        "operations" => ("operation", WorkflowId::PREFIX),
        "service-tokens" => ("service token", ServiceTokenId::PREFIX),
        "integrations" => ("integration", IntegrationId::PREFIX),
        _ => return None,
    };
    Some(Named { kind, prefix })
}

/// What the last id in a path names.
pub(super) fn last_named(path: &str) -> Option<Named> {
    let parameter = path.rsplit('{').next()?.split('}').next()?;
    named_by(path, parameter)
}

macro_rules! documented {
    ($($id:ident as $name:literal),*) => {$(
        impl PartialSchema for $id {
            fn schema() -> RefOr<Schema> {
                id($id::PREFIX).into()
            }
        }

        impl ToSchema for $id {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

documented! {
    AuditEntryId as "AuditEntryId",
    BackupId as "BackupId",
    BranchId as "BranchId",
    ConnectionId as "ConnectionId",
    DatabaseId as "DatabaseId",
    ProjectId as "ProjectId",
    IntegrationId as "IntegrationId",
    ServiceTokenId as "ServiceTokenId",
    WorkflowId as "OperationId",
    WorkspaceId as "WorkspaceId"
}
