//! Feeds the view of the replay log from its topic: every record that the topic still has, then each new one. A partition
//! without a leader comes later, and so do those that are added while the process runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::owner::LogOwner;
use super::view::ReplayLog;
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::record::{PartitionRecords, Record};
use crate::kafka::tail::{Tail, TailEvent, TailLimits};
use crate::retry::{Backoff, until_available};
use crate::saga::position::{Offset, TopicPartition};
use crate::schema_registry::SchemaRegistry;
use crate::schema_registry::lookups::{SchemaLookup, SchemaLookups};
use crate::wire::avro::{SchemaRef, Schemas};
use crate::wire::log::decode_log;
use crate::wire::payload::NotDecoded;

/// Between two looks for partitions that had no leader.
const AGAIN: Duration = Duration::from_millis(500);
/// What is under way is looked after this often; its answer comes by itself.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of a replay id: a UUID.
const LONGEST_KEY: usize = 64;

/// What reading takes.
#[derive(Clone)]
pub struct LogTopic {
    pub kafka: KafkaConfig,
    pub topic: String,
    pub ends: Ends,
    pub view: Arc<ReplayLog>,
    pub schemas: Arc<Schemas>,
    pub registry: Option<Arc<SchemaRegistry>>,
}

/// Starts reading all partitions; there may become more. The task ends with the reason why it cannot go on.
pub fn follow(log: LogTopic, partitions: watch::Receiver<i32>) -> JoinHandle<Result<()>> {
    tokio::spawn(LogFollower { log, ends: HashMap::new(), whole: false, tails: JoinSet::new() }.run(partitions))
}

struct LogFollower {
    log: LogTopic,
    /// Of the partitions that are read: where they ended then.
    ends: HashMap<i32, Offset>,
    /// The view knows where each of the first partitions ended.
    whole: bool,
    tails: JoinSet<Result<()>>,
}

impl LogFollower {
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

async fn read(log: LogTopic, tail: Tail, mut events: mpsc::Receiver<TailEvent>) -> Result<()> {
    let lookups = SchemaLookups::new(log.registry.clone(), log.schemas.clone());
    let mut reading = Reading { log, tail, lookups, resting: HashMap::new(), given_up: HashMap::new(), tickets: 0 };
    loop {
        let due = reading.resting.values().map(|rests| rests.again).min();
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => reading.event(event)?,
                None => return Err(Error::unavailable("read replay log: its reader ended")),
            },
            Some(looked) = reading.lookups.next(), if !reading.lookups.is_idle() => reading.looked_up(looked?)?,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => reading.ask_again(),
        }
    }
}

/// Reads some partitions. One with a record whose schema is not known yet rests, and is not read meanwhile.
struct Reading {
    log: LogTopic,
    tail: Tail,
    lookups: SchemaLookups,
    resting: HashMap<i32, Resting>,
    /// Of a partition the last record that was given up: nobody has its schema.
    given_up: HashMap<i32, Offset>,
    tickets: u64,
}

struct Resting {
    partition: TopicPartition,
    /// The record that needs the schema.
    from: Offset,
    schema: SchemaRef,
    /// When to do next what it waits for.
    again: Instant,
    backoff: Backoff,
    /// There is an answer, and the tail is to read on; with the ticket: it was told.
    answered: bool,
    ticket: Option<u64>,
}

impl Resting {
    fn rest(&mut self, reason: &str) {
        (self.again, self.ticket) = (Instant::now() + self.backoff.failed(reason), None);
    }
}

impl Reading {
    fn event(&mut self, event: TailEvent) -> Result<()> {
        match event {
            TailEvent::Records { batch } => {
                for (records, _held) in batch {
                    self.apply(records);
                }
            }
            TailEvent::ReachedEnd { partition, position } if !self.resting.contains_key(&partition.partition) => {
                self.log.view.apply(partition.partition, Vec::new(), position);
            }
            TailEvent::ReachedEnd { .. } => {}
            TailEvent::ReadsAgain { partition, ticket, outcome } => {
                match (self.resting.get_mut(&partition.partition).filter(|rests| rests.ticket == Some(ticket)), outcome) {
                    (Some(_), Ok(())) => drop(self.resting.remove(&partition.partition)),
                    (Some(rests), Err(reason)) => rests.rest(&reason.to_string()),
                    (None, _) => {}
                }
            }
            TailEvent::OffsetsGone { partition, position, reason } => {
                return Err(Error::unavailable(format!("read replay log {partition} at {position}: {reason}")));
            }
            TailEvent::Failed(error) => return Err(error.context("read replay log")),
        }
        Ok(())
    }

