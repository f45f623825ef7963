//! The alarms that stop a partition until an operator acts.

use std::sync::Arc;

use crate::saga::position::TopicPartition;
use crate::telemetry::{Alarm, Metrics};

/// Those that this role raises.
const RAISED: [Alarm; 5] =
    [Alarm::OffsetsGone, Alarm::OffsetsReplaced, Alarm::TopicReplaced, Alarm::StoreOfAnother, Alarm::HistoryCorrupt];

pub struct Alarms {
    metrics: Arc<Metrics>,
}

impl Alarms {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// A partition is stopped; the others go on.
    pub fn raise(&self, partition: &TopicPartition, alarm: Alarm, reason: &str) {
        self.metrics.raise_alarm(&partition.topic, partition.partition, alarm);
        tracing::error!(
            topic = %partition.topic, partition = partition.partition, code = alarm.code(), reason,
            "partition stopped; `resaga doctor` explains, `resaga store accept-gap` accepts the loss"
        );
    }

    /// A partition goes on, or goes to another process.
    pub fn clear(&self, partition: &TopicPartition) {
        for alarm in RAISED {
            self.metrics.clear_alarm(&partition.topic, partition.partition, alarm);
        }
    }
}
