//! The frame of every page: head, sidebar, notice.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};

use auth::Principal;
use base::clock::format_timestamp;
use base::error::{Error, describe};
use domain::workspaces::Workspace;
use web::Failure;

/// The section of the console that the sidebar marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Workspaces,
    Projects,
    Integrations,
    Members,
    Audit,
    Settings,
    Account,
    People,
    /// No section of the sidebar.
    Elsewhere,
}

/// The color theme. Defaults to the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    /// Parses [`Theme::word`]. Anything else means the system's theme.
    pub fn parse(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// The value in the cookie and in the page.
    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// The signed-in account, for the sidebar.
#[derive(Clone, Debug)]
pub struct Badge {
    pub name: String,
    pub email: String,
    pub is_administrator: bool,
}

/// The workspace of a page, and the requester's permissions in it.
#[derive(Clone, Debug)]
pub struct Place {
    pub workspace: Workspace,
    pub actor: Principal,
}

/// The context of a page. Every template that extends `layout.html` or `layout_plain.html` has one in its
/// field `frame`.
#[derive(Clone, Debug)]
pub struct Frame {
    pub section: Section,
    pub theme: Theme,
    /// The value of the hidden field `csrf` of each form.
    pub csrf: String,
    /// The value of the hidden field `once` of each form, unique to this rendering of the page.
    pub once: String,
    /// The notice about the last change.
    pub notice: Option<String>,
    /// The warning above password fields on an unencrypted connection.
    pub warning: Option<String>,
    pub badge: Option<Badge>,
    pub place: Option<Place>,
    pub now: Timestamp,
}

impl Frame {
    /// The address of a page of the workspace: `frame.to("members")`.
    pub fn to(&self, page: &str) -> String {
        let base = self.place.as_ref().map_or_else(
            || "/console/workspaces".to_owned(),
            |place| format!("/console/workspaces/{}", place.workspace.id.bare()),
        );
        if page.is_empty() { base } else { format!("{base}/{page}") }
    }

    pub fn is_in(&self, section: Section) -> bool {
        self.section == section
    }

    /// Whether the requester may change things in the workspace, to hide buttons. Use cases check again.
    pub fn may_change(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.actor.may_change().is_ok())
    }

    /// The time relative to now, such as "3 minutes ago".
    pub fn ago(&self, time: &Timestamp) -> String {
        relative(self.now.duration_since(*time))
    }

    /// The time for people: to the minute, in UTC.
    pub fn exact(&self, time: &Timestamp) -> String {
        time.strftime("%-d %b %Y, %H:%M UTC").to_string()
    }

    /// The time for programs (`datetime` attributes).
    pub fn machine(&self, time: &Timestamp) -> String {
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

pub struct Html<T>(pub T);

impl<T: Template> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(text) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response(),
            Err(error) => Failure::from(Error::internal(describe(&error))).into_response(),
        }
    }
}

/// A page that shows a form again with its problem: status 422.
pub fn again(page: impl Template) -> Response {
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
    fn relative_times_are_formatted() {
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
