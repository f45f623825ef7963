//! What an entry adds to the hot indexes. Pure.

use crate::hot::{ActivityFact, FailureFact};
use crate::saga::entry::Entry;
use crate::saga::event::ErrorInfo;
use crate::saga::failure::SagaFailure;
use crate::saga::time::Micros;

const MICROS_PER_MINUTE: i64 = 60_000_000;

/// Minutes since the Unix epoch.
pub fn minute(at: Micros) -> i64 {
    at.0.div_euclid(MICROS_PER_MINUTE)
}

/// `name`: the saga's, which a later event's name does not change.
pub fn activity(entry: &Entry, name: &str) -> ActivityFact {
    ActivityFact { saga: entry.event.saga_id.clone(), saga_name: name.to_owned(), minute: minute(entry.effective_time) }
}

/// The failure that an entry is, if it is one.
pub fn failure(entry: &Entry, name: &str) -> Option<FailureFact> {
    let failure = SagaFailure::of(entry)?;
    let compensation = failure.compensation();
    let ErrorInfo { code, kind, .. } = failure.error.unwrap_or_default();
    Some(FailureFact {
        saga: entry.event.saga_id.clone(),
        saga_name: name.to_owned(),
        step: failure.step.unwrap_or_default(),
        compensation,
        at: failure.at,
        sequence: failure.sequence,
        error_code: code,
        error_type: kind,
    })
}
