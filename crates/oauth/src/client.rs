//! Requests of applications to the endpoints: forms and client authentication.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_html_form::de::empty_as_none;

use super::Refusal;
use auth::Origin;
use auth::oauth::clients::{self, Client};
use base::secret::Secret;
use domain::app::App;
use web::{body, origin};

/// A form and the authenticated application.
pub(crate) struct FromClient<T> {
    pub(crate) client: Client,
    pub(crate) form: T,
    pub(crate) origin: Origin,
}

/// A parameter without a value counts as omitted (RFC 6749, section 3.2).
#[derive(Deserialize)]
struct Posted {
    #[serde(default, deserialize_with = "empty_as_none")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    client_secret: Option<String>,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for FromClient<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        if let Some(meter) = request.extensions().get::<web::rate::Meter>() {
            meter.attempt()?;
        }
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::new("invalid_request", "the body must be a form: application/x-www-form-urlencoded"));
        }
        let (basic, origin) = (basic(request.headers())?, origin::of(request.extensions()));
        let bytes = body::read(request, app).await?;
        let unreadable = |error: serde_html_form::de::Error| Refusal::new("invalid_request", error.to_string());
        let posted: Posted = serde_html_form::from_bytes(&bytes).map_err(unreadable)?;
        let (id, secret) = match (basic, posted) {
            (Some(_), Posted { client_secret: Some(_), .. }) => {
                let description = "the client authenticates in two ways; RFC 6749 (section 2.3) allows one";
                return Err(Refusal::new("invalid_request", description));
            }
            (Some((id, secret)), Posted { client_id, .. }) => {
                if client_id.is_some_and(|posted| posted != id) {
                    return Err(Refusal::new(
                        "invalid_request",
                        "client_id differs from the one in the Authorization header",
                    ));
                }
                (id, Some(secret).filter(|secret| !secret.is_empty()))
            }
            (None, Posted { client_id: Some(id), client_secret }) => (id, client_secret),
            (None, Posted { client_id: None, .. }) => {
                return Err(Refusal { description: "client_id is missing".into(), ..Refusal::client() });
            }
        };
        let secret = secret.map(Secret::new);
        let client = clients::authenticate(&app.store.session().await?, &id, secret.as_ref()).await?;
        let client = client.ok_or_else(Refusal::client)?;
        // Parsed after the authentication, so that unknown clients learn nothing about forms.
        Ok(Self { client, form: serde_html_form::from_bytes(&bytes).map_err(unreadable)?, origin })
    }
}

/// Id and secret of the header: each form-encoded, then both in base64 (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = || Refusal { description: "the Authorization header cannot be read".into(), ..Refusal::client() };
    let text = value.to_str().map_err(|_| wrong())?;
    let (scheme, encoded) = text.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| wrong())?;
    let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
    let (id, secret) = decoded.split_once(':').ok_or_else(wrong)?;
    Ok(Some((unescape(id).ok_or_else(wrong)?, unescape(secret).ok_or_else(wrong)?)))
}

/// Decodes one form-encoded value.
fn unescape(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct One {
        value: String,
    }
    serde_html_form::from_str::<One>(&format!("value={text}")).ok().map(|one| one.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_form_decoded() {
        let read = |plain: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(plain));
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            basic(&headers).unwrap().unwrap()
        };
        assert_eq!(read("abc:se%3Acr%2Bet+x"), ("abc".to_owned(), "se:cr+et x".to_owned()));
        assert_eq!(read("abc:"), ("abc".to_owned(), String::new()));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer abc".parse().unwrap());
        assert!(basic(&headers).is_err());
    }
}
