//! The workspaces of a person.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::{Frame, Html, Member, Section, Visitor, go_to};
use crate::app::App;
use crate::http::Failure;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/console", get(home)).route("/console/workspaces/{workspace}", get(show))
}

#[derive(Template)]
#[template(path = "workspaces/show.html")]
struct Show {
    frame: Frame,
}

async fn home(State(_app): State<Arc<App>>, _visitor: Visitor) -> Result<Response, Failure> {
    Ok(go_to("/console/workspaces"))
}

async fn show(member: Member) -> Response {
    Html(Show { frame: member.frame(Section::Projects) }).into_response()
}
