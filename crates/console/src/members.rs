//! Members of a workspace and its invitations.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::sign_in::Nothing;
use super::{Form, Frame, Html, Member, Once, Problem, Section, again, see_other};
use auth::{Action, Role, attempts};
use base::error::{Error, Result};
use base::id::{InvitationId, UserId};
use base::name::Email;
use base::store::Session;
use domain::app::App;
use domain::mail::{self, Delivery};
use domain::members::{self, Invitation};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    const MEMBERS: &str = "/console/workspaces/{workspace}/members";
    Router::new()
        .route(MEMBERS, get(list_members))
        .route(&format!("{MEMBERS}/{{user}}/role"), post(change_role))
        .route(&format!("{MEMBERS}/{{user}}/remove"), post(remove_member))
        .route(&format!("{MEMBERS}/invitations"), post(invite_member))
        .route(&format!("{MEMBERS}/invitations/{{invitation}}/withdraw"), post(withdraw_invitation))
}

#[derive(Template)]
#[template(path = "members/list.html")]
struct ListPage {
    frame: Frame,
    members: Vec<members::Member>,
    invitations: Vec<Invitation>,
    own: UserId,
    may_manage: bool,
    /// The roles that the requester may assign.
    roles: Vec<Role>,
    /// The delivery states of the invitations' mails.
    deliveries: HashMap<InvitationId, Delivery>,
    /// The invitation that this request created.
    made: Option<Made>,
    /// Whether a mail server is configured.
    mails: bool,
    email: String,
    role: Role,
    problem: Problem,
}

/// A newly created invitation.
struct Made {
    email: String,
    link: String,
    mailed: bool,
}

impl ListPage {
    /// `None` if no mail was written for the invitation.
    fn delivery(&self, invitation: &Invitation) -> Option<&Delivery> {
        self.deliveries.get(&invitation.id)
    }

    /// Whether the requester may change this member's role.
    fn decides_about(&self, member: &members::Member) -> bool {
        self.may_manage && self.roles.contains(&member.role)
    }
}

#[derive(Deserialize)]
struct NewRole {
    role: String,
}

#[derive(Deserialize)]
struct NewInvitation {
    email: String,
    role: String,
}

async fn page(app: &App, member: &Member, problem: Problem) -> Result<ListPage> {
    page_of(&app.store.session().await?, app, member, problem).await
}

async fn page_of(session: &Session, app: &App, member: &Member, problem: Problem) -> Result<ListPage> {
    let may_manage = member.actor.may(Action::ManageMembers).is_ok();
    let owns = member.actor.may(Action::OwnWorkspace).is_ok();
    let invitations = members::list_invitations(session, &member.actor, app.clock.now()).await?;
    Ok(ListPage {
        frame: member.frame(Section::Members),
        members: members::list(session, &member.actor).await?,
        invitations,
        own: member.visitor.user.id,
        may_manage,
        roles: Role::ALL.into_iter().filter(|role| owns || *role != Role::Owner).collect(),
        deliveries: mail::deliveries(session, member.actor.workspace()).await?,
        made: None,
        mails: app.mail,
        email: String::new(),
        role: Role::Developer,
        problem,
    })
}

fn read_role(text: &str) -> Result<Role> {
    Role::parse(text).ok_or_else(|| Error::invalid("role: there is no such role", "Select one from the list."))
}

async fn list_members(State(app): State<Arc<App>>, member: Member) -> Result<Html<ListPage>, Failure> {
    Ok(Html(page(&app, &member, Problem::none()).await?))
}

async fn invite_member(
    State(app): State<Arc<App>>,
    member: Member,
    Once(new, attempt): Once<NewInvitation>,
) -> Result<Response, Failure> {
    let invited = async {
        let (email, role, now) = (Email::parse(&new.email)?, read_role(&new.role)?, app.clock.now());
        let tx = app.store.begin().await?;
        let (_, token) = members::invite(&tx, &member.actor, now, &email, role).await?;
        let inviter = &member.visitor.user;
        let made = members::find_invitation(&tx, now, token.expose()).await?;
        let mut mailed = false;
        if let (Some(outbox), Some(invitation)) = (app.outbox(), &made) {
            mailed = attempts::take_invitation(&tx, inviter, email.as_str()).await?;
            if mailed {
                outbox.send_invitation(&tx, now, invitation, inviter, &token).await?;
            }
        }
        let link = format!("{}/console/invitations/{}", app.public.api, token.expose());
        let made = Some(Made { email: email.as_str().to_owned(), link, mailed });
        let page = ListPage { made, ..page_of(&tx, &app, &member, Problem::none()).await? };
        attempt.commit(&app, tx, Html(page).into_response()).await
    };
    match invited.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["email", "role"])?;
            let role = Role::parse(&new.role).unwrap_or(Role::Developer);
            Ok(again(ListPage { email: new.email, role, ..page(&app, &member, problem).await? }))
        }
    }
}

async fn withdraw_invitation(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, invitation)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let id = InvitationId::parse(&invitation).ok_or_else(|| Error::not_found("invitation", &invitation))?;
    let tx = app.store.begin().await?;
    members::withdraw(&tx, &member.actor, app.clock.now(), id).await?;
    let answer = done(&app, &member, "Invitation revoked. Its link no longer works.");
    Ok(attempt.commit(&app, tx, answer).await?)
}

async fn change_role(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, user)): Path<(String, String)>,
    Form(new): Form<NewRole>,
) -> Result<Response, Failure> {
    let changed = async {
        let (user, role) = (read_user(&user)?, read_role(&new.role)?);
        let tx = app.store.begin().await?;
        members::change_role(&tx, &member.actor, app.clock.now(), user, role).await?;
        tx.commit().await?;
        Ok(role)
    };
    match changed.await {
        Ok(role) => Ok(done(&app, &member, &format!("Role changed to {role}."))),
        Err(error) => Ok(again(page(&app, &member, Problem::of(error, &[])?).await?)),
    }
}

async fn remove_member(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, user)): Path<(String, String)>,
    Form(Nothing {}): Form<Nothing>,
) -> Result<Response, Failure> {
    let removed = async {
        let tx = app.store.begin().await?;
        members::remove(&tx, &member.actor, app.clock.now(), read_user(&user)?).await?;
        tx.commit().await
    };
    match removed.await {
        Ok(()) => Ok(done(&app, &member, "Member removed.")),
        Err(error) => Ok(again(page(&app, &member, Problem::of(error, &[])?).await?)),
    }
}

fn read_user(text: &str) -> Result<UserId> {
    UserId::parse(text).ok_or_else(|| Error::not_found("member", text))
}

fn done(app: &App, member: &Member, said: &str) -> Response {
    see_other(app, &member.frame(Section::Members).to("members"), said)
}

/// Describes a role in the form's choice.
fn about(role: &Role) -> &'static str {
    match role {
        Role::Viewer => "Viewer: read-only access",
        Role::Developer => "Developer: can change projects",
        Role::Admin => "Admin: can also manage access",
        Role::Owner => "Owner: can also manage owners",
    }
}
