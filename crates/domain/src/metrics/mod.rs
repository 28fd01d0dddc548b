//! What there is in the whole installation at a moment, in numbers, for whoever watches over it. The
//! store has the truth, so that every process that shares it tells the same.

mod store;

use base::error::Result;
use base::store::Session;

/// The numbers of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Workspaces.
    pub workspaces: i64,
    /// Projects.
    pub projects: i64,
    /// Databases by their status.
    pub databases: Vec<(String, i64)>,
    /// Backups by kind and state.
    pub backups: Vec<(String, String, i64)>,
    /// Backups that were restored for a trial, by how that went the last time: `passed` or `failed`.
    pub trials: Vec<(String, i64)>,
    /// Databases whose changes cannot be archived.
    pub archives_stuck: i64,
    /// Operations of the last day or so by kind and state.
    pub operations: Vec<(String, String, i64)>,
}

/// The numbers as they are now.
pub async fn take(session: &Session) -> Result<Snapshot> {
    store::take(session).await
}
