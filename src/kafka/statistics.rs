//! What librdkafka counts, cut down to what the metrics show.

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
    /// Last stable offset as of the last fetch.
    pub last_stable: Option<Offset>,
    /// The next offset to hand out.
    pub position: Option<Offset>,
}

/// `None`: not the JSON that librdkafka documents.
pub(super) fn parse(json: &[u8]) -> Option<IntakeStats> {
    let all: rdkafka::Statistics = serde_json::from_slice(json).ok()?;
    let slowest = all.brokers.values().filter_map(|broker| broker.rtt.as_ref()).max_by_key(|rtt| rtt.p99);
    let known = |offset: i64| (offset >= 0).then_some(Offset(offset));
    let mut partitions: Vec<_> = all
        .topics
        .values()
        .flat_map(|topic| topic.partitions.values().filter(|p| p.partition >= 0 && p.desired).map(move |p| (topic, p)))
        .map(|(topic, p)| PartitionStats {
            partition: TopicPartition::new(topic.topic.as_str(), p.partition),
            queued_records: unsigned(p.fetchq_cnt),
            queued_bytes: p.fetchq_size,
            end: known(p.hi_offset),
            last_stable: known(p.ls_offset),
            position: known(p.app_offset),
        })
        .collect();
    partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
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
