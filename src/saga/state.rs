//! The state of a saga: what folding its entries gives. Maps and lists keep the order the facts came in.

use super::event::{ErrorInfo, Kind, StepEvent};
use super::json::Json;
use super::labels::Labels;
use super::lineage::Lineage;
use super::position::{EntrySequence, Position, SagaId};
use super::time::Micros;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Running,
    Compensating,
    Completed,
    Failed,
    Compensated,
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Completed, Self::Failed, Self::Compensated, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Compensated => "compensated",
            Self::Cancelled => "cancelled",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Running | Self::Compensating)
    }
}

/// A fact that did not fit; counted, shown in the state, never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    ClockAhead,
    Late,
    OutOfOrder,
    Gap,
    NoStart,
    AfterEnd,
    StateTooLarge,
    LogGap,
    Moved,
    /// Of a reader's answer, never of an entry: the saga has events in more than one partition.
    PartitionConflict,
}

impl Anomaly {
    pub const ALL: [Self; 10] = [
        Self::ClockAhead,
        Self::Late,
        Self::OutOfOrder,
        Self::Gap,
        Self::NoStart,
        Self::AfterEnd,
        Self::StateTooLarge,
        Self::LogGap,
        Self::Moved,
        Self::PartitionConflict,
    ];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClockAhead => "clock_ahead",
            Self::Late => "late",
            Self::OutOfOrder => "out_of_order",
            Self::Gap => "gap",
            Self::NoStart => "no_start",
            Self::AfterEnd => "after_end",
            Self::StateTooLarge => "state_too_large",
            Self::LogGap => "log_gap",
            Self::Moved => "moved",
            Self::PartitionConflict => "partition_conflict",
        }
    }
}

/// The entry a state is the fold up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRef {
    pub sequence: EntrySequence,
    pub event_id: String,
    pub kind: Kind,
    pub effective_time: Micros,
    pub recorded_time: Micros,
    pub position: Position,
}

/// What folding a saga's entries gives (docs/interface/events.md, State), without the members that say how it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub saga_id: SagaId,
    pub saga_name: String,
    pub saga_version: Option<String>,
    pub status: Status,
    /// Step and its index, in order of start; `current_step` is the last.
    pub running_steps: Vec<(String, Option<i64>)>,
    pub completed_steps: Vec<String>,
    pub skipped_steps: Vec<String>,
    pub compensated_steps: Vec<String>,
    /// Step and its error; `failed_step` is the last.
    pub failed_steps: Vec<(String, Option<Box<ErrorInfo>>)>,
    /// The error that an end gave; a later STEP_STARTED clears it.
    pub end_error: Option<Box<ErrorInfo>>,
    pub compensation_failed_step: Option<String>,
    pub compensation_error: Option<Box<ErrorInfo>>,
    pub attempts: Vec<(String, i64)>,
    pub results: Vec<(String, Json)>,
    /// A JSON object.
    pub context: Json,
    pub started_at: Micros,
    pub ended_at: Option<Micros>,
    pub tenant: Option<String>,
    pub region: Option<String>,
    pub labels: Labels,
    pub lineage: Option<Box<Lineage>>,
    /// Distinct, in order of first occurrence.
    pub anomalies: Vec<Anomaly>,
    /// Sequence of the newest entry that is a snapshot.
    pub snapshot: Option<EntrySequence>,
    /// The newest entry; its effective time is `updated_at`.
    pub entry: EntryRef,
}

impl State {
    /// Bytes of what events may make large without end, as `[limits] max_state` counts them: the context, results and
    /// errors with the names of their steps, labels.
    pub fn size(&self) -> usize {
        let results = self.results.iter().map(|(step, result)| step.len() + result.len());
        let failed = self.failed_steps.iter().map(|(step, error)| step.len() + error_size(error.as_deref()));
        let errors = error_size(self.end_error.as_deref()) + error_size(self.compensation_error.as_deref());
        self.context.len() + results.sum::<usize>() + failed.sum::<usize>() + errors + labels_size(&self.labels)
    }
}

impl StepEvent {
    /// No less than what the event adds to [`State::size`], its context aside.
    pub(super) fn most_added(&self) -> usize {
        let step = self.step.as_ref().map_or(0, String::len);
        // An error may become the step's and the end's.
        let own = 2 * step + self.result.as_ref().map_or(4, Json::len) + 2 * error_size(self.error.as_deref());
        let restored = self.restored.as_ref().map_or(0, |restored| {
            let results = restored.results.iter().map(|(step, result)| step.len() + result.len());
            results.sum::<usize>() + labels_size(&restored.labels)
        });
        own + self.labels.as_ref().map_or(0, labels_size) + restored
    }
}

/// Bytes of an error's texts.
pub fn error_size(error: Option<&ErrorInfo>) -> usize {
    error.map_or(0, |ErrorInfo { code, kind, message, details }| {
        let texts = [code, kind, message].into_iter().flatten().map(String::len);
        texts.sum::<usize>() + details.as_ref().filter(|details| !details.is_null()).map_or(0, Json::len)
    })
}

fn labels_size(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}
