//! The requester's own account: name, password, two-factor authentication, sessions, theme.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use jiff::SignedDuration;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Deserialize;

use super::frame::Theme;
use super::links::NewPassword;
use super::sign_in::{Nothing, take, with_cookie};
use super::{Cookie, Form, Frame, Html, Once, Problem, Section, Visitor, again, see_other};
use auth::attempts::{self, Proof};
use auth::sessions::{self, SignedInBrowser};
use auth::users::{self, Account, Enrolment};
use base::error::{Error, Result};
use base::id::SessionId;
use base::name::PersonName;
use base::secret::Secret;
use base::store::Tx;
use domain::accounts;
use domain::app::App;
use domain::mail::AccountChange;
use web::Failure;
use web::path::Path;

/// How long a browser keeps the theme.
const CHOSEN: SignedDuration = SignedDuration::from_hours(365 * 24);

/// For accounts without a password, a sign-in this recent confirms a sensitive change.
const JUST_NOW: SignedDuration = SignedDuration::from_mins(15);

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/account", get(show_account))
        .route("/console/account/name", post(rename))
        .route("/console/account/password", post(change_password))
        .route("/console/account/theme", post(choose_theme))
        .route("/console/account/authenticator", post(begin_authenticator))
        .route("/console/account/authenticator/confirm", post(confirm_authenticator))
        .route("/console/account/authenticator/remove", post(remove_authenticator))
        .route("/console/account/recovery-codes", post(renew_recovery_codes))
        .route("/console/account/sessions/end-others", post(end_other_sessions))
        .route("/console/account/sessions/{session}/end", post(end_session))
}

#[derive(Template)]
#[template(path = "account/show.html")]
struct AccountPage {
    frame: Frame,
    account: Account,
    sessions: Vec<SignedInBrowser>,
    own: SessionId,
    /// The name of the identity provider.
    provider: Option<String>,
    name: String,
    /// The form that the problem is about.
    form: &'static str,
    problem: Problem,
}

impl AccountPage {
    fn problem_of(&self, form: &str) -> Problem {
        if self.form == form { self.problem.clone() } else { Problem::none() }
    }
}

#[derive(Template)]
#[template(path = "account/authenticator.html")]
struct AuthenticatorPage {
    frame: Frame,
    picture: String,
    secret: String,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "account/recovery_codes.html")]
struct RecoveryCodesPage {
    frame: Frame,
    codes: String,
}

#[derive(Deserialize)]
struct NewName {
    name: String,
}

#[derive(Deserialize)]
struct ChangedPassword {
    #[serde(default)]
    current: String,
    #[serde(flatten)]
    new: NewPassword,
}

