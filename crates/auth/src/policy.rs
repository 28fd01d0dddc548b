//! The policy: what a caller may see and do. It is decided here and nowhere else.
//!
//! What a caller may not see answers 404: SQL looks through a [`Scope`], the only way to get at a
//! principal's reach. What it sees but may not do answers 403: the use case asks one of the `may_…`
//! functions once it has found the thing.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use uuid::Uuid;

use base::error::{Error, Result};
use base::id::{IntegrationId, ProjectId, ServiceTokenId, UserId, WorkspaceId};

use super::users::User;

/// What helps who is limited to projects.
const WHOLE_WORKSPACE: &str = "Use a token that is not limited to projects.";

/// A caller whose credential was checked. Domain functions take it as proof of authority:
/// what lies outside its scope does not exist for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    workspace: WorkspaceId,
    credential: Credential,
    role: Role,
    limits: Limits,
    origin: Origin,
}

/// What a caller came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A workspace's own token.
    ServiceToken {
        /// Its id.
        id: ServiceTokenId,
        /// Its name.
        name: String,
    },
    /// An access token of an application that acts for a user.
    Integration {
        /// What the user lets it do.
        id: IntegrationId,
        /// The application's name.
        application: String,
        /// The user.
        user: User,
    },
    /// A browser in which a user has signed in.
    Session {
        /// The user.
        user: User,
    },
}

/// What a member of a workspace may do in it; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything, except for secrets.
    Viewer,
    /// Works with projects and what is in them.
    Developer,
    /// Gives others, and machines, access.
    Admin,
    /// Everything.
    Owner,
}

/// What the policy decides about, in a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make, change and delete projects, databases, connections and backups.
    ChangeResources,
    /// Make and revoke service tokens, applications and integrations.
    ManageCredentials,
    /// Invite and remove members and change their roles; owners are an owner's business.
    ManageMembers,
    /// Change the workspace's name, limits and settings.
    ManageWorkspace,
    /// Make and unmake owners, and delete the workspace.
    OwnWorkspace,
}

impl Action {
    /// Who may do what: the least role for it.
    pub const LEAST: [(Self, Role); 5] = [
        (Self::ChangeResources, Role::Developer),
        (Self::ManageCredentials, Role::Admin),
        (Self::ManageMembers, Role::Admin),
        (Self::ManageWorkspace, Role::Admin),
        (Self::OwnWorkspace, Role::Owner),
    ];

    fn least_role(self) -> Role {
        Self::LEAST.iter().find(|(action, _)| *action == self).map_or(Role::Owner, |(_, role)| *role)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::ChangeResources => "change resources in",
            Self::ManageCredentials => "manage tokens and applications of",
            Self::ManageMembers => "manage members of",
            Self::ManageWorkspace => "change settings of",
            Self::OwnWorkspace => "manage owners of, or delete,",
        }
    }
}

