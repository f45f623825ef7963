//! Routes of one saga: its state, context, history, differences, checkpoints, lineage and replays.

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;

use super::api_state::ApiState;
use super::json;
use super::problem::{Answer, Problem, json_text};
use super::query::{Id, Query};
use crate::cpu;
use crate::error::Error;
use crate::history::answer::{PointInTime, StateAnswer};
use crate::saga::position::SagaId;
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::time::Micros;

/// `at` or `sequence`, not both.
fn when(query: &Query) -> Result<PointInTime, Problem> {
    match (query.time("at")?, query.number("sequence")?) {
        (None, None) => Ok(PointInTime::Newest),
        (Some(at), None) => Ok(PointInTime::At(at)),
        (None, Some(sequence)) => Ok(PointInTime::Sequence(sequence)),
        (Some(_), Some(_)) => Err(Problem::invalid("at and sequence exclude each other")),
    }
}

/// A time, or the sequence of an entry.
fn point(query: &Query, name: &str) -> Result<PointInTime, Problem> {
    match query.one(name)? {
        None => Err(Problem::invalid(format!("{name} is missing: a time or an entry's sequence"))),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            query.number(name).map(|sequence| PointInTime::Sequence(sequence.unwrap_or_default()))
        }
        Some(_) => query.time(name).map(|at| at.map_or(PointInTime::Newest, PointInTime::At)),
    }
}

fn asked(when: PointInTime) -> Option<Micros> {
    match when {
        PointInTime::At(at) => Some(at),
        PointInTime::Newest | PointInTime::Sequence(_) => None,
    }
}

/// Looks a state up, and counts how that went.
async fn look_up(api: &ApiState, saga: &SagaId, when: PointInTime) -> Result<StateAnswer, Error> {
    let began = Instant::now();
    let found = api.history.state(saga, when).await;
    let (source, result) = match &found {
        Ok(found) => (found.source.as_str(), "found"),
        Err(Error::Refused { .. }) => ("none", "not_found"),
        Err(_) => ("none", "error"),
    };
    api.health.metrics.state_queries.with_label_values(&[source, result]).inc();
    api.health.metrics.state_query_duration.with_label_values(&[source]).observe(began.elapsed().as_secs_f64());
    if let Ok(found) = &found {
        api.health.metrics.state_query_events_folded.observe(found.folded as f64);
    }
    found
}

pub async fn state(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let when = when(&query)?;
    let found = look_up(&api, &id.saga()?, when).await?;
    Ok(json_text(StatusCode::OK, json::state(&found, asked(when))))
}

pub async fn context(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let when = when(&query)?;
    let pointer = query.one("pointer")?.unwrap_or_default();
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(Problem::invalid("pointer must be a JSON pointer (RFC 6901): empty, or begin with /"));
    }
    let value = api.history.context(&id.saga()?, when, pointer).await?;
    Ok(json_text(StatusCode::OK, json::value(&value)))
}

pub async fn history(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let ((since, until), limit) = (query.window()?, query.limit()?);
    let page = api.history.page(&id.saga()?, since, until, query.one("after")?, limit).await?;
    Ok(json_text(StatusCode::OK, json::page(&page)))
}

pub async fn diff(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let saga = id.saga()?;
    let (first, from, second, to) = match query.text("other")? {
        None => (saga.clone(), point(&query, "from")?, saga, point(&query, "to")?),
        Some(other) if query.one("from")?.is_none() && query.one("to")?.is_none() => {
            (saga, PointInTime::Newest, Id(other).saga()?, PointInTime::Newest)
        }
        Some(_) => return Err(Problem::invalid("other excludes from and to")),
    };
    let (old, new) = (look_up(&api, &first, from).await?, look_up(&api, &second, to).await?);
    // Two trees, which take many times their texts.
    let text = cpu::long(|| json::difference((&old, asked(from)), (&new, asked(to)))).await;
    Ok(json_text(StatusCode::OK, text))
}

pub async fn checkpoints(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let limit = query.limit()?;
    let found = api.history.checkpoints(&id.saga()?, query.one("after")?, limit).await?;
    Ok(json_text(StatusCode::OK, json::checkpoints(&found)))
}

pub async fn lineage(State(api): State<ApiState>, id: Id) -> Answer {
    let saga = id.saga()?;
    let replays = api.replays.clone();
    let children = move |saga: SagaId| {
        let replays = replays.clone();
        let children: futures::future::BoxFuture<'static, _> = Box::pin(async move { replays.children(&saga).await });
        children
    };
    let root = api.history.lineage(&saga, &children).await?;
    Ok(json_text(StatusCode::OK, json::lineage(&root)))
}

pub async fn replays(State(api): State<ApiState>, id: Id, query: Query) -> Answer {
    let (saga, limit) = (id.saga()?, query.limit()?);
    let filter = ReplayFilter { saga_id: Some(saga.clone()), ..ReplayFilter::default() };
    let page = api.replays.list(&filter, query.one("after")?, limit).await?;
    if page.records.is_empty() && query.one("after")?.is_none() {
        // Distinguishes a saga without replays from no saga.
        look_up(&api, &saga, PointInTime::Newest).await?;
    }
    Ok(json_text(StatusCode::OK, json::records(&page.records, page.next.as_deref())))
}
