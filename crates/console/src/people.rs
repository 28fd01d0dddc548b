//! All accounts of the server, for administrators.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::sign_in::Nothing;
use super::{Form, Frame, Html, Once, Problem, Section, Visitor, again, see_other};
use auth::Role;
use auth::users::{self, Account};
use base::error::{Error, Result};
use base::id::UserId;
use base::page::{Page, PageRequest};
use base::store::Session;
use domain::accounts;
use domain::app::App;
use domain::members;
use domain::workspaces::Workspace;
use web::Failure;
use web::path::Path;
use web::query::Query;

const PAGE: u32 = 50;

pub(crate) fn routes() -> Router<Arc<App>> {
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
    /// The link that this request created.
    link: Option<String>,
    /// Whether a mail server is configured. The link is mailed then, too.
    mails: bool,
    problem: Problem,
}

impl PersonPage {
    /// The label of the button that creates a reset link.
    fn offer(&self) -> &'static str {
        if self.mails { "Mail reset link" } else { "Create reset link" }
    }

    /// The account's sign-in methods.
    fn ways(&self) -> String {
        let Account { has_password, is_vouched_for, has_totp, .. } = self.account;
        let ways = match (has_password, is_vouched_for) {
            (true, true) => "Password or identity provider",
            (true, false) => "Password",
            (false, true) => "Identity provider",
            (false, false) => return "None".to_owned(),
        };
        if has_totp { format!("{ways}, with two-factor authentication") } else { ways.to_owned() }
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

/// Only administrators may see other accounts.
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

async fn page(app: &App, visitor: &Visitor, user: UserId, problem: Problem) -> Result<PersonPage> {
    page_of(&app.store.session().await?, app, visitor, user, problem).await
}

async fn page_of(
    session: &Session,
    app: &App,
    visitor: &Visitor,
    user: UserId,
    problem: Problem,
) -> Result<PersonPage> {
    Ok(PersonPage {
        frame: visitor.frame(Section::People),
        account: users::get(session, user).await?,
        workspaces: members::workspaces_of(session, user).await?,
        is_own: visitor.user.id == user,
        link: None,
        mails: app.mail,
        problem,
    })
}

async fn get_person(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
) -> Result<Html<PersonPage>, Failure> {
    check(&visitor)?;
    Ok(Html(page(&app, &visitor, read(&user)?, Problem::none()).await?))
}

async fn make_reset_link(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(user): Path<String>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    check(&visitor)?;
    let user = read(&user)?;
    let tx = app.store.begin().await?;
    let now = app.clock.now();
    let (token, until) = accounts::make_reset_link(&tx, &visitor.asker(), now, user).await?;
    if let Some(outbox) = app.outbox() {
        let account = users::get(&tx, user).await?;
        outbox.send_reset(&tx, now, &account.user, &token, until, false).await?;
    }
    let link = Some(format!("{}/console/reset/{}", app.public.api, token.expose()));
    let page = PersonPage { link, ..page_of(&tx, &app, &visitor, user, Problem::none()).await? };
    Ok(attempt.commit(&app, tx, Html(page).into_response()).await?)
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
    answer(&app, &visitor, user, disabled.await, "Account disabled and signed out everywhere.").await
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
    answer(&app, &visitor, user, enabled.await, "Account enabled.").await
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
        let (account, now) = (users::get(&tx, user).await?.user, app.clock.now());
        accounts::set_administrator(&tx, &visitor.asker(), now, user, is_administrator).await?;
        if let Some(outbox) = app.outbox().filter(|_| is_administrator && !account.is_administrator) {
            outbox.tell_administrator(&tx, now, &account, &visitor.user).await?;
        }
        tx.commit().await
    };
    let said =
        if is_administrator { "Administrator permissions granted." } else { "Administrator permissions removed." };
    answer(&app, &visitor, user, set.await, said).await
}

/// The account's page, with a notice or a problem.
async fn answer(app: &App, visitor: &Visitor, user: UserId, done: Result<()>, said: &str) -> Result<Response, Failure> {
    match done {
        Ok(()) => Ok(see_other(app, &format!("/console/people/{}", user.bare()), said)),
        Err(error) => Ok(again(page(app, visitor, user, Problem::of(error, &["confirm"])?).await?)),
    }
}
