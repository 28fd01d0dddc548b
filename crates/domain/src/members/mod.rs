//! Members: which users are in which workspaces, in which role, and who is invited.

mod store;

use jiff::{SignedDuration, Timestamp};

use crate::accounts;
use crate::audit::{self, Change, Resource};
use crate::workspaces::{self, Workspace};
use auth::links;
use auth::users::User;
use auth::{Action, Credential, Limits, Origin, Principal, Role};
use base::error::{Error, Result};
use base::id::{InvitationId, UserId, WorkspaceId};
use base::name::{Email, LONGEST, PersonName, WorkspaceName};
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

/// How long an invitation is good.
const INVITED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A user in a workspace.
#[derive(Clone, Debug)]
pub struct Member {
    /// The user.
    pub user: User,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub since: Timestamp,
}

/// Somebody who was invited and has not come yet.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The invitation's ID.
    pub id: InvitationId,
    /// Which workspace it is to.
    pub workspace: Workspace,
    /// Who it is for.
    pub email: String,
    /// In which role.
    pub role: Role,
    /// Who made it, in words.
    pub invited_by: String,
    /// When the invitation was created.
    pub created_at: Timestamp,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// The user as a caller in a workspace, with the role that they have in it now.
///
/// # Errors
/// [`Error::NotFound`] for a workspace that they are no member of.
pub async fn principal(session: &Session, user: &User, workspace: WorkspaceId, origin: Origin) -> Result<Principal> {
    let role = store::role(session, workspace, user.id).await?;
    let role = role.ok_or_else(|| Error::not_found("workspace", workspace))?;
    let credential = Credential::Session { user: user.clone() };
    Ok(Principal::new(workspace, credential, role, Limits::default()).from_origin(origin))
}

/// The workspaces that a user is in, and their role in each; oldest first.
pub async fn workspaces_of(session: &Session, user: UserId) -> Result<Vec<(Workspace, Role)>> {
    store::workspaces_of(session, user).await
}

/// Makes the first account with the link that the server has printed: its user is an administrator,
/// and owns the first workspace.
///
/// # Errors
/// [`Error::NotFound`] when the link is not, or no more, good; [`Error::Conflict`] when the address
/// has an account.
pub async fn set_up(
    tx: &Tx,
    now: Timestamp,
    link: &str,
    email: &Email,
    name: &PersonName,
    password_hash: &str,
    origin: Origin,
) -> Result<User> {
    links::take_set_up(tx, now, link).await?;
    let user = accounts::create(tx, now, email, name, Some(password_hash), true, &origin).await?;
    own(tx, now, workspaces::first(tx).await?, Credential::Session { user: user.clone() }, origin).await?;
    Ok(user)
}

/// Makes a workspace that the user owns.
pub async fn create_workspace(
    tx: &Tx,
    now: Timestamp,
    user: &User,
    name: &WorkspaceName,
    origin: Origin,
) -> Result<Workspace> {
    let workspace = workspaces::create(tx, name.as_str(), now).await?;
    own(tx, now, workspace.id, Credential::Session { user: user.clone() }, origin).await?;
    Ok(workspace)
}

/// The same for the user whom the caller is, or acts for.
///
/// # Errors
/// [`Error::Forbidden`] for a caller without a user, and for one that may change nothing.
pub async fn create_workspace_for(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    name: Option<&WorkspaceName>,
) -> Result<Workspace> {
    let Some(user) = actor.user() else {
        return Err(Error::forbidden(
            "Only a signed-in person can create a workspace, not a service token.",
            "Use the workspace of this token (GET /v1/workspaces), or create one in the console.",
        ));
    };
    actor.may_change()?;
    let made_up: String = format!("{}'s workspace", user.name()).chars().take(LONGEST).collect();
    let workspace = workspaces::create(tx, name.map_or(&made_up, |name| name.as_str()), now).await?;
    own(tx, now, workspace.id, actor.credential().clone(), actor.origin().clone()).await?;
    Ok(workspace)
}

