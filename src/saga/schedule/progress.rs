//! How far a schedule is, as its log record keeps it. Pure.

use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleProgress {
    /// What was asked for: the member `schedule` of the request.
    pub definition: Json,
    pub enabled: bool,
    pub stopped_because: Option<StopReason>,
    /// It was recorded, or enabled last, then: what came before is not its concern.
    pub since: Micros,
    pub last_due: Option<Micros>,
    /// Requests that it made.
    pub runs: u64,
    /// Of a policy: up to where each history was looked at.
    pub scanned: Vec<(ChainId, Offset)>,
}

impl ScheduleProgress {
    pub fn new(definition: Json, since: Micros) -> Self {
        Self { definition, enabled: true, stopped_because: None, since, last_due: None, runs: 0, scanned: Vec::new() }
    }

    /// Due times after this count.
    pub fn due_after(&self) -> Micros {
        self.last_due.unwrap_or(self.since).max(self.since)
    }

    /// As from now on.
    pub fn enabled_at(&self, at: Micros) -> Self {
        Self { enabled: true, stopped_because: None, since: at.max(self.since), scanned: Vec::new(), ..self.clone() }
    }

    pub fn stopped(&self, because: StopReason) -> Self {
        Self { enabled: false, stopped_because: Some(because), ..self.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// By SCHEDULE_DISABLE.
    Disabled,
    /// By SCHEDULE_CANCEL.
    Cancelled,
    /// Too many of a policy's replays did not complete.
    StopRatio,
}

impl StopReason {
    pub const ALL: [Self; 3] = [Self::Disabled, Self::Cancelled, Self::StopRatio];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Cancelled => "cancelled",
            Self::StopRatio => "stop_ratio",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
