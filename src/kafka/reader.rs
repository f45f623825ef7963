//! A consumer and the partitions it reads: assembles batches, keeps positions, drops what is not (or no longer) ours.
//!
//! Used by one thread. Knows nothing of roles, replies and budgets.

use std::thread::Thread;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::bootstrap::Bootstrap;
use super::broker_clock::Stamp;
use super::client_log;
use super::failure;
use super::native::{ConsumerEvent, EventConsumer, QueueEvent, set_leader_epoch};
use super::record::{PartitionRecords, Record};
use crate::error::{Error, Result};
use crate::saga::position::{Offset, Topic, TopicPartition};

/// Serves a consumer that is being closed: rebalances are answered without anyone's say. While it is in use its queues
/// are polled by [`EventConsumer`], which never comes here.
pub(super) struct RebalanceOnClose;

impl ClientContext for RebalanceOnClose {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }
    fn stats_raw(&self, _statistics: &[u8]) {}
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", error = %error, "{reason}");
    }
}

impl ConsumerContext for RebalanceOnClose {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let answered = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => incremental_assign(consumer, partitions),
            _ => incremental_unassign(consumer, partitions),
        };
        if let Err(error) = answered {
            tracing::debug!(error = %error, "answer rebalance while closing");
        }
    }
}

/// Where reading of an assigned partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    Offset(Offset),
    /// As `Offset`, and the log must still agree on the epoch of the record before: if an unclean election replaced it,
    /// [`IntakeEvent::OffsetsGone`](super::intake::IntakeEvent::OffsetsGone) follows.
    OffsetInEpoch(Offset, i32),
    /// Keep the partition but do not read it, until `seek` and `resume`.
    Stop,
    /// As `Stop`; it is assigned again after a moment.
    Later,
}

/// A partition that is assigned.
struct Slot {
    partition: TopicPartition,
    /// Next offset to hand out; what is below it was handed out or sought over.
    position: i64,
    /// False: whatever still comes of it is dropped.
    reading: bool,
    /// Highest offset committed through this reader.
    committed: Option<Offset>,
    records: Vec<Record>,
    /// What they take in memory.
    bytes: u64,
    leader_epoch: Option<i32>,
    stamp: Stamp,
    reached_end: bool,
}

/// What one round of reading gave.
#[derive(Default)]
pub(super) struct ReadBatch {
    /// With the bytes that each takes in memory.
    pub(super) batch: Vec<(PartitionRecords, u64)>,
    pub(super) ends: Vec<(TopicPartition, Offset)>,
    pub(super) gone: Vec<(TopicPartition, Offset, String)>,
    pub(super) failed: Option<Error>,
    /// Nothing more was at hand.
    pub(super) exhausted: bool,
}

pub(super) struct PartitionReader {
    client: EventConsumer<RebalanceOnClose>,
    bootstrap: Bootstrap,
    slots: Vec<Slot>,
    /// Where the last record belonged: the next one most likely does too.
    last: usize,
}

impl PartitionReader {
    pub(super) fn new(config: &ClientConfig) -> Result<Self> {
        let consumer =
            BaseConsumer::from_config_and_context(config, RebalanceOnClose).map_err(|e| failure::of("create consumer", &e))?;
        let client = EventConsumer::new(consumer).ok_or_else(|| Error::bug("consumer without a queue"))?;
        Ok(Self { client, bootstrap: Bootstrap::new(config), slots: Vec::new(), last: 0 })
    }

