//! Two different events under one `sequence`: the second gets no entry, and so a fact may be lost. Counted, and told with
//! the positions of both, for a person to compare them.

use std::time::{Duration, Instant};

use super::Materialize;
use super::partition::Content;
use crate::history::answer::PointInTime;
use crate::saga::position::{EntrySequence, Offset, Position, SagaId, TopicPartition};

/// A producer may do it with every event: a partition tells of one this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Materialize {
    pub(super) fn sequences_taken(
        &mut self,
        partition: &TopicPartition,
        taken: Vec<(Offset, SagaId, EntrySequence)>,
        now: Instant,
    ) {
        let conflicts = taken.len();
        let Some((offset, saga, by)) = taken.into_iter().next() else { return };
        self.deps.metrics.events_sequence_conflicts.inc_by(conflicts as u64);
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if owned.partition.content == Content::ReplayLog
            || owned.slow_report_at.is_some_and(|told| now.duration_since(told) < TELL_EVERY)
        {
            return;
        }
        owned.slow_report_at = Some(now);
        let position = Position { topic: partition.topic.clone(), partition: partition.partition, offset };
        if let Some(first) = owned.partition.position_of(&saga, by) {
            return tell(&position, Some(&first), conflicts);
        }
        let history = self.deps.history.clone();
        tokio::spawn(async move {
            let first = history.state(&saga, PointInTime::Sequence(by.0)).await;
            tell(&position, first.ok().map(|found| found.state.entry.position).as_ref(), conflicts);
        });
    }
}

/// No ids: whoever may read the topic finds them there.
fn tell(position: &Position, first: Option<&Position>, conflicts: usize) {
    tracing::warn!(
        %position, first = first.map(tracing::field::display), conflicts,
        "two different events of a saga have one sequence: the second is not in its history"
    );
}
