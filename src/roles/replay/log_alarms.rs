//! Alarms of partitions of the replay log, as the metrics show them.

use std::sync::Arc;

use crate::saga::position::TopicPartition;
use crate::telemetry::Metrics;

/// Its requests cannot be told from ones seen before.
pub const NOT_KNOWN: &str = "log_not_known";
/// Something that history has of it cannot be read.
pub const UNREADABLE: &str = "log_unreadable";
/// It belongs to another group.
pub const ANOTHERS: &str = "log_of_another_group";

#[derive(Clone)]
pub struct LogAlarms {
    metrics: Arc<Metrics>,
    log: String,
}

impl LogAlarms {
    pub fn new(metrics: Arc<Metrics>, log: &str) -> Self {
        Self { metrics, log: log.to_owned() }
    }

    pub fn log(&self) -> &str {
        &self.log
    }

    pub fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.log.as_str(), number)
    }

    pub fn raise(&self, number: i32, code: &str) {
        self.metrics.partition_alarms.with_label_values(&[self.log.as_str(), &number.to_string(), code]).set(1);
    }

    pub fn clear(&self, number: i32, code: &str) {
        // It is an error that there is none, and nothing else.
        let _ = self.metrics.partition_alarms.remove_label_values(&[self.log.as_str(), &number.to_string(), code]);
    }

    /// The partition is not ours any more.
    pub fn clear_all(&self, number: i32) {
        [NOT_KNOWN, UNREADABLE, ANOTHERS].into_iter().for_each(|code| self.clear(number, code));
    }
}
