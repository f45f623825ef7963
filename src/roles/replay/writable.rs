//! Partitions that cannot be written now, for they have no leader: what would go there waits, and keeps nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::log_record::new_saga_id;
use super::outbox::{EventPartitions, ReplayTargets};
use super::queue::item::RequestItem;
use crate::history::chains::Chains;
use crate::kafka::ends::{Ends, Leaders};
use crate::partitioning::Partitioning;
use crate::saga::partitioner::partition;
use crate::saga::position::TopicPartition;
use crate::saga::request::ReplayOrder;
use crate::saga::restored::RestoredSaga;

/// How often it is looked who leads, while some partition has no leader.
const LOOK: Duration = Duration::from_secs(1);

/// Which partitions had leaders when it was asked last.
#[derive(Default)]
struct KnownLeaders(Leaders);

impl KnownLeaders {
    fn lacks_any(&self) -> bool {
        !self.0.missing.is_empty()
    }

    fn lacks(&self, topic: &str, number: i32) -> bool {
        !self.0.missing.is_empty() && self.0.missing.contains(&TopicPartition::new(topic, number))
    }

    /// The partition of one of resaga's own topics that a key goes to has no leader.
    fn lacks_home(&self, topic: &str, key: &[u8]) -> bool {
        self.0.counts.get(topic).is_some_and(|count| self.lacks(topic, partition(key, *count)))
    }

    fn another(&self, topic: &str, key: &[u8]) -> Option<i32> {
        let count = *self.0.counts.get(topic)?;
        let home = partition(key, count);
        let mut others = (0..count).map(|n| (home + n) % count);
        if self.lacks(topic, home) { others.find(|number| !self.lacks(topic, *number)) } else { None }
    }
}

/// What is known of the partitions that replays are written to.
pub struct WritablePartitions {
    leaders: KnownLeaders,
    asked: Option<Instant>,
    /// Something could not be written, nobody knows yet why.
    suspected: bool,
    ends: Ends,
    chains: Arc<Chains>,
    partitioning: Arc<Partitioning>,
    targets: ReplayTargets,
    restored_allowed: Vec<String>,
}

impl WritablePartitions {
    pub fn new(
        ends: Ends,
        chains: Arc<Chains>,
        partitioning: Arc<Partitioning>,
        targets: ReplayTargets,
        restored_allowed: Vec<String>,
    ) -> Self {
        let leaders = KnownLeaders::default();
        Self { leaders, asked: None, suspected: false, ends, chains, partitioning, targets, restored_allowed }
    }

    pub fn suspect(&mut self) {
        self.suspected = true;
    }

    pub fn lacks_any(&self) -> bool {
        self.leaders.lacks_any()
    }

    pub fn lacks(&self, topic: &str, number: i32) -> bool {
        self.leaders.lacks(topic, number)
    }

    /// The log of this partition has no leader.
    pub fn lacks_log(&self, number: i32) -> bool {
        self.leaders.lacks(&self.targets.log, number)
    }

    /// Where a record may go whose key says a partition without a leader; `None`: where its key says.
    pub fn another(&self, topic: &str, key: &[u8]) -> Option<i32> {
        self.leaders.another(topic, key)
    }

    /// Asks who leads, where something hints at partitions without a leader.
    pub async fn refresh(&mut self) {
        let hinted = self.ends.is_troubled() || self.suspected || self.lacks_any();
        if !hinted || self.asked.is_some_and(|asked| asked.elapsed() < LOOK) {
            return;
        }
        let targets = &self.targets;
        let mut topics = vec![targets.restored.clone(), targets.log.clone(), targets.dead_letters.clone()];
        topics.push(targets.requests.clone());
        topics.extend(self.restored_allowed.iter().cloned());
        topics.extend(self.chains.topics());
        // Where brokers do not answer, what was known before stands.
        if let Ok(found) = self.ends.leaders(topics).await {
            if found.missing != self.leaders.0.missing {
                let first = found.missing.iter().min().map(ToString::to_string);
                tracing::warn!(partitions = found.missing.len(), first, "partitions without a leader, replays to them wait");
            }
            (self.leaders, self.asked, self.suspected) = (KnownLeaders(found), Some(Instant::now()), false);
        }
    }

    /// Whether the partitions that the restored saga goes to have leaders.
    pub fn takes(&self, saga: &RestoredSaga, target: Option<&str>, events: EventPartitions) -> bool {
        let key = saga.saga_id.as_str().as_bytes();
        !self.lacks(&saga.checkpoint.position.topic, events.partition(&saga.saga_id))
            && !self.leaders.lacks_home(target.unwrap_or(&self.targets.restored), key)
    }

    /// The same of what an undo asks of a restored saga.
    pub fn takes_undo(&self, asked: &RestoredSaga) -> bool {
        !self.leaders.lacks_home(&self.targets.restored, asked.saga_id.as_str().as_bytes())
    }

    /// It was planned once, and where its restored saga goes there is still no leader: its history need not be read again.
    pub fn still_lacks(&self, item: &RequestItem, order: &ReplayOrder) -> bool {
        if item.parked.is_none() || order.dry_run || !self.lacks_any() {
            return false;
        }
        let made = new_saga_id(&item.request.request_id, order);
        let restored = order.target.as_deref().unwrap_or(&self.targets.restored);
        let events = match (self.chains.topics().as_slice(), self.partitioning.partitioner()) {
            ([only], Some(partitioner)) => {
                let count = self.chains.partitions_of(only).unwrap_or(1);
                self.lacks(only, EventPartitions { partitioner, count }.partition(&made))
            }
            _ => false,
        };
        events || self.leaders.lacks_home(restored, made.as_str().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_a_partition_without_a_leader_is_told_and_a_dead_letter_goes_elsewhere() {
        let key = b"order-1";
        let home = partition(key, 3);
        let mut leaders = KnownLeaders::default();
        assert!(!leaders.lacks("t", home) && !leaders.lacks_home("t", key) && leaders.another("t", key).is_none());
        leaders.0.counts.insert("t".into(), 3);
        leaders.0.missing.insert(TopicPartition::new("t", home));
        assert!(leaders.lacks_home("t", key) && !leaders.lacks_home("other", key));
        assert_eq!(leaders.another("t", key), Some((home + 1) % 3));
        leaders.0.missing.insert(TopicPartition::new("t", (home + 1) % 3));
        assert_eq!(leaders.another("t", key), Some((home + 2) % 3));
    }
}
