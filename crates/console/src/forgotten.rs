//! "Forgot your password?": mails a reset link to the address of an account. The response does not reveal
//! whether the account exists.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::sign_in::{private, too_many, wait};
use super::{Anybody, Form, Frame, Html, Problem, again, go_to};
use auth::{attempts, links, users};
use base::error::{Result, describe};
use base::name::Email;
use domain::app::App;
use web::Failure;
use web::failure::unknown_page;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/forgotten", get(show_forgotten).post(ask_for_reset))
        .route("/console/forgotten/asked", get(show_asked))
}

#[derive(Template)]
#[template(path = "links/forgotten.html")]
struct ForgottenPage {
    frame: Frame,
    email: String,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "links/asked.html")]
struct AskedPage {
    frame: Frame,
}

#[derive(Deserialize)]
struct Forgotten {
    email: String,
}

/// Without a mail server, the pages do not exist.
fn check(app: &App) -> Result<(), Failure> {
    if app.mail { Ok(()) } else { Err(unknown_page()) }
}

async fn show_forgotten(State(app): State<Arc<App>>, anybody: Anybody) -> Result<Response, Failure> {
    check(&app)?;
    let page = ForgottenPage { frame: anybody.frame, email: String::new(), problem: Problem::none() };
    Ok(private(Html(page).into_response()))
}

async fn show_asked(State(app): State<Arc<App>>, anybody: Anybody) -> Result<Html<AskedPage>, Failure> {
    check(&app)?;
    Ok(Html(AskedPage { frame: anybody.frame }))
}

/// Looks the account up in the background, so that neither the response nor its timing reveals whether the
/// account exists.
async fn ask_for_reset(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    Form(given): Form<Forgotten>,
) -> Result<Response, Failure> {
    check(&app)?;
    let Anybody { frame, origin, .. } = anybody;
    let page = |email: String, problem: Problem| private(again(ForgottenPage { frame, email, problem }));
    let email = match Email::parse(&given.email) {
        Ok(email) => email,
        Err(error) => return Ok(page(given.email, Problem::of(error, &["email"])?)),
    };
    let tx = app.store.begin().await?;
    match attempts::take_reset(&tx, email.as_str(), &origin).await? {
        Ok(()) => tx.commit().await?,
        Err(limit) => return Ok(too_many(page(given.email, wait(&limit)), &limit)),
    }
    app.tasks.spawn(mail_link(app.clone(), email));
    Ok(go_to("/console/forgotten/asked"))
}

async fn mail_link(app: Arc<App>, email: Email) {
    if let Err(error) = try_to_mail_link(&app, &email).await {
        tracing::error!(error = %describe(&error), "mailing a password reset link failed; it must be requested again");
    }
}

async fn try_to_mail_link(app: &App, email: &Email) -> Result<()> {
    let Some(outbox) = app.outbox() else { return Ok(()) };
    let tx = app.store.begin().await?;
    let Some(user) = users::by_email(&tx, email.as_str()).await? else {
        tracing::info!("password reset requested for an email address without an account");
        return Ok(());
    };
    // An account that only signs in with an identity provider must not get around it by mail.
    if !users::get(&tx, user.id).await?.has_password {
        tracing::info!(user.id = %user.id, "password reset requested for {}, which has no password", user.id);
        return Ok(());
    }
    let now = app.clock.now();
    let (token, until) = links::ask_for_reset(&tx, now, user.id).await?;
    outbox.send_reset(&tx, now, &user, &token, until, true).await?;
    tx.commit().await?;
    tracing::info!(user.id = %user.id, "password reset requested for {}", user.id);
    Ok(())
}
