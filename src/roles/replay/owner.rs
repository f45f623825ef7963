//! Whose the replay log is. Each record names its group; a partition of the log whose newest record is another group's is
//! not ours to carry on: that group replays the same requests. A partition without records is claimed by the first
//! batch: under a transactional id that all groups share, so that of two that claim it one is fenced or finds the other's.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use super::outbox::TransactionOutbox;
use super::{PARTITION_RESTS, Replay, ReplayPartition};
use crate::error::{Error, Result};
use crate::kafka::transaction::TransactionalPublisher;
use crate::replay_log::ReplayLog;
use crate::replay_log::owner::LogOwner;
use crate::saga::position::{Shown, TopicPartition};

/// How long the view of the log may take to reach an end that nothing hides.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// How long opening a producer may take that claims a partition.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Producers that are opened at once for that.
const MAX_OPENING: usize = 8;
/// Alarm of a partition of the log.
pub(super) const ANOTHERS: &str = "log_of_another_group";

impl Replay {
    /// The other group that a partition's log belongs to.
    fn anothers(&self, partition: i32) -> Option<LogOwner> {
        self.deps.planner.log.owner(partition).filter(|owner| owner.group != self.settings.group)
    }

    /// Says so where the log is another group's; then the partition must not be read.
    pub(super) fn is_anothers(&self, partition: &TopicPartition) -> bool {
        let Some(owner) = self.anothers(partition.partition) else {
            self.clear_alarm(partition, ANOTHERS);
            return false;
        };
        self.alarm(partition, ANOTHERS);
        tracing::error!(
            partition = partition.partition, log = self.settings.targets.log, owner = %Shown(&owner.group), own = self.settings.group,
            "the replay log belongs to another group: no replays are carried out from this partition; `resaga store take-over-log` hands \
             the log over once that group has stopped"
        );
        true
    }

    /// Gives up what was handed to another group meanwhile.
    pub(super) async fn release_foreign_partitions(&mut self) -> Result<()> {
        let gone: Vec<TopicPartition> =
            self.owned.keys().filter(|partition| self.anothers(partition.partition).is_some()).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.prepared = None;
        self.read.retain(|read| !gone.contains(&read.records.partition));
        for partition in &gone {
            self.is_anothers(partition);
            self.owned.remove(partition);
        }
        self.intake.pause(gone).await
    }

