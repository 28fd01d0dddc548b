//! Creating and revoking service tokens. The integrations page lists them.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::SignedDuration;
use serde::Deserialize;

use super::confirm::{Confirm, Nothing};
use super::{Frame, Html, Member, Once, Problem, Section, again, see_other};
use auth::{Action, Limits};
use base::error::{Error, Result};
use base::id::{ProjectId, ServiceTokenId};
use base::name::TokenName;
use base::page::{MAX_LIMIT, PageRequest};
use domain::app::App;
use domain::projects::{self, Project};
use domain::service_tokens::{self, ServiceToken};
use web::Failure;
use web::path::Path;

/// The lifetimes to choose from: the form's value, days (0: never expires), and the label.
const LIVES: [(&str, i64, &str); 5] =
    [("7", 7, "7 days"), ("30", 30, "30 days"), ("90", 90, "90 days"), ("365", 365, "1 year"), ("never", 0, "Never")];

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/integrations/tokens/new", get(new).post(create))
        .route("/integrations/tokens/{token}/revoke", get(ask_to_revoke).post(revoke))
}

#[derive(Template)]
#[template(path = "service_tokens/new.html")]
struct New {
    frame: Frame,
    projects: Vec<Project>,
    form: NewForm,
    lives: Vec<Life>,
    problem: Problem,
}

/// An option of the form.
struct Life {
    word: String,
    label: &'static str,
}

#[derive(Deserialize)]
struct NewForm {
    name: String,
    #[serde(default, rename = "expiresAt")]
    life: String,
    #[serde(rename = "readOnly")]
    read_only: Option<String>,
    /// `all` or `some`.
    #[serde(default)]
    reach: String,
    #[serde(default, rename = "projectIds")]
    projects: Vec<String>,
}

impl NewForm {
    fn has(&self, project: &Project) -> bool {
        self.projects.contains(&project.id.bare())
    }
}

impl New {
    async fn of(app: &App, member: &Member, form: NewForm, problem: Problem) -> Result<Self> {
        let all = PageRequest { after: None, limit: MAX_LIMIT };
        let session = app.store.session().await?;
        let found = projects::list(&session, &member.actor, &projects::Filter::default(), all).await?;
        let lives = LIVES.iter().map(|(word, _, label)| Life { word: (*word).to_owned(), label }).collect();
        Ok(Self { frame: member.frame(Section::Integrations), projects: found.items, form, lives, problem })
    }
}

async fn new(State(app): State<Arc<App>>, member: Member) -> Result<Response, Failure> {
    member.actor.may(Action::ManageCredentials)?;
    let form =
        NewForm { name: String::new(), life: "90".into(), read_only: None, reach: "all".into(), projects: Vec::new() };
    Ok(Html(New::of(&app, &member, form, Problem::none()).await?).into_response())
}

/// Shows the token's value, once, in the response that creates it.
#[derive(Template)]
#[template(path = "service_tokens/reveal.html")]
struct Reveal {
    frame: Frame,
    token: ServiceToken,
    value: String,
    curl: String,
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    let actor = &member.actor;
    let made = async {
        let now = app.clock.now();
        let name = TokenName::parse(form.name.trim())?;
        let life = LIVES.iter().find(|(word, ..)| *word == form.life);
        let (_, days, _) =
            life.ok_or_else(|| Error::invalid("expiresAt: no expiry is selected", "Select when the token expires."))?;
        let read = |id: &String| ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id));
        let limits = Limits {
            read_only: form.read_only.is_some(),
            projects: (form.reach == "some").then(|| form.projects.iter().map(read).collect()).transpose()?,
            expires_at: (*days > 0).then(|| now + SignedDuration::from_hours(24 * days)),
        };
        let tx = app.store.begin().await?;
        let workspace = actor.workspace();
        let (token, issued) = service_tokens::create(&tx, &app.signer, actor, now, workspace, &name, limits).await?;
        let value = issued.value.expose().to_owned();
        let curl = format!("curl -H \"Authorization: Bearer $HOWDAH_TOKEN\" {}/v1/projects", app.public.api);
        let page = Reveal { frame: member.frame(Section::Integrations), token, value, curl };
        attempt.commit(&app, tx, Html(page).into_response()).await
    };
    match made.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["name", "expiresAt", "projectIds"])?;
            Ok(again(New::of(&app, &member, form, problem).await?))
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<ServiceToken> {
    let id = ServiceTokenId::parse(id).ok_or_else(|| Error::not_found("service token", id))?;
    service_tokens::get(&app.store.session().await?, &member.actor, id).await
}

fn revocation(member: &Member, token: &ServiceToken) -> Confirm {
    let frame = member.frame(Section::Integrations);
    Confirm {
        title: format!("Revoke service token “{}”?", token.name),
        effects: vec![
            "Requests that use this token fail immediately.".to_owned(),
            "A revoked token cannot be restored. You can create another one.".to_owned(),
        ],
        label: "Revoke token",
        action: frame.to(&format!("integrations/tokens/{}/revoke", token.id.bare())),
        back: frame.to("integrations"),
        problem: Problem::none(),
        frame,
    }
}

async fn ask_to_revoke(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, token)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let token = find(&app, &member, &token).await?;
    member.actor.may(Action::ManageCredentials)?;
    Ok(revocation(&member, &token).ask())
}

async fn revoke(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, token)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let token = find(&app, &member, &token).await?;
    let revoked = async {
        let tx = app.store.begin().await?;
        let actor = &member.actor;
        service_tokens::delete(&tx, actor, app.clock.now(), actor.workspace(), token.id).await?;
        let address = member.frame(Section::Integrations).to("integrations");
        let answer = see_other(&app, &address, &format!("Service token “{}” revoked.", token.name));
        attempt.commit(&app, tx, answer).await
    };
    match revoked.await {
        Ok(answer) => Ok(answer),
        Err(error) => revocation(&member, &token).ask_again(error),
    }
}
