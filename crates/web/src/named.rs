//! The kind of resource that an id in a path names.

use base::id::{
    BackupId, BranchId, ConnectionId, DatabaseId, IntegrationId, ProjectId, ServiceTokenId, WorkflowId, WorkspaceId,
};

/// A kind of resource.
pub struct Named {
    /// The noun in error messages.
    pub kind: &'static str,
    /// What stands before the underscore.
    pub prefix: &'static str,
}

/// The kind of resource that a path parameter names. The segment before the parameter tells.
pub fn named_by(path: &str, parameter: &str) -> Option<Named> {
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

/// The kind of resource that the last id in a path names.
pub fn last_named(path: &str) -> Option<Named> {
    let parameter = path.rsplit('{').next()?.split('}').next()?;
    named_by(path, parameter)
}
