//! Errors, sorted by what the caller does next.
//!
//! Texts are lower case, verb and object, and never hold a payload: field names, ids of topics and positions only.

use std::borrow::Cow;

/// Why something did not happen, and so what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A dependency does not answer now: wait and try again. HTTP 503, exit 7.
    #[error("{0}")]
    Unavailable(String),
    /// What is stored or sent cannot be read: dead-letter it or fail the read. HTTP 500, exit 1.
    #[error("{0}")]
    Corrupt(String),
    /// The request was understood and is not executed: record `code`. HTTP by the code: 400, 403, 404, 409, 410, 422, 503.
    #[error("{message}")]
    Refused {
        /// A stable code (docs/INTERFACE.md), such as `saga_not_found`.
        code: &'static str,
        message: String,
    },
    /// The caller must change the request or the configuration. HTTP 400, exit 2.
    #[error("{message}")]
    Invalid {
        /// A stable code (docs/INTERFACE.md), such as `invalid_time` or `request_invalid`.
        code: &'static str,
        message: String,
    },
    /// Cannot happen: an invariant is broken. Stop the process.
    #[error("{0}")]
    Bug(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable(what.into())
    }
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into() }
    }
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { code, message: message.into() }
    }
    pub fn bug(what: impl Into<String>) -> Self {
        Self::Bug(what.into())
    }

    /// The same error with the action that failed put before it: `"load history of saga: connection refused"`.
    pub fn context(self, action: impl Into<Cow<'static, str>>) -> Self {
        let action = action.into();
        match self {
            Self::Unavailable(m) => Self::Unavailable(format!("{action}: {m}")),
            Self::Corrupt(m) => Self::Corrupt(format!("{action}: {m}")),
            Self::Refused { code, message } => Self::Refused { code, message: format!("{action}: {message}") },
            Self::Invalid { code, message } => Self::Invalid { code, message: format!("{action}: {message}") },
            Self::Bug(m) => Self::Bug(format!("{action}: {m}")),
        }
    }

    /// The stable code shown outside.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Corrupt(_) => "corrupt",
            Self::Refused { code, .. } | Self::Invalid { code, .. } => code,
            Self::Bug(_) => "bug",
        }
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
