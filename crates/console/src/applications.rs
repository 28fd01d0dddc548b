//! The OAuth applications of a workspace. The integrations page lists them.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::confirm::{Confirm, Nothing, Typed};
use super::{Form, Frame, Html, Member, Once, Problem, Section, again, see_other};
use auth::Action;
use auth::oauth::RedirectUri;
use auth::oauth::clients::NewClient;
use base::error::{Error, Result};
use base::id::OauthClientId;
use base::name::{ApplicationDescription, ApplicationName};
use base::secret::Secret;
use domain::app::App;
use domain::applications::{self, Application, ApplicationChange};
use web::Failure;
use web::path::Path;

/// The fields of the form, by their names in errors.
const FIELDS: [&str; 3] = ["name", "description", "redirectUris"];

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/integrations/applications/new", get(new).post(create))
        .route("/integrations/applications/{application}", get(edit).post(update))
        .route("/integrations/applications/{application}/rotate", get(ask_to_rotate).post(rotate))
        .route("/integrations/applications/{application}/delete", get(edit).post(delete))
}

pub(crate) fn address(frame: &Frame, id: &OauthClientId) -> String {
    frame.to(&format!("integrations/applications/{}", id.bare()))
}

#[derive(Default, Deserialize)]
struct ApplicationForm {
    name: String,
    #[serde(default)]
    description: String,
    /// One a line.
    #[serde(default, rename = "redirectUris")]
    redirects: String,
    public: Option<String>,
}

impl ApplicationForm {
    fn of(application: &Application) -> Self {
        Self {
            name: application.name.clone(),
            description: application.description.clone().unwrap_or_default(),
            redirects: application.redirect_uris.join("\n"),
            public: application.is_public.then(String::new),
        }
    }

    fn parse(&self) -> Result<ApplicationChange> {
        let description = self.description.trim();
        Ok(ApplicationChange {
            name: ApplicationName::parse(self.name.trim())?,
            description: (!description.is_empty()).then(|| described(description)).transpose()?,
            redirect_uris: self.redirects.split_whitespace().map(RedirectUri::parse).collect::<Result<_>>()?,
        })
    }
}

/// Joins the lines of a text area: a description is one line.
fn described(text: &str) -> Result<ApplicationDescription> {
    ApplicationDescription::parse(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[derive(Template)]
#[template(path = "applications/new.html")]
struct New {
    frame: Frame,
    form: ApplicationForm,
    problem: Problem,
}

async fn new(member: Member) -> Result<Response, Failure> {
    member.actor.may(Action::ManageCredentials)?;
    let frame = member.frame(Section::Integrations);
    Ok(Html(New { frame, form: ApplicationForm::default(), problem: Problem::none() }).into_response())
}

/// Shows a secret, once, in the response that creates it.
#[derive(Template)]
#[template(path = "applications/reveal.html")]
struct Reveal {
    frame: Frame,
    title: String,
    application: Application,
    address: String,
    secret: Option<String>,
    api: String,
}

impl Reveal {
    fn of(app: &App, member: &Member, title: String, application: Application, secret: Option<&Secret>) -> Self {
        let frame = member.frame(Section::Integrations);
        Self {
            title,
            address: address(&frame, &application.id),
            secret: secret.map(|secret| secret.expose().to_owned()),
            api: app.public.api.clone(),
            application,
            frame,
        }
    }
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Once(form, attempt): Once<ApplicationForm>,
) -> Result<Response, Failure> {
    let made = async {
        let ApplicationChange { name, description, redirect_uris } = form.parse()?;
        let new = NewClient { name, description, redirect_uris, is_public: form.public.is_some() };
        let tx = app.store.begin().await?;
        let (application, secret) = applications::create(&tx, &member.actor, app.clock.now(), &new).await?;
        let title = format!("Application “{}” created", application.name);
        let page = Reveal::of(&app, &member, title, application, secret.as_ref());
        attempt.commit(&app, tx, Html(page).into_response()).await
    };
    match made.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &FIELDS)?;
            let frame = member.frame(Section::Integrations);
            Ok(again(New { frame, form, problem }))
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Application> {
    let id = OauthClientId::parse(id).ok_or_else(|| Error::not_found("application", id))?;
    applications::get(&app.store.session().await?, &member.actor, &id).await
}

#[derive(Template)]
#[template(path = "applications/edit.html")]
struct Edit {
    frame: Frame,
    application: Application,
    address: String,
    form: ApplicationForm,
    problem: Problem,
    delete_problem: Problem,
}

impl Edit {
    fn of(member: &Member, application: Application) -> Self {
        let frame = member.frame(Section::Integrations);
        Self {
            address: address(&frame, &application.id),
            form: ApplicationForm::of(&application),
            problem: Problem::none(),
            delete_problem: Problem::none(),
            application,
            frame,
        }
    }
}

async fn edit(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, application)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let application = find(&app, &member, &application).await?;
    member.actor.may(Action::ManageCredentials)?;
    Ok(Html(Edit::of(&member, application)).into_response())
}

async fn update(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, application)): Path<(String, String)>,
    Form(form): Form<ApplicationForm>,
) -> Result<Response, Failure> {
    let application = find(&app, &member, &application).await?;
    let changed = async {
        let change = form.parse()?;
        let tx = app.store.begin().await?;
        let after = applications::update(&tx, &member.actor, app.clock.now(), &application.id, &change).await?;
        tx.commit().await?;
        Ok::<_, Error>(after)
    };
    match changed.await {
        Ok(after) => {
            let address = address(&member.frame(Section::Integrations), &after.id);
            Ok(see_other(&app, &address, &format!("Application “{}” saved.", after.name)))
        }
        Err(error) => {
            let problem = Problem::of(error, &FIELDS)?;
            Ok(again(Edit { form, problem, ..Edit::of(&member, application) }))
        }
    }
}