/// Confirms that the account's owner makes the change.
#[derive(Deserialize)]
struct Current {
    #[serde(default)]
    current: String,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct NewTheme {
    theme: String,
}

async fn page(app: &App, visitor: &Visitor, form: &'static str, problem: Problem) -> Result<AccountPage, Failure> {
    let session = app.store.session().await?;
    Ok(AccountPage {
        frame: visitor.frame(Section::Account),
        account: users::get(&session, visitor.user.id).await?,
        sessions: sessions::list(&session, app.clock.now(), visitor.user.id).await?,
        own: visitor.session,
        provider: super::provider::name(app),
        name: visitor.user.display_name.clone().unwrap_or_default(),
        form,
        problem,
    })
}

/// The page again, with the problem of one of its forms.
async fn refused(
    app: &App,
    visitor: &Visitor,
    form: &'static str,
    error: Error,
    fields: &[&str],
) -> Result<Response, Failure> {
    Ok(again(page(app, visitor, form, Problem::of(error, fields)?).await?))
}

/// Confirms the requester: by password, within the limits of sign-ins, or for accounts without a password by
/// a recent sign-in.
async fn check_current(app: &Arc<App>, visitor: &Visitor, current: &str) -> Result<()> {
    let session = app.store.session().await?;
    if !users::get(&session, visitor.user.id).await?.has_password {
        if app.clock.now().duration_since(visitor.since) <= JUST_NOW {
            return Ok(());
        }
        return Err(Error::rejected(
            "your sign-in is too old to confirm this change",
            "Sign out, sign in again with your identity provider, and retry within 15 minutes.",
        ));
    }
    drop(session);
    let attempt = take(app, Proof::Password, &visitor.user.email, &visitor.origin).await?.map_err(|limit| {
        let hint = format!("Wait {} seconds, then try again.", limit.seconds);
        Error::invalid("current: too many attempts", hint)
    })?;
    let session = app.store.session().await?;
    if users::is_password(&session, visitor.user.id, &Secret::new(current)).await? {
        return attempts::give_back(&session, &attempt).await;
    }
    Err(Error::invalid("current: wrong password", "Enter the password that you sign in with."))
}

async fn show_account(State(app): State<Arc<App>>, visitor: Visitor) -> Result<Html<AccountPage>, Failure> {
    page(&app, &visitor, "", Problem::none()).await.map(Html)
}

async fn rename(State(app): State<Arc<App>>, visitor: Visitor, Form(new): Form<NewName>) -> Result<Response, Failure> {
    let renamed = async {
        let name = PersonName::parse(&new.name)?;
        let tx = app.store.begin().await?;
        accounts::rename(&tx, &visitor.asker(), app.clock.now(), &name).await?;
        tx.commit().await
    };
    match renamed.await {
        Ok(()) => Ok(see_other(&app, "/console/account", "Name changed.")),
        Err(error) => {
            let problem = Problem::of(error, &["name"])?;
            Ok(again(AccountPage { name: new.name, ..page(&app, &visitor, "name", problem).await? }))
        }
    }
}

async fn change_password(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(given): Form<ChangedPassword>,
) -> Result<Response, Failure> {
    let changed = async {
        check_current(&app, &visitor, &given.current).await?;
        let hash = given.new.hash(&visitor.user.email, visitor.user.display_name.as_deref()).await?;
        let tx = app.store.begin().await?;
        accounts::change_password(&tx, &visitor.asker(), app.clock.now(), &hash, visitor.session).await?;
        tell_of(&app, &tx, &visitor, AccountChange::Password).await?;
        tx.commit().await
    };
    match changed.await {
        Ok(()) => {
            let said = "Password changed. Your other sessions are signed out.";
            Ok(see_other(&app, "/console/account", said))
        }
        Err(error) => refused(&app, &visitor, "password", error, &["current", "password", "again"]).await,
    }
}

/// Mails the account's owner about a change, in case somebody else made it.
async fn tell_of(app: &App, tx: &Tx, visitor: &Visitor, change: AccountChange) -> Result<()> {
    let Some(outbox) = app.outbox() else { return Ok(()) };
    outbox.tell_of_change(tx, app.clock.now(), &visitor.user, change, visitor.origin.address).await
}

async fn choose_theme(State(app): State<Arc<App>>, _visitor: Visitor, Form(new): Form<NewTheme>) -> Response {
    let cookie = match Theme::parse(&new.theme) {
        Theme::System => Cookie::Theme.clear(&app),
        theme => Cookie::Theme.set(&app, theme.word(), Some(CHOSEN)),
    };
    with_cookie(see_other(&app, "/console/account", "Theme changed."), cookie)
}

/// The name under which authenticator apps list the account.
fn issuer(app: &App) -> String {
    let host = app.public.api.split("://").last().unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    format!("Howdah {host}")
}

fn authenticator_page(visitor: &Visitor, enrolment: &Enrolment, problem: Problem) -> Result<AuthenticatorPage> {
    let code = QrCode::new(enrolment.url.expose()).map_err(Error::internal)?;
    // Dark on light with a quiet zone in every theme, because cameras expect that.
    let picture = code
        .render::<svg::Color<'_>>()
        .min_dimensions(220, 220)
        .dark_color(svg::Color("#000"))
        .light_color(svg::Color("#fff"))
        .build();
    // The XML declaration is not valid inside of HTML.
    let picture = picture.find("<svg").map_or(String::new(), |at| picture[at..].to_owned());
    let secret = enrolment.secret.expose().as_bytes().chunks(4);
    let secret: Vec<_> = secret.map(String::from_utf8_lossy).collect();
    let frame = visitor.frame(Section::Account);
    Ok(AuthenticatorPage { frame, picture, secret: secret.join(" "), problem })
}

async fn begin_authenticator(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Once(given, attempt): Once<Current>,
) -> Result<Response, Failure> {
    let begun = async {
        check_current(&app, &visitor, &given.current).await?;
        let tx = app.store.begin().await?;
        let enrolment = users::begin_totp(&tx, &app.keyring, &visitor.user, &issuer(&app)).await?;
        let page = authenticator_page(&visitor, &enrolment, Problem::none())?;
        attempt.commit(&app, tx, Html(page).into_response()).await
    };
    match begun.await {
        Ok(answer) => Ok(answer),
        Err(error) => refused(&app, &visitor, "authenticator", error, &["current"]).await,
    }
}

async fn confirm_authenticator(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Once(given, attempt): Once<Code>,
) -> Result<Response, Failure> {
    let confirmed = async {
        let tx = app.store.begin().await?;
        let (asker, now) = (visitor.asker(), app.clock.now());
        let codes = accounts::add_authenticator(&tx, &app.keyring, &asker, now, &given.code, visitor.session).await?;
        attempt.commit(&app, tx, recovery_codes_page(&visitor, &codes)).await
    };
    match confirmed.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let session = app.store.session().await?;
            let pending = users::pending_totp(&session, &app.keyring, &visitor.user, &issuer(&app)).await?;
            match pending {
                Some(enrolment) => {
                    let problem = Problem::of(error, &["code"])?;
                    Ok(again(authenticator_page(&visitor, &enrolment, problem)?))
                }
                None => refused(&app, &visitor, "authenticator", error, &["current"]).await,
            }
        }
    }
}

