//! How far a batch is, as its log record keeps it, and the limits that it goes by. Pure.

/// Limits of a batch; `None`: none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BatchLimits {
    pub rate_per_second: Option<f64>,
    /// Replays requested and not ended.
    pub max_in_flight: Option<u64>,
    /// With more failures than this it pauses.
    pub max_failures: Option<MaxFailures>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailures {
    Count(u64),
    /// Of all sagas of the batch.
    Percent(f64),
}

impl MaxFailures {
    pub fn is_exceeded(self, failures: u64, total: u64) -> bool {
        match self {
            Self::Count(most) => failures > most,
            Self::Percent(most) => failures as f64 * 100.0 > most * total as f64,
        }
    }
}

/// Names a frozen list, and what it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRef {
    pub list_id: String,
    pub digest: String,
    pub total: u64,
}

/// How far a batch, or a retry of it, is; kept with its record in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchProgress {
    /// Its batch: of a retry another one's id.
    pub batch_id: String,
    pub name: Option<String>,
    /// `None`: not frozen yet.
    pub list: Option<ListRef>,
    /// Rows of the list whose requests are written.
    pub expanded: u64,
    pub limits: BatchLimits,
    pub paused: Option<PauseReason>,
    /// Failures that there were when it was last resumed: those do not pause it again.
    pub failures_before: u64,
    /// Of the batch: no request of it is carried out any more.
    pub is_cancelled: bool,
}

impl BatchProgress {
    pub fn new(batch_id: &str, name: Option<String>, limits: BatchLimits) -> Self {
        Self {
            batch_id: batch_id.to_owned(),
            name,
            list: None,
            expanded: 0,
            limits,
            paused: None,
            failures_before: 0,
            is_cancelled: false,
        }
    }

    pub fn total(&self) -> u64 {
        self.list.as_ref().map_or(0, |list| list.total)
    }

    /// Has every saga of it its request?
    pub fn is_expanded(&self) -> bool {
        self.list.as_ref().is_some_and(|list| self.expanded >= list.total)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    Requested,
    MaxFailures,
}

impl PauseReason {
    pub const ALL: [Self; 2] = [Self::Requested, Self::MaxFailures];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::MaxFailures => "max_failures",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
