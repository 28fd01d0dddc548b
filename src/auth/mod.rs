//! Who is calling, and what they may reach.

pub mod service_tokens;
pub mod signing;

use crate::base::id::{ServiceTokenId, WorkspaceId};

/// A caller whose credential was checked. Domain functions take it as proof of authority:
/// what lies outside its workspace does not exist for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The one workspace that the credential reaches.
    pub workspace: WorkspaceId,
    /// The service token that it came with.
    pub token: ServiceTokenId,
}
