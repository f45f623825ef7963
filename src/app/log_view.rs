//! Feeds the view of the replay log from its topic: every record that the topic still has, then each new one. A partition
//! without a leader comes later, and so do those that are added while the process runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Kafka;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::record::{PartitionRecords, Record};
use crate::kafka::registry::SchemaRegistry;
use crate::kafka::tail::{Tail, TailEvent, TailLimits};
use crate::roles::replay_log::ReplayLog;
use crate::roles::retry::until_available;
use crate::roles::schema::learn;
use crate::saga::position::{Offset, TopicPartition};
use crate::wire::avro::Schemas;
use crate::wire::log::decode_log;
use crate::wire::log_owner::LogOwner;
use crate::wire::payload::NotDecoded;

/// Between two looks for partitions that had no leader.
const AGAIN: Duration = Duration::from_millis(500);

/// Bytes of a replay id: a UUID.
const LONGEST_KEY: usize = 64;

/// What reading takes.
#[derive(Clone)]
pub(super) struct LogTopic {
    pub kafka: Kafka,
    pub topic: String,
    pub ends: Ends,
    pub view: Arc<ReplayLog>,
    pub schemas: Arc<Schemas>,
    pub registry: Option<Arc<SchemaRegistry>>,
}

/// Starts reading all partitions; there may become more. The task ends with the reason why it cannot go on.
pub(super) fn follow(log: LogTopic, partitions: watch::Receiver<i32>) -> JoinHandle<Result<()>> {
    tokio::spawn(Following { log, ends: HashMap::new(), whole: false, tails: JoinSet::new() }.run(partitions))
}

struct Following {
    log: LogTopic,
    /// Of the partitions that are read: where they ended then.
    ends: HashMap<i32, Offset>,
    /// The view knows where each of the first partitions ended.
    whole: bool,
    tails: JoinSet<Result<()>>,
}

impl Following {
    async fn run(mut self, mut partitions: watch::Receiver<i32>) -> Result<()> {
        loop {
            let count = *partitions.borrow_and_update();
            self.begin(count).await?;
            let is_missing = self.ends.len() < usize::try_from(count).unwrap_or_default();
            tokio::select! {
                Some(ended) = self.tails.join_next() => ended.map_err(|e| Error::bug(format!("read replay log: {e}")))??,
                changed = partitions.changed() => if changed.is_err() {
                    // Nobody is left to tell of more.
                    return self.tails.join_next().await.map_or(Ok(()), |ended| ended.unwrap_or(Ok(())));
                },
                () = tokio::time::sleep(AGAIN), if is_missing => {}
            }
        }
    }

    /// Reads those partitions that are not read yet and have a leader.
    async fn begin(&mut self, count: i32) -> Result<()> {
        let missing = (0..count).filter(|partition| !self.ends.contains_key(partition));
        let missing: Vec<TopicPartition> =
            missing.map(|partition| TopicPartition::new(self.log.topic.as_str(), partition)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let ask = || self.log.ends.each_range(&missing);
        let mut from = Vec::new();
        for (partition, range) in until_available("ask for the replay log's ends", ask).await? {
            let (earliest, end) = match range {
                Ok(range) => range,
                Err(error) if error.is_unavailable() => continue,
                Err(error) => return Err(error),
            };
            self.log.view.apply(partition.partition, Vec::new(), earliest);
            self.log.view.topic_begins(partition.partition, earliest);
            self.log.view.begins_to_read(partition.partition, end);
            self.ends.insert(partition.partition, end);
            from.push((partition, earliest));
        }
        if !self.whole && self.ends.len() >= usize::try_from(count).unwrap_or_default() {
            self.whole = true;
            self.log.view.whole_from(self.ends.iter().map(|(partition, end)| (*partition, *end)));
        }
        if !from.is_empty() {
            let (tail, events) = Tail::start(&self.log.kafka, "resaga-replay-log", &from, TailLimits::default())?;
            self.tails.spawn(read(self.log.clone(), tail, events));
        }
        Ok(())
    }
}

async fn read(log: LogTopic, _tail: Tail, mut events: mpsc::Receiver<TailEvent>) -> Result<()> {
    while let Some(event) = events.recv().await {
        match event {
            TailEvent::Records { batch, held } => {
                for records in batch {
                    apply(&log, records).await?;
                }
                drop(held);
            }
            TailEvent::ReachedEnd { partition, position } => log.view.apply(partition.partition, Vec::new(), position),
            TailEvent::OffsetsGone { partition, position, reason } => {
                return Err(Error::unavailable(format!("read replay log {partition} at {position}: {reason}")));
            }
            TailEvent::Failed(error) => return Err(error.context("read replay log")),
        }
    }
    Err(Error::unavailable("read replay log: its reader ended"))
}

async fn apply(log: &LogTopic, records: PartitionRecords) -> Result<()> {
    let mut read = Vec::with_capacity(records.records.len());
    for record in records.records {
        if let Some(owner) = LogOwner::of(&record.headers) {
            log.view.owned_by(records.partition.partition, owner);
        }
        loop {
            match decode_log(record.value.as_deref(), &record.headers, &log.schemas) {
                Ok(found) => read.push((record.offset, found)),
                Err(NotDecoded::NeedSchema(schema)) => {
                    // Skipping what may be a replay would let it be done twice.
                    let ask = || learn(log.registry.as_deref(), schema, &log.schemas);
                    if until_available("learn schema of a replay log record", ask).await? {
                        continue;
                    }
                    is_not_understood(log, &records.partition, &record);
                    tracing::warn!(partition = %records.partition, offset = record.offset.0, "replay log record has an unknown schema");
                }
                Err(NotDecoded::DeadLetter { code, message }) => {
                    is_not_understood(log, &records.partition, &record);
                    tracing::warn!(
                        partition = %records.partition, offset = record.offset.0, code, message, "replay log record not understood"
                    );
                }
            }
            break;
        }
    }
    log.view.apply(records.partition.partition, read, records.position);
    Ok(())
}

/// Its key names a replay, of which nothing else may be known. A record without value is no record: somebody took it away.
fn is_not_understood(log: &LogTopic, partition: &TopicPartition, record: &Record) {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    if let Some(replay_id) = key.filter(|key| record.value.is_some() && key.len() <= LONGEST_KEY) {
        log.view.is_not_understood(partition.partition, replay_id, record.offset);
    }
}
