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

/// The status of a refusal: 404 for what is not there, 409 for what stands against it, 410, 403, 400, 503, else 422.
fn refused(code: &str) -> StatusCode {
    match code {
        "saga_not_found"
        | "before_first_event"
        | "sequence_not_found"
        | "pointer_not_found"
        | "checkpoint_not_found"
        | "replay_not_found" => StatusCode::NOT_FOUND,
        "saga_running" | "saga_completed" | "already_replayed" | "steps_compensated" | "override_conflict" | "id_taken" => {
            StatusCode::CONFLICT
        }
        "saga_erased" => StatusCode::GONE,
        "not_permitted" => StatusCode::FORBIDDEN,
        "request_invalid" => StatusCode::BAD_REQUEST,
        "behind" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// What to do about it, where that can be said.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "invalid_time" => "write the time as 2026-01-10T10:00:00Z, with '+' of a zone as %2B",
        "saga_not_found" => "ids are compared exactly and are percent-encoded in the path; GET /v1/sagas finds sagas",
        "before_first_event" => "GET /v1/sagas/{id}/history?limit=1 shows the first entry",
        "sequence_not_found" => "sequences count a saga's entries from 1; GET /v1/sagas/{id}/history lists them",
        "pointer_not_found" => "GET /v1/sagas/{id}/context without pointer shows the whole context",
        "checkpoint_not_found" => "GET /v1/sagas/{id}/checkpoints lists the snapshots",
        "saga_running" => "wait for its end, or set allow_running",
        "saga_completed" => "compare the id; allow_completed replays a completed saga",
        "already_replayed" => "GET /v1/sagas/{id}/replays lists them; allow_repeat replays once more",
        "steps_compensated" => "if_compensated says whether to keep or rerun them",
        "id_taken" => "use another request_id or new_saga_id",
        "not_permitted" => "[topics] restored_allowed names the topics that a replay may target",
        "too_deep" => "replay an original, or raise [replay] max_depth",
        "behind" | "unavailable" => "try again after the seconds in Retry-After",
        "cross_origin" => "open the page by the name that the browser shows, or name it in [api] hosts; programs send no Origin",
        "host_not_allowed" => "[api] hosts names the further hosts by which it is reached",
        "not_implemented" => "this version does single replays",
        _ => return None,
    })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = super::json::problem(self.status.as_u16(), title, self.code, &self.detail, hint(self.code));
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
