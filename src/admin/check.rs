//! One finding of `doctor`: what was looked at, how it is, and what to do about it.

use serde::Serialize;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub check: String,
    pub verdict: Verdict,
    pub detail: String,
    pub remedy: Option<String>,
    /// A problem's exit code, where it is not 1: 2 configuration, 7 unreachable.
    #[serde(skip)]
    pub exit: Option<u8>,
}

pub(super) fn ok(check: &str, detail: &str) -> Check {
    Check { check: check.into(), verdict: Verdict::Ok, detail: detail.into(), remedy: None, exit: None }
}

pub(super) fn warning(check: &str, detail: String, remedy: &str) -> Check {
    Check { check: check.into(), verdict: Verdict::Warning, detail, remedy: Some(remedy.into()), exit: None }
}

pub(super) fn problem(check: &str, error: &Error) -> Check {
    let (exit, remedy) = match error {
        Error::Unavailable(_) => (Some(7), "see that it runs and can be reached from here"),
        Error::Invalid { .. } => (Some(2), "change the configuration or what it names"),
        _ => (None, "see the log"),
    };
    Check { check: check.into(), verdict: Verdict::Problem, detail: error.to_string(), remedy: Some(remedy.into()), exit }
}
