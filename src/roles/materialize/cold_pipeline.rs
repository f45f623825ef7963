//! What goes to the cold store: segments, one flush per partition at a time, and then the group's offsets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};

use super::background::joined;
use super::chain_conflict::ChainConflict;
use super::clocks::Clocks;
use super::completeness::CompleteThrough;
use super::content::Histories;
use super::flush::{self, AppendResult, FlushJob, FlushResult};
use super::hot_expiry::{DurableSegment, long_sagas};
use super::ownership::Ownership;
use super::partition_chain::OffsetCommit;
use super::partition_conflicts;
use super::partitions::{OwnedPartition, Partitions};
use crate::cold::chain::Appended;
use crate::cold::owner::Owners;
use crate::cold::segment::NewSegment;
use crate::error::{Error, Result};
use crate::kafka::intake::Intake;
use crate::saga::position::{Offset, TopicPartition};
use crate::telemetry::Metrics;

/// When entries become durable, and what their segments say besides.
pub struct ColdSettings {
    pub flush_interval: Duration,
    /// Bytes of a partition's records that are flushed without waiting for the interval.
    pub flush_bytes: u64,
    /// Bytes of all partitions.
    pub buffer_bytes: u64,
    pub fold_text: String,
    pub owners: Owners,
}

pub struct ColdPipeline {
    settings: ColdSettings,
    intake: Intake,
    histories: Histories,
    metrics: Arc<Metrics>,
    clocks: Clocks,
    flushes: JoinSet<FlushResult>,
    /// One at most.
    commits: JoinSet<CommitResult>,
}

/// Offsets that were to be committed, and whether they are.
pub struct CommitResult {
    offsets: Vec<OffsetCommit>,
    committed: bool,
}

/// What ended.
pub enum ColdEvent {
    Flushed(Box<std::result::Result<FlushResult, JoinError>>),
    Committed(Result<CommitResult>),
}

/// What a flush means for its partition.
pub enum FlushOutcome {
    /// Nothing: it is not ours any more, or what it was made of is not believed any more.
    Outdated,
    Durable(TopicPartition, DurableSegment),
    /// What is stored cannot be read.
    Corrupt(TopicPartition, String),
    /// What is stored is not what was folded. With the chain's end.
    Conflict(TopicPartition, Offset, ChainConflict),
}

impl ColdPipeline {
    pub fn new(settings: ColdSettings, intake: Intake, histories: Histories, metrics: Arc<Metrics>, clocks: Clocks) -> Self {
        Self { settings, intake, histories, metrics, clocks, flushes: JoinSet::new(), commits: JoinSet::new() }
    }

    pub fn is_idle(&self) -> bool {
        self.flushes.is_empty() && self.commits.is_empty()
    }

    pub fn is_committing(&self) -> bool {
        !self.commits.is_empty()
    }

