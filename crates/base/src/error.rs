//! The one error of the domain. Transport-free: HTTP and workflows map it at their edges.

use std::error::Error as StdError;

use tokio_postgres::error::SqlState;

/// What went wrong, for the caller. Each message is a sentence that a customer may read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No valid credential came with the request.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may see the thing but not do this to it.
    #[error("{message}")]
    Forbidden {
        /// What it may not do.
        message: String,
        /// Who may.
        hint: String,
    },
    /// The caller's token is limited and may not do this.
    #[error("{message}")]
    LimitedToken {
        /// What the token may not do.
        message: String,
        /// Which token may.
        hint: String,
    },
    /// The thing does not exist, or the caller may not see it; the two look the same.
    #[error("{kind} with id {id} not found")]
    NotFound {
        /// The noun of the API, such as `database`.
        kind: &'static str,
        /// The id as the caller wrote it.
        id: String,
    },
    /// The request cannot be carried out as things stand.
    #[error("{message}")]
    Rejected {
        /// Why not.
        message: String,
        /// What to ask for instead.
        hint: String,
    },
    /// A value does not fit.
    #[error("{message}")]
    Invalid {
        /// Which value, and what is wrong with it.
        message: String,
        /// What would fit.
        hint: String,
    },
    /// It clashes with what exists.
    #[error("{message}")]
    Conflict {
        /// With what.
        message: String,
        /// How to get around it.
        hint: String,
    },
    /// The workspace has as much as it may have.
    #[error("{message}")]
    LimitReached {
        /// Of what.
        message: String,
        /// Which limit it is, how much of it is used, and what to do.
        hint: String,
    },
    /// Try again later: a dependency does not answer.
    #[error("{message}")]
    Unavailable {
        /// What does not answer.
        message: String,
        /// For the log.
        #[source]
        cause: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A fault of Howdah. Only the log sees the cause.
    #[error("an internal error occurred")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// A fault of Howdah that is described, rather than caused by another error.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// Something that the caller may not do, and who may.
    pub fn forbidden(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Forbidden { message: message.into(), hint: hint.into() }
    }

    /// Something that the caller's limited token may not do, and which one may.
    pub fn limited_token(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::LimitedToken { message: message.into(), hint: hint.into() }
    }

    /// Something that cannot be done as things stand, and what can.
    pub fn rejected(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Rejected { message: message.into(), hint: hint.into() }
    }

    /// Something that clashes with what exists, and how to get around it.
    pub fn conflict(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), hint: hint.into() }
    }

    /// A value that does not fit, with what would.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    /// The metadata store does not answer, or not in time.
    pub fn store_unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let message = "the metadata store is not responding; try again in a moment".into();
        Self::Unavailable { message, cause: Some(cause.into()) }
    }

    /// Something that is not there, or not for this caller.
    pub fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(cause: tokio_postgres::Error) -> Self {
        // Something was to be added to a workspace that was deleted since it was looked at.
        if cause.as_db_error().is_some_and(|error| {
            let table = error.table().unwrap_or_default();
            error.constraint() == Some(&format!("{table}_workspace_id_fkey"))
        }) {
            return Self::conflict(
                "the workspace was deleted during the request",
                "Nothing was changed. Use another workspace.",
            );
        }
        match cause.code().map(SqlState::code) {
            // The net below the rules of names and ids: text that PostgreSQL cannot hold.
            Some("22001" | "22021" | "22P02" | "22P05") => Self::invalid(
                "a value is too long or contains a character that cannot be stored",
                "Shorten the value and remove zero bytes.",
            ),
            // A deadlock, no room, a shutdown, a fault of the disk: not what was asked is wrong.
            Some(code) if !["40", "53", "57", "58"].contains(&&code[..2]) => Self::Internal(Box::new(cause)),
            Some(code) if code.starts_with("40") => Self::Unavailable {
                message: "a concurrent request changed the same resource, and nothing was changed by this one".into(),
                cause: Some(Box::new(cause)),
            },
            _ => Self::store_unavailable(cause),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(cause: deadpool_postgres::PoolError) -> Self {
        Self::store_unavailable(cause)
    }
}

/// The result of domain functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The chain of causes as one line, for logs and for a workflow's reason.
pub fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
