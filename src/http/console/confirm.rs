//! Deeds that end something: a page that says what will happen, and one button that does it. Where more
//! is lost than a new secret brings back, a name has to be typed.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::{Frame, Html, Problem, again};
use crate::base::error::Error;
use crate::http::Failure;

/// The page that asks.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct Confirm {
    pub(super) frame: Frame,
    /// What is asked, as a heading.
    pub(super) title: String,
    /// What will happen, a sentence each.
    pub(super) effects: Vec<String>,
    /// What the button says.
    pub(super) label: &'static str,
    /// Where the form goes.
    pub(super) action: String,
    /// The page that one comes from.
    pub(super) back: String,
    pub(super) problem: Problem,
}

impl Confirm {
    /// The page.
    pub(super) fn ask(self) -> Response {
        Html(self).into_response()
    }

    /// The page again, with why it could not be done.
    pub(super) fn ask_again(self, error: Error) -> Result<Response, Failure> {
        Ok(again(Self { problem: Problem::of(error, &[])?, ..self }))
    }
}

/// A form without fields of its own.
#[derive(Deserialize)]
pub(super) struct Nothing {}

/// A name that was typed, so that nothing is lost by a slip.
#[derive(Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    pub(super) confirm: String,
}

impl Typed {
    /// What is wrong when it is another name.
    pub(super) fn check(&self, name: &str, what: &str) -> Result<(), Problem> {
        // Browsers and people add spaces at the ends; inside, every letter counts.
        if self.confirm.trim() == name.trim() {
            return Ok(());
        }
        Err(Problem::with("confirm", format!("The name of the {what} does not match. Nothing was changed.")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_confirmed_by_itself_only() {
        let check = |typed: &str, name: &str| Typed { confirm: typed.into() }.check(name, "project").is_ok();
        assert!(check("web", "web") && check(" web ", "web") && check("web", " web"));
        assert!(!check("", "web") && !check("Web", "web") && !check("we b", "web") && !check("web2", "web"));
    }
}
