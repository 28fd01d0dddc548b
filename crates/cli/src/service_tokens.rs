//! `howdah tokens`

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::noun::{Listed, Named, Noun, Rows, Shown, find, read};
use super::projects::find_project;
use super::prompt;
use super::session::Session;
use super::table::Cell;
use crate::client::{Listing, SMALL_PAGE};
use base::clock::format_timestamp;
use base::id::ServiceTokenId;

const EXAMPLES: &str = "\
Examples:
  howdah tokens create ci
  howdah tokens create dashboard --read-only --project my_project --expires 90d
  howdah tokens list
  howdah tokens revoke ci --yes

TOKEN is an ID (itgr_…) or the exact name of one token.";

/// Manage service tokens, which authenticate programs
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Tokens {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List tokens, newest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        rows: Rows,
    },

    /// Create a token
    ///
    /// Prints the value of the token, which is not shown again. The token has the admin role in the
    /// workspace, unless it is restricted.
    Create {
        /// The name of the token
        name: String,
        /// Create a read-only token
        #[arg(long)]
        read_only: bool,
        /// Limit the token to this project, given by ID or name; can be repeated
        #[arg(long = "project", value_name = "PROJECT")]
        projects: Vec<String>,
        /// The expiry: a time from now such as 90d or 12h, or a point in time such as
        /// 2030-01-31T00:00:00Z [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },

    /// Revoke a token
    #[command(visible_alias = "delete")]
    Revoke {
        /// The ID or name of the token
        token: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Token {
    id: String,
    name: String,
    value_hint: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    #[serde(default)]
    read_only: bool,
    project_ids: Option<Vec<String>>,
}

impl Token {
    /// What it may do.
    fn access(&self) -> Cell {
        let right = if self.read_only { "read" } else { "read/write" };
        Cell::new(match self.project_ids.as_deref() {
            None => right.to_owned(),
            Some([_]) => format!("{right}, 1 project"),
            Some(several) => format!("{right}, {} projects", several.len()),
        })
    }
}

impl Noun for Token {
    const SINGULAR: &'static str = "service token";
}

impl Listed for Token {
    const PLURAL: &'static str = "service tokens";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "ACCESS", "EXPIRES", "LAST USED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let age = |time: Option<Timestamp>| time.map_or_else(|| Cell::maybe(None::<&str>), |time| Cell::age(time, now));
        vec![Cell::new(&self.name), Cell::id(&self.id), self.access(), age(self.expires_at), age(self.last_used_at)]
    }
}

impl Shown for Token {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        let time =
            |time: Option<Timestamp>, none: &str| time.map_or_else(|| Cell::new(none), |time| Cell::time(time, now));
        let projects = self.project_ids.as_ref().map(|ids| ids.join(", "));
        vec![
            ("Name", Cell::new(&self.name)),
            ("ID", Cell::id(&self.id)),
            ("Access", Cell::new(if self.read_only { "read" } else { "read/write" })),
            ("Projects", Cell::new(projects.unwrap_or_else(|| "all".into()))),
            ("Expires", time(self.expires_at, "never")),
            ("Created", Cell::time(self.created_at, now)),
        ]
    }
}

impl Named for Token {
    fn is_id(text: &str) -> bool {
        ServiceTokenId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        self.value_hint.clone()
    }
}

/// `90d`, `12h 30m` from now, or a point in time, in the API's form.
fn expiry(text: &str, now: Timestamp) -> Result<String, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "--expires: {text:?} is neither a time from now such as 90d or 12h, nor a point in time such as \
             2030-01-31T00:00:00Z"
        ))
    };
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let span: jiff::Span = text.parse().map_err(|_| wrong())?;
            // A day is 24 hours here, whatever clocks on walls do.
            let from_now: SignedDuration =
                span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
            now.checked_add(from_now).map_err(|_| wrong())?
        }
    };
    Ok(format_timestamp(time))
}

impl Tokens {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        let workspace = session.workspace().await?;
        let path = ["workspaces", &workspace, "service-tokens"];
        let listing = |limit| Listing { path: &path, query: &[], page: SMALL_PAGE, limit };
        match self.verb {
            Verb::List { rows } => {
                let limit = rows.limit.map(std::num::NonZero::get);
                output.list::<Token>(&client.list(listing(limit)).await?, session.now())
            }
            Verb::Create { name, read_only, projects, expires } => {
                let mut body = json!({"name": name, "readOnly": read_only});
                if let Some(expires) = expires {
                    body["expiresAt"] = expiry(&expires, session.now())?.into();
                }
                if !projects.is_empty() {
                    let mut ids = Vec::new();
                    for project in &projects {
                        ids.push(find_project(session, project).await?);
                    }
                    body["projectIds"] = ids.into();
                }
                let made = client.post(&path, &body).await?;
                output.one::<Token>(&made, session.now())?;
                match made["value"].as_str() {
                    Some(value) => output.secret("Token (not shown again):", value),
                    None => output.note(
                        "The response with the token was lost, and the token is not shown again. Revoke this token \
                         and create another one.",
                    ),
                }
                Ok(())
            }
            Verb::Revoke { token, yes } => {
                let id = find::<Token>(session, &token, listing(None)).await?;
                if !yes {
                    let tokens = client.list(listing(None)).await?;
                    let name = tokens.iter().map(read::<Token>).collect::<Result<Vec<_>, _>>()?;
                    let name = name.into_iter().find(|token| token.id == id).map_or(id.clone(), |token| token.name);
                    prompt::confirm(
                        yes,
                        &format!("Revoke the token {name}? Programs that use it lose access immediately."),
                    )
                    .await?;
                }
                client.delete(&["workspaces", &workspace, "service-tokens", &id]).await?;
                output.say(&format!("Revoked the token {id}."));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_from_now_or_a_point_in_time() {
        let now: Timestamp = "2025-07-09T12:00:00Z".parse().unwrap();
        let read = |text: &str| expiry(text, now).ok();
        assert_eq!(read("90d").as_deref(), Some("2025-10-07T12:00:00.000Z"));
        assert_eq!(read("12h 30m").as_deref(), Some("2025-07-10T00:30:00.000Z"));
        assert_eq!(read("2w").as_deref(), Some("2025-07-23T12:00:00.000Z"));
        assert_eq!(read("2030-01-31T00:00:00+01:00").as_deref(), Some("2030-01-30T23:00:00.000Z"));
        for wrong in ["", "tomorrow", "90", "2030-01-31", "1000000y"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