    /// Wakes this thread when there is something to poll or to read.
    pub(super) fn wakes(&mut self, thread: &Thread) {
        self.client.wakes(thread);
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<RebalanceOnClose> {
        self.client.consumer()
    }

    pub(super) fn generation(&self) -> i32 {
        self.client.generation()
    }

    pub(super) fn subscribe(&self, topics: &[Topic]) -> Result<()> {
        let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.consumer().subscribe(&topics).map_err(|e| failure::of("subscribe", &e))
    }

    pub(super) fn poll_group_event(&self) -> Option<QueueEvent> {
        let event = self.client.poll_group_event();
        if event.is_none() {
            self.bootstrap.add_if_lost(self.consumer().client());
        }
        event
    }

    /// What the client met. Gives what it cannot go on after.
    pub(super) fn on_error(&self, code: Code, is_fatal: bool, reason: &str) -> Option<Error> {
        self.bootstrap.on_error(Some(code));
        fatal(code, is_fatal, reason)
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        self.slots.iter().map(|slot| slot.partition.clone()).collect()
    }

    /// Adds what the group gave us, at these positions. `end`: where a partition that is not to be read is parked.
    pub(super) fn add(&mut self, partitions: &[(TopicPartition, StartAt, Offset)]) -> Result<()> {
        let list = self.place(partitions)?;
        incremental_assign(self.consumer(), &list)?;
        self.park(partitions)?;
        // librdkafka keeps a partition paused that was taken away while it was.
        let read = |start: &StartAt| !matches!(start, StartAt::Stop | StartAt::Later);
        let read: Vec<_> =
            partitions.iter().filter(|(_, start, _)| read(start)).map(|(partition, ..)| partition.clone()).collect();
        self.consumer().resume(&list_of(&read)).map_err(|e| failure::of("resume partitions", &e))
    }

    /// Answers the group, which gave us these: where they begin is not known yet.
    pub(super) fn answer_rebalance(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        // Where there is no adding to what is assigned.
        if matches!(self.consumer().rebalance_protocol(), rdkafka::consumer::RebalanceProtocol::Eager) {
            let parked: Vec<_> = partitions.iter().map(|partition| (partition.clone(), StartAt::Later, Offset(0))).collect();
            return self.add(&parked);
        }
        incremental_assign(self.consumer(), &TopicPartitionList::new())
    }

    /// Starts to read partitions that the group was answered for, and assigned ones that are not read. Those that librdkafka has keep
    /// their place in it: were they taken away first, its late end of that would undo where their records are to go.
    pub(super) fn start_reading(&mut self, partitions: &[(TopicPartition, StartAt, Offset)]) -> Result<()> {
        let is_new = |(partition, ..): &&(TopicPartition, StartAt, Offset)| self.ours(std::slice::from_ref(partition)).is_empty();
        let new: Vec<_> = partitions.iter().filter(is_new).cloned().collect();
        let known: Vec<_> = partitions.iter().filter(|one| !is_new(one)).cloned().collect();
        if !new.is_empty() {
            self.add(&new)?;
        }
        for (partition, start, _) in known {
            let (offset, epoch) = match start {
                StartAt::Offset(offset) => (offset, None),
                StartAt::OffsetInEpoch(offset, epoch) => (offset, Some(epoch)),
                StartAt::Stop | StartAt::Later => continue,
            };
            self.seek_in(&partition, offset, epoch)?;
            self.resume(std::slice::from_ref(&partition))?;
        }
        Ok(())
    }

    /// Reads exactly these, in no group.
    pub(super) fn assign(&mut self, partitions: &[(TopicPartition, StartAt, Offset)]) -> Result<()> {
        let list = self.place(partitions)?;
        self.consumer().assign(&list).map_err(|e| failure::of("assign partitions", &e))?;
        self.park(partitions)
    }

    fn place(&mut self, partitions: &[(TopicPartition, StartAt, Offset)]) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (partition, start, end) in partitions {
            let (offset, reading, leader_epoch) = match start {
                StartAt::Offset(offset) => (*offset, true, None),
                StartAt::OffsetInEpoch(offset, epoch) => (*offset, true, Some(*epoch)),
                StartAt::Stop | StartAt::Later => (*end, false, None),
            };
            self.client.separate(&partition.topic, partition.partition);
            list.add_partition_offset(&partition.topic, partition.partition, rdkafka::Offset::Offset(offset.0))
                .map_err(|e| failure::of("set position", &e))?;
            if let Some(epoch) = leader_epoch {
                set_leader_epoch(&mut list, &partition.topic, partition.partition, epoch);
            }
            self.slots.retain(|slot| slot.partition != *partition);
            self.slots.push(Slot {
                partition: partition.clone(),
                position: offset.0,
                reading,
                committed: None,
                records: Vec::new(),
                bytes: 0,
                leader_epoch,
                stamp: Stamp::Producer,
                reached_end: false,
            });
        }
        Ok(list)
    }

    fn park(&self, partitions: &[(TopicPartition, StartAt, Offset)]) -> Result<()> {
        let parked: Vec<_> = partitions
            .iter()
            .filter(|(_, start, _)| matches!(start, StartAt::Stop | StartAt::Later))
            .map(|(p, ..)| p.clone())
            .collect();
        if parked.is_empty() { Ok(()) } else { self.pause(&parked) }
    }

