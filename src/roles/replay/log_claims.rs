//! Whose the replay log is. Each record names its group; a partition of the log whose newest record is another group's is
//! not ours to carry on: that group replays the same requests. A partition without records is claimed by the first
//! batch: under a transactional id that all groups share, so that of two that claim it one is fenced or finds the other's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};

use super::log_alarms::LogAlarms;
use super::log_end::LogEnd;
use super::outbox::LogSignatures;
use crate::config;
use crate::error::{Error, Result};
use crate::kafka::transaction::TransactionalPublisher;
use crate::replay_log::ReplayLog;
use crate::replay_log::owner::LogOwner;
use crate::saga::position::{Shown, TopicPartition};
use crate::telemetry::Alarm;

/// How long the view of the log may take to reach an end that nothing hides.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// How long opening a producer may take that claims a partition.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Producers that are opened at once for that.
const MAX_OPENING: usize = 8;

pub struct LogClaims {
    kafka: config::KafkaConfig,
    /// As which the log is written.
    group: String,
    view: Arc<ReplayLog>,
    alarms: LogAlarms,
    /// For the batches that claim partitions of the log that are unclaimed yet.
    producers: HashMap<TopicPartition, TransactionalPublisher>,
}

impl LogClaims {
    pub fn new(kafka: config::KafkaConfig, group: String, view: Arc<ReplayLog>, alarms: LogAlarms) -> Self {
        Self { kafka, group, view, alarms, producers: HashMap::new() }
    }

    pub fn is_claimed(&self, number: i32) -> bool {
        self.view.owner(number).is_some()
    }

    /// May a batch be of this partition? Of one whose log is unclaimed only if it claims it.
    pub fn may_be_of(&self, partition: &TopicPartition, claims: Option<&TopicPartition>) -> bool {
        match claims {
            Some(claimed) => claimed == partition,
            None => self.is_claimed(partition.partition),
        }
    }

    /// The other group that a partition's log belongs to.
    pub fn foreign_owner(&self, number: i32) -> Option<LogOwner> {
        self.view.owner(number).filter(|owner| owner.group != self.group)
    }

    /// Says so where the log is another group's; then the partition must not be read.
    pub fn report_foreign(&self, number: i32) -> bool {
        let Some(owner) = self.foreign_owner(number) else {
            self.alarms.clear(number, Alarm::LogOfAnotherGroup);
            return false;
        };
        self.alarms.raise(number, Alarm::LogOfAnotherGroup);
        tracing::error!(
            partition = number, log = self.alarms.log(), owner = %Shown(&owner.group), own = self.group,
            "the replay log belongs to another group: no replays are published from this partition; `resaga store take-over-log` hands \
             the log over once that group has stopped"
        );
        true
    }

    /// Opens producers for those of these partitions that have none yet. Gives these.
    pub async fn open_missing(&mut self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>> {
        let missing: Vec<TopicPartition> =
            partitions.iter().filter(|partition| !self.producers.contains_key(partition)).cloned().collect();
        if !missing.is_empty() {
            for (partition, opened) in self.open_all(&missing).await {
                match opened {
                    Ok(producer) => drop(self.producers.insert(partition, producer)),
                    Err(Error::Unavailable(reason)) => tracing::warn!(%partition, reason, "replay log not claimed yet"),
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(missing)
    }

    /// Of those just opened only the ones whose log is read to its end may claim: there the claim of another shows.
    pub fn keep_known(&mut self, opened: &[TopicPartition], known: &HashSet<i32>) {
        self.producers.retain(|partition, _| known.contains(&partition.partition) || !opened.contains(partition));
    }

    /// The first of these that can be claimed now.
    pub fn first_ready<'a>(&self, partitions: &'a [TopicPartition]) -> Option<&'a TopicPartition> {
        partitions.iter().find(|partition| !self.is_claimed(partition.partition) && self.producers.contains_key(partition))
    }

    pub fn take(&mut self, partition: &TopicPartition) -> Result<TransactionalPublisher> {
        self.producers.remove(partition).ok_or_else(|| Error::bug("claim the replay log: no producer for it"))
    }

    pub fn forget(&mut self, partition: &TopicPartition) {
        self.producers.remove(partition);
    }

    /// A batch that claims a partition was committed with log records: nobody else had claimed it, and they say whose it is.
    pub fn claimed(&mut self, partition: &TopicPartition) {
        self.view.owned_by(partition.partition, self.own());
    }

    /// It was committed without: the partition is unclaimed still.
    pub fn not_claimed(&mut self, partition: TopicPartition, producer: TransactionalPublisher) {
        self.producers.insert(partition, producer);
    }

    /// A process that died as it claimed a partition left a transaction open there, which hides what comes after it: ends
    /// it, where the view of the log stands still before the end.
    pub async fn settle(&self, partitions: &[TopicPartition], log_end: &LogEnd, beside_work: bool) -> Result<()> {
        let unclaimed = partitions.iter().filter(|partition| !self.is_claimed(partition.partition));
        let unclaimed: Vec<TopicPartition> = unclaimed.cloned().collect();
        if unclaimed.is_empty() || tokio::time::timeout(READ_WITHIN, log_end.reached(&unclaimed, beside_work)).await.is_ok() {
            return Ok(());
        }
        let unclaimed: Vec<TopicPartition> = unclaimed.into_iter().filter(|of| !self.is_claimed(of.partition)).collect();
        // Where that cannot be done now the coordinator does it, some seconds later.
        drop(self.open_all(&unclaimed).await);
        Ok(())
    }

    /// Some side by side, for as long as one may take; those that had no turn come another time.
    async fn open_all(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Result<TransactionalPublisher>)> {
        let open = |partition: TopicPartition| async move {
            let opened = self.open(&partition).await;
            (partition, opened)
        };
        let mut under_way = stream::iter(partitions.to_vec()).map(open).buffer_unordered(MAX_OPENING);
        let deadline = tokio::time::Instant::now() + OPEN_WITHIN;
        let mut opened = Vec::new();
        while let Ok(Some(one)) = tokio::time::timeout_at(deadline, under_way.next()).await {
            opened.push(one);
        }
        opened
    }

    /// Opens a producer, which settles what the last one left open. One try: what waits for it must not wait for ever.
    pub async fn open(&self, partition: &TopicPartition) -> Result<TransactionalPublisher> {
        let id = claim_id(self.alarms.log(), partition.partition);
        let opened = tokio::time::timeout(OPEN_WITHIN, TransactionalPublisher::open(&self.kafka, &id)).await;
        opened.unwrap_or_else(|_| Err(Error::unavailable("open producer to claim the replay log: no answer in time")))
    }

    /// As whose records of a batch are written, in every partition of the log: what ends or cancels a replay of before the
    /// partition count was raised goes into one that may be another member's.
    pub fn signatures(&self) -> LogSignatures {
        LogSignatures { owners: self.view.owners(), own: self.own() }
    }

    fn own(&self) -> LogOwner {
        LogOwner { group: self.group.clone(), generation: 1 }
    }
}

/// The transactional id under which a partition of the log changes hands.
pub fn claim_id(log: &str, partition: i32) -> String {
    format!("resaga-log-{log}-{partition}")
}
