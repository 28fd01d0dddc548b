//! Changes that were refused are in the audit log too.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::api::ids::named_by;
use super::caller::Caller;
use super::failure::Said;
use crate::app::App;
use crate::auth::Principal;
use crate::base::error::{Result, describe};
use crate::base::id::{ProjectId, ServiceTokenId};
use crate::domain::audit::{self, Refusal, Resource};

/// The longest reason that is kept; the answer has the whole.
const LONGEST: usize = 500;
/// The longest id that is kept, in characters; one of ours is shorter.
const LONGEST_ID: usize = 64;

/// What each operation of the API is called, by method and path template.
#[derive(Debug)]
pub(super) struct Actions(pub(super) HashMap<(Method, String), String>);

/// Records a change that is answered with an error of the client's. Requests without a good token have
/// no workspace whose log they could be in, and those over a rate limit would fill it.
pub(super) async fn record(
    State((app, actions)): State<(Arc<App>, Arc<Actions>)>,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (resource, project) = path.as_deref().map(|path| named(path, request.uri().path())).unwrap_or_default();
    let action = path.and_then(|path| actions.0.get(&(request.method().clone(), path)).cloned());
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    let refused = response.status().is_client_error() && response.status() != StatusCode::TOO_MANY_REQUESTS;
    if let (true, true, Some(Caller(actor)), Some(action)) = (changes, refused, caller, action) {
        // What the caller wrote may stand in it, and the store takes no zero bytes.
        let reason = response
            .extensions()
            .get::<Said>()
            .map(|said| said.message.chars().filter(|letter| *letter != '\0').take(LONGEST).collect());
        let (status, reason) = (response.status().as_u16(), reason.unwrap_or_default());
        let refusal = Refusal { action, status, reason, resource, project };
        if let Err(error) = write(&app, &actor, refusal).await {
            tracing::error!(error = %describe(&error), "could not record a refused change in the audit log");
        }
    }
    response
}

/// What a path names last, and the project that it names. Ids are as the request has them.
fn named(template: &str, path: &str) -> (Option<Resource>, Option<ProjectId>) {
    let (mut resource, mut project) = (None, None);
    for (part, given) in template.split('/').zip(path.split('/')) {
        let parameter = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let Some(named) = parameter.and_then(|parameter| named_by(template, parameter)) else { continue };
        let prefix = format!("{}_", named.prefix);
        let bare: String = given.strip_prefix(&prefix).unwrap_or(given).chars().take(LONGEST_ID).collect();
        if named.prefix == ProjectId::PREFIX {
            project = ProjectId::parse(given);
        }
        let kind = if named.prefix == ServiceTokenId::PREFIX { "serviceToken" } else { named.kind };
        resource = Some(Resource { kind: kind.into(), id: prefix + &bare, name: None });
    }
    (resource, project)
}

async fn write(app: &App, actor: &Principal, refusal: Refusal) -> Result<()> {
    let tx = app.store.begin().await?;
    audit::record_refusal(&tx, actor, app.clock.now(), refusal).await?;
    tx.commit().await
}
