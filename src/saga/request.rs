//! Replay requests, as domain values (docs/interface/requests.md). Reading and writing them is `wire`'s work.

use super::batch::{BatchControl, BatchOrder};
use super::json::Json;
use super::labels::Labels;
use super::lineage::Mode;
pub use super::log_record::{CommandName, LogRecord, ReplayStatus};
use super::position::SagaId;
use super::schedule::ScheduleOrder;
use super::schedule::member::ScheduleMember;
use super::time::Micros;

/// Where a replay starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Step { step: String, attempt: Option<i64> },
    AfterStep(String),
    At(Micros),
    Sequence(u64),
    Checkpoint(String),
    Start,
    Latest,
}

/// Changes the checkpoint's context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// RFC 7396.
    Merge(Json),
    /// Top-level keys replaced, null is a value.
    Shallow(Json),
    /// RFC 6902.
    Patch(Json),
    Replace(Json),
    /// An expression of jq, as a text; it gives the context.
    Jq(Json),
}

/// What one replay of a batch has besides the members of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMember {
    pub batch_id: String,
    /// When the batch, or its retry, was recorded: counts as the time of this request.
    pub accepted_at: Micros,
    /// Applied after the request's override.
    pub own_override: Option<Override>,
    /// What an expression sees as `$item`: the saga's member of `overrides`.
    pub item: Option<Json>,
    /// SHA-256 (lower-case hex) of the override's bytes as received.
    pub own_override_sha256: Option<String>,
    /// The plan that is run refused this saga, or its override is missing: it is refused with this, whatever it would meet now.
    pub refusal: Option<Refusal>,
}

/// What is asked of a schedule that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleControl {
    Enable,
    Disable,
    Cancel,
}

/// `force_failure` of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForceFailure {
    /// `true`: the resume step.
    ResumeStep,
    Step(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfCompensated {
    #[default]
    Refuse,
    Keep,
    Rerun,
}

/// What one replay is to do; a member of every REPLAY and, later, of batches and schedules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayOrder {
    pub saga_id: SagaId,
    pub from: From,
    /// The request's `from` as received, for the log.
    pub from_text: Json,
    pub override_: Option<Override>,
    /// SHA-256 (lower-case hex) of the override's bytes as received.
    pub override_sha256: Option<String>,
    pub force_failure: Option<ForceFailure>,
    pub mode: Mode,
    pub dry_run: bool,
    pub allow_running: bool,
    pub allow_repeat: bool,
    pub allow_completed: bool,
    pub if_compensated: IfCompensated,
    pub saga_version: Option<String>,
    pub target: Option<String>,
    pub new_saga_id: Option<SagaId>,
    pub not_before: Option<Micros>,
    pub expires_at: Option<Micros>,
    /// Of a replay of a batch.
    pub member: Option<Box<BatchMember>>,
    /// Of a replay that a schedule asked for.
    pub schedule: Option<Box<ScheduleMember>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Replay(Box<ReplayOrder>),
    Cancel {
        saga_id: SagaId,
        replay_id: String,
    },
    /// Asks the restored saga of a replay to compensate what it did.
    Undo {
        saga_id: SagaId,
        replay_id: String,
        /// Of an undo of a whole batch.
        batch_id: Option<String>,
    },
    /// The restored saga `saga_id` (or the one that carries it out, `executed_as`) of `replay_id` ended with `status`
    /// at its entry `sequence`. Written by materialize only.
    Outcome(Outcome),
    Batch(Box<BatchOrder>),
    BatchControl {
        batch_id: String,
        control: Box<BatchControl>,
    },
    Schedule(Box<ScheduleOrder>),
    ScheduleControl {
        schedule_id: String,
        control: ScheduleControl,
    },
    /// Wrong in a member: refused `request_invalid`.
    Invalid {
        command: CommandName,
        saga_id: Option<SagaId>,
        /// Of UNDO.
        replay_id: Option<String>,
        /// Names the field and the remedy, never a value.
        message: String,
    },
}

/// How a restored saga ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub replay_id: String,
    /// The original saga: the key of the record.
    pub original_saga_id: SagaId,
    /// The saga that ended: the restored saga or the one that carried it out.
    pub ended_saga_id: SagaId,
    /// completed, failed, compensated or cancelled.
    pub status: super::state::Status,
    pub sequence: u64,
    pub ended_at: Micros,
}

/// A request as read from the requests topic or an HTTP body.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayRequest {
    pub request_id: String,
    pub command: Command,
    pub requested_by: String,
    pub reason: String,
    pub labels: Labels,
    /// SHA-256 (lower-case hex) of the request in its canonical form, so that JSON and Avro, and an HTTP body and
    /// its record, agree.
    pub sha256: String,
    /// The whole request as JSON, for the log while it waits.
    pub json: Json,
}

/// Why a request is refused: a stable code (docs/interface/requests.md, Refusals), and a text that holds no value of the saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
