//! Taking over a partition: find the chain's end, compare it with the log, and start there (docs/ARCHITECTURE.md, The walk of one
//! event).
//!
//! Runs beside the loop: a store that does not answer holds up neither a shutdown nor a revocation, and what can be opened does not
//! wait for what cannot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::background::joined;
use super::chain_check::{LogBounds, chain_mismatch};
use super::clocks::Clocks;
use super::content::{Content, Histories};
use super::fold_gate::FoldGate;
use super::outbound::UnacknowledgedSends;
use super::ownership::Generation;
use super::partition::Partition;
use super::partition_chain::PartitionChain;
use super::partitions::{MIN_CACHE, OwnedPartition};
use crate::cold::chain::{ChainWriter, newest_incarnation};
use crate::cold::gaps::gaps;
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::Owners;
use crate::error::{Error, Result};
use crate::hot::{HotStore, Mark, marks_of_all_buckets};
use crate::kafka::ends::Ends;
use crate::kafka::intake::{AssignedPartition, StartAt};
use crate::retry::until_available;
use crate::saga::position::{ChainId, Offset, Topic, TopicPartition};
use crate::telemetry::Alarm;

/// Longest time in which none of some partitions could be opened, before it is tried again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// The same, of those that others wait for.
const OPEN_TIMEOUT_BESIDE_OTHERS: Duration = Duration::from_secs(5);

pub type StartOffsets = Vec<(TopicPartition, StartAt)>;

/// What is known of a partition before it is read.
struct OpenedPartition {
    assigned: AssignedPartition,
    chain: ChainId,
    writer: ChainWriter,
    gaps: Vec<(Offset, Offset)>,
    /// Why the log is not the one that the chain was made from: code and reason.
    mismatch: Option<(Alarm, String)>,
}

/// Partitions that were assigned together, as far as they could be opened.
pub struct OpenedPartitions {
    number: u64,
    opened: Vec<(TopicPartition, Result<OpenedPartition>)>,
    /// Of each bucket.
    marks: Vec<HashMap<ChainId, Mark>>,
    reply: oneshot::Sender<StartOffsets>,
}

/// What becomes of partitions that were assigned together.
pub struct Takeovers {
    pub partitions: Vec<(TopicPartition, Takeover)>,
    /// The intake waits for where they start.
    pub reply: oneshot::Sender<StartOffsets>,
}

pub enum Takeover {
    Owned(Box<OwnedPartition>, StartAt),
    /// An operator must act: code and reason of the alarm.
    Stopped(Alarm, String),
    /// It is assigned again after a moment.
    Later,
}

pub struct AssignmentParts {
    pub objects: Arc<dyn ObjectStore>,
    pub hot: Arc<dyn HotStore>,
    pub ends: Ends,
    pub owners: Owners,
    pub histories: Histories,
    pub clocks: Clocks,
    /// The topic of the replay log.
    pub log: Topic,
}

/// Opens the partitions that the group gave us.
pub struct Assignment {
    parts: AssignmentParts,
    tasks: JoinSet<Result<OpenedPartitions>>,
    /// By the number of the opening.
    running: HashMap<u64, (AbortHandle, Vec<TopicPartition>)>,
    last_number: u64,
    generation: Generation,
}

