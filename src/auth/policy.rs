//! The policy: what a caller may see and do. It is decided here and nowhere else.
//!
//! What a caller may not see answers 404: SQL looks through a [`Scope`], the only way to get at a
//! principal's reach. What it sees but may not do answers 403: the use case asks one of the `may_…`
//! functions once it has found the thing.

use std::net::IpAddr;

use jiff::Timestamp;
use uuid::Uuid;

use crate::base::error::{Error, Result};
use crate::base::id::{ProjectId, ServiceTokenId, WorkspaceId};

/// What helps who is limited to projects.
const WHOLE_WORKSPACE: &str = "Use a token of the whole workspace.";

/// A caller whose credential was checked. Domain functions take it as proof of authority:
/// what lies outside its scope does not exist for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    workspace: WorkspaceId,
    token: ServiceTokenId,
    name: String,
    limits: Limits,
    origin: Origin,
}

/// The request that a principal came with, for the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The address that it came from.
    pub address: Option<IpAddr>,
    /// The request's id; empty for what Howdah does by itself.
    pub request_id: String,
}

/// What a token may do less than everything in its workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// It changes nothing.
    pub read_only: bool,
    /// It sees these projects only, and what is in them.
    pub projects: Option<Vec<ProjectId>>,
    /// It is good until then.
    pub expires_at: Option<Timestamp>,
}

/// What a principal sees, as parameters of SQL:
/// `p.workspace_id = $1 AND ($2::uuid[] IS NULL OR p.id = ANY ($2))`.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its workspace.
    pub workspace: Uuid,
    /// The projects that it is limited to, if it is.
    pub projects: Option<Vec<Uuid>>,
}

impl Principal {
    /// Whoever holds this token. Only for who has checked it.
    pub fn new(workspace: WorkspaceId, token: ServiceTokenId, name: String, limits: Limits) -> Self {
        Self { workspace, token, name, limits, origin: Origin::default() }
    }

    /// The same principal, with the request that it came with.
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// The request that it came with.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The one workspace that the credential reaches. Not all of it, perhaps: SQL uses
    /// [`Principal::scope`].
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// The service token that it came with.
    pub fn token(&self) -> ServiceTokenId {
        self.token
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it sees.
    pub fn scope(&self) -> Scope {
        let projects = self.limits.projects.as_ref();
        Scope {
            workspace: self.workspace.uuid(),
            projects: projects.map(|projects| projects.iter().map(ProjectId::uuid).collect()),
        }
    }

    /// The one service token that it sees: its own; `None` when it sees all of its workspace.
    pub fn only_token(&self) -> Option<ServiceTokenId> {
        self.limits.projects.is_some().then_some(self.token)
    }

    /// Whether it may see what is counted in the whole workspace.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_see_all(&self) -> Result<()> {
        if self.limits.projects.is_some() {
            return Err(Error::forbidden(
                "This token is limited to projects and does not see the whole workspace.",
                "Use a token that is not limited to projects.",
            ));
        }
        Ok(())
    }

    /// Whether it may change what it sees.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_change(&self) -> Result<()> {
        if self.limits.read_only {
            return Err(Error::forbidden("This token is read-only.", "Use a token that may change things."));
        }
        Ok(())
    }

    /// Whether it may add to its workspace, and not only to a project.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_create_projects(&self) -> Result<()> {
        self.may_change()?;
        if self.limits.projects.is_some() {
            return Err(Error::forbidden("This token is limited to projects and creates none.", WHOLE_WORKSPACE));
        }
        Ok(())
    }

    /// Whether it may change what holds for its whole workspace.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_change_workspace(&self) -> Result<()> {
        self.may_change()?;
        if self.limits.projects.is_some() {
            let message = "This token is limited to projects and does not change the workspace.";
            return Err(Error::forbidden(message, WHOLE_WORKSPACE));
        }
        Ok(())
    }

    /// Whether it may make a token with these limits: none that may do more, or for longer, than itself.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_grant(&self, wanted: &Limits) -> Result<()> {
        self.may_change()?;
        if self.limits.projects.is_some() {
            return Err(Error::forbidden("This token is limited to projects and creates no tokens.", WHOLE_WORKSPACE));
        }
        match (self.limits.expires_at, wanted.expires_at) {
            (Some(own), wanted) if wanted.is_none_or(|wanted| wanted > own) => Err(Error::forbidden(
                "This token expires, and creates none that is good for longer than itself.",
                format!("Set expiresAt to {own} or earlier, or use a token that lasts longer."),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(limits: Limits) -> Principal {
        let id = Uuid::from_u128(1);
        Principal::new(id.into(), id.into(), "test".into(), limits)
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let wanted = |second| Limits { expires_at: at(second), ..Limits::default() };
        let full = principal(Limits::default());
        assert!(full.may_grant(&Limits::default()).is_ok());
        assert!(full.may_create_projects().is_ok());

        let short = principal(Limits { expires_at: at(100), ..Limits::default() });
        assert!(short.may_grant(&wanted(100)).is_ok());
        assert!(short.may_grant(&wanted(101)).is_err());
        assert!(short.may_grant(&Limits::default()).is_err());

        let narrow = principal(Limits { projects: Some(Vec::new()), ..Limits::default() });
        assert!(narrow.may_change().is_ok());
        assert!(narrow.may_grant(&wanted(1)).is_err());
        assert!(narrow.may_create_projects().is_err());

        let reader = principal(Limits { read_only: true, ..Limits::default() });
        assert!(reader.may_change().is_err());
        assert!(reader.may_grant(&Limits { read_only: true, ..Limits::default() }).is_err());
    }
}
