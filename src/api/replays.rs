//! Routes of single replays.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::api_state::ApiState;
use super::json;
use super::problem::{Answer, Problem, json_text};
use super::query::{Document, Id, Query};
use super::replay_service::SubmitAnswer;
use crate::error::Error;
use crate::saga::position::SagaId;
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::request::ReplayStatus;
use crate::wire;

/// Of an accepted request, as it was understood: where the log's record has another, another body counts.
const REQUEST_SHA256: HeaderName = HeaderName::from_static("resaga-request-sha256");

pub async fn submit(State(api): State<ApiState>, headers: HeaderMap, Document(body): Document) -> Answer {
    let key = headers.get("idempotency-key").map(|key| std::str::from_utf8(key.as_bytes()));
    let key = key.transpose().map_err(|_| Problem::invalid("Idempotency-Key must be UTF-8"))?;
    let answer = api.replays.submit(&body, key.filter(|key| !key.is_empty())).await?;
    let text = json::submitted(&answer);
    let SubmitAnswer::Accepted { request_sha256, .. } = answer else { return Ok(json_text(StatusCode::OK, text)) };
    let sha256 = HeaderValue::from_str(&request_sha256).map_err(|e| Error::bug(format!("answer a post: its hash: {e}")))?;
    let mut accepted = json_text(StatusCode::ACCEPTED, text);
    accepted.headers_mut().insert(REQUEST_SHA256, sha256);
    Ok(accepted)
}

pub async fn list(State(api): State<ApiState>, query: Query) -> Answer {
    let (since, until) = query.window()?;
    let status = |text: &str| ReplayStatus::parse(text).ok_or_else(|| Problem::invalid("status must be one of the replay log's"));
    let filter = ReplayFilter {
        statuses: query.all("status").map(status).collect::<Result<_, _>>()?,
        saga_id: query.one("saga_id")?.map(SagaId::from),
        request_id: query.text("request_id")?,
        batch_id: query.text("batch_id")?,
        requested_by: query.text("requested_by")?,
        since,
        until,
    };
    let page = api.replays.list(&filter, query.one("after")?, query.limit()?).await?;
    Ok(json_text(StatusCode::OK, json::records(&page.records, page.next.as_deref())))
}

pub async fn get(State(api): State<ApiState>, Id(replay_id): Id) -> Answer {
    let record = api.replays.get(&replay_id).await?;
    let record = record.ok_or_else(|| Error::refused("replay_not_found", "the replay log has no replay of this id"))?;
    Ok(json_text(StatusCode::OK, json::record(&record)))
}

pub async fn cancel(State(api): State<ApiState>, Id(replay_id): Id, Document(body): Document) -> Answer {
    let (requested_by, reason) = who_and_why(&body)?;
    let cancel = api.replays.cancel(&replay_id, &requested_by, &reason).await.map_err(too_late)?;
    Ok(json_text(StatusCode::ACCEPTED, json::cancelled(&cancel)))
}

pub async fn undo(State(api): State<ApiState>, Id(replay_id): Id, Document(body): Document) -> Answer {
    let (requested_by, reason) = who_and_why(&body)?;
    let undo = api.replays.undo(&replay_id, &requested_by, &reason).await.map_err(too_late)?;
    Ok(json_text(StatusCode::ACCEPTED, json::cancelled(&undo)))
}

/// Understood, and not possible as the replay is: a conflict.
fn too_late(error: Error) -> Problem {
    match error {
        Error::Refused { code: "request_invalid", message } => Problem::new(StatusCode::CONFLICT, "request_invalid", message),
        other => other.into(),
    }
}

/// `{requested_by, reason}`, both required.
fn who_and_why(body: &[u8]) -> Result<(String, String), Problem> {
    let object = wire::json::read_object(body, wire::json::MAX_DEPTH);
    let object =
        object.map_err(|e| Problem::invalid(format!("the body must be a JSON object with requested_by and reason: {e}")))?;
    const MEMBERS: [&str; 2] = ["requested_by", "reason"];
    if let Some((unknown, _)) = object.members().into_iter().find(|(name, _)| !MEMBERS.contains(name)) {
        return Err(Problem::unknown("member", unknown, MEMBERS));
    }
    let text = |name: &str| {
        let value = object.get(name).and_then(|value| value.string()).filter(|text| !text.is_empty());
        value.map(|text| text.into_owned()).ok_or_else(|| Problem::invalid(format!("{name} is required, as text")))
    };
    Ok((text("requested_by")?, text("reason")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calling_off_needs_who_and_why() {
        let read = who_and_why(br#"{"requested_by":"sam","reason":"x"}"#);
        assert_eq!(read, Ok(("sam".into(), "x".into())));
        for wrong in [
            &br#"{"requested_by":"sam"}"#[..],
            br#"{"requested_by":"sam","reason":""}"#,
            br#"{"requested_by":1,"reason":"x"}"#,
            br#"{"requested_by":"sam","reason":"x","resaon":"y"}"#,
            b"[]",
            b"",
        ] {
            assert_eq!(who_and_why(wrong).expect_err("refused").code, "request_invalid");
        }
    }
}
