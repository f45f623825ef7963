//! The replay log in history: each replay is kept as a saga of its own, whose context is its newest log record, through
//! the same hot and cold path as every saga (DESIGN 6.1).

use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::When;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::json::Json;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::LogRecord;
use crate::wire::log::decode_log_json;

/// The saga name of replays in history; searches for sagas leave it out.
pub const SAGA_NAME: &str = "resaga.replay";

/// U+001F: no replay's saga meets a saga of the step topics by accident.
const PREFIX: &str = "resaga.replay\u{1f}";

/// Where history keeps a replay.
pub fn saga_id(replay_id: &str) -> SagaId {
    SagaId::new(format!("{PREFIX}{replay_id}"))
}

pub fn is_replay(saga: &SagaId) -> bool {
    saga.as_str().starts_with(PREFIX)
}

/// The replay that history keeps under this id.
pub fn replay_id(saga: &SagaId) -> Option<&str> {
    saga.as_str().strip_prefix(PREFIX)
}

/// The newest record of a replay as history has it; `None`: it has none. `saga`: as [`saga_id`] gave it.
pub async fn newest(log_history: &History, saga: &SagaId) -> Result<Option<LogRecord>> {
    match log_history.state(saga, When::Newest).await {
        Ok(found) => {
            let record = decode_log_json(found.state.context.as_str().as_bytes());
            record.map(Some).map_err(|e| Error::corrupt(format!("read replay from history: {e}")))
        }
        Err(Error::Refused { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// A log record as a fact about its replay's saga. Each record is an event of its own: its place in the log names it.
pub fn as_step_event(replay_id: &str, record: Json, partition: &TopicPartition, offset: Offset) -> StepEvent {
    StepEvent {
        event_id: format!("{partition}@{offset}"),
        saga_id: saga_id(replay_id),
        saga_name: SAGA_NAME.into(),
        kind: Kind::ContextUpdated,
        occurred_at: None,
        step: None,
        step_index: None,
        attempt: None,
        sequence: None,
        context: ContextChange::Full(record),
        result: None,
        error: None,
        saga_version: None,
        tenant: None,
        region: None,
        labels: None,
        lineage: None,
        restored: None,
    }
}
