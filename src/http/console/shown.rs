//! Where the button Back leads from the page after a secret: the secret itself stands on the answer to a form,
//! which browsers would offer to send again.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::routing::get;

use super::{Anybody, Frame, Html};
use crate::app::App;

/// The script puts this address in the place of a page with a secret when a link leads away from it.
const SHOWN: &str = "/console/shown";

pub(super) fn routes() -> Router<Arc<App>> {
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
