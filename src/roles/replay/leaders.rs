//! Partitions that cannot be written now, for they have no leader: what would go there waits, and keeps nothing else.

use std::time::{Duration, Instant};

use super::take_up::Item;
use super::{Replay, outbox};
use crate::kafka::ends::Leaders;
use crate::saga::partitioner::{Partitioner, partition};
use crate::saga::position::TopicPartition;
use crate::saga::request::ReplayOrder;
use crate::saga::restored::RestoredSaga;

/// How often it is looked who leads, while some partition has no leader.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of the partitions that replays are written to.
#[derive(Default)]
pub(super) struct WritablePartitions {
    found: Leaders,
    asked: Option<Instant>,
    /// Something could not be written, nobody knows yet why.
    suspected: bool,
}

impl WritablePartitions {
    pub fn suspect(&mut self) {
        self.suspected = true;
    }

    pub fn lacks_any(&self) -> bool {
        !self.found.missing.is_empty()
    }

    pub fn lacks(&self, topic: &str, number: i32) -> bool {
        !self.found.missing.is_empty() && self.found.missing.contains(&TopicPartition::new(topic, number))
    }

    /// The partition of one of resaga's own topics that a key goes to has no leader.
    pub fn lacks_home(&self, topic: &str, key: &[u8]) -> bool {
        self.found.counts.get(topic).is_some_and(|count| self.lacks(topic, partition(key, *count)))
    }

    /// Where a record may go whose key says a partition without a leader; `None`: where its key says.
    pub fn another(&self, topic: &str, key: &[u8]) -> Option<i32> {
        let count = *self.found.counts.get(topic)?;
        let home = partition(key, count);
        let mut others = (0..count).map(|n| (home + n) % count);
        if self.lacks(topic, home) { others.find(|number| !self.lacks(topic, *number)) } else { None }
    }
}

impl Replay {
    /// Asks who leads, where something hints at partitions without a leader.
    pub(super) async fn see_leaders(&mut self) {
        let writable = &self.writable;
        let hinted = self.deps.ends.is_troubled() || writable.suspected || !writable.found.missing.is_empty();
        if !hinted || writable.asked.is_some_and(|asked| asked.elapsed() < LOOK) {
            return;
        }
        let targets = &self.settings.targets;
        let mut topics = vec![targets.restored.clone(), targets.log.clone(), targets.dead_letters.clone()];
        topics.push(targets.requests.clone());
        topics.extend(self.deps.planner.rules.restored_allowed.iter().cloned());
        topics.extend(self.deps.catch_up.chains.topics());
        // Where brokers do not answer, what was known before stands.
        if let Ok(found) = self.deps.ends.leaders(topics).await {
            if found.missing != self.writable.found.missing {
                let first = found.missing.iter().min().map(ToString::to_string);
                tracing::warn!(partitions = found.missing.len(), first, "partitions without a leader, replays to them wait");
            }
            self.writable = WritablePartitions { found, asked: Some(Instant::now()), suspected: false };
        }
    }

    /// Whether the partitions that the restored saga goes to have leaders.
    pub(super) fn can_be_written(
        &self,
        saga: &RestoredSaga,
        target: Option<&str>,
        (partitioner, partitions): (Partitioner, i32),
    ) -> bool {
        let key = saga.saga_id.as_str().as_bytes();
        let events = &saga.checkpoint.position.topic;
        !self.writable.lacks(events, partitioner.partition(key, partitions))
            && !self.writable.lacks_home(target.unwrap_or(&self.settings.targets.restored), key)
    }

    /// It was planned once, and where its restored saga goes there is still no leader: its history need not be read again.
    pub(super) fn waits_for_a_leader(&self, item: &Item, order: &ReplayOrder) -> bool {
        if item.parked.is_none() || order.dry_run || !self.writable.lacks_any() {
            return false;
        }
        let made = outbox::new_saga_id(&item.request.request_id, order);
        let key = made.as_str().as_bytes();
        let restored = order.target.as_deref().unwrap_or(&self.settings.targets.restored);
        let events = match (self.deps.catch_up.chains.topics().as_slice(), self.deps.partitioning.partitioner()) {
            ([only], Some(by)) => {
                let of = self.deps.catch_up.chains.partitions_of(only).unwrap_or(1);
                self.writable.lacks(only, by.partition(key, of))
            }
            _ => false,
        };
        events || self.writable.lacks_home(restored, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_a_partition_without_a_leader_is_told_and_a_dead_letter_goes_elsewhere() {
        let key = b"order-1";
        let home = partition(key, 3);
        let mut writable = WritablePartitions::default();
        assert!(!writable.lacks("t", home) && !writable.lacks_home("t", key) && writable.another("t", key).is_none());
        writable.found.counts.insert("t".into(), 3);
        writable.found.missing.insert(TopicPartition::new("t", home));
        assert!(writable.lacks_home("t", key) && !writable.lacks_home("other", key));
        assert_eq!(writable.another("t", key), Some((home + 1) % 3));
        writable.found.missing.insert(TopicPartition::new("t", (home + 1) % 3));
        assert_eq!(writable.another("t", key), Some((home + 2) % 3));
    }
}
