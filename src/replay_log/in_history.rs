//! The replay log in history: each replay is kept as a saga of its own, whose context is its newest log record, through
//! the same hot and cold path as every saga (docs/ARCHITECTURE.md, Stores). Beside it stands, for each saga that was replayed, an index of
//! its replays: a saga with one entry for each, whose event id is the replay's.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::history::History;
use crate::history::known::PartitionEnds;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::json::Json;
use crate::saga::position::{Offset, Position, SagaId, TopicPartition};
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::wire::log::decode_log_json;

/// The saga name of replays in history; searches for sagas leave it out.
pub const SAGA_NAME: &str = "resaga.replay";

/// U+001F: no replay's saga meets a saga of the step topics by accident.
const PREFIX: &str = "resaga.replay\u{1f}";

/// The saga name of indexes; searches for replays leave them out.
pub const INDEX_NAME: &str = "resaga.replays";
const INDEX_PREFIX: &str = "resaga.replays\u{1f}";

/// Where history keeps a replay.
pub fn saga_id(replay_id: &str) -> SagaId {
    SagaId::new(format!("{PREFIX}{replay_id}"))
}

/// The replay that history keeps under this id.
pub fn replay_id(saga: &SagaId) -> Option<&str> {
    saga.as_str().strip_prefix(PREFIX)
}

/// The newest record of a replay that history has below these ends of the log; `None`: it has none. `Unavailable`: that is
/// not known yet.
pub async fn newest(log_history: &History, replay_id: &str, ends: &PartitionEnds) -> Result<Option<LogRecord>> {
    Ok(newest_at(log_history, replay_id, ends).await?.map(|(record, _)| record))
}

/// The same, with its place in the log.
pub async fn newest_at(log_history: &History, replay_id: &str, ends: &PartitionEnds) -> Result<Option<(LogRecord, Position)>> {
    let Some(state) = log_history.state_to(&saga_id(replay_id), ends).await? else { return Ok(None) };
    let record = decode_log_json(state.context.as_str().as_bytes());
    let at = state.entry.position;
    match record {
        Ok(record) => Ok(Some((record, at))),
        Err(e) => {
            Err(Error::corrupt(format!("read replay from history: record {}[{}]@{}: {e}", at.topic, at.partition, at.offset)))
        }
    }
}

/// The replays of a saga that history has below these ends of the log, other than refused ones and dry runs, oldest first.
/// `Unavailable`: that is not known yet.
pub async fn replays_of(log_history: &History, original: &SagaId, ends: &PartitionEnds) -> Result<Vec<String>> {
    let entries = log_history.entries_to(&index_id(original), ends).await?;
    let mut seen = HashSet::new();
    Ok(entries.into_iter().map(|entry| entry.event.event_id).filter(|id| seen.insert(id.clone())).collect())
}

fn index_id(original: &SagaId) -> SagaId {
    SagaId::new(format!("{INDEX_PREFIX}{}", original.as_str()))
}

/// The entry of a log record's replay in the index of its original. The first that a replay gives stays; what comes later of
/// the same replay is a repeat.
pub fn as_index_event(record: &LogRecord) -> Option<StepEvent> {
    let made = record.command == CommandName::Replay && !record.dry_run && record.status != ReplayStatus::Refused;
    let original = record.original_saga_id.as_ref().filter(|_| made)?;
    let event = StepEvent::new(record.replay_id.clone(), index_id(original), INDEX_NAME, Kind::SagaStarted);
    Some(event)
}

/// A log record as a fact about its replay's saga. Each record is an event of its own: its place in the log names it.
pub fn as_step_event(replay_id: &str, record: Json, partition: &TopicPartition, offset: Offset) -> StepEvent {
    let event = StepEvent::new(format!("{partition}@{offset}"), saga_id(replay_id), SAGA_NAME, Kind::ContextUpdated);
    StepEvent { context: ContextChange::Full(record), ..event }
}
