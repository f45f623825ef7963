//! Routes of batches.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::api_state::ApiState;
use super::batch_service::{BatchFilter, BatchSubmitted};
use super::json;
use super::problem::{Answer, Problem, json_text};
use super::query::{Document, Id, Query};
use crate::error::Error;
use crate::saga::batch_counts::BatchStatus;
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::request::{CommandName, ReplayStatus};

/// Bytes of a batch's body: 100,000 sagas with an override each have some 20 MB.
pub const MAX_BODY: usize = 64 << 20;

pub async fn submit(State(api): State<ApiState>, headers: HeaderMap, Document(body): Document) -> Answer {
    let key = headers.get("idempotency-key").map(|key| std::str::from_utf8(key.as_bytes()));
    let key = key.transpose().map_err(|_| Problem::invalid("Idempotency-Key must be UTF-8"))?;
    Ok(match api.batches.submit(&body, key.filter(|key| !key.is_empty())).await? {
        BatchSubmitted::OnItsWay { batch_id } => json_text(StatusCode::ACCEPTED, json::batch_accepted(&batch_id)),
        BatchSubmitted::Planned(plan) => json_text(StatusCode::OK, json::plan(&plan)),
    })
}

pub async fn plan(State(api): State<ApiState>, Id(plan_id): Id, query: Query) -> Answer {
    let plan = api.batches.plan(&plan_id, query.one("after")?, query.limit()?).await?;
    Ok(json_text(StatusCode::OK, json::plan(&plan)))
}

pub async fn list(State(api): State<ApiState>, query: Query) -> Answer {
    let status = |text: &str| {
        let must = || format!("status must be one of {}", BatchStatus::ALL.map(BatchStatus::as_str).join(", "));
        BatchStatus::parse(text).ok_or_else(|| Problem::invalid(must()))
    };
    let filter = BatchFilter {
        statuses: query.all("status").map(status).collect::<Result<_, _>>()?,
        requested_by: query.text("requested_by")?,
    };
    let page = api.batches.list(&filter, query.one("after")?, query.limit()?).await?;
    Ok(json_text(StatusCode::OK, json::batches(&page)))
}

pub async fn get(State(api): State<ApiState>, Id(batch_id): Id) -> Answer {
    Ok(json_text(StatusCode::OK, json::batch(&api.batches.get(&batch_id).await?)))
}

pub async fn replays(State(api): State<ApiState>, Id(batch_id): Id, query: Query) -> Answer {
    let status = |text: &str| ReplayStatus::parse(text).ok_or_else(|| Problem::invalid("status must be one of the replay log's"));
    api.batches.get(&batch_id).await?;
    let filter = ReplayFilter {
        statuses: query.all("status").map(status).collect::<Result<_, _>>()?,
        batch_id: Some(batch_id),
        ..ReplayFilter::default()
    };
    let page = api.replays.list(&filter, query.one("after")?, query.limit()?).await?;
    Ok(json_text(StatusCode::OK, json::records(&page.records, page.next.as_deref())))
}

async fn control(api: ApiState, batch_id: &str, command: CommandName, body: &[u8]) -> Answer {
    let batch = api.batches.control(batch_id, command, body).await.map_err(|error| match error {
        // Understood, and not possible as the batch is.
        Error::Refused { code: "request_invalid", message } => Problem::new(StatusCode::CONFLICT, "request_invalid", message),
        other => other.into(),
    })?;
    Ok(json_text(StatusCode::ACCEPTED, json::batch(&batch)))
}

pub async fn pause(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::BatchPause, &body).await
}

pub async fn resume(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::BatchResume, &body).await
}

pub async fn cancel(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::BatchCancel, &body).await
}

pub async fn undo(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::BatchUndo, &body).await
}

pub async fn retry_failed(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::BatchRetryFailed, &body).await
}
