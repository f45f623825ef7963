//! Routes of schedules.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::api_state::ApiState;
use super::json;
use super::problem::{Answer, Problem, json_text};
use super::query::{Document, Id, Query};
use crate::error::Error;
use crate::saga::request::CommandName;

pub async fn submit(State(api): State<ApiState>, headers: HeaderMap, Document(body): Document) -> Answer {
    let key = headers.get("idempotency-key").map(|key| std::str::from_utf8(key.as_bytes()));
    let key = key.transpose().map_err(|_| Problem::invalid("Idempotency-Key must be UTF-8"))?;
    let schedule_id = api.schedules.submit(&body, key.filter(|key| !key.is_empty())).await?;
    Ok(json_text(StatusCode::ACCEPTED, json::schedule_accepted(&schedule_id)))
}

pub async fn list(State(api): State<ApiState>) -> Answer {
    Ok(json_text(StatusCode::OK, json::schedules(&api.schedules.list().await?)))
}

pub async fn get(State(api): State<ApiState>, Id(schedule_id): Id) -> Answer {
    Ok(json_text(StatusCode::OK, json::schedule(&api.schedules.get(&schedule_id).await?)))
}

pub async fn preview(State(api): State<ApiState>, query: Query, Document(body): Document) -> Answer {
    let page = api.schedules.preview(&body, query.one("after")?, query.limit()?).await?;
    Ok(json_text(StatusCode::OK, json::preview(&page)))
}

async fn control(api: ApiState, schedule_id: &str, command: CommandName, body: &[u8]) -> Answer {
    let schedule = api.schedules.control(schedule_id, command, body).await.map_err(|error| match error {
        // Understood, and not possible as the schedule is.
        Error::Refused { code: "request_invalid", message } => Problem::new(StatusCode::CONFLICT, "request_invalid", message),
        other => other.into(),
    })?;
    Ok(json_text(StatusCode::ACCEPTED, json::schedule(&schedule)))
}

pub async fn cancel(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::ScheduleCancel, &body).await
}

pub async fn enable(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::ScheduleEnable, &body).await
}

pub async fn disable(State(api): State<ApiState>, Id(id): Id, Document(body): Document) -> Answer {
    control(api, &id, CommandName::ScheduleDisable, &body).await
}
