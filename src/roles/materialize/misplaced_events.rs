//! Step events in another partition than their key's, by a producer with another partitioner, or by hand.

use crate::partitioning::Strays;
use crate::saga::position::{Offset, TopicPartition};
use crate::telemetry::Metrics;

/// Counts them, and says where they are: at the first, then ever more rarely. `first`: offset of the first of `strays`.
pub fn report(strays: Strays, first: Option<Offset>, partition: &TopicPartition, metrics: &Metrics) {
    let counter = metrics.events_misplaced.with_label_values(&[&*partition.topic]);
    let before = counter.get();
    counter.inc_by(strays.count);
    if before.checked_ilog2() != counter.get().checked_ilog2() {
        tracing::warn!(
            topic = %partition.topic, partition = partition.partition, offset = first.map(|offset| offset.0),
            expected_partition = strays.home, partitioner = strays.partitioner.as_str(), strays = counter.get(),
            "step event in another partition than its key's: find its producer by this record, and let it use the partitioner \
             that the others use"
        );
    }
}
