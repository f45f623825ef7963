//! What a broker says of a partition's ends.

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
