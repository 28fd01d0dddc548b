//! Forms: reading them, and the problems shown beside their fields.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq as _;

use super::cookies::Cookie;
use super::forgery;
use super::present::Guest;
use auth::sessions;
use base::error::Error;
use domain::app::App;
use web::body;
use web::failure::{Failure, Kind};
use web::refusal;

/// The fields of a form, after checking that this server rendered it for this very browser.
/// A field that may be missing, such as an unchecked checkbox, needs `#[serde(default)]`.
pub struct Form<T>(pub T);

#[derive(Deserialize)]
struct Proof {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Form<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        parse(&read(request, app).await?).map(Self)
    }
}

/// Reads the body and checks its token.
pub(crate) async fn read(request: Request, app: &Arc<App>) -> Result<Bytes, Failure> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let hint = "Send the form from its page.";
        return Err(Failure::new(Kind::UnsupportedMediaType, "This is not what a form sends.", hint));
    }
    let Some(expected) = token(app, request.headers(), None) else {
        return Err(forgery::no_cookie(app, request.headers()));
    };
    let bytes = body::read(request, app).await?;
    let proof: Proof = parse(&bytes)?;
    if !bool::from(expected.as_bytes().ct_eq(proof.csrf.as_bytes())) {
        return Err(not_of_ours());
    }
    Ok(bytes)
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_html_form::from_bytes(bytes).map_err(unreadable)
}

/// The refusal of a form that was not rendered for this session.
pub(crate) fn not_of_ours() -> Failure {
    Failure::new(
        Kind::Forbidden,
        "The form is too old, or was not submitted from a page of this console.",
        "Nothing was changed. Reload the page and submit the form again.",
    )
}

fn unreadable(error: serde_html_form::de::Error) -> Failure {
    Error::invalid(format!("The form cannot be read: {error}."), "Reload the page and submit the form again.").into()
}

/// The expected value of the hidden field `csrf`, derived from a cookie that only this browser has. Other sites
/// know neither.
pub(crate) fn token(app: &App, headers: &HeaderMap, new: Option<&Guest>) -> Option<String> {
    let cookie = Cookie::Session.read(app, headers).or_else(|| Cookie::Guest.read(app, headers));
    let value = cookie.or(new.map(|guest| guest.0.as_str()))?;
    Some(sessions::form_token(value))
}

/// A problem with a form, shown beside its field, or above the form when it concerns more than one field.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    field: String,
    pub message: String,
    pub hint: String,
}

impl Problem {
    /// No problem.
    pub fn none() -> Self {
        Self::default()
    }

    /// A problem with one field.
    pub fn with(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        refusal::note_reason(&message);
        Self { field: field.into(), message, hint: String::new() }
    }

    /// An error that other input can fix. Errors name a field before a colon, by its name in the API; `fields` are
    /// those of the form.
    ///
    /// # Errors
    /// The error itself when no other input would help; it is shown on an error page.
    pub fn of(error: Error, fields: &[&str]) -> Result<Self, Failure> {
        let (message, hint) = match error {
            Error::Invalid { message, hint }
            | Error::Conflict { message, hint }
            | Error::Rejected { message, hint }
            | Error::LimitReached { message, hint } => (message, hint),
            other => return Err(other.into()),
        };
        refusal::note_reason(&message);
        // Some hints name a request of the API, which does not help in the console.
        let hint = if hint.contains("/v1/") { String::new() } else { hint };
        let named = message.split_once(": ").filter(|(name, _)| fields.contains(name));
        let (field, message) = named.map_or(("", message.as_str()), |(field, rest)| (field, rest));
        Ok(Self { field: field.into(), message: sentence(message), hint })
    }

    pub fn is_of(&self, field: &str) -> bool {
        !self.message.is_empty() && self.field == field
    }

    pub fn is_general(&self) -> bool {
        self.is_of("")
    }
}

/// The error when the name typed to confirm does not match.
pub(crate) fn not_the_name(name: &str) -> Error {
    Error::invalid("confirm: the name does not match", format!("Type “{name}” exactly."))
}

/// Adds a period and, unless the text begins with an email address, a capital letter.
fn sentence(text: &str) -> String {
    let begins_with_address = text.split(' ').next().is_some_and(|word| word.contains('@'));
    let mut letters = text.chars();
    let first = letters.next().map_or_else(String::new, |letter| match begins_with_address {
        true => letter.to_string(),
        false => letter.to_uppercase().to_string(),
    });
    let stop = if text.ends_with(['.', '?', ':']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_is_assigned_to_its_field() {
        let error = || Error::invalid("name: the project's name is too short", "Give a longer one.");
        let problem = Problem::of(error(), &["name"]).unwrap();
        assert!(problem.is_of("name") && !problem.is_general() && !problem.is_of("region"));
        assert_eq!(problem.message, "The project's name is too short.");
        let problem = Problem::of(error(), &["region"]).unwrap();
        assert!(problem.is_general(), "a field that the form does not have");
        assert!(!Problem::none().is_general());
        let taken = Error::conflict("ada@example.com already has an account", "Sign in.");
        assert_eq!(Problem::of(taken, &[]).unwrap().message, "ada@example.com already has an account.");
        assert!(Problem::of(Error::not_found("project", "x"), &[]).is_err());
    }
}
