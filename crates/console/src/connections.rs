//! The connections of a database. A connection string is shown once, when it is created.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::confirm::{Confirm, Nothing};
use super::databases::{self as pages, state};
use super::snippets::Revealed;
use super::{Attempt, Frame, Html, Member, Once, Problem, Section, see_other};
use base::error::{Error, Result};
use base::id::ConnectionId;
use base::name::ConnectionName;
use base::store::{Channel, Session, Tx};
use domain::app::App;
use domain::connections::{self, Connection, NewCredential};
use domain::databases::{self, Created, Database, Status};
use web::Failure;
use web::path::Path;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/databases/{database}/connections", post(create))
        .route("/connections/{connection}/rotate", get(ask_to_rotate).post(rotate))
        .route("/connections/{connection}/delete", get(ask_to_delete).post(delete))
}

/// Shows a connection string, once, in the response that creates it.
#[derive(Template)]
#[template(path = "connections/reveal.html")]
pub(crate) struct Reveal {
    frame: Frame,
    title: String,
    revealed: Revealed,
    database: Database,
    state: (&'static str, &'static str),
    is_ready: bool,
    next: String,
}

impl Reveal {
    /// Commits a new database together with the page that shows its string, and waits briefly for it to be ready.
    pub(crate) async fn commit(
        app: &App,
        member: &Member,
        tx: Tx,
        attempt: Attempt,
        title: String,
        created: &Created,
    ) -> Result<Response> {
        let page = async |session: &Session| {
            let database = databases::get(session, &member.actor, created.database).await?;
            let frame = member.frame(Section::Projects);
            Ok::<_, Error>(Self::of(app, frame, title.clone(), database, &created.credential).into_response())
        };
        let mut announcements = app.store.announcements();
        let so_far = page(&tx).await?;
        attempt.commit_unsettled(app, tx, so_far).await?;
        app.settle(&mut announcements, created.workflow).await?;
        let session = app.store.session().await?;
        let settled = page(&session).await?;
        drop(session);
        attempt.settle(app, settled).await
    }

    fn of(app: &App, frame: Frame, title: String, database: Database, credential: &NewCredential) -> Self {
        Self {
            title,
            revealed: Revealed::of(app, credential),
            state: state(database.status),
            is_ready: database.status == Status::Ready,
            next: pages::address(&frame, database.id),
            database,
            frame,
        }
    }
}

impl IntoResponse for Reveal {
    fn into_response(self) -> Response {
        Html(self).into_response()
    }
}

#[derive(Deserialize)]
struct NewForm {
    name: String,
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    let database = pages::find(&app, &member, &database).await?;
    let made = async {
        let name = ConnectionName::parse(form.name.trim())?;
        let tx = app.store.begin().await?;
        let now = app.clock.now();
        let credential = connections::create(&tx, &member.actor, now, &app.quotas, database.id, &name).await?;
        let title = format!("Connection “{}” created", name.as_str());
        let page = Reveal::of(&app, member.frame(Section::Projects), title, database.clone(), &credential);
        attempt.commit(&app, tx, page.into_response()).await
    };
    match made.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &["name"])?;
            pages::overview_again(&app, &member, database, form.name, problem).await
        }
    }
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Connection> {
    let id = ConnectionId::parse(id).ok_or_else(|| Error::not_found("connection", id))?;
    connections::get(&app.store.session().await?, &member.actor, id).await
}

fn rotation(member: &Member, connection: &Connection) -> Confirm {
    let frame = member.frame(Section::Projects);
    Confirm {
        title: format!("Rotate connection “{}”?", connection.name),
        effects: vec![
            format!("The connection gets a new user name and password for database “{}”.", connection.database_name),
            "The current ones stop working immediately, and sessions that use them end.".to_owned(),
            "The new connection string is shown once, on the next page.".to_owned(),
        ],
        label: "Rotate",
        action: frame.to(&format!("connections/{}/rotate", connection.id.bare())),
        back: pages::address(&frame, connection.database),
        problem: Problem::none(),
        frame,
    }
}

async fn ask_to_rotate(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, connection)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let connection = find(&app, &member, &connection).await?;
    member.actor.may_change()?;
    Ok(rotation(&member, &connection).ask())
}

async fn rotate(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, connection)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let connection = find(&app, &member, &connection).await?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let credential = connections::rotate(&tx, &member.actor, app.clock.now(), connection.id).await?;
    let database = databases::get(&tx, &member.actor, connection.database).await?;
    let title = format!("Connection “{}” rotated", connection.name);
    let page = Reveal::of(&app, member.frame(Section::Projects), title, database, &credential);
    let answer = attempt.commit(&app, tx, page.into_response()).await?;
    // The gateway ends sessions by the connection's id. The new string is shown only after the gateway knows of
    // the rotation, so that no session of the new string is ended.
    app.hear(&mut announcements, Channel::ConnectionEnded, &connection.id.bare()).await;
    Ok(answer)
}

async fn ask_to_delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, connection)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let connection = find(&app, &member, &connection).await?;
    member.actor.may_change()?;
    let frame = member.frame(Section::Projects);
    Ok(Confirm {
        title: format!("Delete connection “{}”?", connection.name),
        effects: vec![
            "The user name and password stop working immediately, and sessions that use them end.".to_owned(),
            format!("Database “{}” and its other connections do not change.", connection.database_name),
        ],
        label: "Delete connection",
        action: frame.to(&format!("connections/{}/delete", connection.id.bare())),
        back: pages::address(&frame, connection.database),
        problem: Problem::none(),
        frame,
    }
    .ask())
}

async fn delete(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, connection)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let connection = find(&app, &member, &connection).await?;
    let tx = app.store.begin().await?;
    connections::delete(&tx, &member.actor, app.clock.now(), connection.id).await?;
    let address = pages::address(&member.frame(Section::Projects), connection.database);
    let answer = see_other(&app, &address, &format!("Connection “{}” deleted.", connection.name));
    Ok(attempt.commit(&app, tx, answer).await?)
}
