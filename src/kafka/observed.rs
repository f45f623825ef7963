//! What brokers say of partitions: their ends, and whether they have a leader.

use std::collections::{HashMap, HashSet};

use crate::saga::position::{Offset, TopicPartition};

/// A partition's end as its leader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEnd {
    pub partition: TopicPartition,
    /// High watermark, never the last stable offset.
    pub end: Offset,
    /// Leader epoch at the end, if the broker tells.
    pub leader_epoch: Option<i32>,
}

/// How many partitions topics have, and which of them have no leader now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaders {
    pub counts: HashMap<String, i32>,
    pub missing: HashSet<TopicPartition>,
}
