//! Facts in the indexes of the hot store, how they are asked for and what is answered. Shapes only.

use crate::saga::position::{ChainId, EntrySequence, SagaId};
use crate::saga::time::Micros;

use super::mark::Mark;

/// A failure in a saga's history, as [`crate::saga::failure`] says what one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureFact {
    pub saga: SagaId,
    /// Empty: of any name and step, on the index bucket for those that have none of their own.
    pub saga_name: String,
    /// Empty: a SAGA_FAILED without step.
    pub step: String,
    /// Of COMPENSATION_FAILED.
    pub compensation: bool,
    pub at: Micros,
    pub sequence: EntrySequence,
    pub error_code: Option<String>,
    pub error_type: Option<String>,
}

/// A saga had an entry in this minute (effective time).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActivityFact {
    pub saga: SagaId,
    /// Empty: of any name, as in [`FailureFact`].
    pub saga_name: String,
    /// Minutes since the Unix epoch.
    pub minute: i64,
}

/// A window of an index read, by effective time: since <= t < until, newest first. For activity: the minutes that
/// the window touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexQuery {
    pub since: Micros,
    pub until: Micros,
    /// Facts without a name fit every name and step.
    pub saga_name: Option<String>,
    /// Failures only. `Some("")`: those without a step.
    pub step: Option<String>,
    /// Failures only: read COMPENSATION_FAILED facts instead of the others.
    pub compensation: bool,
}

/// Facts of a window, and what they can be believed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRead<F> {
    /// Newest first (failures: effective time, then entry sequence; activity: minute).
    pub facts: Vec<F>,
    /// The marks of every bucket, read before the facts: a fact is certain to be here if its saga's bucket has a mark of its
    /// chain that covers its offset.
    pub marks: Vec<(u16, ChainId, Mark)>,
    /// Facts before this time were dropped: ask cold.
    pub kept_from: Micros,
    /// `limit` cut the answer: read on with `until` just after the last fact's time (its minute's end for activity);
    /// facts of that time come again. A page that is all one time needs a higher limit.
    pub more: bool,
}
