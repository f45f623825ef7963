//! Partitions come and go. Before a partition is read the log is read to its end, as it is after the offsets were fetched; what
//! cannot be begun now comes again, and the others need not wait for it.

use super::runner::BatchRunner;
use crate::error::{Error, Result};
use crate::kafka::intake::{AssignedPartition, StartAt};
use crate::retry::until_available;
use crate::saga::position::{Offset, TopicPartition};
use crate::telemetry::Alarm;

impl BatchRunner {
    /// Each starts where the group committed.
    pub async fn assigned(&mut self, partitions: Vec<AssignedPartition>) -> Result<Vec<(TopicPartition, StartAt)>> {
        let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
        self.learn_partition_counts(&names).await?;
        self.claims.settle(&names, &self.log_end, self.has_work_beside()).await?;
        let known = self.log_end.reached(&names, self.has_work_beside()).await?;
        // The view has it all now; another owner may have written newer records since.
        self.unapplied.committed.retain(|record| !known.contains(&record.position.partition));
        let mut starts = Vec::with_capacity(partitions.len());
        for assigned in partitions {
            let partition = assigned.partition;
            if !known.contains(&partition.partition) {
                starts.push((partition, StartAt::Later));
                continue;
            }
            if self.claims.report_foreign(partition.partition) {
                starts.push((partition, StartAt::Stop));
                continue;
            }
            let committed = assigned.committed.map(|(offset, _)| offset);
            let next = committed.unwrap_or(assigned.earliest).max(assigned.earliest);
            self.report_missing_offsets(&partition, committed, assigned.earliest);
            self.queue.assign(partition.clone(), next, (self.instant)());
            starts.push((partition, StartAt::Offset(next)));
        }
        self.park_waiting();
        self.queue.forget_unreadable();
        Ok(starts)
    }

    /// How many partitions there are now: keys go by that. An assignment follows when there are more, in every process.
    async fn learn_partition_counts(&mut self, assigned: &[TopicPartition]) -> Result<()> {
        let (ends, targets) = (&self.ends, &self.settings.targets);
        let requests = until_available("ask for the requests topic", || ends.partitions_of(&targets.requests)).await?;
        let log = until_available("ask for the replay log", || ends.partitions_of(&targets.log)).await?;
        // A broker may not have heard of them that just gave us one.
        let requests = assigned.iter().map(|of| of.partition + 1).fold(requests, i32::max);
        if log < requests {
            return Err(Error::unavailable(format!(
                "topics {} and {} must have equal partition counts: they have {requests} and {log}; raise the smaller one",
                targets.requests, targets.log
            )));
        }
        if requests > self.settings.request_partitions {
            tracing::info!(before = self.settings.request_partitions, now = requests, "the requests topic has more partitions");
            self.settings.request_partitions = requests;
        }
        let record = || (self.partition_counts)(self.settings.request_partitions, log);
        until_available("keep the partition count of the replay log", record).await
    }

    /// They are another member's, or nobody's for now. No batch is open when this is called.
    pub fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.prepared = None;
        self.queue.remove(partitions);
        self.batches.remove(partitions);
        self.schedules.remove(partitions);
        self.reassignment.forget(partitions);
        for partition in partitions {
            self.claims.forget(partition);
            self.facts.alarms.forget(partition.partition);
            self.alarms.clear_all(partition.partition);
        }
    }

    /// Requests that were deleted before they were read are gone, and not silently.
    fn report_missing_offsets(&self, partition: &TopicPartition, committed: Option<Offset>, earliest: Offset) {
        match committed.filter(|next| *next < earliest) {
            None => self.metrics.clear_alarm(&partition.topic, partition.partition, Alarm::OffsetsGone),
            Some(next) => {
                self.metrics.raise_alarm(&partition.topic, partition.partition, Alarm::OffsetsGone);
                tracing::error!(
                    %partition, first = next.0, last = earliest.0 - 1,
                    "replay requests were deleted from the topic before they were read (retention, DeleteRecords); ask their senders"
                );
            }
        }
    }

    /// What was to be read is not there: neither what comes next, nor what was skipped. `true`: it was deleted, and the role
    /// begins again with what is left, as at any start. `false`: the topic ends before it, so it is another topic, and the partition
    /// stays stopped.
    pub async fn offsets_gone(&mut self, partition: &TopicPartition, position: Offset, reason: &str) -> bool {
        self.metrics.raise_alarm(&partition.topic, partition.partition, Alarm::OffsetsGone);
        tracing::error!(%partition, position = position.0, reason, "replay requests are gone from the topic");
        let range = self.ends.each_range(std::slice::from_ref(partition)).await;
        let range = range.ok().and_then(|each| each.into_iter().next()).and_then(|(_, range)| range.ok());
        let is_another = range.is_some_and(|(_, end)| position > end);
        !is_another && self.queue.has_partition(partition)
    }
}
