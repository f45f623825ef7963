//! Exit codes (docs/INTERFACE.md, Command line) and the failures that lead to them.

use std::process::ExitCode;

use serde_json::json;

use crate::api::status_of;
use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Other = 1,
    Usage = 2,
    Partial = 3,
    Refused = 4,
    NotFound = 5,
    Conflict = 6,
    Unreachable = 7,
    TimeOut = 8,
    Unconfirmed = 9,
}

impl Exit {
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Other,
        Self::Usage,
        Self::Partial,
        Self::Refused,
        Self::NotFound,
        Self::Conflict,
        Self::Unreachable,
        Self::TimeOut,
        Self::Unconfirmed,
    ];

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "failed otherwise; the message says how",
            Self::Usage => "wrong arguments, request or configuration",
            Self::Partial => "done in part",
            Self::Refused => "refused by a rule",
            Self::NotFound => "no such saga, replay, entry or value",
            Self::Conflict => "what is there speaks against it",
            Self::Unreachable => "a server or store does not answer, or is not ready",
            Self::TimeOut => "not done in time; the work may go on",
            Self::Unconfirmed => "a confirmation is missing: `--yes` or `--confirm`",
        }
    }

    /// The exit code that `admin` gave a finding.
    pub fn of_number(number: u8) -> Self {
        match number {
            2 => Self::Usage,
            7 => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), hint: None }
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What stderr says: one JSON object when the data is JSON too.
    pub fn render(&self, as_json: bool) -> String {
        if as_json {
            return json!({"error": {"code": self.code, "message": self.message, "hint": self.hint}}).to_string();
        }
        let hint = self.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error[{}]: {}{hint}", self.code, self.message)
    }
}

/// The exit code of an HTTP status.
pub fn exit_of(status: u16) -> Exit {
    match status {
        400 | 405 | 415 => Exit::Usage,
        401 | 403 | 422 => Exit::Refused,
        404 | 410 => Exit::NotFound,
        409 => Exit::Conflict,
        502 | 503 => Exit::Unreachable,
        408 | 504 => Exit::TimeOut,
        _ => Exit::Other,
    }
}

/// Of a refusal that came without HTTP: as if it were answered there.
pub fn exit_of_refusal(code: &str) -> Exit {
    exit_of(status_of(code))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Unavailable(_) => Exit::Unreachable,
            Error::Invalid { .. } => Exit::Usage,
            Error::Refused { code, .. } => exit_of_refusal(code),
            Error::Corrupt(_) | Error::Bug(_) => Exit::Other,
        };
        Self::new(exit, error.code(), error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // Alternate form: with the chain of causes.
        let message = format!("{error:#}");
        match error.downcast::<Error>() {
            Ok(error) => Self { message, ..Self::from(error) },
            Err(_) => Self::new(Exit::Other, "failed", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leads_to_the_exit_code_of_its_kind() {
        for (error, exit) in [
            (Error::unavailable("x"), Exit::Unreachable),
            (Error::invalid("config_invalid", "x"), Exit::Usage),
            (Error::refused("not_permitted", "x"), Exit::Refused),
            (Error::refused("saga_not_found", "x"), Exit::NotFound),
            (Error::refused("saga_running", "x"), Exit::Conflict),
            (Error::bug("x"), Exit::Other),
        ] {
            assert_eq!(Failure::from(error.clone()).exit, exit, "{error:?}");
            assert_eq!(Failure::from(anyhow::Error::from(error).context("while starting")).exit, exit);
        }
        assert_eq!(Failure::from(anyhow::anyhow!("x")).exit, Exit::Other);
    }

    #[test]
    fn an_answer_leads_to_the_exit_code_of_its_status() {
        for (status, exit) in [
            (404, Exit::NotFound),
            (410, Exit::NotFound),
            (409, Exit::Conflict),
            (400, Exit::Usage),
            (422, Exit::Refused),
            (503, Exit::Unreachable),
            (501, Exit::Other),
        ] {
            assert_eq!(exit_of(status), exit, "{status}");
        }
    }

    #[test]
    fn a_refusal_leads_to_the_exit_code_of_the_status_that_it_would_have() {
        for (code, exit) in [
            ("checkpoint_not_found", Exit::NotFound),
            ("saga_erased", Exit::NotFound),
            ("already_replayed", Exit::Conflict),
            ("saga_completed", Exit::Conflict),
            ("too_deep", Exit::Refused),
            ("not_permitted", Exit::Refused),
            ("override_invalid", Exit::Refused),
            ("behind", Exit::Unreachable),
        ] {
            assert_eq!(exit_of_refusal(code), exit, "{code}");
        }
    }
}