impl Assignment {
    pub fn new(parts: AssignmentParts) -> Self {
        Self { parts, tasks: JoinSet::new(), running: HashMap::new(), last_number: 0, generation: Generation::default() }
    }

    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// `None`: nothing is being opened. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<std::result::Result<Result<OpenedPartitions>, JoinError>> {
        self.tasks.join_next().await
    }

    pub fn open(&mut self, partitions: Vec<AssignedPartition>, reply: oneshot::Sender<StartOffsets>) {
        let (objects, hot, ends) = (self.parts.objects.clone(), self.parts.hot.clone(), self.parts.ends.clone());
        let owners = self.parts.owners.clone();
        let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
        let of = names.clone();
        self.last_number += 1;
        let number = self.last_number;
        let opening = self.tasks.spawn(async move {
            let open = partitions.into_iter().map(|assigned| {
                let (partition, objects, ends) = (assigned.partition.clone(), objects.clone(), ends.clone());
                let owners = owners.clone();
                async move { (partition, open_and_compare(objects, &ends, &owners, assigned).await) }
            });
            let opened = in_time(open, &names).await;
            let marks = if opened.is_empty() { Vec::new() } else { marks_of_all_buckets(&*hot).await? };
            Ok(OpenedPartitions { number, opened, marks, reply })
        });
        self.running.insert(number, (opening, of));
    }

    /// Stops opening these partitions, and those that were assigned with them: the intake gives the others again.
    pub fn cancel(&mut self, partitions: &[TopicPartition]) {
        // One that has just ended is not aborted by that any more: what it gives is not taken.
        self.running.retain(|_, (opening, of)| {
            let is_cancelled = of.iter().any(|partition| partitions.contains(partition));
            if is_cancelled {
                opening.abort();
            }
            !is_cancelled
        });
    }

    /// An opening ended. `None`: of partitions that were taken away, or the intake waits no longer: it stops.
    pub fn opened(&mut self, done: std::result::Result<Result<OpenedPartitions>, JoinError>) -> Result<Option<Takeovers>> {
        if done.as_ref().is_err_and(JoinError::is_cancelled) {
            return Ok(None);
        }
        let OpenedPartitions { number, opened, marks, reply } = joined(done)??;
        if self.running.remove(&number).is_none() || reply.is_closed() {
            return Ok(None);
        }
        let mut partitions = Vec::with_capacity(opened.len());
        for (partition, opened) in opened {
            let takeover = match opened {
                Ok(OpenedPartition { mismatch: Some((alarm, reason)), .. }) => Takeover::Stopped(alarm, reason),
                Ok(opened) => self.take_over(opened, &marks),
                // Its leader is gone since it was described: the others need not wait for it.
                Err(Error::Unavailable(reason)) => {
                    tracing::warn!(%partition, reason, "partition not taken over yet");
                    Takeover::Later
                }
                Err(Error::Corrupt(reason)) => Takeover::Stopped(Alarm::HistoryCorrupt, reason),
                Err(other) => return Err(other),
            };
            partitions.push((partition, takeover));
        }
        Ok(Some(Takeovers { partitions, reply }))
    }

    fn take_over(&mut self, opened: OpenedPartition, marks: &[HashMap<ChainId, Mark>]) -> Takeover {
        let OpenedPartition { assigned, chain, writer, gaps, mismatch: _ } = opened;
        let newest = writer.newest();
        let stored = marks.iter().flat_map(HashMap::values).map(|mark| mark.complete_through);
        self.parts.clocks.note_stored(stored.chain(newest.map(|newest| newest.complete_through)));
        let is_log = *assigned.partition.topic == *self.parts.log;
        let content = if is_log { Content::ReplayLog } else { Content::StepEvents };
        let known = marks.iter().map(|bucket| bucket.get(&chain).copied()).collect();
        let start = writer.next();
        self.parts.histories.of(content).learn_chain(writer.view());
        let mut partition = Partition::new(chain, content, start, MIN_CACHE, known);
        partition.gaps = gaps;
        partition.clock = newest.map(|newest| newest.clock).unwrap_or_default();
        self.generation = self.generation.next();
        let at = match newest.and_then(|newest| newest.leader_epoch) {
            Some(epoch) => StartAt::OffsetInEpoch(start, epoch),
            None => StartAt::Offset(start),
        };
        let committed = assigned.committed.map(|(offset, _)| offset);
        let now = Instant::now();
        let owned = OwnedPartition {
            generation: self.generation,
            partition,
            partition_chain: PartitionChain::new(writer, committed, assigned.topic_id, assigned.leader_epoch),
            sends: UnacknowledgedSends::default(),
            gate: FoldGate::new(now),
            expiry_not_before: now,
        };
        Takeover::Owned(Box::new(owned), at)
    }
}

/// What was opened, and of the others that it was not. Once some are open they wait a moment for the others; before that longer.
async fn in_time<F>(open: impl Iterator<Item = F>, names: &[TopicPartition]) -> Vec<(TopicPartition, Result<OpenedPartition>)>
where
    F: Future<Output = (TopicPartition, Result<OpenedPartition>)>,
{
    let mut under_way: FuturesUnordered<F> = open.collect();
    let mut deadline = tokio::time::Instant::now() + OPEN_TIMEOUT;
    let mut opened = Vec::with_capacity(names.len());
    while let Ok(Some(one)) = tokio::time::timeout_at(deadline, under_way.next()).await {
        opened.push(one);
        deadline = deadline.min(tokio::time::Instant::now() + OPEN_TIMEOUT_BESIDE_OTHERS);
    }
    let slow: Vec<&TopicPartition> = names.iter().filter(|name| opened.iter().all(|(of, _)| of != *name)).collect();
    opened.extend(slow.into_iter().map(|name| (name.clone(), Err(Error::unavailable("open chain: not in time, trying again")))));
    opened
}

async fn open_and_compare(
    objects: Arc<dyn ObjectStore>,
    ends: &Ends,
    owners: &Owners,
    assigned: AssignedPartition,
) -> Result<OpenedPartition> {
    let mut opened = until_available("open chain", || open(objects.clone(), assigned.clone())).await?;
    let mut log = LogBounds { earliest: assigned.earliest, end: assigned.end, topic_id: assigned.topic_id.clone() };
    if opened.writer.next() > log.end {
        // The end was read first: an owner before, cut off from the group alone, may have gone on meanwhile.
        let now = ends.ends(std::slice::from_ref(&assigned.partition)).await?;
        log.end = now.first().map_or(log.end, |(_, end)| *end);
    }
    opened.mismatch = chain_mismatch(&log, opened.writer.next(), opened.writer.newest(), owners);
    Ok(opened)
}

async fn open(objects: Arc<dyn ObjectStore>, assigned: AssignedPartition) -> Result<OpenedPartition> {
    let TopicPartition { topic, partition } = assigned.partition.clone();
    let incarnation = newest_incarnation(&*objects, &topic, partition).await?;
    let chain = ChainId { topic, incarnation, partition };
    let writer = ChainWriter::open(objects.clone(), chain.clone(), Some(assigned.earliest)).await?;
    let gaps = gaps(&*objects, &chain).await?;
    Ok(OpenedPartition { assigned, chain, writer, gaps, mismatch: None })
}
