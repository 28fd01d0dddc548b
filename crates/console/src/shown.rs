//! The page that replaces a page with a secret in the browser's history. The secret was shown in the response
//! to a form, which browsers would otherwise offer to send again on Back.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::routing::get;

use super::{Anybody, Frame, Html};
use domain::app::App;

/// `static/console.js` replaces the history entry by this address.
const SHOWN: &str = "/console/shown";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route(SHOWN, get(show))
}

#[derive(Template)]
#[template(path = "shown.html")]
struct ShownPage {
    frame: Frame,
}

async fn show(Anybody { frame, .. }: Anybody) -> Html<ShownPage> {
    Html(ShownPage { frame })
}
