//! What stands round every page: the head, the side bar, the notice.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};

use crate::auth::Principal;
use crate::base::clock::format_timestamp;
use crate::base::error::{Error, describe};
use crate::domain::workspaces::Workspace;
use crate::http::Failure;

/// The part of the console that a page belongs to, which the side bar marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Workspaces,
    Projects,
    Integrations,
    Members,
    Audit,
    Settings,
    Account,
    People,
    /// None of them.
    Elsewhere,
}

/// The colours: the system's, unless somebody has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    /// Reads its word; anything else is the system's.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// Its word in the cookie and in the page.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Who has signed in, as the side bar shows them.
#[derive(Clone, Debug)]
pub(crate) struct Badge {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) is_administrator: bool,
}

/// The workspace that a page is about, and what who looks at it may do there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) workspace: Workspace,
    pub(crate) actor: Principal,
}

/// What stands round a page. Every template that extends `layout.html` or `layout_plain.html` has
/// one in its field `frame`.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) section: Section,
    pub(crate) theme: Theme,
    /// For the hidden field `csrf` of each form.
    pub(crate) csrf: String,
    /// For the hidden field `once` of each form: tells this showing of the page from every other.
    pub(crate) once: String,
    /// What to say about the change before.
    pub(crate) notice: Option<String>,
    /// What to say beside a password field when the connection is not encrypted.
    pub(crate) warning: Option<String>,
    pub(crate) badge: Option<Badge>,
    pub(crate) place: Option<Place>,
    pub(crate) now: Timestamp,
}

impl Frame {
    /// The address of a page of the workspace: `frame.to("members")`.
    pub(crate) fn to(&self, page: &str) -> String {
        let base = self.place.as_ref().map_or_else(
            || "/console/workspaces".to_owned(),
            |place| format!("/console/workspaces/{}", place.workspace.id.bare()),
        );
        if page.is_empty() { base } else { format!("{base}/{page}") }
    }

    /// Whether the side bar marks this section.
    pub(crate) fn is_in(&self, section: Section) -> bool {
        self.section == section
    }

    /// Whether who looks at the page may change things in its workspace: a page hides the buttons of
    /// those who may not. The use case decides, whatever a page shows.
    pub(crate) fn may_change(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.actor.may_change().is_ok())
    }

    /// How long ago, or in how long, in words.
    pub(crate) fn ago(&self, time: &Timestamp) -> String {
        relative(self.now.duration_since(*time))
    }

    /// A moment for people: to the minute, UTC.
    pub(crate) fn exact(&self, time: &Timestamp) -> String {
        time.strftime("%-d %b %Y, %H:%M UTC").to_string()
    }

    /// A moment for programs.
    pub(crate) fn machine(&self, time: &Timestamp) -> String {
        format_timestamp(*time)
    }
}

/// "3 minutes ago", "in 2 days".
fn relative(passed: SignedDuration) -> String {
    let seconds = passed.as_secs();
    let (count, unit) = match seconds.abs() {
        0..45 => return if seconds < -5 { "in a moment".into() } else { "just now".into() },
        45..90 => (1, "minute"),
        90..3_600 => ((seconds.abs() + 30) / 60, "minute"),
        3_600..86_400 => ((seconds.abs() + 1_800) / 3_600, "hour"),
        86_400..2_592_000 => ((seconds.abs() + 43_200) / 86_400, "day"),
        2_592_000..31_536_000 => (seconds.abs() / 2_592_000, "month"),
        _ => (seconds.abs() / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if seconds < 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

/// A page.
pub(crate) struct Html<T>(pub(crate) T);

impl<T: Template> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(text) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response(),
            Err(error) => Failure::from(Error::internal(describe(&error))).into_response(),
        }
    }
}

/// A page that shows a form again, with what is wrong with it.
pub(crate) fn again(page: impl Template) -> Response {
    let mut response = Html(page).into_response();
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        for (seconds, words) in [
            (0, "just now"),
            (44, "just now"),
            (-3, "just now"),
            (-20, "in a moment"),
            (60, "1 minute ago"),
            (100, "2 minutes ago"),
            (3_600, "1 hour ago"),
            (-7_200, "in 2 hours"),
            (86_400, "1 day ago"),
            (20 * 86_400, "20 days ago"),
            (90 * 86_400, "3 months ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(relative(SignedDuration::from_secs(seconds)), words, "{seconds}");
        }
    }
}
