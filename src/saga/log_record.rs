//! The replay log, as domain values (docs/interface/replay-log.md). Reading and writing it is `wire`'s work.

use super::batch_progress::BatchProgress;
use super::json::Json;
use super::lineage::Mode;
use super::position::{Position, SagaId};
use super::restored::CheckpointRef;
use super::schedule::progress::ScheduleProgress;
use super::state::Status;
use super::time::Micros;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandName {
    Replay,
    Undo,
    Cancel,
    Batch,
    BatchPause,
    BatchResume,
    BatchCancel,
    BatchRetryFailed,
    Schedule,
    ScheduleCancel,
    /// Internal: a restored saga ended.
    Outcome,
    BatchUndo,
    ScheduleEnable,
    ScheduleDisable,
}

impl CommandName {
    pub const ALL: [Self; 14] = [
        Self::Replay,
        Self::Undo,
        Self::Cancel,
        Self::Batch,
        Self::BatchPause,
        Self::BatchResume,
        Self::BatchCancel,
        Self::BatchRetryFailed,
        Self::Schedule,
        Self::ScheduleCancel,
        Self::Outcome,
        Self::BatchUndo,
        Self::ScheduleEnable,
        Self::ScheduleDisable,
    ];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "REPLAY",
            Self::Undo => "UNDO",
            Self::Cancel => "CANCEL",
            Self::Batch => "BATCH",
            Self::BatchPause => "BATCH_PAUSE",
            Self::BatchResume => "BATCH_RESUME",
            Self::BatchCancel => "BATCH_CANCEL",
            Self::BatchRetryFailed => "BATCH_RETRY_FAILED",
            Self::Schedule => "SCHEDULE",
            Self::ScheduleCancel => "SCHEDULE_CANCEL",
            Self::Outcome => "OUTCOME",
            Self::BatchUndo => "BATCH_UNDO",
            Self::ScheduleEnable => "SCHEDULE_ENABLE",
            Self::ScheduleDisable => "SCHEDULE_DISABLE",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayStatus {
    Accepted,
    Published,
    Refused,
    DryRun,
    Cancelled,
    Completed,
    Failed,
    Compensated,
    SagaCancelled,
    Undoing,
    Undone,
    UndoFailed,
}

impl ReplayStatus {
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::Published,
        Self::Refused,
        Self::DryRun,
        Self::Cancelled,
        Self::Completed,
        Self::Failed,
        Self::Compensated,
        Self::SagaCancelled,
        Self::Undoing,
        Self::Undone,
        Self::UndoFailed,
    ];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Published => "published",
            Self::Refused => "refused",
            Self::DryRun => "dry_run",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
            Self::SagaCancelled => "saga_cancelled",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Of a replay whose restored saga ended like this.
    pub fn of_end(status: Status) -> Self {
        match status {
            Status::Completed => Self::Completed,
            Status::Compensated => Self::Compensated,
            Status::Cancelled => Self::SagaCancelled,
            Status::Failed | Status::Running | Status::Compensating => Self::Failed,
        }
    }
}

/// One record of the replay log: the whole current truth about one replay.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub replay_id: String,
    pub request_id: String,
    pub request_sha256: String,
    pub batch_id: Option<String>,
    pub schedule_id: Option<String>,
    pub command: CommandName,
    pub original_saga_id: Option<SagaId>,
    pub new_saga_id: Option<SagaId>,
    pub from: Option<Json>,
    pub override_sha256: Option<String>,
    pub force_failure: Option<String>,
    pub mode: Option<Mode>,
    pub dry_run: bool,
    pub requested_by: String,
    pub reason: String,
    pub checkpoint: Option<CheckpointRef>,
    pub resume_step: Option<String>,
    pub compensated_since: Vec<String>,
    /// JSON pointers that the override changed.
    pub changed: Vec<String>,
    pub executed_as: Option<SagaId>,
    pub status: ReplayStatus,
    pub code: Option<String>,
    pub message: Option<String>,
    /// The request record's timestamp.
    pub accepted_at: Micros,
    pub published_at: Option<Micros>,
    pub ended_at: Option<Micros>,
    pub outcome: Option<String>,
    /// Entry sequence of the end that `outcome` came from; a lower one changes nothing. On the topic only.
    pub outcome_sequence: Option<u64>,
    pub undone_by: Option<String>,
    /// Of the request.
    pub position: Position,
    /// The whole request while `accepted`; on the topic only, never in answers.
    pub request: Option<Json>,
    /// Of a batch, or a retry of one: how far it is. Beside the value on the topic, never in answers.
    pub batch_progress: Option<Box<BatchProgress>>,
    /// Of a schedule: what it is and how far. Beside the value on the topic, never in answers.
    pub schedule_progress: Option<Box<ScheduleProgress>>,
}

impl LogRecord {
    /// Every saga that it names: the original, the restored one, and the one it runs as.
    pub fn sagas(&self) -> impl Iterator<Item = &SagaId> {
        [&self.original_saga_id, &self.new_saga_id, &self.executed_as].into_iter().flatten()
    }

    /// Is it a replay that another one of the same saga must not repeat unasked: accepted, published or completed, no dry run and
    /// none with a forced failure?
    pub fn stands(&self) -> bool {
        let status = matches!(self.status, ReplayStatus::Accepted | ReplayStatus::Published | ReplayStatus::Completed);
        status && self.command == CommandName::Replay && !self.dry_run && !self.is_forced()
    }

    /// Is it a policy that was disabled, cancelled, or stopped itself?
    pub fn is_stopped_policy(&self) -> bool {
        let progress = self.schedule_progress.as_ref().filter(|progress| !progress.enabled);
        progress.is_some_and(|progress| progress.definition.to_value().get("policy").is_some_and(|policy| !policy.is_null()))
    }

    /// Has it a forced failure? While it waits the step may not be known yet, but that it was asked for is.
    pub fn is_forced(&self) -> bool {
        let asked = |request: &Json| match request.to_value().get("force_failure") {
            Some(asked) => !matches!(asked, serde_json::Value::Null | serde_json::Value::Bool(false)),
            None => false,
        };
        self.force_failure.is_some() || self.request.as_ref().is_some_and(asked)
    }
}
