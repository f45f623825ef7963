//! Exit codes (docs/INTERFACE.md, Command line) and the failures that lead to them.

use std::process::ExitCode;

use serde_json::json;

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

/// The exit code of a refusal or error by its stable code, else by the HTTP status that came with it.
pub fn exit_of(code: &str, status: u16) -> Exit {
    match code {
        "saga_not_found"
        | "before_first_event"
        | "sequence_not_found"
        | "pointer_not_found"
        | "checkpoint_not_found"
        | "replay_not_found"
        | "saga_erased" => Exit::NotFound,
        "saga_running" | "saga_completed" | "already_replayed" | "steps_compensated" | "override_conflict" | "id_taken" => {
            Exit::Conflict
        }
        "not_permitted" | "legal_hold" | "too_deep" => Exit::Refused,
        "config_invalid" => Exit::Usage,
        _ => match status {
            400 | 405 | 415 => Exit::Usage,
            401 | 403 | 422 => Exit::Refused,
            404 | 410 => Exit::NotFound,
            409 => Exit::Conflict,
            502 | 503 => Exit::Unreachable,
            408 | 504 => Exit::TimeOut,
            _ => Exit::Other,
        },
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Unavailable(_) => Exit::Unreachable,
            Error::Invalid { .. } => Exit::Usage,
            Error::Refused { code, .. } => exit_of(code, 422),
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
    fn an_answer_leads_to_the_exit_code_of_its_code_then_its_status() {
        for (code, status, exit) in [
            ("checkpoint_not_found", 404, Exit::NotFound),
            ("saga_erased", 410, Exit::NotFound),
            ("already_replayed", 409, Exit::Conflict),
            ("saga_completed", 409, Exit::Conflict),
            ("request_invalid", 409, Exit::Conflict),
            ("request_invalid", 400, Exit::Usage),
            ("override_invalid", 422, Exit::Refused),
            ("behind", 503, Exit::Unreachable),
            ("not_implemented", 501, Exit::Other),
        ] {
            assert_eq!(exit_of(code, status), exit, "{code} {status}");
        }
    }
}
