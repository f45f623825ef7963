//! What a commit changes in the queue, and the offsets that go with it: the first request that stays in the topic, or behind what
//! was looked at.

use std::collections::HashSet;
use std::time::Instant;

use super::item::NextOffsets;
use super::requests::RequestQueue;
use super::skipped::SkippedChanges;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::request::{LogRecord, ReplayStatus};

impl RequestQueue {
    /// Of each partition of a batch the first request that stays in the topic, or behind what was looked at.
    pub fn offsets_to_commit(&self, offsets: &NextOffsets, changes: &SkippedChanges) -> Vec<(TopicPartition, Offset)> {
        let none = HashSet::new();
        let commit = |(partition, looked): (&TopicPartition, &Offset)| {
            let skipped = changes.skipped.iter().filter(|(of, _)| of == partition).map(|(_, one)| one.offset);
            let done = changes.looked_again.get(partition).unwrap_or(&none);
            let before = self.partitions.get(partition).and_then(|queue| queue.skipped.first_without(done));
            let first = skipped.chain(before).min().map_or(*looked, |first| first.min(*looked));
            (partition.clone(), first)
        };
        offsets.iter().map(commit).collect()
    }

    /// A batch was committed: so far the partitions were looked at, and this stays in the topic.
    pub fn committed(&mut self, offsets: NextOffsets, changes: SkippedChanges, now: Instant) {
        for (partition, next) in offsets {
            if let Some(queue) = self.partitions.get_mut(&partition) {
                if next > queue.next {
                    queue.suspension.progressed();
                }
                queue.next = next;
            }
        }
        let SkippedChanges { skipped, looked_again, wanted } = changes;
        for (partition, offsets) in &looked_again {
            let Some(queue) = self.partitions.get_mut(partition) else { continue };
            let stays = |offset: &Offset| skipped.iter().any(|(of, one)| of == partition && one.offset == *offset);
            let done: Vec<Offset> = offsets.iter().filter(|offset| !stays(offset)).copied().collect();
            done.iter().for_each(|offset| queue.skipped.remove(*offset));
            if let Some(last) = offsets.iter().max() {
                queue.skipped.looked(last.next(), queue.next, !done.is_empty());
            }
        }
        for (partition, one) in skipped {
            let Some(queue) = self.partitions.get_mut(&partition) else { continue };
            if queue.skipped.is_empty() && queue.parked.len() >= self.max_parked {
                let limit = self.max_parked;
                tracing::warn!(%partition, limit, "as many requests wait as may (replay.max_parked_requests), more stay in the topic");
            }
            queue.skipped.insert(one, now);
        }
        for (partition, replay_id) in wanted {
            if let Some(queue) = self.partitions.get_mut(&partition) {
                queue.skipped.want(replay_id, now);
            }
        }
    }

    /// A record was committed: what does not wait by it is parked no longer.
    pub fn apply(&mut self, record: &LogRecord) {
        if record.status != ReplayStatus::Accepted
            && let Some(queue) = self.of_number_mut(record.position.partition)
        {
            queue.parked.remove(&record.replay_id);
        }
    }
}
