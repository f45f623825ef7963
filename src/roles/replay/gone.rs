//! Requests that the topic no longer has (retention, DeleteRecords) and that were never carried out: an alarm, and the partition
//! goes on with what is there.

use super::Replay;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

/// Alarm: requests are gone from the topic that were never read.
const OFFSETS_GONE: &str = "offsets_gone";

impl Replay {
    /// Requests that were deleted before they were read are passed over, and not silently.
    pub(super) fn report_missing_offsets(&self, partition: &TopicPartition, committed: Option<Offset>, earliest: Offset) {
        let labels = [&*partition.topic, &partition.partition.to_string(), OFFSETS_GONE];
        match committed.filter(|next| *next < earliest) {
            // It is an error that there is none, and nothing else.
            None => drop(self.deps.metrics.partition_alarms.remove_label_values(&labels)),
            Some(next) => {
                self.deps.metrics.partition_alarms.with_label_values(&labels).set(1);
                tracing::error!(
                    %partition, first = next.0, last = earliest.0 - 1,
                    "replay requests were deleted from the topic before they were read (retention, DeleteRecords); ask their senders"
                );
            }
        }
    }

    /// What was to be read is not there: neither what comes next, nor what was passed over. Where it was deleted the role
    /// begins anew with what is left, as at any start; where the topic ends before it, it is another topic, and stays stopped.
    pub(super) async fn offsets_gone(&mut self, partition: TopicPartition, position: Offset, reason: &str) -> Result<()> {
        let labels = [&*partition.topic, &partition.partition.to_string(), OFFSETS_GONE];
        self.deps.metrics.partition_alarms.with_label_values(&labels).set(1);
        tracing::error!(%partition, position = position.0, reason, "replay requests are gone from the topic");
        let range = self.deps.ends.each_range(std::slice::from_ref(&partition)).await;
        let range = range.ok().and_then(|each| each.into_iter().next()).and_then(|(_, range)| range.ok());
        let is_another = range.is_some_and(|(_, end)| position > end);
        if is_another || self.stopping || !self.owned.contains_key(&partition) {
            return Ok(());
        }
        // The client reads nothing more of such a partition, also where it is assigned again: the role begins anew, with another.
        Err(Error::unavailable(format!("requests of {partition} are gone from the topic: beginning again with what is there")))
    }
}
