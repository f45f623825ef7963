//! The alarms that stop a partition until an operator acts.

use std::sync::Arc;

use crate::roles::partition_alarms;
use crate::saga::installation::OF_ANOTHER;
use crate::saga::position::TopicPartition;
use crate::telemetry::Metrics;

/// Offsets that were to be read were deleted (retention).
pub const OFFSETS_GONE: &str = "offsets_gone";
/// The partition was cut back, or replaced.
pub const OFFSETS_REPLACED: &str = "offsets_replaced";
/// The topic was deleted and created again.
pub const TOPIC_REPLACED: &str = "topic_replaced";
/// What is stored of a partition cannot be read.
pub const HISTORY_CORRUPT: &str = "history_corrupt";

const CODES: [&str; 5] = [OFFSETS_GONE, OFFSETS_REPLACED, TOPIC_REPLACED, OF_ANOTHER, HISTORY_CORRUPT];

pub struct Alarms {
    metrics: Arc<Metrics>,
}

impl Alarms {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// A partition is stopped; the others go on.
    pub fn raise(&self, partition: &TopicPartition, code: &str, reason: &str) {
        partition_alarms::raise(&self.metrics, partition, code);
        tracing::error!(
            topic = %partition.topic, partition = partition.partition, code, reason,
            "partition stopped; `resaga doctor` explains, `resaga store accept-gap` accepts the loss"
        );
    }

    /// A partition goes on, or goes to another process.
    pub fn clear(&self, partition: &TopicPartition) {
        for code in CODES {
            partition_alarms::clear(&self.metrics, partition, code);
        }
    }
}
