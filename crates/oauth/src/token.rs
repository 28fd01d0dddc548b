//! Tokens: issued for codes and refresh tokens (RFC 6749, sections 4.1.3 and 6), revoked (RFC 7009) and
//! introspected (RFC 7662).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_html_form::de::empty_as_none;

use super::Refusal;
use super::client::FromClient;
use auth::Principal;
use auth::oauth::Scopes;
use auth::oauth::grants::{self, ACCESS, Issuer, Refused, Tokens};
use domain::app::App;
use domain::integrations;

/// A parameter without a value counts as omitted (RFC 6749, section 3.2).
#[derive(Deserialize)]
pub(crate) struct TokenForm {
    #[serde(default, deserialize_with = "empty_as_none")]
    grant_type: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    code: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    redirect_uri: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    code_verifier: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    refresh_token: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    scope: Option<String>,
}

/// RFC 6749, section 5.1.
#[derive(Serialize)]
pub(crate) struct TokenAnswer {
    access_token: String,
    token_type: &'static str,
    /// In seconds.
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    scope: String,
}

pub(crate) async fn issue(
    State(app): State<Arc<App>>,
    FromClient { client, form, origin }: FromClient<TokenForm>,
) -> Result<Json<TokenAnswer>, Refusal> {
    let missing = |name: &str| Refusal::new("invalid_request", format!("{name} is missing"));
    let issuer = Issuer { signer: &app.signer, issuer: &app.public.auth, audience: &app.public.api };
    let now = app.clock.now();
    let tx = app.store.begin().await?;
    let outcome = match form.grant_type.as_deref() {
        Some("authorization_code") => {
            let code = form.code.as_deref().ok_or_else(|| missing("code"))?;
            let (redirect, verifier) = (form.redirect_uri.as_deref(), form.code_verifier.as_deref());
            grants::exchange(&tx, issuer, now, &client, code, redirect, verifier).await?
        }
        Some("refresh_token") => {
            let token = form.refresh_token.as_deref().ok_or_else(|| missing("refresh_token"))?;
            let scopes = match form.scope.as_deref() {
                None => None,
                Some(text) => Some(Scopes::parse(text).ok_or_else(unknown_scope)?),
            };
            grants::refresh(&tx, &app.keyring, issuer, now, &client, token, scopes).await?
        }
        Some(other) => {
            let description = format!("{other:?} is neither authorization_code nor refresh_token");
            return Err(Refusal::new("unsupported_grant_type", description));
        }
        None => return Err(missing("grant_type")),
    };
    // A code or refresh token that is used twice ends its grant.
    if let Err(Refused::Replay { why, acting: Some(acting) }) = &outcome {
        let acting = Principal::clone(acting).from_origin(origin);
        integrations::record_replay(&tx, &acting, now, StatusCode::BAD_REQUEST.as_u16(), why).await?;
    }
    tx.commit().await?;
    match outcome {
        Ok(Tokens { access_token, refresh_token, scopes }) => Ok(Json(TokenAnswer {
            access_token: access_token.expose().to_owned(),
            token_type: "Bearer",
            expires_in: ACCESS.as_secs(),
            refresh_token: refresh_token.map(|token| token.expose().to_owned()),
            scope: scopes.to_string(),
        })),
        Err(Refused::Grant(why) | Refused::Replay { why, .. }) => Err(Refusal::new("invalid_grant", why)),
        Err(Refused::Scope) => Err(Refusal::new("invalid_scope", "the refresh token does not include this scope")),
    }
}

pub(crate) fn unknown_scope() -> Refusal {
    let known = Scopes::ALL.map(|(name, _)| name).join(", ");
    Refusal::new("invalid_scope", format!("the supported scopes are {known}"))
}

#[derive(Deserialize)]
pub(crate) struct TokenQuestion {
    #[serde(default, deserialize_with = "empty_as_none")]
    token: Option<String>,
}

impl TokenQuestion {
    fn token(self) -> Result<String, Refusal> {
        self.token.ok_or_else(|| Refusal::new("invalid_request", "token is missing"))
    }
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    FromClient { client, form, origin }: FromClient<TokenQuestion>,
) -> Result<StatusCode, Refusal> {
    let token = form.token()?;
    let tx = app.store.begin().await?;
    if let Some(acting) = grants::revoke(&tx, &app.signer, &client, &token).await? {
        integrations::record_revocation(&tx, &acting.from_origin(origin), app.clock.now()).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::OK)
}

/// RFC 7662, section 2.2.
#[derive(Default, Serialize)]
pub(crate) struct IntrospectionAnswer {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

pub(crate) async fn introspect(
    State(app): State<Arc<App>>,
    FromClient { client, form, .. }: FromClient<TokenQuestion>,
) -> Result<Json<IntrospectionAnswer>, Refusal> {
    // RFC 7662, section 4: introspection must not be usable to guess tokens.
    if client.is_public {
        return Err(Refusal {
            description: "only a confidential client (one with a secret) can introspect tokens".into(),
            ..Refusal::client()
        });
    }
    let token = form.token()?;
    let session = app.store.session().await?;
    let found = grants::introspect(&session, &app.signer, &client, app.clock.now(), &token).await?;
    Ok(Json(match found {
        None => IntrospectionAnswer::default(),
        Some(found) => IntrospectionAnswer {
            active: true,
            scope: Some(found.scopes.to_string()),
            client_id: Some(found.client.bare().to_owned()),
            token_type: found.is_access.then_some("Bearer"),
            sub: Some(found.subject.user.to_string()),
            username: Some(found.subject.email),
            workspace_id: Some(found.subject.workspace.bare()),
            iss: Some(app.public.auth.clone()),
            aud: found.is_access.then(|| app.public.api.clone()),
            iat: Some(found.created_at.as_second()),
            exp: Some(found.expires_at.as_second()),
        },
    }))
}
