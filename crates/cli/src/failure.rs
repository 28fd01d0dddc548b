//! How a command fails: the exit code, and what is said on standard error.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{Output, Tone};
use super::table::Cell;
use crate::client;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The API did not do it.
    #[error(transparent)]
    Api(#[from] client::Failure),
    /// It was attempted and did not come about.
    #[error("{0}")]
    Failed(String),
    /// The command cannot be meant like this.
    #[error("{0}")]
    Usage(String),
    /// More than one thing has that name: a sentence, and the candidates.
    #[error("{0}")]
    Ambiguous(String, Vec<String>),
    /// There is no token to ask with.
    #[error("{0}")]
    NotLoggedIn(String),
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Another program was run in this one's place, and ended so.
    #[error("the program ended with exit code {0}")]
    Ended(u8),
}

/// What the exit codes mean, for the help text.
pub const EXIT_CODES: &str = "  0  success
  1  failure, such as a database that could not be created
  2  invalid command line
  3  not logged in, or the token is not valid (401)
  4  permission denied (403)
  5  not found (404)
  6  conflict or limit reached (409)
  7  other client error (other 4xx)
  8  too many requests (429)
  9  server unreachable, or server error (5xx)";

impl Failure {
    /// The exit code: [`EXIT_CODES`].
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Api(client::Failure::Foreign(_)) => 1,
            Self::Usage(_) | Self::Ambiguous(..) => 2,
            Self::NotLoggedIn(_) => 3,
            Self::NotFound(_) => 5,
            Self::Api(client::Failure::Unreachable { .. }) => 9,
            Self::Api(client::Failure::Refused(refusal)) => match refusal.status {
                401 => 3,
                403 => 4,
                404 => 5,
                409 => 6,
                429 => 8,
                400..500 => 7,
                500.. => 9,
                _ => 1,
            },
            // What a shell answers for a program that a signal has ended.
            Self::Interrupted => 130,
            Self::Ended(code) => *code,
        }
    }

    /// Says it on standard error, and answers the exit code.
    pub(super) fn report(&self, output: &Output) -> ExitCode {
        if output.json() {
            output.complain(&format!("{:#}\n", self.json()));
        } else if !matches!(self, Self::Ended(_)) {
            let mut lines = vec![self.to_string()];
            lines.extend(self.advice());
            output.complain(&output.beside(Cell::new("howdah:").with(Tone::Bad), lines));
        }
        ExitCode::from(self.code())
    }

    /// What to do about it, and what to tell the operator.
    fn advice(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.hint().into_iter().collect();
        lines.extend(self.candidates().unwrap_or_default().iter().cloned());
        let Self::Api(client::Failure::Refused(refusal)) = self else { return lines };
        if let Some(wait) = refusal.retry_after {
            lines.push(format!("Try again in {} s.", wait.as_secs()));
        }
        if let Some(id) = &refusal.request_id {
            lines.push(format!("Request ID: {id}"));
        }
        lines
    }

    fn candidates(&self) -> Option<&[String]> {
        match self {
            Self::Ambiguous(_, candidates) => Some(candidates),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Api(client::Failure::Refused(refusal)) if refusal.status == 401 => {
                Some("Log in with `howdah login`, or give another token with --token-file or HOWDAH_TOKEN.".into())
            }
            Self::Api(client::Failure::Refused(refusal)) => refusal.hint.clone(),
            Self::Api(client::Failure::Unreachable { .. }) => Some(
                "Check that the server is running and that the URL is correct (--url, HOWDAH_URL or `howdah login`)."
                    .into(),
            ),
            Self::NotLoggedIn(_) => {
                Some("Log in with `howdah login`, or give a token with --token-file or HOWDAH_TOKEN.".into())
            }
            Self::Api(client::Failure::Foreign(_))
            | Self::Failed(_)
            | Self::Usage(_)
            | Self::Ambiguous(..)
            | Self::NotFound(_)
            | Self::Interrupted
            | Self::Ended(_) => None,
        }
    }

    /// The API's error envelope, whether or not the API said it.
    fn json(&self) -> Value {
        let (code, status, request_id) = match self {
            Self::Api(client::Failure::Refused(refusal)) => {
                (refusal.code.as_str(), Some(refusal.status), refusal.request_id.as_deref())
            }
            Self::Api(client::Failure::Unreachable { .. }) => ("unreachable", None, None),
            Self::Api(client::Failure::Foreign(_)) => ("not-a-howdah", None, None),
            Self::Failed(_) | Self::Ended(_) => ("failed", None, None),
            Self::Usage(_) | Self::Ambiguous(..) => ("usage-error", None, None),
            Self::NotLoggedIn(_) => ("not-logged-in", None, None),
            Self::NotFound(_) => ("resource-not-found", None, None),
            Self::Interrupted => ("interrupted", None, None),
        };
        let mut error = json!({"code": code, "message": self.to_string()});
        let more = [
            ("hint", self.hint().map(Value::from)),
            ("status", status.map(Value::from)),
            ("requestId", request_id.map(Value::from)),
            ("candidates", self.candidates().map(Value::from)),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                error[name] = value;
            }
        }
        json!({ "error": error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> Failure {
        Failure::Api(client::Failure::Refused(Box::new(client::Refusal {
            status,
            code: "validation-error".into(),
            message: "name: the project's name is too short".into(),
            hint: Some("Give a name of 1 to 256 characters.".into()),
            request_id: Some("0123456789abcdef".into()),
            retry_after: None,
        })))
    }

    #[test]
    fn exit_codes_tell_what_happened() {
        let codes: Vec<u8> =
            [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 301].map(|status| refused(status).code()).to_vec();
        assert_eq!(codes, [7, 3, 4, 5, 7, 6, 7, 7, 8, 9, 9, 1]);
        assert_eq!(Failure::Usage(String::new()).code(), 2, "as clap does");
        for code in 0..=9 {
            assert!(EXIT_CODES.contains(&format!("  {code}  ")), "{code} is documented");
        }
    }

    #[test]
    fn an_error_keeps_the_words_of_the_api() {
        insta::assert_snapshot!(format!("{:#}", refused(422).json()), @r#"
        {
          "error": {
            "code": "validation-error",
            "message": "name: the project's name is too short",
            "hint": "Give a name of 1 to 256 characters.",
            "status": 422,
            "requestId": "0123456789abcdef"
          }
        }
        "#);
        assert_eq!(refused(422).advice(), ["Give a name of 1 to 256 characters.", "Request ID: 0123456789abcdef"]);
    }
}
