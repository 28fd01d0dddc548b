//! Confirmation pages: what an action will do, and a button that does it. Where data can be lost, a name
//! must be typed.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::{Frame, Html, Problem, again};
use base::error::Error;
use web::Failure;

#[derive(Template)]
#[template(path = "confirm.html")]
pub(crate) struct Confirm {
    pub(crate) frame: Frame,
    /// The question, as a heading.
    pub(crate) title: String,
    /// The effects, one sentence each.
    pub(crate) effects: Vec<String>,
    /// The button's label.
    pub(crate) label: &'static str,
    /// The form's address.
    pub(crate) action: String,
    /// The address of the previous page.
    pub(crate) back: String,
    pub(crate) problem: Problem,
}

impl Confirm {
    pub(crate) fn ask(self) -> Response {
        Html(self).into_response()
    }

    /// The page again, with the error.
    pub(crate) fn ask_again(self, error: Error) -> Result<Response, Failure> {
        Ok(again(Self { problem: Problem::of(error, &[])?, ..self }))
    }
}

/// A form without fields.
#[derive(Deserialize)]
pub(crate) struct Nothing {}

/// A name that was typed to confirm an action.
#[derive(Deserialize)]
pub(crate) struct Typed {
    #[serde(default)]
    pub(crate) confirm: String,
}

impl Typed {
    pub(crate) fn check(&self, name: &str, what: &str) -> Result<(), Problem> {
        // Spaces at the ends are easily pasted along.
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
    fn confirmation_requires_the_exact_name() {
        let check = |typed: &str, name: &str| Typed { confirm: typed.into() }.check(name, "project").is_ok();
        assert!(check("web", "web") && check(" web ", "web") && check("web", " web"));
        assert!(!check("", "web") && !check("Web", "web") && !check("we b", "web") && !check("web2", "web"));
    }
}
