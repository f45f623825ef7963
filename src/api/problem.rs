//! Errors as `application/problem+json` (RFC 9457) with a stable code, a detail and a hint.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
}

/// What a route gives.
pub type Answer = Result<Response, Problem>;

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// Names the parameter or member and the remedy.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request_invalid", detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Corrupt(_) | Error::Bug(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::Invalid { .. } => StatusCode::BAD_REQUEST,
            Error::Refused { code, .. } => refused(code),
        };
        if status.is_server_error() {
            tracing::warn!(code = error.code(), error = %error, "request not answered");
        }
        Self::new(status, error.code(), error.to_string())
    }
}

/// A code with the status it is answered with and what to do about it, where that can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemCode {
    pub code: &'static str,
    pub status: u16,
    pub hint: Option<&'static str>,
}

/// Every code that an answer may have, by status.
pub const PROBLEMS: &[ProblemCode] = &[
    problem(400, "request_invalid", ""),
    problem(400, "invalid_time", "write the time as 2026-01-10T10:00:00Z, with '+' of a zone as %2B"),
    problem(
        403,
        "not_permitted",
        "[topics] restored_allowed names the topics that a replay may target, [replay] max_replays limits a lineage",
    ),
    problem(
        403,
        "cross_origin",
        "open the page by the name that the browser shows, or name it in [api] hosts; programs send no Origin",
    ),
    problem(404, "saga_not_found", "ids are compared exactly and are percent-encoded in the path; GET /v1/sagas finds sagas"),
    problem(404, "before_first_event", "GET /v1/sagas/{id}/history?limit=1 shows the first entry"),
    problem(404, "sequence_not_found", "sequences count a saga's entries from 1; GET /v1/sagas/{id}/history lists them"),
    problem(404, "pointer_not_found", "GET /v1/sagas/{id}/context without pointer shows the whole context"),
    problem(404, "checkpoint_not_found", "GET /v1/sagas/{id}/checkpoints lists the snapshots"),
    problem(404, "replay_not_found", ""),
    problem(404, "batch_not_found", ""),
    problem(404, "plan_not_found", ""),
    problem(404, "schedule_not_found", ""),
    problem(404, "route_not_found", ""),
    problem(405, "method_not_allowed", ""),
    problem(408, "request_timeout", ""),
    problem(409, "saga_running", "wait for its end, or set allow_running"),
    problem(409, "saga_completed", "compare the id; allow_completed replays a completed saga"),
    problem(409, "already_replayed", "GET /v1/sagas/{id}/replays lists them; allow_repeat replays once more"),
    problem(409, "steps_compensated", "if_compensated says whether to keep or rerun them"),
    problem(409, "override_conflict", ""),
    problem(409, "id_taken", "use another request_id or new_saga_id"),
    problem(410, "saga_erased", ""),
    problem(410, "plan_expired", "plan again; [replay] keep_plans says how long a plan may be run"),
    problem(421, "host_not_allowed", "[api] hosts names the further hosts by which it is reached"),
    problem(UNNAMED, "expired", ""),
    problem(UNNAMED, "legal_hold", ""),
    problem(UNNAMED, "too_deep", "replay an original, or raise [replay] max_depth"),
    problem(UNNAMED, "override_missing", ""),
    problem(UNNAMED, "override_invalid", ""),
    problem(UNNAMED, "too_large", ""),
    problem(500, "corrupt", ""),
    problem(500, "bug", ""),
    problem(503, "behind", "try again after the seconds in Retry-After"),
    problem(503, "unavailable", "try again after the seconds in Retry-After"),
];

/// Of a refusal that the contract gives no status of its own.
const UNNAMED: u16 = 422;

const fn problem(status: u16, code: &'static str, hint: &'static str) -> ProblemCode {
    ProblemCode { code, status, hint: if hint.is_empty() { None } else { Some(hint) } }
}

fn known(code: &str) -> Option<&'static ProblemCode> {
    PROBLEMS.iter().find(|problem| problem.code == code)
}

/// The status of a refusal.
pub fn status_of(code: &str) -> u16 {
    known(code).map_or(UNNAMED, |problem| problem.status)
}

fn refused(code: &str) -> StatusCode {
    StatusCode::from_u16(status_of(code)).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = super::json::problem(
            self.status.as_u16(),
            title,
            self.code,
            &self.detail,
            known(self.code).and_then(|problem| problem.hint),
        );
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// JSON text that is ready to go out.
pub fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_the_status_of_the_contract() {
        for (code, status) in [
            ("saga_not_found", 404),
            ("checkpoint_not_found", 404),
            ("saga_running", 409),
            ("saga_completed", 409),
            ("already_replayed", 409),
            ("steps_compensated", 409),
            ("override_conflict", 409),
            ("id_taken", 409),
            ("saga_erased", 410),
            ("not_permitted", 403),
            ("request_invalid", 400),
            ("override_invalid", 422),
            ("expired", 422),
            ("too_deep", 422),
            ("behind", 503),
        ] {
            assert_eq!(Problem::from(Error::refused(code, "x")).status.as_u16(), status, "{code}");
        }
        assert_eq!(Problem::from(Error::unavailable("x")).status.as_u16(), 503);
        assert_eq!(Problem::from(Error::corrupt("x")).status.as_u16(), 500);
        assert_eq!(Problem::from(Error::invalid("invalid_time", "x")).status.as_u16(), 400);
    }
}
