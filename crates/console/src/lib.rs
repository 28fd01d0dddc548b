//! The web console, rendered on the server. See `docs/console.md` for how to add a page.
//!
//! Handlers call the same use cases as the API. GET changes nothing. Every change is a form, sent by POST
//! with its `csrf` field; the response is a 303 to a page with a notice, or the page again with the problem.
//! Secrets are shown in the response to the POST and never travel in an address or a cookie.

// Templates name things from here, and those of the crate `oauth` extend them.
extern crate self as console;

mod account;
mod actions;
mod applications;
pub mod assets;
mod audit;
mod backups;
mod branches;
mod chart;
mod confirm;
mod connections;
mod cookies;
mod databases;
mod deleted;
mod forgery;
mod forgotten;
mod form;
mod frame;
mod integrations;
mod invitations;
mod links;
mod members;
mod notice;
mod once;
mod operations;
mod people;
mod present;
mod projects;
mod provider;
mod service_tokens;
mod shown;
mod sign_in;
mod snippets;
mod visitor;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::response::Redirect;
use axum::routing::get;

pub use cookies::Cookie;
use domain::app::App;
pub use form::{Form, Problem};
pub use frame::{Frame, Html, Section, again};
pub use notice::{go_to, see_other};
pub use once::{Attempt, Once};
pub use present::presented;
pub use visitor::{Anybody, Member, Visitor, local};
use web::failure;

/// The audit log's names of the forms' actions.
pub fn actions() -> &'static [(&'static str, &'static str)] {
    actions::ACTIONS
}

/// `/console` and everything below it, to be wrapped in [`presented`].
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .merge(assets::routes())
        .merge(sign_in::routes())
        .merge(provider::routes())
        .merge(links::routes())
        .merge(shown::routes())
        .merge(forgotten::routes())
        .merge(invitations::routes())
        .merge(account::routes())
        .merge(people::routes())
        .merge(audit::routes_of_installation())
        .merge(workspaces::routes())
        .merge(members::routes())
        .nest("/console/workspaces/{workspace}", resources())
        .route("/console/", get(async || Redirect::permanent("/console")))
        .route("/console/{*path}", get(unknown).post(unknown))
}

/// Routes below a workspace.
fn resources() -> Router<Arc<App>> {
    Router::new()
        .merge(projects::routes())
        .merge(branches::routes())
        .merge(databases::routes())
        .merge(deleted::routes())
        .merge(connections::routes())
        .merge(backups::routes())
        .merge(operations::routes())
        .merge(integrations::routes())
        .merge(service_tokens::routes())
        .merge(applications::routes())
        .merge(audit::routes())
}

/// The 404 page.
async fn unknown(_uri: Uri) -> failure::Failure {
    failure::unknown_page()
}
