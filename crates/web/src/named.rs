//! What an id in a path names.

use base::id::{
    BackupId, BranchId, ConnectionId, DatabaseId, IntegrationId, ProjectId, ServiceTokenId, WorkflowId, WorkspaceId,
};

/// What an id in a path names.
pub struct Named {
    /// The noun in error messages.
    pub kind: &'static str,
    /// What stands before the underscore.
    pub prefix: &'static str,
}

/// What this parameter of a path names: that is told by what stands before it.
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

/// What the last id in a path names.
pub fn last_named(path: &str) -> Option<Named> {
    let parameter = path.rsplit('{').next()?.split('}').next()?;
    named_by(path, parameter)
}
