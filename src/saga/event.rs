//! A step event: a fact about one saga, as it came from a step topic (docs/interface/events.md).

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::labels::Labels;
use super::lineage::Lineage;
use super::position::SagaId;
use super::restored::RestoredSaga;
use super::time::Micros;

/// What a step event says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    SagaStarted,
    StepStarted,
    StepCompleted,
    StepFailed,
    StepSkipped,
    CompensationStarted,
    StepCompensated,
    CompensationFailed,
    ContextUpdated,
    Checkpoint,
    SagaCompleted,
    SagaFailed,
    SagaCompensated,
    SagaCancelled,
    SagaRestored,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::SagaStarted,
        Self::StepStarted,
        Self::StepCompleted,
        Self::StepFailed,
        Self::StepSkipped,
        Self::CompensationStarted,
        Self::StepCompensated,
        Self::CompensationFailed,
        Self::ContextUpdated,
        Self::Checkpoint,
        Self::SagaCompleted,
        Self::SagaFailed,
        Self::SagaCompensated,
        Self::SagaCancelled,
        Self::SagaRestored,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SagaStarted => "SAGA_STARTED",
            Self::StepStarted => "STEP_STARTED",
            Self::StepCompleted => "STEP_COMPLETED",
            Self::StepFailed => "STEP_FAILED",
            Self::StepSkipped => "STEP_SKIPPED",
            Self::CompensationStarted => "COMPENSATION_STARTED",
            Self::StepCompensated => "STEP_COMPENSATED",
            Self::CompensationFailed => "COMPENSATION_FAILED",
            Self::ContextUpdated => "CONTEXT_UPDATED",
            Self::Checkpoint => "CHECKPOINT",
            Self::SagaCompleted => "SAGA_COMPLETED",
            Self::SagaFailed => "SAGA_FAILED",
            Self::SagaCompensated => "SAGA_COMPENSATED",
            Self::SagaCancelled => "SAGA_CANCELLED",
            Self::SagaRestored => "SAGA_RESTORED",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Kinds whose event must name a step.
    pub fn needs_step(self) -> bool {
        matches!(
            self,
            Self::StepStarted
                | Self::StepCompleted
                | Self::StepSkipped
                | Self::StepFailed
                | Self::StepCompensated
                | Self::CompensationFailed
                | Self::Checkpoint
        )
    }

    /// Kinds that may be a failure: see [`super::failure`].
    pub fn is_failure(self) -> bool {
        matches!(self, Self::StepFailed | Self::SagaFailed | Self::CompensationFailed)
    }

    /// Kinds that end a saga.
    pub fn is_end(self) -> bool {
        matches!(self, Self::SagaCompleted | Self::SagaFailed | Self::SagaCompensated | Self::SagaCancelled)
    }
}

/// What an event does to the context.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ContextChange {
    /// It carries none of `context`, `context_patch`, `context_set`.
    #[default]
    None,
    /// `context`: the whole context after the event.
    Full(Json),
    /// `context_patch`: an RFC 7396 merge patch of the context before.
    Patch(Json),
    /// `context_set`: top-level keys replaced, null is a value.
    Set(Json),
    /// Storage form only: the text after is the first `prefix` bytes of the text before, `middle`, and its last
    /// `suffix` bytes. Gives exactly the same text as the change it stands for.
    Splice { prefix: u32, suffix: u32, middle: Box<str> },
}

/// An error as events carry it; all four members are written, absent ones as null.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorInfo {
    pub code: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub message: Option<String>,
    /// Any JSON; absent is `None`.
    pub details: Option<Json>,
}

/// A step event after decoding and validation; everything a fold may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEvent {
    pub event_id: String,
    pub saga_id: SagaId,
    pub saga_name: String,
    pub kind: Kind,
    /// As sent, to the microsecond; absent: the record's timestamp counts.
    pub occurred_at: Option<Micros>,
    pub step: Option<String>,
    pub step_index: Option<i64>,
    pub attempt: Option<i64>,
    /// The producer's per-saga counter.
    pub sequence: Option<u64>,
    pub context: ContextChange,
    pub result: Option<Json>,
    pub error: Option<Box<ErrorInfo>>,
    pub saga_version: Option<String>,
    pub tenant: Option<String>,
    pub region: Option<String>,
    pub labels: Option<Labels>,
    /// Of SAGA_STARTED.
    pub lineage: Option<Box<Lineage>>,
    /// Of SAGA_RESTORED; its `context` is empty there (`context` of the event has it).
    pub restored: Option<Box<RestoredSaga>>,
}

impl StepEvent {
    /// With what each event must have, and nothing else.
    pub fn new(event_id: impl Into<String>, saga_id: SagaId, saga_name: &str, kind: Kind) -> Self {
        Self {
            event_id: event_id.into(),
            saga_id,
            saga_name: saga_name.into(),
            kind,
            occurred_at: None,
            step: None,
            step_index: None,
            attempt: None,
            sequence: None,
            context: ContextChange::None,
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
}
