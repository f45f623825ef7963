//! Two different events under one `sequence`: the second gets no entry, and so a fact may be lost. Counted, and reported with
//! the positions of both, for a person to compare them.

use std::time::{Duration, Instant};

use super::content::{Content, Histories};
use super::partition::Partition;
use crate::history::answer::PointInTime;
use crate::saga::position::{EntrySequence, Offset, Position, SagaId};
use crate::telemetry::Metrics;

/// A producer may do it with every event: a partition reports one this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A record without an entry, as another event of the saga has its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceConflict {
    pub offset: Offset,
    pub saga: SagaId,
    /// The entry that has it.
    pub taken_by: EntrySequence,
}

/// Counts those of a batch, and reports the first.
pub fn report(
    conflicts: Vec<SequenceConflict>,
    partition: &mut Partition,
    histories: &Histories,
    metrics: &Metrics,
    now: Instant,
) {
    let count = conflicts.len();
    let Some(SequenceConflict { offset, saga, taken_by }) = conflicts.into_iter().next() else { return };
    metrics.events_sequence_conflicts.inc_by(count as u64);
    if partition.content == Content::ReplayLog
        || partition.conflict_reported_at.is_some_and(|at| now.duration_since(at) < REPORT_EVERY)
    {
        return;
    }
    partition.conflict_reported_at = Some(now);
    let position = Position { topic: partition.chain.topic.clone(), partition: partition.chain.partition, offset };
    if let Some(first) = partition.position_of(&saga, taken_by) {
        return log(&position, Some(&first), count);
    }
    let history = histories.step_events.clone();
    tokio::spawn(async move {
        let first = history.state(&saga, PointInTime::Sequence(taken_by.0)).await;
        log(&position, first.ok().map(|found| found.state.entry.position).as_ref(), count);
    });
}

/// No ids: whoever may read the topic finds them there.
fn log(position: &Position, first: Option<&Position>, conflicts: usize) {
    tracing::warn!(
        %position, first = first.map(tracing::field::display), conflicts,
        "two different events of a saga have one sequence: the second is not in its history"
    );
}