async fn own(tx: &Tx, now: Timestamp, workspace: WorkspaceId, credential: Credential, origin: Origin) -> Result<()> {
    let actor = Principal::new(workspace, credential, Role::Owner, Limits::default()).from_origin(origin);
    let user = actor.user().ok_or_else(|| Error::internal("a workspace is owned by a user"))?;
    store::insert(tx, workspace, user.id, Role::Owner, now).await?;
    let workspace = workspaces::get(tx, &actor, workspace).await?;
    let shown = serde_json::json!({ "name": workspace.name, "owner": user.email });
    let resource = Resource::new("workspace", workspace.id, &workspace.name);
    record(tx, &actor, now, "create_workspace", resource, None, Some(shown)).await
}

/// A workspace's members, in the order in which they came.
pub async fn list(session: &Session, actor: &Principal) -> Result<Vec<Member>> {
    store::list(session, actor.workspace()).await
}

/// The invitations to the caller's workspace that are still good, oldest first.
pub async fn list_invitations(session: &Session, actor: &Principal, now: Timestamp) -> Result<Vec<Invitation>> {
    store::list_invitations(session, actor.workspace(), now).await
}

/// Invites somebody: whoever opens the link with an account becomes a member, for as long as whoever
/// invites may give that role. Another invitation of the same address is replaced.
///
/// # Errors
/// [`Error::Forbidden`] when the caller may not; [`Error::Conflict`] when they are a member already.
pub async fn invite(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    email: &Email,
    role: Role,
) -> Result<(InvitationId, Secret)> {
    may_decide_about(actor, role)?;
    if store::is_member(tx, actor.workspace(), email.as_str()).await? {
        return Err(Error::conflict(
            format!("{} is already a member of this workspace", email.as_str()),
            "Change the member's role instead.",
        ));
    }
    store::remove_invitations_of(tx, actor.workspace(), email.as_str()).await?;
    let (id, token) = (InvitationId::generate(now), Secret::new(random_text::<24>()));
    let expires_at = now.checked_add(INVITED).map_err(Error::internal)?;
    let by = actor.user().ok_or_else(|| Error::internal("nobody invites"))?;
    store::insert_invitation(tx, id, actor, email.as_str(), role, &hash(token.expose()), by, now, expires_at).await?;
    let shown = serde_json::json!({ "email": email.as_str(), "role": role.as_str() });
    record(tx, actor, now, "invite_member", Resource::new("invitation", id, email.as_str()), None, Some(shown)).await?;
    Ok((id, token))
}

/// Takes an invitation back.
///
/// # Errors
/// [`Error::Forbidden`] when the caller may not; [`Error::NotFound`] when there is none.
pub async fn withdraw(tx: &Tx, actor: &Principal, now: Timestamp, id: InvitationId) -> Result<()> {
    actor.may(Action::ManageMembers)?;
    let email = store::remove_invitation(tx, actor.workspace(), id).await?;
    let email = email.ok_or_else(|| Error::not_found("invitation", id))?;
    record(tx, actor, now, "withdraw_invitation", Resource::new("invitation", id, &email), None, None).await
}

/// Takes every invitation back that a user has made.
pub async fn withdraw_all_of(tx: &Tx, inviter: UserId) -> Result<()> {
    store::remove_all_invitations_by(tx, inviter).await
}

/// The invitation that a link leads to, if it is good.
pub async fn find_invitation(session: &Session, now: Timestamp, token: &str) -> Result<Option<Invitation>> {
    store::find_invitation(session, now, &hash(token)).await
}

/// Whether anybody has invited this address, and the invitation is good.
pub async fn is_invited(session: &Session, now: Timestamp, email: &Email) -> Result<bool> {
    store::is_invited(session, now, email.as_str()).await
}

