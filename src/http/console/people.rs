//! Everybody with an account, for administrators.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::sign_in::Nothing;
use super::{Form, Frame, Html, Problem, Section, Visitor, again, see_other};
use crate::app::App;
use crate::auth::Role;
use crate::auth::users::{self, Account};
use crate::base::error::{Error, Result};
use crate::base::id::UserId;
use crate::base::page::{Page, PageRequest};
use crate::domain::accounts;
use crate::domain::members;
use crate::domain::workspaces::Workspace;
use crate::http::Failure;
use crate::http::path::Path;
use crate::http::query::Query;

const PAGE: u32 = 50;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/people", get(list_people))
        .route("/console/people/{user}", get(get_person))
        .route("/console/people/{user}/reset", post(make_reset_link))
        .route("/console/people/{user}/disable", post(disable))
        .route("/console/people/{user}/enable", post(enable))
        .route("/console/people/{user}/administrator", post(set_administrator))
}

#[derive(Template)]
#[template(path = "people/list.html")]
struct ListPage {
    frame: Frame,
    is_of_installation: bool,
    people: Page<Account>,
}

#[derive(Template)]
#[template(path = "people/show.html")]
struct PersonPage {
    frame: Frame,
    account: Account,
    workspaces: Vec<(Workspace, Role)>,
    is_own: bool,
    /// The link that was made just now.
    link: Option<String>,
    problem: Problem,
}

impl PersonPage {
    /// What the person signs in with.
    fn ways(&self) -> String {
        let Account { has_password, is_vouched_for, has_totp, .. } = self.account;
        let ways = [(has_password, "a password"), (is_vouched_for, "an identity provider")];
        let ways: Vec<&str> = ways.iter().filter(|(has, _)| *has).map(|(_, way)| *way).collect();
        match (ways.join(" or "), has_totp) {
            (ways, _) if ways.is_empty() => "nothing".to_owned(),
            (ways, true) => format!("{ways}, and an authenticator"),
            (ways, false) => ways,
        }
    }
}

#[derive(Deserialize)]
struct Cursor {
    #[serde(default)]
    cursor: String,
}

#[derive(Deserialize)]
struct Confirmed {
    confirm: String,
}

#[derive(Deserialize)]
struct Administrator {
    /// `on` or missing.
    #[serde(default)]
    administrator: String,
}

/// Only administrators see who else has an account.
fn check(visitor: &Visitor) -> Result<()> {
    visitor.asker().may_administer()
}

fn read(user: &str) -> Result<UserId> {
    UserId::parse(user).ok_or_else(|| Error::not_found("user", user))
}

async fn list_people(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(page): Query<Cursor>,
) -> Result<Html<ListPage>, Failure> {
    check(&visitor)?;
    let request = PageRequest::parse(Some(&page.cursor), Some(PAGE), UserId::parse)?;
    let people = users::list(&app.store.session().await?, request).await?;
    Ok(Html(ListPage { frame: visitor.frame(Section::People), is_of_installation: false, people }))
}

async fn page(app: &App, visitor: &Visitor, user: UserId, problem: Problem) -> Result<PersonPage, Failure> {
    let session = app.store.session().await?;
    Ok(PersonPage {
        frame: visitor.frame(Section::People),
        account: users::get(&session, user).await?,
        workspaces: members::workspaces_of(&session, user).await?,
        is_own: visitor.user.id == user,
        link: None,
        problem,
    })
}

async fn get_person(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
) -> Result<Html<PersonPage>, Failure> {
    check(&visitor)?;
    page(&app, &visitor, read(&user)?, Problem::none()).await.map(Html)
}

async fn make_reset_link(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
    Form(_): Form<Nothing>,
) -> Result<Response, Failure> {
    check(&visitor)?;
    let user = read(&user)?;
    let tx = app.store.begin().await?;
    let token = accounts::make_reset_link(&tx, &visitor.asker(), app.clock.now(), user).await?;
    tx.commit().await?;
    let link = Some(format!("{}/console/reset/{}", app.public.api, token.expose()));
    Ok(Html(PersonPage { link, ..page(&app, &visitor, user, Problem::none()).await? }).into_response())
}

async fn disable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
    Form(given): Form<Confirmed>,
) -> Result<Response, Failure> {
    check(&visitor)?;
    let user = read(&user)?;
    let disabled = async {
        let tx = app.store.begin().await?;
        let account = users::get(&tx, user).await?;
        if !account.user.email.eq_ignore_ascii_case(given.confirm.trim()) {
            return Err(super::form::not_the_name(&account.user.email));
        }
        accounts::disable(&tx, &visitor.asker(), app.clock.now(), user).await?;
        tx.commit().await
    };
    answer(&app, &visitor, user, disabled.await, "They cannot sign in any more, and are signed out everywhere.").await
}

async fn enable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
    Form(_): Form<Nothing>,
) -> Result<Response, Failure> {
    check(&visitor)?;
    let user = read(&user)?;
    let enabled = async {
        let tx = app.store.begin().await?;
        accounts::enable(&tx, &visitor.asker(), app.clock.now(), user).await?;
        tx.commit().await
    };
    answer(&app, &visitor, user, enabled.await, "They can sign in again.").await
}

async fn set_administrator(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
    Form(given): Form<Administrator>,
) -> Result<Response, Failure> {
    check(&visitor)?;
    let user = read(&user)?;
    let is_administrator = given.administrator == "on";
    let set = async {
        let tx = app.store.begin().await?;
        accounts::set_administrator(&tx, &visitor.asker(), app.clock.now(), user, is_administrator).await?;
        tx.commit().await
    };
    let said = if is_administrator { "They are an administrator now." } else { "They are no administrator any more." };
    answer(&app, &visitor, user, set.await, said).await
}

/// The person's page, which says what was done, or what is wrong.
async fn answer(app: &App, visitor: &Visitor, user: UserId, done: Result<()>, said: &str) -> Result<Response, Failure> {
    match done {
        Ok(()) => Ok(see_other(app, &format!("/console/people/{}", user.bare()), said)),
        Err(error) => Ok(again(page(app, visitor, user, Problem::of(error, &["confirm"])?).await?)),
    }
}
