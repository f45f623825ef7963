//! The alarm metric of a partition that stands still: set and cleared here, whichever role it is.

use crate::saga::position::TopicPartition;
use crate::telemetry::Metrics;

/// `code`: of the reason, as the metric and the operator's pages name it.
pub fn raise(metrics: &Metrics, partition: &TopicPartition, code: &str) {
    metrics.partition_alarms.with_label_values(&labels(partition, &partition.partition.to_string(), code)).set(1);
}

pub fn clear(metrics: &Metrics, partition: &TopicPartition, code: &str) {
    // It is an error that there is none, and nothing else.
    let _ = metrics.partition_alarms.remove_label_values(&labels(partition, &partition.partition.to_string(), code));
}

fn labels<'a>(partition: &'a TopicPartition, number: &'a str, code: &'a str) -> [&'a str; 3] {
    [&partition.topic, number, code]
}
