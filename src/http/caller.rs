//! Who is calling: the bearer token of a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::failure::Failure;
use crate::app::App;
use crate::auth::{Principal, service_tokens};
use crate::base::error::Error;

/// A caller whose token was checked.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Error::Unauthenticated("Missing or invalid authorization token.".into()))?;
        let session = app.store.session().await?;
        Ok(Self(service_tokens::authenticate(&session, &app.signer, token, app.clock.now()).await?))
    }
}