fn recovery_codes_page(visitor: &Visitor, codes: &[Secret]) -> Response {
    let codes: Vec<&str> = codes.iter().map(Secret::expose).collect();
    Html(RecoveryCodesPage { frame: visitor.frame(Section::Account), codes: codes.join("\n") }).into_response()
}

async fn renew_recovery_codes(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Once(given, attempt): Once<Current>,
) -> Result<Response, Failure> {
    let renewed = async {
        check_current(&app, &visitor, &given.current).await?;
        let tx = app.store.begin().await?;
        let codes = accounts::renew_recovery_codes(&tx, &visitor.asker(), app.clock.now()).await?;
        attempt.commit(&app, tx, recovery_codes_page(&visitor, &codes)).await
    };
    match renewed.await {
        Ok(answer) => Ok(answer),
        Err(error) => refused(&app, &visitor, "recovery-codes", error, &["current"]).await,
    }
}

async fn remove_authenticator(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(given): Form<Current>,
) -> Result<Response, Failure> {
    let removed = async {
        check_current(&app, &visitor, &given.current).await?;
        let tx = app.store.begin().await?;
        accounts::remove_authenticator(&tx, &visitor.asker(), app.clock.now()).await?;
        tell_of(&app, &tx, &visitor, AccountChange::AuthenticatorRemoved).await?;
        tx.commit().await
    };
    match removed.await {
        Ok(()) => Ok(see_other(
            &app,
            "/console/account",
            "Two-factor authentication is off. Your password alone signs you in.",
        )),
        Err(error) => refused(&app, &visitor, "remove-authenticator", error, &["current"]).await,
    }
}

async fn end_session(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(session): Path<String>,
    Form(_): Form<Nothing>,
) -> Result<Response, Failure> {
    let id = SessionId::parse(&session).ok_or_else(|| Error::not_found("session", &session))?;
    let tx = app.store.begin().await?;
    accounts::end_session(&tx, &visitor.asker(), app.clock.now(), id).await?;
    tx.commit().await?;
    Ok(see_other(&app, "/console/account", "Session signed out."))
}

async fn end_other_sessions(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(_): Form<Nothing>,
) -> Result<Response, Failure> {
    let tx = app.store.begin().await?;
    accounts::end_other_sessions(&tx, &visitor.asker(), app.clock.now(), visitor.session).await?;
    tx.commit().await?;
    Ok(see_other(&app, "/console/account", "All other sessions signed out."))
}

/// Browser and operating system by the `User-Agent` header, so that people recognize their sessions.
fn browser(user_agent: &Option<String>) -> String {
    let Some(text) = user_agent.as_deref() else { return "Unknown browser".to_owned() };
    let first =
        |names: &[(&str, &'static str)]| names.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name);
    let name = first(&[
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        _ => text.chars().take(60).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_summarized() {
        let chrome =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(browser(&Some(chrome.into())), "Chrome on Linux");
        let phone =
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1";
        assert_eq!(browser(&Some(phone.into())), "Safari on iPhone");
        assert_eq!(browser(&Some("curl/8.0".into())), "curl/8.0");
    }
}
