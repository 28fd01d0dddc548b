//! What can come of a request instead of what was asked for.

use std::error::Error;
use std::time::Duration;

use super::Address;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server said no, in its own words.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No answer came.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why not.
        cause: String,
        /// Whether there was a connection, so that the request may have arrived.
        connected: bool,
    },
    /// What answered is not a Howdah, or one that this program does not understand.
    #[error("{0}")]
    Foreign(String),
}

/// An answer that says no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The API's word for it, such as `resource-not-found`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What the operator finds the request by in the logs.
    pub request_id: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn foreign(address: &Address, what: &str) -> Self {
        Self::Foreign(format!("{address} does not answer as a Howdah of this version does: {what}"))
    }

    pub(super) fn unreachable(address: &Address, error: &reqwest::Error) -> Self {
        let cause = match innermost(error) {
            _ if error.is_timeout() => "it takes too long to answer".to_owned(),
            cause => cause.to_string(),
        };
        Self::Unreachable { address: address.to_string(), cause, connected: !error.is_connect() && !error.is_builder() }
    }
}

/// What really happened; around it stands only which layer it happened to.
fn innermost(error: &reqwest::Error) -> &(dyn Error + 'static) {
    let mut innermost: &(dyn Error + 'static) = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost
}
