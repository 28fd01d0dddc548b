//! Pages behind single-use links: the first account and password resets.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::sign_in::{begin, private, with_cookie};
use super::{Anybody, Form, Frame, Html, Problem, again, see_other};
use auth::{attempts, links, users};
use base::error::{Error, Result};
use base::name::{Email, PersonName};
use base::secret::Secret;
use domain::app::App;
use domain::mail::AccountChange;
use domain::{accounts, members};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/set-up/{token}", get(show_set_up).post(set_up))
        .route("/console/reset/{token}", get(show_reset).post(reset))
}

/// The page of a link that is unknown, expired or used.
#[derive(Template)]
#[template(path = "links/gone.html")]
struct GonePage {
    frame: Frame,
    help: &'static str,
}

#[derive(Template)]
#[template(path = "links/set_up.html")]
struct SetUpPage {
    frame: Frame,
    token: String,
    name: String,
    email: String,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "links/reset.html")]
struct ResetPage {
    frame: Frame,
    token: String,
    email: String,
    problem: Problem,
}

#[derive(Deserialize)]
pub(crate) struct NewAccount {
    pub(crate) name: String,
    pub(crate) email: String,
    #[serde(flatten)]
    pub(crate) password: NewPassword,
}

#[derive(Deserialize)]
pub(crate) struct NewPassword {
    password: String,
    again: String,
}

impl NewPassword {
    /// Hashes the password. This is slow on purpose, so no transaction may be open.
    pub(crate) async fn hash(&self, email: &str, name: Option<&str>) -> Result<String> {
        if self.password != self.again {
            return Err(Error::invalid("again: the passwords don't match", "Enter the same password twice."));
        }
        users::hash_password(&Secret::new(self.password.as_str()), email, name).await
    }
}

pub(crate) const FIELDS: &[&str] = &["name", "email", "password", "again"];

/// The page of a link that is unknown, expired or used.
pub(crate) fn gone(frame: Frame, help: &'static str) -> Response {
    let mut answer = private(Html(GonePage { frame, help }).into_response());
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

const NO_SET_UP: &str = "A restart of the server replaces it: look for the newest link in the server's output or log.";
const NO_RESET: &str = "A newer link replaces it. An administrator can create another one.";

async fn show_set_up(
    State(app): State<Arc<App>>,
    Anybody { frame, .. }: Anybody,
    Path(token): Path<String>,
) -> Result<Response, Failure> {
    if !links::is_set_up(&app.store.session().await?, app.clock.now(), &token).await? {
        return Ok(gone(frame, NO_SET_UP));
    }
    let page = SetUpPage { frame, token, name: String::new(), email: String::new(), problem: Problem::none() };
    Ok(private(Html(page).into_response()))
}

async fn set_up(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    headers: HeaderMap,
    Path(token): Path<String>,
    Form(new): Form<NewAccount>,
) -> Result<Response, Failure> {
    let now = app.clock.now();
    if !links::is_set_up(&app.store.session().await?, now, &token).await? {
        return Ok(gone(anybody.frame, NO_SET_UP));
    }
    let made = async {
        let (name, email) = (PersonName::parse(&new.name)?, Email::parse(&new.email)?);
        let hash = new.password.hash(email.as_str(), Some(name.as_str())).await?;
        let tx = app.store.begin().await?;
        let user = members::set_up(&tx, now, &token, &email, &name, &hash, anybody.origin.clone()).await?;
        let cookie = begin(&app, &tx, &anybody, &headers, &user).await?;
        tx.commit().await?;
        Ok(cookie)
    };
    match made.await {
        Ok(cookie) => {
            let said = "Account created. You're an administrator and the owner of the first workspace.";
            Ok(with_cookie(see_other(&app, "/console", said), cookie))
        }
        Err(error) => {
            let problem = Problem::of(error, FIELDS)?;
            let (frame, name, email) = (anybody.frame, new.name, new.email);
            Ok(private(again(SetUpPage { frame, token, name, email, problem })))
        }
    }
}

async fn show_reset(
    State(app): State<Arc<App>>,
    Anybody { frame, .. }: Anybody,
    Path(token): Path<String>,
) -> Result<Response, Failure> {
    let Some(user) = links::find_reset(&app.store.session().await?, app.clock.now(), &token).await? else {
        return Ok(gone(frame, NO_RESET));
    };
    let page = ResetPage { frame, token, email: user.email, problem: Problem::none() };
    Ok(private(Html(page).into_response()))
}

/// Sets a new password and ends all sessions of the account.
async fn reset(
    State(app): State<Arc<App>>,
    Anybody { frame, origin, .. }: Anybody,
    Path(token): Path<String>,
    Form(new): Form<NewPassword>,
) -> Result<Response, Failure> {
    let now = app.clock.now();
    let Some(user) = links::find_reset(&app.store.session().await?, now, &token).await? else {
        return Ok(gone(frame, NO_RESET));
    };
    let changed = async {
        let hash = new.hash(&user.email, user.display_name.as_deref()).await?;
        let tx = app.store.begin().await?;
        accounts::reset_password(&tx, now, &token, &hash, &origin).await?;
        // The next sign-in from here must succeed, even if others exhaust the account's attempts.
        attempts::remember(&tx, &user, &origin).await?;
        if let Some(outbox) = app.outbox() {
            outbox.tell_of_change(&tx, now, &user, AccountChange::Password, origin.address).await?;
        }
        tx.commit().await
    };
    match changed.await {
        Ok(()) => Ok(see_other(&app, "/console/sign-in", "Password changed. Sign in with your new password.")),
        Err(error) => {
            let problem = Problem::of(error, &["password", "again"])?;
            Ok(private(again(ResetPage { frame, token, email: user.email, problem })))
        }
    }
}
