//! What librdkafka counts, cut down to what the metrics show.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::saga::position::{Offset, TopicPartition};

/// A consumer's figures, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntakeStats {
    pub partitions: Vec<PartitionStats>,
    /// Round trip to the slowest broker, microseconds, over the last window.
    pub round_trip_p50_micros: u64,
    pub round_trip_p99_micros: u64,
    /// Rebalances since start.
    pub rebalances: u64,
    /// Bytes received from brokers since start.
    pub received_bytes: u64,
    /// Records received since start.
    pub received_records: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStats {
    pub partition: TopicPartition,
    /// Records fetched and not yet handed out.
    pub queued_records: u64,
    pub queued_bytes: u64,
    /// High watermark as of the last fetch.
    pub end: Option<Offset>,
    /// For how long the last stable offset has not moved though the end is ahead of it: a transaction is open.
    pub last_stable_stuck: Duration,
    /// The next offset to hand out.
    pub position: Option<Offset>,
}

/// The last stable offsets that are below their partitions' ends, each with the time since when it has not moved.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions(HashMap<TopicPartition, (Offset, Instant)>);

impl OpenTransactions {
    fn stuck(&mut self, partition: &TopicPartition, end: Option<Offset>, last_stable: Option<Offset>, now: Instant) -> Duration {
        let Some(last_stable) = last_stable.filter(|last_stable| end.is_some_and(|end| *last_stable < end)) else {
            self.0.remove(partition);
            return Duration::ZERO;
        };
        let (offset, since) = self.0.entry(partition.clone()).or_insert((last_stable, now));
        if *offset != last_stable {
            (*offset, *since) = (last_stable, now);
        }
        now.saturating_duration_since(*since)
    }

    fn keep(&mut self, partitions: &[PartitionStats]) {
        self.0.retain(|partition, _| partitions.iter().any(|known| known.partition == *partition));
    }
}

/// `None`: not the JSON that librdkafka documents.
pub(super) fn parse(json: &[u8], open: &mut OpenTransactions, now: Instant) -> Option<IntakeStats> {
    let all: rdkafka::Statistics = serde_json::from_slice(json).ok()?;
    let slowest = all.brokers.values().filter_map(|broker| broker.rtt.as_ref()).max_by_key(|rtt| rtt.p99);
    let known = |offset: i64| (offset >= 0).then_some(Offset(offset));
    let mut partitions: Vec<_> = all
        .topics
        .values()
        .flat_map(|topic| topic.partitions.values().filter(|p| p.partition >= 0 && p.desired).map(move |p| (topic, p)))
        .map(|(topic, p)| (TopicPartition::new(topic.topic.as_str(), p.partition), p))
        .map(|(partition, p)| PartitionStats {
            last_stable_stuck: open.stuck(&partition, known(p.hi_offset), known(p.ls_offset), now),
            partition,
            queued_records: unsigned(p.fetchq_cnt),
            queued_bytes: p.fetchq_size,
            end: known(p.hi_offset),
            position: known(p.app_offset),
        })
        .collect();
    partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
    open.keep(&partitions);
    Some(IntakeStats {
        partitions,
        round_trip_p50_micros: slowest.map_or(0, |rtt| unsigned(rtt.p50)),
        round_trip_p99_micros: slowest.map_or(0, |rtt| unsigned(rtt.p99)),
        rebalances: all.cgrp.map_or(0, |group| unsigned(group.rebalance_cnt)),
        received_bytes: unsigned(all.rx_bytes),
        received_records: unsigned(all.rxmsgs),
    })
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_stable_offset_that_stands_below_the_end_is_stuck_until_it_moves() {
        let (mut open, partition, began) = (OpenTransactions::default(), TopicPartition::new("t", 0), Instant::now());
        let mut stuck = |end: i64, last_stable: i64, after: u64| {
            let now = began + Duration::from_secs(after);
            open.stuck(&partition, Some(Offset(end)), Some(Offset(last_stable)), now).as_secs()
        };
        assert_eq!(stuck(5, 5, 0), 0);
        assert_eq!(stuck(9, 5, 5), 0, "just begun");
        assert_eq!(stuck(20, 5, 25), 20);
        assert_eq!(stuck(30, 20, 30), 0, "it moved");
        assert_eq!(stuck(30, 20, 40), 10);
        assert_eq!(stuck(30, 30, 45), 0);
        assert_eq!(stuck(31, 30, 50), 0, "another transaction");
    }
}