    /// `None`: nothing runs. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<ColdEvent> {
        tokio::select! {
            biased;
            Some(done) = self.flushes.join_next(), if !self.flushes.is_empty() => Some(ColdEvent::Flushed(Box::new(done))),
            Some(done) = self.commits.join_next(), if !self.commits.is_empty() => Some(ColdEvent::Committed(joined(done))),
            else => None,
        }
    }

    /// Flushes what is old or large enough; where memory is short the largest, too.
    pub fn flush_due(&mut self, partitions: &mut Partitions, now: Instant) {
        let largest = self.largest_if_short(partitions);
        for (partition, owned) in partitions.iter_mut() {
            let active = &owned.partition.active;
            let is_old = active.oldest().is_some_and(|at| now.duration_since(at) >= self.settings.flush_interval);
            if is_old || active.bytes() >= self.settings.flush_bytes || largest.as_ref() == Some(partition) {
                self.flush(partition, owned);
            }
        }
    }

    fn largest_if_short(&self, partitions: &Partitions) -> Option<TopicPartition> {
        if partitions.backlog_bytes() < self.settings.buffer_bytes {
            return None;
        }
        let may_flush = partitions.iter().filter(|(_, owned)| owned.partition_chain.has_writer());
        may_flush.max_by_key(|(_, owned)| owned.partition.active.held()).map(|(partition, _)| partition.clone())
    }

    /// Seals what a partition has and appends it to the chain, unless a flush runs or there is nothing.
    pub fn flush(&mut self, partition: &TopicPartition, owned: &mut OwnedPartition) {
        if owned.partition.active.is_empty() || owned.partition.position <= owned.partition.durable {
            return;
        }
        let Some(writer) = owned.partition_chain.take_writer() else { return };
        let sealed = Arc::new(std::mem::take(&mut owned.partition.active));
        owned.partition.sealed = Some(sealed.clone());
        let position = owned.partition.position;
        let complete_through = CompleteThrough { stored: None, reached: owned.partition.completeness.at(position) };
        let segment = NewSegment {
            start: owned.partition.durable,
            end: Offset(position.0 - 1),
            rows: Arc::new(sealed.segment_rows()),
            complete_through: complete_through.at(self.clocks.now()),
            leader_epoch: owned.partition_chain.leader_epoch,
            topic_id: owned.partition_chain.topic_id.clone(),
            clock: owned.partition.clock,
            installation: self.settings.owners.now().cloned().unwrap_or_default(),
            fold_settings: self.settings.fold_text.clone(),
            gap: false,
        };
        let job = FlushJob {
            ownership: Ownership { partition: partition.clone(), generation: owned.generation },
            writer,
            segment,
            history: self.histories.of(owned.partition.content).clone(),
            sends: std::mem::take(&mut owned.sends),
        };
        owned.partition_chain.flush_started(self.flushes.spawn(flush::flush(job)));
    }

    pub fn flushed(
        &mut self,
        done: std::result::Result<FlushResult, JoinError>,
        partitions: &mut Partitions,
    ) -> Result<FlushOutcome> {
        // Of a partition that was disowned.
        if done.as_ref().is_err_and(JoinError::is_cancelled) {
            return Ok(FlushOutcome::Outdated);
        }
        let FlushResult { ownership, writer, stored } = joined(done)?;
        let Some(owned) = partitions.current_mut(&ownership) else { return Ok(FlushOutcome::Outdated) };
        let partition = ownership.partition;
        if owned.partition.disowned {
            return Ok(FlushOutcome::Outdated);
        }
        let stored = match stored {
            Err(Error::Corrupt(reason)) => return Ok(FlushOutcome::Corrupt(partition, reason)),
            other => other?,
        };
        let durable = writer.next();
        let appended = match stored {
            AppendResult::Appended(appended) => appended,
            AppendResult::AlreadyThere(sequence) => {
                return Ok(FlushOutcome::Conflict(partition, durable, ChainConflict::EntryExists(sequence)));
            }
        };
        owned.partition_chain.give_back(writer);
        if let Appended::Exists { stored, agrees } = &appended {
            self.settings.owners.check_segment(stored)?;
            tracing::warn!(
                chain = %owned.partition.chain, start = stored.start.0, end = stored.end.0, agrees,
                "another owner's segment is stored"
            );
            if *agrees != Some(true) {
                return Ok(FlushOutcome::Conflict(partition, durable, ChainConflict::ForeignSegment { agrees: *agrees }));
            }
        }
        Ok(FlushOutcome::Durable(partition, self.durable(owned, durable, &appended)))
    }

    /// The chain ends at `durable` now, with the entries that were folded here.
    fn durable(&self, owned: &mut OwnedPartition, durable: Offset, appended: &Appended) -> DurableSegment {
        let sealed = owned.partition.sealed.take();
        let long = sealed.iter().flat_map(|sealed| long_sagas(sealed, durable)).collect();
        if let Appended::Exists { .. } = appended {
            owned.partition.adopt_foreign_segment(sealed, durable, Instant::now());
        } else if let Some(oldest) = sealed.as_ref().and_then(|sealed| sealed.rows().first()) {
            let delay = self.clocks.now().0 - oldest.entry.recorded_time.0;
            self.metrics.snapshot_durability_delay.observe(delay.max(0) as f64 / 1e6);
        }
        let start = std::mem::replace(&mut owned.partition.durable, durable);
        let suspects = std::mem::take(&mut owned.partition.suspects);
        partition_conflicts::check(&self.histories.step_events, &self.metrics, &owned.partition.chain, suspects);
        let at_rest = owned.partition.cache.unpin_through(Offset(durable.0 - 1));
        owned.partition.cache.trim();
        DurableSegment { start, long, at_rest }
    }

    fn due_commits(partitions: &Partitions) -> Vec<OffsetCommit> {
        partitions.iter().filter_map(|(partition, owned)| owned.partition_chain.due_commit(partition)).collect()
    }

    /// Commits where the chains end, if the group's offset is elsewhere. One try at a time; what is refused is tried again
    /// later.
    pub fn commit_due(&mut self, partitions: &Partitions) {
        if !self.commits.is_empty() {
            return;
        }
        let offsets = Self::due_commits(partitions);
        if !offsets.is_empty() {
            let intake = self.intake.clone();
            self.commits.spawn(async move {
                let committed = flush::commit(&intake, offsets.clone()).await;
                CommitResult { offsets, committed }
            });
        }
    }

    /// Tries once, and waits for it.
    pub async fn commit_now(&mut self, partitions: &mut Partitions) {
        let offsets = Self::due_commits(partitions);
        if !offsets.is_empty() {
            let committed = flush::commit(&self.intake, offsets.clone()).await;
            self.committed(CommitResult { offsets, committed }, partitions);
        }
    }

    pub fn committed(&mut self, CommitResult { offsets, committed }: CommitResult, partitions: &mut Partitions) {
        if !committed {
            return;
        }
        for (partition, next, _) in offsets {
            if let Some(owned) = partitions.get_mut(&partition).filter(|owned| owned.partition.durable == next) {
                owned.partition_chain.committed();
            }
        }
        // Of flushes that ended meanwhile.
        self.commit_due(partitions);
    }
}