fn rotation(member: &Member, application: &Application) -> Confirm {
    let frame = member.frame(Section::Integrations);
    let address = address(&frame, &application.id);
    Confirm {
        title: format!("Rotate the secret of “{}”?", application.name),
        effects: vec![
            "The new secret is shown once, on the next page.".to_owned(),
            "The current secret stops working immediately. The application cannot get new tokens until it uses the \
             new secret. Tokens that it already has stay valid."
                .to_owned(),
        ],
        label: "Rotate secret",
        action: format!("{address}/rotate"),
        back: address,
        problem: Problem::none(),
        frame,
    }
}

async fn ask_to_rotate(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, application)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let application = find(&app, &member, &application).await?;
    member.actor.may(Action::ManageCredentials)?;
    Ok(rotation(&member, &application).ask())
}

async fn rotate(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, application)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let application = find(&app, &member, &application).await?;
    let rotated = async {
        let tx = app.store.begin().await?;
        let secret = applications::rotate_secret(&tx, &member.actor, app.clock.now(), &application.id).await?;
        let title = format!("Secret of “{}” rotated", application.name);
        let page = Reveal::of(&app, &member, title, application.clone(), Some(&secret));
        attempt.commit(&app, tx, Html(page).into_response()).await
    };
    match rotated.await {
        Ok(answer) => Ok(answer),
        Err(error) => rotation(&member, &application).ask_again(error),
    }
}

async fn delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, application)): Path<(String, String)>,
    Once(typed, attempt): Once<Typed>,
) -> Result<Response, Failure> {
    let application = find(&app, &member, &application).await?;
    member.actor.may(Action::ManageCredentials)?;
    if let Err(delete_problem) = typed.check(&application.name, "application") {
        return Ok(again(Edit { delete_problem, ..Edit::of(&member, application) }));
    }
    let tx = app.store.begin().await?;
    applications::delete(&tx, &member.actor, app.clock.now(), &application.id).await?;
    let address = member.frame(Section::Integrations).to("integrations");
    let answer = see_other(&app, &address, &format!("Application “{}” deleted.", application.name));
    Ok(attempt.commit(&app, tx, answer).await?)
}
