//! The state of a saga: what folding its entries gives. Maps and lists keep the order the facts came in.

use super::event::{ErrorInfo, Kind, Labels};
use super::json::Json;
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
}

impl Anomaly {
    pub const ALL: [Self; 9] = [
        Self::ClockAhead,
        Self::Late,
        Self::OutOfOrder,
        Self::Gap,
        Self::NoStart,
        Self::AfterEnd,
        Self::StateTooLarge,
        Self::LogGap,
        Self::Moved,
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
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|anomaly| anomaly.as_str() == text)
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

/// What folding a saga's entries gives (INTERFACE 2, "State"), without the members that say how it was looked up.
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
