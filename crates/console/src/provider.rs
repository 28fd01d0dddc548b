//! Signing in with an OpenID Connect provider: the redirect to it and the callback.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use url::form_urlencoded;

use super::sign_in::{Next, Nothing, ask_for_code, begin, lead_on, page_again, private, with_cookie};
use super::{Anybody, Cookie, Form, Problem, Visitor, go_to, local, see_other};
use auth::provider::{self, Answer, GOOD, Provider};
use base::error::{Error, Result};
use domain::accounts;
use domain::app::App;
use web::Failure;
use web::query::Query;

/// The next page is kept in a cookie; browsers drop cookies of more than 4096 bytes.
const LONGEST_NEXT: usize = 2000;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/console/sign-in/provider", get(leave))
        .route("/console/sign-in/provider/callback", get(come_back))
        .route("/console/account/provider/disconnect", post(disconnect))
}

pub(crate) fn name(app: &App) -> Option<String> {
    app.provider.as_ref().map(|provider| provider.name().to_owned())
}

/// The address that starts a sign-in with the provider and continues to `next`.
pub(crate) fn address(next: &str) -> String {
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    format!("/console/sign-in/provider?next={next}")
}

fn configured(app: &App) -> Result<&Provider> {
    app.provider.as_ref().ok_or_else(|| Error::not_found("page", "of an identity provider"))
}

async fn leave(State(app): State<Arc<App>>, anybody: Anybody, Query(to): Query<Next>) -> Result<Response, Failure> {
    let provider = configured(&app)?;
    let next = Some(local(&to.next)).filter(|next| next.len() <= LONGEST_NEXT).unwrap_or("/console");
    match provider.begin(&app.keyring, app.clock.now(), &app.public.sign_in_callback(), next).await {
        Ok(begun) => {
            let there = HeaderValue::from_str(&begun.address).map_err(Error::internal)?;
            let answer = (StatusCode::SEE_OTHER, [(header::LOCATION, there)]).into_response();
            Ok(with_cookie(private(answer), Cookie::Provider.set(&app, &begun.kept, Some(GOOD))))
        }
        Err(error) => refuse(&app, anybody, provider, next.to_owned(), error),
    }
}

/// Handles the provider's redirect back.
async fn come_back(
    State(app): State<Arc<App>>,
    anybody: Anybody,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Result<Response, Failure> {
    let provider = configured(&app)?;
    let now = app.clock.now();
    let kept = Cookie::Provider.read(&app, &headers).unwrap_or_default();
    if kept.is_empty() && anybody.signed_in.is_some() {
        return Ok(go_to("/console"));
    }
    let finished = provider.finish(&app.keyring, now, &app.public.sign_in_callback(), kept, answer).await;
    let forget = Cookie::Provider.clear(&app);
    let (vouched, next) = match finished {
        Ok(finished) => finished,
        Err(error) => return Ok(with_cookie(refuse(&app, anybody, provider, String::new(), error)?, forget)),
    };
    let is_open = vouched.email.as_ref().is_some_and(|email| provider.is_open_to(email));
    let next = local(&next).to_owned();
    let signed_in = anybody.signed_in.as_ref().map(|signed_in| signed_in.user.id);
    let admitted = async {
        let tx = app.store.begin().await?;
        let account = accounts::admit(&tx, now, &vouched, is_open, signed_in, &anybody.origin).await?;
        let cookie = match account.has_totp {
            true => None,
            false => begin(&app, &tx, &anybody, &headers, &account.user).await?,
        };
        tx.commit().await?;
        Ok((account, cookie))
    };
    match admitted.await {
        Ok((account, _)) if account.has_totp => {
            Ok(with_cookie(ask_for_code(&app, anybody, &account.user, next)?, forget))
        }
        Ok((account, cookie)) => {
            tracing::info!(user.id = %account.user.id, "{} signed in with {}", account.user.id, provider.name());
            Ok(with_cookie(with_cookie(lead_on(anybody.frame, &next), cookie), forget))
        }
        Err(error) => {
            let problem = Problem::of(error, &[])?;
            tracing::warn!(
                "identity provider {} sent an account that may not sign in: {}",
                provider.name(),
                problem.message
            );
            Ok(with_cookie(page_again(&app, anybody, next, problem), forget))
        }
    }
}

/// The sign-in page with the reason why signing in with the provider failed.
fn refuse(
    app: &App,
    anybody: Anybody,
    provider: &Provider,
    next: String,
    error: provider::Failure,
) -> Result<Response, Failure> {
    let name = provider.name();
    let (status, message, hint) = match error {
        provider::Failure::Unreachable(reason) => {
            tracing::warn!("identity provider {name} is not available: {reason}");
            let hint = "Try again in a moment, or sign in with a password.";
            (StatusCode::SERVICE_UNAVAILABLE, format!("{name} is not available."), hint)
        }
        provider::Failure::Untrusted(reason) => {
            tracing::error!("response from identity provider {name} could not be verified: {reason}");
            let hint = "The reason is in the server's log; ask the operator.";
            (StatusCode::BAD_GATEWAY, format!("The response from {name} could not be verified."), hint)
        }
        provider::Failure::Declined(reason) => {
            tracing::info!("identity provider {name} declined a sign-in: {reason}");
            let hint = "Try again, or sign in with a password.";
            (StatusCode::UNPROCESSABLE_ENTITY, format!("{name} did not sign you in."), hint)
        }
        provider::Failure::Stale => {
            let message = "The sign-in took too long, or was started in another browser.";
            (StatusCode::UNPROCESSABLE_ENTITY, message.to_owned(), "Try again.")
        }
        provider::Failure::Internal(error) => return Err(error.into()),
    };
    let mut problem = Problem::with("", message);
    problem.hint = hint.to_owned();
    let mut answer = page_again(app, anybody, local(&next).to_owned(), problem);
    *answer.status_mut() = status;
    Ok(answer)
}

async fn disconnect(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(_): Form<Nothing>,
) -> Result<Response, Failure> {
    let tx = app.store.begin().await?;
    accounts::disconnect_provider(&tx, &visitor.asker(), app.clock.now()).await?;
    tx.commit().await?;
    Ok(see_other(&app, "/console/account", "Identity provider disconnected. Sign in with your password."))
}
