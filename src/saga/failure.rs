//! What a failure in a saga's history is: the one rule, for the indexes that are written and for the searches that read them.

use super::entry::Entry;
use super::event::{ErrorInfo, Kind, StepEvent};
use super::position::EntrySequence;
use super::time::Micros;

/// A STEP_FAILED, a COMPENSATION_FAILED, a SAGA_FAILED with step or error.
pub fn is_failure(event: &StepEvent) -> bool {
    event.kind.is_failure() && (event.kind != Kind::SagaFailed || event.step.is_some() || event.error.is_some())
}

/// A failure, see [`is_failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaFailure {
    /// STEP_FAILED, SAGA_FAILED or COMPENSATION_FAILED.
    pub kind: Kind,
    pub step: Option<String>,
    pub at: Micros,
    pub sequence: EntrySequence,
    /// The event's own.
    pub error: Option<ErrorInfo>,
}

impl SagaFailure {
    pub fn of(entry: &Entry) -> Option<Self> {
        let event = &entry.event;
        is_failure(event).then(|| Self {
            kind: event.kind,
            step: event.step.clone(),
            at: entry.effective_time,
            sequence: entry.sequence,
            error: event.error.as_deref().cloned(),
        })
    }

    /// Of a compensation, rather than of a step or the saga.
    pub fn compensation(&self) -> bool {
        self.kind == Kind::CompensationFailed
    }
}