impl Role {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Admin, Self::Owner];

    /// Its word in the store and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Reads [`Role::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
    /// Whoever holds this credential. Only for who has checked it.
    pub fn new(workspace: WorkspaceId, credential: Credential, role: Role, limits: Limits) -> Self {
        Self { workspace, credential, role, limits, origin: Origin::default() }
    }

    /// Whoever holds this service token, which may do what an admin may. Only for who has checked it.
    pub fn of_service_token(workspace: WorkspaceId, id: ServiceTokenId, name: String, limits: Limits) -> Self {
        Self::new(workspace, Credential::ServiceToken { id, name }, Role::Admin, limits)
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

    /// What it came with.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What tells it from every other caller: the bits of the service token's, integration's or user's id.
    pub fn id(&self) -> Uuid {
        match &self.credential {
            Credential::ServiceToken { id, .. } => id.uuid(),
            Credential::Integration { id, .. } => id.uuid(),
            Credential::Session { user } => user.id.uuid(),
        }
    }

    /// The person, if it is one, or acts for one.
    pub fn user(&self) -> Option<&User> {
        match &self.credential {
            Credential::ServiceToken { .. } => None,
            Credential::Integration { user, .. } | Credential::Session { user } => Some(user),
        }
    }

    /// What it may do in its workspace at most.
    pub fn role(&self) -> Role {
        self.role
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
        match &self.credential {
            Credential::ServiceToken { id, .. } if self.limits.projects.is_some() => Some(*id),
            _ => None,
        }
    }

    /// Whether it may see what is counted in the whole workspace.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_see_all(&self) -> Result<()> {
        if self.limits.projects.is_some() {
            return Err(Error::limited_token(
                "This token is limited to certain projects and cannot read the whole workspace.",
                "Use a token that is not limited to projects.",
            ));
        }
        Ok(())
    }

    /// Whether it may do this in its workspace.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may(&self, action: Action) -> Result<()> {
        if self.limits.read_only {
            return Err(Error::limited_token("This token is read-only.", "Use a token that is not read-only."));
        }
        let person = matches!(action, Action::ManageMembers | Action::OwnWorkspace);
        if person && self.user().is_none() {
            return Err(Error::forbidden(
                "Service tokens cannot do this: it requires a signed-in member.",
                "Do it in the console.",
            ));
        }
        let least = action.least_role();
        if self.role < least {
            return Err(Error::forbidden(
                format!("The role {} cannot {} this workspace.", self.role, action.in_words()),
                format!("This requires the role {least} or higher. Ask an admin or owner of the workspace."),
            ));
        }
        Ok(())
    }

    /// Whether it may change what it sees.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_change(&self) -> Result<()> {
        self.may(Action::ChangeResources)
    }

    /// Whether it may add to its workspace, and not only to a project.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_create_projects(&self) -> Result<()> {
        self.may_change()?;
        if self.limits.projects.is_some() {
            return Err(Error::limited_token(
                "This token is limited to certain projects and cannot create projects.",
                WHOLE_WORKSPACE,
            ));
        }
        Ok(())
    }

    /// Whether it may change what holds for its whole workspace.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_change_workspace(&self) -> Result<()> {
        self.may(Action::ManageWorkspace)?;
        if self.limits.projects.is_some() {
            let message = "This token is limited to certain projects and cannot change the workspace.";
            return Err(Error::limited_token(message, WHOLE_WORKSPACE));
        }
        Ok(())
    }

    /// Whether it may end what this person lets an application do. Everybody takes back what they gave
    /// themselves, whatever their role.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_take_back(&self, of: UserId) -> Result<()> {
        let is_own = self.user().is_some_and(|user| user.id == of);
        if is_own && !self.limits.read_only { Ok(()) } else { self.may(Action::ManageCredentials) }
    }

    /// Whether it may make a token with these limits: none that may do more, or for longer, than itself.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it may not.
    pub fn may_grant(&self, wanted: &Limits) -> Result<()> {
        self.may(Action::ManageCredentials)?;
        if self.limits.projects.is_some() {
            return Err(Error::limited_token(
                "This token is limited to certain projects and cannot create tokens.",
                WHOLE_WORKSPACE,
            ));
        }
        match (self.limits.expires_at, wanted.expires_at) {
            (Some(own), wanted) if wanted.is_none_or(|wanted| wanted > own) => Err(Error::forbidden(
                "This token cannot create a token that expires later than itself.",
                format!("Set expiresAt to {own} or earlier, or use a token that expires later."),
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
        Principal::of_service_token(id.into(), id.into(), "test".into(), limits)
    }

    fn member(role: Role) -> Principal {
        let id = Uuid::from_u128(1);
        let user = User { id: id.into(), email: "ada@example.com".into(), display_name: None, is_administrator: false };
        Principal::new(id.into(), Credential::Session { user }, role, Limits::default())
    }

    #[test]
    fn roles_have_the_permissions_of_the_table() {
        use Action::*;
        let allowed = |principal: &Principal| -> Vec<Action> {
            Action::LEAST.iter().map(|(action, _)| *action).filter(|action| principal.may(*action).is_ok()).collect()
        };
        assert_eq!(allowed(&member(Role::Viewer)), []);
        assert_eq!(allowed(&member(Role::Developer)), [ChangeResources]);
        let admin = [ChangeResources, ManageCredentials, ManageMembers, ManageWorkspace];
        assert_eq!(allowed(&member(Role::Admin)), admin);
        assert_eq!(allowed(&member(Role::Owner)), Action::LEAST.map(|(action, _)| action));
        let token = principal(Limits::default());
        assert_eq!(allowed(&token), [ChangeResources, ManageCredentials, ManageWorkspace]);
        assert_eq!(allowed(&principal(Limits { read_only: true, ..Limits::default() })), []);
        assert!(member(Role::Developer).may_grant(&Limits::default()).is_err());
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn grants_can_be_revoked_by_their_user() {
        let (own, other) = (UserId::from(Uuid::from_u128(1)), UserId::from(Uuid::from_u128(2)));
        for role in Role::ALL {
            let member = member(role);
            assert!(member.may_take_back(own).is_ok(), "{role}");
            assert_eq!(member.may_take_back(other).is_ok(), role >= Role::Admin, "{role}");
        }
        let reader = Principal { limits: Limits { read_only: true, ..Limits::default() }, ..member(Role::Owner) };
        assert!(reader.may_take_back(own).is_err());
        assert!(principal(Limits::default()).may_take_back(other).is_ok());
    }

    #[test]
    fn tokens_cannot_grant_more_than_they_have() {
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
