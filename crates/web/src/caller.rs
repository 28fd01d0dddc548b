//! Who is calling: the bearer token of a request.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::failure::Failure;
use super::origin;
use super::rate::Meter;
use super::refusal;
use auth::{Credential, Principal};
use base::error::{Error, describe};
use domain::app::App;

/// A caller whose token was checked.
#[derive(Clone)]
pub struct Caller(pub Principal);

/// Lets through who has a good token and does not come too fast with it; the row of the token is
/// asked each time.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let meter: Meter =
        request.extensions().get().cloned().ok_or_else(|| Error::internal("a request is not measured"))?;
    let token = carried(&request);
    if !token.is_some_and(|token| app.signer.knows(token)) {
        meter.attempt()?;
    }
    let token = token.ok_or_else(missing)?;
    let session = app.store.session().await?;
    let accepted = auth::authenticate(&session, &app.signer, token, app.clock.now()).await?;
    drop(session);
    meter.token(accepted.principal.id())?;
    if accepted.use_is_stale {
        app.tasks.spawn(record_use(app.clone(), accepted.principal.credential().clone()));
    }
    let principal = accepted.principal.from_origin(origin::of(request.extensions()));
    refusal::note_who(refusal::Who::Caller(principal.clone()));
    request.extensions_mut().insert(Caller(principal));
    Ok(next.run(request).await)
}

/// Says in a refusal where tokens come from (RFC 9728, section 5.1).
pub async fn point_to_authorization(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // RFC 6750, section 3.1: whoever brought none is told of no error.
    let error = carried(&request).map_or("", |_| "error=\"invalid_token\", ");
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        let metadata = format!("{}/.well-known/oauth-protected-resource", app.public.api);
        let value = format!("Bearer {error}resource_metadata=\"{metadata}\"");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }
    response
}

fn carried(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Beside the request, which need not wait for it.
async fn record_use(app: Arc<App>, credential: Credential) {
    let recorded = async { auth::record_use(&app.store.session().await?, &credential, app.clock.now()).await }.await;
    if let Err(error) = recorded {
        tracing::warn!(error = %describe(&error), "could not record the use of {credential:?}");
    }
}

fn missing() -> Error {
    Error::Unauthenticated("Missing or invalid authorization token.".into())
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        // Every route of the API lies behind `identify`; one that did not would refuse everybody.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| missing().into())
    }
}
