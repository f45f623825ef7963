//! An entry: one step event in a saga's history, with everything the fold decided about it.

use super::event::StepEvent;
use super::position::{EntrySequence, Position};
use super::state::Anomaly;
use super::time::Micros;

/// One step event in a saga's history. A pure function of the log and the fold settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sequence: EntrySequence,
    pub position: Position,
    /// max(`occurred_at` after the clock rule, effective time of the saga's previous entry).
    pub effective_time: Micros,
    /// `occurred_at` after the clock rule: the record's timestamp where it was absent or too far ahead. Decides
    /// whether an event after the end changes the status.
    pub occurred_time: Micros,
    /// The Kafka record's timestamp.
    pub recorded_time: Micros,
    /// Chosen as a snapshot by policy or CHECKPOINT.
    pub snapshot: bool,
    /// What did not fit, of this entry alone.
    pub anomalies: Vec<Anomaly>,
    /// The event. In what the hot store gives back, a full context may come as [`ContextChange::Splice`]; from the
    /// cold store every change of the context comes as [`ContextChange::Full`], the text after the entry.
    ///
    /// [`ContextChange::Splice`]: super::event::ContextChange::Splice
    /// [`ContextChange::Full`]: super::event::ContextChange::Full
    pub event: StepEvent,
}
