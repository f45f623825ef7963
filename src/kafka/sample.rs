//! The newest records of partitions, a few of each, for a look at what is in them. In no group; commits nothing.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ends::Ends;
use super::record::PartitionRecords;
use super::tail::{Tail, TailEvent, TailLimits};
use crate::config;
use crate::error::Result;
use crate::saga::position::{Offset, TopicPartition};

/// Reads up to the ends that the partitions had at its start.
pub struct Sample {
    /// Ends not reached yet.
    ends: HashMap<TopicPartition, Offset>,
    /// `None`: there is nothing to read.
    reading: Option<(Tail, mpsc::Receiver<TailEvent>)>,
    deadline: Instant,
}

impl Sample {
    /// The last `offsets` of each partition (fewer records, where some are control records), for at most `within`.
    pub async fn start(
        kafka: &config::KafkaConfig,
        ends: &Ends,
        partitions: &[TopicPartition],
        offsets: i64,
        within: Duration,
    ) -> Result<Self> {
        let (mut from, mut wanted) = (Vec::new(), HashMap::new());
        for (partition, range) in ends.each_range(partitions).await? {
            // One without a leader is passed over.
            let Some((earliest, end)) = range.ok().filter(|(earliest, end)| earliest < end) else { continue };
            from.push((partition.clone(), earliest.max(Offset(end.0.saturating_sub(offsets)))));
            wanted.insert(partition, end);
        }
        let reading =
            if from.is_empty() { None } else { Some(Tail::start(kafka, "resaga-sample", &from, TailLimits::default())?) };
        Ok(Self { ends: wanted, reading, deadline: Instant::now() + within })
    }

    /// The next records; `None`: every end was reached, or the time is over.
    pub async fn next(&mut self) -> Result<Option<Vec<PartitionRecords>>> {
        let Some((_, events)) = &mut self.reading else { return Ok(None) };
        while !self.ends.is_empty() {
            let Ok(Some(event)) = tokio::time::timeout_at(self.deadline, events.recv()).await else { return Ok(None) };
            match event {
                TailEvent::Records { batch } => {
                    // What comes after an end was not asked for.
                    let wanted: Vec<_> = batch
                        .into_iter()
                        .map(|(records, _)| records)
                        .filter(|of| self.ends.contains_key(&of.partition))
                        .collect();
                    for records in &wanted {
                        if self.ends.get(&records.partition).is_some_and(|end| records.position >= *end) {
                            self.ends.remove(&records.partition);
                        }
                    }
                    return Ok(Some(wanted));
                }
                // An open transaction holds the last stable offset below the end; what is behind it may be aborted.
                TailEvent::ReachedEnd { partition, .. } | TailEvent::OffsetsGone { partition, .. } => {
                    self.ends.remove(&partition);
                }
                TailEvent::ReadsAgain { .. } => {}
                TailEvent::Failed(error) => return Err(error.context("read newest records")),
            }
        }
        Ok(None)
    }
}