/// Makes a user a member by a link. Whoever is one already keeps the greater role.
///
/// # Errors
/// [`Error::NotFound`] when the link is not, or no more, good.
pub async fn accept(tx: &Tx, now: Timestamp, token: &str, user: &User, origin: Origin) -> Result<WorkspaceId> {
    let invitation = store::find_invitation(tx, now, &hash(token)).await?;
    let invitation = invitation.ok_or_else(|| Error::not_found("invitation", "in this address"))?;
    let workspace = invitation.workspace.id;
    if store::remove_invitation(tx, workspace, invitation.id).await?.is_none() {
        return Err(Error::not_found("invitation", "in this address"));
    }
    match store::role(tx, workspace, user.id).await? {
        None => store::insert(tx, workspace, user.id, invitation.role, now).await?,
        Some(role) if role < invitation.role => store::set_role(tx, workspace, user.id, invitation.role).await?,
        Some(_) => {}
    }
    let actor = principal(tx, user, workspace, origin).await?;
    let shown = serde_json::json!({ "role": actor.role().as_str(), "invitedBy": invitation.invited_by });
    let resource = Resource::new("user", user.id, &user.email);
    record(tx, &actor, now, "accept_invitation", resource, None, Some(shown)).await?;
    Ok(workspace)
}

/// Gives a member another role.
///
/// # Errors
/// [`Error::Forbidden`] when the caller may not; [`Error::NotFound`] when there is no such member;
/// [`Error::Conflict`] when nobody would own the workspace any more.
pub async fn change_role(tx: &Tx, actor: &Principal, now: Timestamp, user: UserId, role: Role) -> Result<()> {
    let member = get(tx, actor, user).await?;
    may_decide_about(actor, role.max(member.role))?;
    if role != Role::Owner {
        keeps_an_owner(tx, actor, &member).await?;
    }
    store::set_role(tx, actor.workspace(), user, role).await?;
    if role < Role::Owner {
        store::remove_invitations_by(tx, actor.workspace(), user, role == Role::Admin).await?;
    }
    let shown = |role: Role| Some(serde_json::json!({ "role": role.as_str() }));
    let resource = Resource::new("user", user, &member.user.email);
    record(tx, actor, now, "change_role", resource, shown(member.role), shown(role)).await
}

/// Removes a member, and with them what they let applications do in the workspace, and the invitations
/// that they have made. Everybody may leave.
///
/// # Errors
/// As for [`change_role`].
pub async fn remove(tx: &Tx, actor: &Principal, now: Timestamp, user: UserId) -> Result<()> {
    let member = get(tx, actor, user).await?;
    if actor.user().is_none_or(|own| own.id != user) {
        may_decide_about(actor, member.role)?;
    }
    keeps_an_owner(tx, actor, &member).await?;
    store::remove(tx, actor.workspace(), user).await?;
    store::remove_invitations_by(tx, actor.workspace(), user, false).await?;
    let shown = serde_json::json!({ "role": member.role.as_str() });
    let resource = Resource::new("user", user, &member.user.email);
    record(tx, actor, now, "remove_member", resource, Some(shown), None).await
}

async fn get(session: &Session, actor: &Principal, user: UserId) -> Result<Member> {
    let members = store::list(session, actor.workspace()).await?;
    members.into_iter().find(|member| member.user.id == user).ok_or_else(|| Error::not_found("member", user))
}

fn may_decide_about(actor: &Principal, role: Role) -> Result<()> {
    actor.may(if role == Role::Owner { Action::OwnWorkspace } else { Action::ManageMembers })
}

async fn keeps_an_owner(tx: &Tx, actor: &Principal, member: &Member) -> Result<()> {
    if member.role == Role::Owner && !store::has_another_owner(tx, actor.workspace(), member.user.id).await? {
        return Err(Error::conflict("this is the last owner of the workspace", "Make another member an owner first."));
    }
    Ok(())
}

async fn record(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    action: &'static str,
    resource: Resource,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
) -> Result<()> {
    audit::record(tx, actor, now, Change { action, resource, project: None, before, after }).await
}
