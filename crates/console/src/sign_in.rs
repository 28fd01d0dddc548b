//! Signing in and out, with a password and an optional second factor.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::notice::with_notice;
use super::{Anybody, Cookie, Form, Frame, Html, Problem, Visitor, again, go_to, local, see_other};
use auth::Origin;
use auth::attempts::{self, Attempt, Proof, TooMany};
use auth::sessions::{self, ticket};
use auth::users::{self, Proven, User};
use base::error::{Result, describe};
use base::secret::Secret;
use base::store::Tx;
use domain::accounts;
use domain::app::App;
use web::Failure;
use web::query::Query;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/sign-in", get(show_sign_in).post(sign_in))
        .route("/console/sign-in/code", post(check_code))
        .route("/console/sign-out", post(sign_out))
}

#[derive(Template)]
#[template(path = "sign_in/password.html")]
struct PasswordPage {
    frame: Frame,
    /// Whether any account exists.
    is_set_up: bool,
    /// Whether password reset links can be mailed.
    mails: bool,
    /// The name of the identity provider.
    provider: Option<String>,
    email: String,
    next: String,
    problem: Problem,
}

impl PasswordPage {
    /// The empty form, once an account exists.
    fn of(app: &App, frame: Frame, next: String) -> Self {
        Self {
            frame,
            is_set_up: true,
            mails: app.mail,
            provider: super::provider::name(app),
            email: String::new(),
            next,
            problem: Problem::none(),
        }
    }
}

#[derive(Template)]
#[template(path = "sign_in/code.html")]
struct CodePage {
    frame: Frame,
    ticket: String,
    next: String,
    problem: Problem,
}

/// Continues to the consent page of an application; see [`lead_on`].
#[derive(Template)]
#[template(path = "sign_in/onward.html")]
struct OnwardPage {
    frame: Frame,
    next: String,
}

#[derive(Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    pub(crate) next: String,
}