    fn apply(&mut self, records: PartitionRecords) {
        let number = records.partition.partition;
        // They were on their way, and come again.
        if self.resting.contains_key(&number) {
            return;
        }
        let mut read = Vec::with_capacity(records.records.len());
        for record in &records.records {
            if let Some(owner) = LogOwner::of(&record.headers) {
                self.log.view.owned_by(number, owner);
            }
            match decode_log(record.value.as_deref(), &record.headers, &self.log.schemas) {
                Ok(found) => read.push((record.offset, found)),
                // Skipping what may be a replay would let it be done twice.
                Err(NotDecoded::NeedSchema(schema)) if !self.is_given_up(number, record.offset, schema) => {
                    self.log.view.apply(number, read, record.offset);
                    return self.rest(&records.partition, record.offset, schema);
                }
                Err(NotDecoded::NeedSchema(_)) => {
                    // What was read before comes first.
                    self.log.view.apply(number, std::mem::take(&mut read), record.offset);
                    is_not_understood(&self.log, &records.partition, record);
                    tracing::warn!(partition = %records.partition, offset = record.offset.0, "replay log record has an unknown schema");
                }
                Err(NotDecoded::DeadLetter { code, message }) => {
                    self.log.view.apply(number, std::mem::take(&mut read), record.offset);
                    is_not_understood(&self.log, &records.partition, record);
                    tracing::warn!(
                        partition = %records.partition, offset = record.offset.0, code, message, "replay log record not understood"
                    );
                }
            }
        }
        self.log.view.apply(number, read, records.position);
    }

    fn is_given_up(&self, partition: i32, offset: Offset, schema: SchemaRef) -> bool {
        self.given_up.get(&partition) == Some(&offset) || self.lookups.is_missing(schema)
    }

    fn rest(&mut self, partition: &TopicPartition, from: Offset, schema: SchemaRef) {
        if let Err(reason) = self.tail.let_go(partition.clone()) {
            tracing::debug!(%partition, %reason, "what comes of a partition that rests is dropped");
        }
        self.lookups.ask(schema);
        let rests = Resting {
            partition: partition.clone(),
            from,
            schema,
            again: Instant::now() + LOOKED_UP_WITHIN,
            backoff: Backoff::new("learn schema of a replay log record"),
            answered: false,
            ticket: None,
        };
        self.resting.insert(partition.partition, rests);
    }

    fn looked_up(&mut self, (of, known): SchemaLookup) -> Result<()> {
        for (number, rests) in self.resting.iter_mut().filter(|(_, rests)| rests.schema == of && !rests.answered) {
            match &known {
                Ok(is_there) => {
                    (rests.answered, rests.again) = (true, Instant::now());
                    if !is_there {
                        self.given_up.insert(*number, rests.from);
                    }
                }
                Err(Error::Unavailable(reason)) => rests.rest(reason),
                Err(other) => return Err(other.clone()),
            }
        }
        Ok(())
    }

    /// What is due: the tail is told to read on, or the registry is asked once more.
    fn ask_again(&mut self) {
        let now = Instant::now();
        for rests in self.resting.values_mut().filter(|rests| rests.again <= now) {
            rests.again = now + LOOKED_UP_WITHIN;
            if !rests.answered {
                self.lookups.ask(rests.schema);
            } else if rests.ticket.is_none() {
                self.tickets += 1;
                match self.tail.read_again(rests.partition.clone(), rests.from, self.tickets) {
                    Ok(()) => rests.ticket = Some(self.tickets),
                    Err(reason) => rests.rest(&reason.to_string()),
                }
            }
        }
    }
}

/// Its key names a replay, of which nothing else may be known. A record without value is no record: somebody took it away.
fn is_not_understood(log: &LogTopic, partition: &TopicPartition, record: &Record) {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    if let Some(replay_id) = key.filter(|key| record.value.is_some() && key.len() <= LONGEST_KEY) {
        log.view.is_not_understood(partition.partition, replay_id, record.offset);
    }
}