    /// Takes partitions away; what is still queued of them is dropped. The list may be empty: librdkafka waits for an answer.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let ours: Vec<_> = partitions.iter().filter(|p| self.slots.iter().any(|slot| slot.partition == **p)).cloned().collect();
        self.slots.retain(|slot| !partitions.contains(&slot.partition));
        self.last = 0;
        incremental_unassign(self.consumer(), &list_of(&ours))
    }

    pub(super) fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        let list = list_of(&self.ours(partitions));
        self.consumer().pause(&list).map_err(|e| failure::of("pause partitions", &e))
    }

    /// Pauses those of `partitions` that are ours and drops what still comes of them. Gives which those are.
    pub(super) fn stop(&mut self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>> {
        let ours = self.ours(partitions);
        self.slots.iter_mut().filter(|slot| ours.contains(&slot.partition)).for_each(|slot| slot.reading = false);
        self.pause(&ours)?;
        Ok(ours)
    }

    /// As [`Self::stop`], of one partition; where it cannot be paused what comes of it is dropped all the same.
    pub(super) fn let_go(&mut self, partition: &TopicPartition) {
        if let Err(error) = self.stop(std::slice::from_ref(partition)) {
            tracing::warn!(%partition, %error, "partition not paused: what comes of it is dropped");
        }
    }

    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for slot in self.slots.iter_mut().filter(|slot| partitions.contains(&slot.partition)) {
            slot.reading = true;
        }
        let list = list_of(&self.ours(partitions));
        self.consumer().resume(&list).map_err(|e| failure::of("resume partitions", &e))
    }

    pub(super) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.seek_in(partition, offset, None)
    }

    /// `epoch`: that the log must still agree on, see [`StartAt::OffsetInEpoch`].
    fn seek_in(&mut self, partition: &TopicPartition, offset: Offset, epoch: Option<i32>) -> Result<()> {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.partition == *partition) else {
            return Err(Error::refused(failure::NOT_ASSIGNED, format!("seek in {partition}: it is not assigned")));
        };
        slot.position = offset.0;
        slot.leader_epoch = epoch.or(slot.leader_epoch);
        slot.reached_end = false;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, rdkafka::Offset::Offset(offset.0))
            .map_err(|e| failure::of("seek", &e))?;
        if let Some(epoch) = epoch {
            set_leader_epoch(&mut list, &partition.topic, partition.partition, epoch);
        }
        let sought = self.consumer().seek_partitions(list, SEEK_TIMEOUT).map_err(|e| failure::of("seek", &e))?;
        for element in sought.elements() {
            element.error().map_err(|e| failure::of("seek", &e))?;
        }
        Ok(())
    }

    /// Reads a partition that was stopped on from `offset`, if the log still agrees with what was read up to there: without
    /// an epoch librdkafka would not notice that it was cut meanwhile.
    pub(super) fn read_again(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        let epoch = self.slots.iter().find(|slot| slot.partition == *partition).and_then(|slot| slot.leader_epoch);
        self.seek_in(partition, offset, epoch)?;
        self.resume(std::slice::from_ref(partition))
    }

    /// Those of `offsets` that are ours and above what was committed before; `Refused` if one is not ours.
    pub(super) fn to_commit(
        &self,
        offsets: &[(TopicPartition, Offset, String)],
    ) -> Result<Vec<(TopicPartition, Offset, String)>> {
        let mut ahead = Vec::with_capacity(offsets.len());
        for commit in offsets {
            let Some(slot) = self.slots.iter().find(|slot| slot.partition == commit.0) else {
                return Err(Error::refused(failure::NOT_ASSIGNED, format!("commit {}: it is not assigned", commit.0)));
            };
            if slot.committed.is_none_or(|committed| committed <= commit.1) {
                ahead.push(commit.clone());
            }
        }
        Ok(ahead)
    }

    pub(super) fn committed(&mut self, offsets: &[(TopicPartition, Offset, String)]) {
        for (partition, offset, _) in offsets {
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.partition == *partition) {
                slot.committed = Some(*offset);
            }
        }
    }

    /// Reads until there are enough records, or nothing more is at hand. Does not wait.
    pub(super) fn read(&mut self, most_records: usize, most_bytes: usize) -> ReadBatch {
        let mut taken = ReadBatch::default();
        let (mut records, mut bytes) = (0, 0);
        while records < most_records && bytes < most_bytes as u64 && taken.failed.is_none() {
            let Some(event) = self.client.poll_record() else {
                taken.exhausted = true;
                break;
            };
            match event.read() {
                ConsumerEvent::Message(message) => {
                    let Some(slot) = find(&mut self.slots, &mut self.last, message.topic(), message.partition()) else {
                        continue;
                    };
                    if !slot.reading || message.offset() < slot.position {
                        continue;
                    }
                    let record = message.record();
                    let size = (record.size() + RECORD_OVERHEAD) as u64;
                    (records, bytes) = (records + 1, bytes + size);
                    slot.bytes += size;
                    slot.position = record.offset.0 + 1;
                    slot.leader_epoch = message.leader_epoch().or(slot.leader_epoch);
                    slot.stamp = message.stamp();
                    slot.reached_end = false;
                    slot.records.push(record);
                }
                ConsumerEvent::Error { partition: Some((topic, partition, offset)), code, reason, .. } => {
                    let Some(slot) = find(&mut self.slots, &mut self.last, topic.as_bytes(), partition) else { continue };
                    match code {
                        // Of before it was stopped.
                        Code::PartitionEOF if !slot.reading => {}
                        Code::PartitionEOF => {
                            slot.position = slot.position.max(offset);
                            slot.reached_end = true;
                        }
                        // It is not to be read there; where it is read again that is found again.
                        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation if !slot.reading => {}
                        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                            slot.reading = false;
                            taken.gone.push((slot.partition.clone(), Offset(slot.position), reason));
                        }
                        code => taken.failed = fatal(code, false, &reason),
                    }
                }
                ConsumerEvent::Error { partition: None, code, fatal: is_fatal, reason } => {
                    taken.failed = fatal(code, is_fatal, &reason);
                }
                _ => {}
            }
        }
        for slot in &mut self.slots {
            if !slot.records.is_empty() {
                let records = PartitionRecords {
                    partition: slot.partition.clone(),
                    records: std::mem::take(&mut slot.records),
                    position: Offset(slot.position),
                    leader_epoch: slot.leader_epoch,
                    stamp: slot.stamp,
                };
                taken.batch.push((records, std::mem::take(&mut slot.bytes)));
            }
            if std::mem::take(&mut slot.reached_end) {
                taken.ends.push((slot.partition.clone(), Offset(slot.position)));
            }
        }
        taken
    }

    fn ours(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        partitions.iter().filter(|p| self.slots.iter().any(|slot| slot.partition == **p)).cloned().collect()
    }
}

