//! Which sagas a search finds (the filters of `GET /v1/sagas`), and what it says about each.
//!
//! Pure matching of states and failures; where candidates come from is `history`'s work.

use super::event::{ErrorInfo, Kind};
use super::failure::SagaFailure;
use super::log_record::{CommandName, LogRecord, ReplayStatus};
use super::position::SagaId;
use super::state::{State, Status};
use super::time::Micros;

/// How the newest replay of a saga stands; refused, cancelled, dry and forced ones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayStanding {
    None,
    /// Accepted or published, and the restored saga has not ended.
    Open,
    Completed,
    /// The restored saga ended otherwise, or what it did was undone.
    Failed,
}

impl ReplayStanding {
    pub const ALL: [Self; 4] = [Self::None, Self::Open, Self::Completed, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open => "open",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == text)
    }

    /// What a record of the replay log says of its original; `None`: it does not count.
    pub fn of_record(record: &LogRecord) -> Option<Self> {
        Self::of_status(record.status).filter(|_| record.command == CommandName::Replay && !record.dry_run && !record.is_forced())
    }

    fn of_status(status: ReplayStatus) -> Option<Self> {
        match status {
            ReplayStatus::Refused | ReplayStatus::DryRun | ReplayStatus::Cancelled => None,
            ReplayStatus::Accepted | ReplayStatus::Published => Some(Self::Open),
            ReplayStatus::Completed => Some(Self::Completed),
            ReplayStatus::Failed
            | ReplayStatus::Compensated
            | ReplayStatus::SagaCancelled
            | ReplayStatus::Undoing
            | ReplayStatus::Undone
            | ReplayStatus::UndoFailed => Some(Self::Failed),
        }
    }
}

/// The filters of a search; what is `None` or empty lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SagaFilter {
    pub saga_id: Option<SagaId>,
    /// Any of these.
    pub statuses: Vec<Status>,
    pub saga_name: Option<String>,
    pub failed_step: Option<String>,
    pub compensation_failed_step: Option<String>,
    pub error_code: Option<String>,
    pub error_type: Option<String>,
    pub since: Option<Micros>,
    /// Exclusive.
    pub until: Option<Micros>,
    pub tenant: Option<String>,
    pub region: Option<String>,
    /// All of these.
    pub labels: Vec<(String, String)>,
    /// 0: originals.
    pub depth: Option<u32>,
    pub replay: Option<ReplayStanding>,
    /// Whether a saga of its lineage tree below it completed.
    pub repaired: Option<bool>,
    /// Stuck sagas alone, see [`super::stuck`].
    pub stuck: bool,
    /// Sagas restored with a forced failure too.
    pub forced: bool,
}

/// A saga that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSaga {
    pub saga_id: SagaId,
    pub saga_name: String,
    pub status: Status,
    /// With failure filters of the failure that fits, else of the state.
    pub failed_step: Option<String>,
    pub error: Option<ErrorInfo>,
    pub current_step: Option<String>,
    pub started_at: Micros,
    pub updated_at: Micros,
    pub failed_at: Option<Micros>,
    pub depth: u32,
    /// What the answer is ordered by, newest first, then by saga id: the failure's time, else the last entry's.
    pub at: Micros,
}

impl SagaFilter {
    /// Does it ask for a failure in the history?
    pub fn asks_for_failure(&self) -> bool {
        self.failed_step.is_some()
            || self.compensation_failed_step.is_some()
            || self.error_code.is_some()
            || self.error_type.is_some()
    }

    /// Are failures of compensations asked for, rather than those of steps and sagas?
    pub fn asks_for_compensation(&self) -> bool {
        self.compensation_failed_step.is_some()
    }

    pub fn in_window(&self, at: Micros) -> bool {
        self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
    }

    /// Does one failure fit all failure filters? `failed_step` and `compensation_failed_step` together fit none.
    pub fn fits_failure(
        &self,
        compensation: bool,
        step: Option<&str>,
        error_code: Option<&str>,
        error_type: Option<&str>,
        at: Micros,
    ) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        let (wanted, other) = if compensation {
            (&self.compensation_failed_step, &self.failed_step)
        } else {
            (&self.failed_step, &self.compensation_failed_step)
        };
        compensation == self.asks_for_compensation()
            && other.is_none()
            && is(wanted, step)
            && is(&self.error_code, error_code)
            && is(&self.error_type, error_type)
            && self.in_window(at)
    }

    /// Does the newest state fit the filters that ask for it? The window and failures are not looked at.
    pub fn fits_state(&self, state: &State) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let forced = state.lineage.as_ref().is_some_and(|lineage| lineage.force_failure.is_some());
        self.saga_id.as_ref().is_none_or(|id| *id == state.saga_id)
            && (self.statuses.is_empty() || self.statuses.contains(&state.status))
            && self.saga_name.as_ref().is_none_or(|name| *name == state.saga_name)
            && is(&self.tenant, &state.tenant)
            && is(&self.region, &state.region)
            && self.labels.iter().all(|label| state.labels.contains(label))
            && self.depth.is_none_or(|depth| depth == depth_of(state))
            && (self.forced || !forced)
    }

    /// Is the saga found, and as what? `failures`: all in its history, in any order; `replays`: how its newest replay
    /// stands, asked only if the filter does.
    pub fn find(&self, state: &State, failures: &[SagaFailure], replays: impl FnOnce() -> ReplayStanding) -> Option<FoundSaga> {
        if !self.fits_state(state) {
            return None;
        }
        let updated_at = state.entry.effective_time;
        let found = if self.asks_for_failure() {
            let fits = |failure: &&SagaFailure| {
                let error = failure.error.as_ref();
                let code = error.and_then(|error| error.code.as_deref());
                let kind = error.and_then(|error| error.kind.as_deref());
                self.fits_failure(failure.compensation(), failure.step.as_deref(), code, kind, failure.at)
            };
            let failure = failures.iter().filter(fits).max_by_key(|failure| failure.sequence)?;
            FoundSaga {
                failed_step: failure.step.clone(),
                error: failure.error.clone(),
                failed_at: Some(failure.at),
                at: failure.at,
                ..found(state)
            }
        } else if self.in_window(updated_at) {
            let step_failures = failures.iter().filter(|failure| failure.kind == Kind::StepFailed);
            FoundSaga { failed_at: step_failures.map(|failure| failure.at).max(), ..found(state) }
        } else {
            return None;
        };
        self.replay.is_none_or(|wanted| wanted == replays()).then_some(found)
    }
}

fn found(state: &State) -> FoundSaga {
    FoundSaga {
        saga_id: state.saga_id.clone(),
        saga_name: state.saga_name.clone(),
        status: state.status,
        failed_step: state.failed_step().map(str::to_owned),
        error: state.error().cloned(),
        current_step: state.current_step().map(str::to_owned),
        started_at: state.started_at,
        updated_at: state.entry.effective_time,
        failed_at: None,
        depth: depth_of(state),
        at: state.entry.effective_time,
    }
}

fn depth_of(state: &State) -> u32 {
    state.lineage.as_ref().map_or(0, |lineage| lineage.depth)
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
