//! The page of an invitation's link: join the workspace with an existing or a new account.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::links::{FIELDS, NewAccount, gone};
use super::sign_in::{Nothing, begin, private, with_cookie};
use super::{Anybody, Form, Frame, Html, Once, Problem, Visitor, again, see_other};
use auth::users;
use base::name::{Email, PersonName};
use domain::accounts;
use domain::app::App;
use domain::members::{self, Invitation};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/invitations/{token}", get(show_invitation).post(accept_invitation))
        .route("/console/invitations/{token}/account", post(create_account))
}

#[derive(Template)]
#[template(path = "invitations/show.html")]
struct InvitationPage {
    frame: Frame,
    token: String,
    invitation: Invitation,
    /// The email address of the signed-in account.
    signed_in: Option<String>,
    /// Whether the invited address has an account.
    has_account: bool,
    /// The name of the identity provider.
    provider: Option<String>,
    name: String,
    problem: Problem,
}

impl InvitationPage {
    fn here(&self) -> String {
        format!("/console/invitations/{}", self.token)
    }
}

const GONE: &str =
    "Invitations expire after a week and can be revoked. Ask the person who invited you for another one.";

async fn show_invitation(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    Path(token): Path<String>,
) -> Result<Response, Failure> {
    let session = app.store.session().await?;
    let Some(invitation) = members::find_invitation(&session, app.clock.now(), &token).await? else {
        return Ok(gone(anybody.frame, GONE));
    };
    let page = InvitationPage {
        has_account: users::by_email(&session, &invitation.email).await?.is_some(),
        frame: anybody.frame,
        token,
        invitation,
        signed_in: anybody.signed_in.map(|signed_in| signed_in.user.email),
        provider: super::provider::name(&app),
        name: String::new(),
        problem: Problem::none(),
    };
    Ok(private(Html(page).into_response()))
}

async fn accept_invitation(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(token): Path<String>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let tx = app.store.begin().await?;
    let workspace = members::accept(&tx, app.clock.now(), &token, &visitor.user, visitor.origin.clone()).await?;
    let address = format!("/console/workspaces/{}", workspace.bare());
    Ok(attempt.commit(&app, tx, see_other(&app, &address, "You're now a member of this workspace.")).await?)
}

/// Creates an account for the invited address only. The link does not prove who owns the address, because
/// the inviter sees it too; an identity provider does (`accounts::admit`).
async fn create_account(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    headers: HeaderMap,
    Path(token): Path<String>,
    Form(new): Form<NewAccount>,
) -> Result<Response, Failure> {
    let now = app.clock.now();
    let Some(invitation) = members::find_invitation(&app.store.session().await?, now, &token).await? else {
        return Ok(gone(anybody.frame, GONE));
    };
    let made = async {
        let (name, email) = (PersonName::parse(&new.name)?, Email::parse(&invitation.email)?);
        let hash = new.password.hash(email.as_str(), Some(name.as_str())).await?;
        let tx = app.store.begin().await?;
        let user = accounts::create(&tx, now, &email, &name, Some(&hash), false, &anybody.origin).await?;
        let workspace = members::accept(&tx, now, &token, &user, anybody.origin.clone()).await?;
        let cookie = begin(&app, &tx, &anybody, &headers, &user).await?;
        tx.commit().await?;
        Ok((workspace, cookie))
    };
    match made.await {
        Ok((workspace, cookie)) => {
            let said = "Account created. You're now a member of this workspace.";
            let answer = see_other(&app, &format!("/console/workspaces/{}", workspace.bare()), said);
            Ok(with_cookie(answer, cookie))
        }
        Err(error) => {
            let problem = Problem::of(error, FIELDS)?;
            let (frame, name) = (anybody.frame, new.name);
            let provider = super::provider::name(&app);
            let page = InvitationPage {
                frame,
                token,
                invitation,
                signed_in: None,
                has_account: false,
                provider,
                name,
                problem,
            };
            Ok(private(again(page)))
        }
    }
}
