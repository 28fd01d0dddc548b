//! How ids look in the API document.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::id::{
    AuditEntryId, BackupId, BranchId, ConnectionId, DatabaseId, IntegrationId, ProjectId, ServiceTokenId, WorkflowId,
    WorkspaceId,
};

/// The part of an id after its prefix in all examples.
pub const SAMPLE: &str = "01jzq6w3c4e5f6g7h8j9k0m1n2";

/// The form of an id in an answer.
fn id(prefix: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(r"^{prefix}_([cC][^\s-]{{8,}}|[a-z0-9]+)$")))
        .examples([format!("{prefix}_{SAMPLE}")])
        .build()
}

/// The form of an id in a request, where the prefix may be left out.
pub fn given_id(prefix: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(r"^({prefix}_)?([cC][^\s-]{{8,}}|[a-z0-9]+)$")))
        .examples([format!("{prefix}_{SAMPLE}")])
        .build()
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