/// What a record costs in memory besides its bytes.
const RECORD_OVERHEAD: usize = 160;

/// Longest wait for librdkafka's own threads; no broker is asked.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

fn find<'a>(slots: &'a mut [Slot], last: &mut usize, topic: &[u8], partition: i32) -> Option<&'a mut Slot> {
    let is = |slot: &Slot| slot.partition.partition == partition && slot.partition.topic.as_bytes() == topic;
    if !slots.get(*last).is_some_and(is) {
        *last = slots.iter().position(is)?;
    }
    slots.get_mut(*last)
}

/// `None`: librdkafka goes on by itself (reconnects, retries).
fn fatal(code: Code, is_fatal: bool, reason: &str) -> Option<Error> {
    if is_fatal || failure::is_denied(code) {
        return Some(Error::unavailable(format!("read topics: {reason}")));
    }
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            Some(Error::invalid(failure::TOPIC_MISSING, format!("read topics: {reason}")))
        }
        _ => {
            client_log::error(Some(code), reason);
            None
        }
    }
}

pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

fn incremental_assign(consumer: &BaseConsumer<RebalanceOnClose>, list: &TopicPartitionList) -> Result<()> {
    use rdkafka::consumer::RebalanceProtocol;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Eager => consumer.assign(list),
        _ => consumer.incremental_assign(list),
    }
    .map_err(|e| failure::of("assign partitions", &e))
}

fn incremental_unassign(consumer: &BaseConsumer<RebalanceOnClose>, list: &TopicPartitionList) -> Result<()> {
    use rdkafka::consumer::RebalanceProtocol;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Eager => consumer.unassign(),
        _ => consumer.incremental_unassign(list),
    }
    .map_err(|e| failure::of("give up partitions", &e))
}