#[derive(Deserialize)]
struct Password {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Code {
    ticket: String,
    code: String,
    #[serde(default)]
    next: String,
}

async fn show_sign_in(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    Query(to): Query<Next>,
) -> Result<Response, Failure> {
    if anybody.signed_in.is_some() {
        return Ok(go_to(local(&to.next)));
    }
    let is_set_up = users::exist(&app.store.session().await?).await?;
    let page = PasswordPage { is_set_up, ..PasswordPage::of(&app, anybody.frame, local(&to.next).to_owned()) };
    Ok(private(Html(page).into_response()))
}

/// The sign-in page with a problem of another way to sign in.
pub(crate) fn page_again(app: &App, anybody: Anybody, next: String, problem: Problem) -> Response {
    private(again(PasswordPage { problem, ..PasswordPage::of(app, anybody.frame, next) }))
}

async fn sign_in(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    headers: HeaderMap,
    Form(given): Form<Password>,
) -> Result<Response, Failure> {
    let frame = anybody.frame.clone();
    let next = local(&given.next).to_owned();
    let page = |email: String, problem: Problem| {
        again(PasswordPage { email, problem, ..PasswordPage::of(&app, frame, next.clone()) })
    };
    let attempt = match take(&app, Proof::Password, &given.email, &anybody.origin).await? {
        Ok(attempt) => attempt,
        Err(limit) => return Ok(too_many(page(given.email, wait(&limit)), &limit)),
    };
    let session = app.store.session().await?;
    let proven = users::check_password(&session, &given.email, &Secret::new(given.password)).await?;
    drop(session);
    match proven {
        None => {
            tracing::warn!("sign-in failed: wrong email address or password");
            let mut problem = Problem::with("", "Wrong email address or password.");
            if !app.mail {
                problem.hint = "An administrator can create a password reset link.".into();
            }
            Ok(page(given.email, problem))
        }
        Some(Proven::Password(user)) => {
            attempts::give_back(&app.store.session().await?, &attempt).await?;
            ask_for_code(&app, anybody, &user, next)
        }
        Some(Proven::All(user)) => {
            let tx = app.store.begin().await?;
            attempts::give_back(&tx, &attempt).await?;
            let cookie = begin(&app, &tx, &anybody, &headers, &user).await?;
            tx.commit().await?;
            Ok(with_cookie(lead_on(anybody.frame, &next), cookie))
        }
    }
}

/// The page that asks for the second factor.
pub(crate) fn ask_for_code(app: &App, anybody: Anybody, user: &User, next: String) -> Result<Response, Failure> {
    let ticket = ticket::make(&app.keyring, app.clock.now(), user.id, &anybody.frame.csrf)?;
    let page = CodePage { frame: anybody.frame, ticket, next, problem: Problem::none() };
    Ok(private(Html(page).into_response()))
}

async fn check_code(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    headers: HeaderMap,
    Form(given): Form<Code>,
) -> Result<Response, Failure> {
    let next = local(&given.next).to_owned();
    let now = app.clock.now();
    let Some(user) = ticket::read(&app.keyring, now, &given.ticket, &anybody.frame.csrf) else {
        return Ok(see_other(&app, "/console/sign-in", "The sign-in took too long. Sign in again."));
    };
    let frame = anybody.frame.clone();
    let page = |problem: Problem| again(CodePage { frame, ticket: given.ticket.clone(), next: next.clone(), problem });
    let email = users::get(&app.store.session().await?, user).await?.user.email;
    let attempt = match take(&app, Proof::Code, &email, &anybody.origin).await? {
        Ok(attempt) => attempt,
        Err(limit) => return Ok(too_many(page(wait(&limit)), &limit)),
    };
    let tx = app.store.begin().await?;
    let account = users::get(&tx, user).await?;
    let is_right = users::check_second_factor(&tx, &app.keyring, now, user, &given.code).await?;
    if !is_right || account.disabled_at.is_some() {
        return Ok(page(Problem::with("code", "Wrong or already used code.")));
    }
    attempts::give_back(&tx, &attempt).await?;
    let left = users::get(&tx, user).await?.recovery_codes;
    if left < account.recovery_codes {
        accounts::record_recovery_code(&tx, &anybody.origin, now, &account.user).await?;
    }
    let cookie = begin(&app, &tx, &anybody, &headers, &account.user).await?;
    tx.commit().await?;
    let answer = if left < account.recovery_codes {
        let notice = format!("You used a recovery code. Codes left: {left}. Create new ones in your account settings.");
        with_notice(&app, lead_on(anybody.frame, &next), &notice)
    } else {
        lead_on(anybody.frame, &next)
    };
    Ok(with_cookie(answer, cookie))
}

/// Takes one of the limited attempts. The audit log records when none is left.
pub(crate) async fn take(
    app: &Arc<App>,
    proof: Proof,
    email: &str,
    origin: &Origin,
) -> Result<Result<Attempt, TooMany>> {
    let tx = app.store.begin().await?;
    let taken = attempts::take(&tx, proof, email, origin).await?;
    match &taken {
        Ok(_) => tx.commit().await?,
        Err(limit) => {
            drop(tx);
            // In the background, so that response times do not reveal whether the account exists.
            app.tasks.spawn(tell(app.clone(), limit.clone(), email.to_owned(), origin.clone()));
        }
    }
    Ok(taken)
}

/// Records too many attempts in the audit log, unless that was just recorded.
async fn tell(app: Arc<App>, limit: TooMany, email: String, origin: Origin) {
    let told = async {
        let tx = app.store.begin().await?;
        if !attempts::is_news(&tx, &limit).await? {
            return Ok(());
        }
        let account = if limit.of_account { users::by_email(&tx, &email).await? } else { None };
        // Do not record attempts for accounts that do not exist.
        if account.is_some() || !limit.of_account {
            accounts::record_too_many_sign_ins(&tx, &origin, app.clock.now(), account.as_ref()).await?;
        }
        tx.commit().await
    };
    if let Err(error) = told.await {
        tracing::error!(error = %describe(&error), "could not record too many attempts to sign in in the audit log");
    }
}

async fn sign_out(State(app): State<Arc<App>>, visitor: Visitor, Form(_): Form<Nothing>) -> Result<Response, Failure> {
    sessions::end(&app.store.session().await?, visitor.user.id, visitor.session).await?;
    Ok(with_cookie(see_other(&app, "/console/sign-in", "Signed out."), Cookie::Session.clear(&app)))
}

/// A form without fields.
#[derive(Deserialize)]
pub(crate) struct Nothing {}

/// Starts a session and returns its cookie, to be set once the transaction has committed. Ends the session
/// that the browser had before.
pub(crate) async fn begin(
    app: &App,
    tx: &Tx,
    anybody: &Anybody,
    headers: &HeaderMap,
    user: &User,
) -> Result<Option<HeaderValue>> {
    if let Some(before) = &anybody.signed_in {
        sessions::end(tx, before.user.id, before.id).await?;
    }
    let browser = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    attempts::remember(tx, user, &anybody.origin).await?;
    let cookie = sessions::begin(tx, app.clock.now(), user.id, &anybody.origin, browser).await?;
    Ok(Cookie::Session.set(app, cookie.expose(), Some(sessions::LONGEST)))
}

/// Continues to `next` after a sign-in. The consent page of an application is reached through a page instead
/// of a redirect: it may redirect to the application, and browsers follow redirects after a form only to the
/// targets in the form-action policy of the form's page (CSP level 3).
pub(crate) fn lead_on(frame: Frame, next: &str) -> Response {
    if !next.starts_with("/authorize?") {
        return go_to(next);
    }
    private(Html(OnwardPage { frame, next: next.to_owned() }).into_response())
}

pub(crate) fn with_cookie(mut answer: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

/// Marks a page whose address holds a secret: browsers then send at most the origin as `Referer`.
/// With `no-referrer` they would send the page's own forms with `Origin: null` (Fetch, "append a request
/// Origin header"), which over plain http looks like a form of another site.
pub(crate) fn private(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin"));
    answer
}

pub(crate) fn wait(limit: &TooMany) -> Problem {
    Problem::with("", format!("Too many attempts. Wait {} seconds, then try again.", limit.seconds))
}

pub(crate) fn too_many(mut answer: Response, limit: &TooMany) -> Response {
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(limit.seconds));
    answer
}