    /// A partition with something to do whose log is nobody's yet: the next batch is of it alone, and claims it.
    pub(super) async fn unclaimed(&mut self) -> Result<Option<TopicPartition>> {
        let mut nobodys = self.nobodys_with_work();
        // Another one first each time.
        let first = self.turn % nobodys.len().max(1);
        nobodys.rotate_left(first);
        let missing: Vec<TopicPartition> =
            nobodys.iter().filter(|partition| !self.claimers.contains_key(partition)).cloned().collect();
        if !missing.is_empty() {
            for (partition, opened) in self.open_claimers(&missing).await {
                match opened {
                    Ok(claimer) => drop(self.claimers.insert(partition.clone(), claimer)),
                    Err(Error::Unavailable(reason)) => tracing::warn!(%partition, reason, "replay log not claimed yet"),
                    Err(other) => return Err(other),
                }
            }
            // Whoever claimed them before is fenced now, and what it wrote is visible.
            let known = self.log_to_its_end(&missing).await?;
            self.claimers.retain(|partition, _| known.contains(&partition.partition) || !missing.contains(partition));
            self.release_foreign_partitions().await?;
        }
        let log = &self.deps.planner.log;
        let is_nobodys = |partition: &TopicPartition| log.owner(partition.partition).is_none();
        let claims = nobodys.iter().find(|partition| is_nobodys(partition) && self.claimers.contains_key(partition)).cloned();
        // Should nothing come of it, the others go first: what cannot go must keep out nobody.
        for partition in claims.as_ref().map_or(&nobodys[..], std::slice::from_ref) {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.claim_rests = Instant::now() + PARTITION_RESTS;
            }
        }
        Ok(claims)
    }

    fn nobodys_with_work(&self) -> Vec<TopicPartition> {
        let (now, log) = ((self.deps.now)(), &self.deps.planner.log);
        let is_read = |partition: &TopicPartition| self.read.iter().any(|read| read.records.partition == *partition);
        let topic = &self.settings.targets.log;
        let may_be = |of: i32| log.owner(of).is_none() && !self.writable.lacks(topic, of);
        let instant = Instant::now();
        let owned = self.owned.iter().filter(|(partition, owned)| may_be(partition.partition) && owned.claim_rests <= instant);
        let may_read = |owned: &ReplayPartition| owned.log_not_known.is_none() && owned.head_rests <= instant;
        let with_work = owned.filter(|(partition, owned)| owned.waiting.is_due(now) || (may_read(owned) && is_read(partition)));
        with_work.map(|(partition, _)| partition.clone()).collect()
    }

    /// A batch that claims a partition was committed: nobody else had claimed it, and what it wrote says whose it is.
    pub(super) fn claimed(&mut self, partition: TopicPartition, publisher: TransactionalPublisher, wrote: bool) {
        if wrote {
            let owner = LogOwner { group: self.settings.group.clone(), generation: 1 };
            self.deps.planner.log.owned_by(partition.partition, owner);
        } else {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.claim_rests = Instant::now();
            }
            self.claimers.insert(partition, publisher);
        }
    }

    /// A process that died as it claimed a partition left a transaction open there, which hides what comes after it: ends
    /// it, where the view of the log stands still before the end.
    pub(super) async fn settle_claims(&self, partitions: &[TopicPartition]) -> Result<()> {
        let log = &self.deps.planner.log;
        let nobodys = partitions.iter().filter(|partition| log.owner(partition.partition).is_none());
        let nobodys: Vec<TopicPartition> = nobodys.cloned().collect();
        if nobodys.is_empty() || tokio::time::timeout(READ_WITHIN, self.log_to_its_end(&nobodys)).await.is_ok() {
            return Ok(());
        }
        let nobodys: Vec<TopicPartition> = nobodys.into_iter().filter(|of| log.owner(of.partition).is_none()).collect();
        // Where that cannot be done now the coordinator does it, some seconds later.
        drop(self.open_claimers(&nobodys).await);
        Ok(())
    }

    /// Some side by side, for as long as one may take; those that had no turn come another time.
    async fn open_claimers(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Result<TransactionalPublisher>)> {
        let open = |partition: TopicPartition| async move {
            let opened = self.open_claimer(&partition).await;
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

    /// One try: what waits for it must not wait for ever.
    pub(super) async fn open_claimer(&self, partition: &TopicPartition) -> Result<TransactionalPublisher> {
        let id = claim_id(&self.settings.targets.log, partition.partition);
        let opened = tokio::time::timeout(OPEN_WITHIN, TransactionalPublisher::open(&self.deps.kafka, &id)).await;
        opened.unwrap_or_else(|_| Err(Error::unavailable("open producer to claim the replay log: no answer in time")))
    }

    /// Says in a draft as whose its records are written, in every partition of the log: what ends or calls off a replay of
    /// before the partition count was raised goes into one that may be another member's.
    pub(super) fn sign(&self, draft: &mut TransactionOutbox) {
        draft.owners = self.deps.planner.log.owners();
        draft.own = LogOwner { group: self.settings.group.clone(), generation: 1 };
    }
}

/// May a batch be of this partition? Of one whose log is nobody's only if it claims it.
pub(super) fn may_be_of(log: &ReplayLog, partition: &TopicPartition, claims: Option<&TopicPartition>) -> bool {
    match claims {
        Some(claimed) => claimed == partition,
        None => log.owner(partition.partition).is_some(),
    }
}

/// The transactional id under which a partition of the log changes hands.
pub fn claim_id(log: &str, partition: i32) -> String {
    format!("resaga-log-{log}-{partition}")
}
