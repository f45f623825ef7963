//! The loop of the role: waits for what comes next and hands it on. Holds no rule of its own but the order of things; each part it
//! hands on to answers with values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::alarms::Alarms;
use super::assignment::{Assignment, AssignmentParts, StartOffsets, Takeover, Takeovers};
use super::chain_conflict::{ChainConflict, Restarts};
use super::clocks::Clocks;
use super::cold_pipeline::{ColdEvent, ColdPipeline, ColdSettings, FlushOutcome};
use super::completeness::{EndAt, EndOffsetPolls, PolledEnds};
use super::content::Histories;
use super::decode::EventDecoder;
use super::fold::{FoldStep, Folded, Folder, FolderParts};
use super::fold_gate::FoldWait;
use super::fold_queue::FoldQueue;
use super::gauges::Gauges;
use super::hot_expiry::HotExpiry;
use super::hot_pipeline::HotPipeline;
use super::hot_writer::{HotWork, HotWriteResult};
use super::index_sweep::{IndexRetention, IndexSweeper};
use super::lost_offsets::{Lost, LostOffsets};
use super::outbound::{Outbound, OutboundTopics};
use super::ownership::Ownership;
use super::partitions::Partitions;
use super::settings::{Dependencies, Settings};
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::intake::{Intake, IntakeEvent, StartAt};
use crate::kafka::record::PartitionRecords;
use crate::roles::{stop_intake, stopped};
use crate::saga::position::{Offset, Topic, TopicPartition};
use crate::schema_registry::lookups::{SchemaLookup, SchemaLookups};
use crate::telemetry::{Alarm, Metrics};

/// How often due work is looked for.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for a partition to become durable when it is taken away; the rest is folded again by the next owner.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Materialize {
    intake: Intake,
    ends: Ends,
    metrics: Arc<Metrics>,
    gauges: Gauges,
    alarms: Alarms,
    clocks: Clocks,
    /// The topic of the replay log.
    log: Topic,
    max_cached_sagas: usize,
    /// Told when partitions were assigned.
    assigned: Arc<dyn Fn(bool) + Send + Sync>,
    partitions: Partitions,
    assignment: Assignment,
    queue: FoldQueue,
    folder: Folder,
    outbound: Outbound,
    hot: HotPipeline,
    cold: ColdPipeline,
    expiry: HotExpiry,
    polls: EndOffsetPolls,
    sweeper: IndexSweeper,
    restarts: Restarts,
    stopping: bool,
}

impl Materialize {
    pub fn new(deps: Dependencies, settings: Settings, intake: Intake) -> Self {
        let (metrics, clocks) = (deps.metrics, Clocks::new(deps.clock, deps.now));
        let histories = Histories { step_events: deps.history, replay_log: deps.log_history };
        let retention = IndexRetention::new(clocks.clone(), settings.index_ttl);
        let assignment = AssignmentParts {
            objects: deps.objects,
            hot: deps.hot.clone(),
            ends: deps.ends.clone(),
            owners: settings.owners.clone(),
            histories: histories.clone(),
            clocks: clocks.clone(),
            log: settings.log.clone(),
        };
        let folder = FolderParts {
            hot: deps.hot.clone(),
            histories: histories.clone(),
            chains: deps.chains,
            partitioning: deps.partitioning,
            metrics: metrics.clone(),
            settings: settings.fold,
            retention: retention.clone(),
        };
        let lookups = SchemaLookups::new(deps.registry, deps.schemas.clone());
        let targets = OutboundTopics {
            dead_letters: settings.dead_letters,
            requests: settings.requests,
            request_schema: settings.request_schema,
        };
        let cold = ColdSettings {
            flush_interval: settings.flush_interval,
            flush_bytes: settings.flush_bytes,
            buffer_bytes: settings.buffer_bytes,
            fold_text: settings.fold_text,
            owners: settings.owners,
        };
        Self {
            ends: deps.ends.clone(),
            gauges: Gauges::new(metrics.clone(), &histories.step_events, &clocks, settings.index_ttl),
            alarms: Alarms::new(metrics.clone()),
            log: settings.log,
            max_cached_sagas: settings.max_cached_sagas,
            assigned: deps.assigned,
            partitions: Partitions::default(),
            assignment: Assignment::new(assignment),
            queue: FoldQueue::new(intake.clone(), settings.buffer_bytes.saturating_mul(2)),
            folder: Folder::new(folder, EventDecoder::new(deps.schemas, lookups, settings.max_record_bytes)),
            outbound: Outbound::new(deps.publisher, metrics.clone(), targets),
            hot: HotPipeline::new(deps.hot.clone(), metrics.clone(), clocks.clone(), retention.clone()),
            cold: ColdPipeline::new(cold, intake.clone(), histories.clone(), metrics.clone(), clocks.clone()),
            expiry: HotExpiry::new(histories.clone()),
            polls: EndOffsetPolls::new(deps.ends, clocks.clone()),
            sweeper: IndexSweeper::new(deps.hot, histories, retention, Instant::now()),
            restarts: Restarts::default(),
            stopping: false,
            intake,
            metrics,
            clocks,
        }
    }

    /// What happens depends on the events alone, and on no clock.
    #[cfg(test)]
    pub fn without_polls(mut self) -> Self {
        self.polls.never();
        self
    }

    /// Until the shutdown is signalled and everything read is durable and committed, or the intake fails.
    pub async fn run(mut self, mut events: mpsc::Receiver<IntakeEvent>, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_fold = self.hot.has_room() && self.queue.has_next(&self.partitions);
            tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !self.stopping => self.stop(),
                Some(event) = self.cold.next(), if !self.cold.is_idle() => self.cold_event(event)?,
                Some(done) = self.hot.next_result(), if !self.hot.is_idle() => self.hot_written(done?),
                Some(polled) = self.polls.next(), if !self.polls.is_idle() => self.learn_ends(polled?),
                Some(read) = self.expiry.next(), if !self.expiry.is_idle() => {
                    if let Some(work) = self.expiry.segment_read(read?, &mut self.partitions) {
                        self.hot.enqueue(work, &mut self.partitions);
                        self.expiry.read_behind(&self.partitions, self.hot.has_room_to_expire());
                    }
                }
                Some(done) = self.assignment.next(), if !self.assignment.is_idle() => {
                    if let Some(takeovers) = self.assignment.opened(done)? {
                        self.take_over(takeovers);
                    }
                }
                Some(looked_up) = self.folder.decoder.next_schema(), if self.folder.decoder.is_asking() => {
                    self.schema_looked_up(looked_up?)?;
                }
                Some(load) = self.folder.loader.next(), if !self.folder.loader.is_idle() => {
                    if let Some((partition, Err(error))) = self.folder.loader.loaded(load?, &mut self.partitions) {
                        self.fold_failed(&partition, error)?;
                    }
                }
                event = events.recv() => match event {
                    Some(event) => self.intake_event(event).await?,
                    None => return Ok(()),
                },
                _ = tick.tick() => self.tick(),
                () = std::future::ready(()), if may_fold => self.fold_next().await?,
            }
        }
    }

    /// Stops reading; the intake takes the partitions away, which drains them, and then closes the channel.
    fn stop(&mut self) {
        self.stopping = true;
        self.queue.clear();
        stop_intake(&self.intake);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.partitions.values_mut().for_each(|owned| owned.sends.prune());
        if self.polls.is_due(now) && !self.partitions.is_empty() {
            self.polls.ask(self.partitions.names().cloned().collect(), now);
            self.cold.commit_due(&self.partitions);
            self.expiry.read_behind(&self.partitions, self.hot.has_room_to_expire());
        }
        self.cold.flush_due(&mut self.partitions, now);
        self.hot.start(&mut self.partitions);
        self.queue.suspend_and_resume(&mut self.partitions, now);
        self.restarts.reassign(&self.partitions, &self.intake);
        self.sweeper.sweep_if_due(&self.partitions, now);
        self.gauges.tick(&mut self.partitions, now);
    }

    async fn intake_event(&mut self, event: IntakeEvent) -> Result<()> {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                self.metrics.consumer_rebalances.with_label_values(&["materialize"]).inc();
                self.assignment.open(partitions, reply);
            }
            IntakeEvent::Revoked { partitions, lost, reply } => {
                self.revoke(&partitions, lost).await;
                self.gauges.assigned(&self.partitions);
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch } => {
                self.clocks.note_records(batch.iter().map(|(records, _)| records), &self.log);
                if !self.stopping {
                    self.queue.push(batch, &self.partitions);
                }
            }
            IntakeEvent::ReachedEnd { partition, position } => {
                if !self.queue.move_position(&partition, position)
                    && let Some(owned) = self.partitions.get_mut(&partition).filter(|owned| owned.gate.takes_records())
                {
                    owned.partition.position = owned.partition.position.max(position);
                    self.hot.start(&mut self.partitions);
                }
            }
            IntakeEvent::OffsetsGone { partition, position, reason } => {
                self.offsets_gone(&partition, position, &reason).await;
            }
            IntakeEvent::ReadsAgain { partition, ticket, outcome } => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    FoldQueue::resumed(owned, &partition, ticket, outcome);
                }
            }
            IntakeEvent::Stats(stats) => self.gauges.intake(&stats, &self.partitions),
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read step events")),
        }
        Ok(())
    }

    /// Takes over what could be opened.
    fn take_over(&mut self, Takeovers { partitions, reply }: Takeovers) {
        let mut starts = StartOffsets::with_capacity(partitions.len());
        for (partition, takeover) in partitions {
            let start = match takeover {
                Takeover::Owned(owned, start) => {
                    self.alarms.clear(&partition);
                    self.partitions.insert(partition.clone(), *owned);
                    // Where the partition ends was read before the chain was opened: what time that holds for, only asking tells.
                    self.polls.ask_soon();
                    start
                }
                Takeover::Stopped(alarm, reason) => {
                    self.alarms.raise(&partition, alarm, &reason);
                    StartAt::Stop
                }
                Takeover::Later => StartAt::Later,
            };
            starts.push((partition, start));
        }
        self.partitions.share_cache(self.max_cached_sagas);
        self.gauges.assigned(&self.partitions);
        if !starts.iter().any(|(_, start)| *start == StartAt::Later) {
            (self.assigned)(true);
        }
        let _ = reply.send(starts);
    }

    /// Makes what these partitions have durable, for a while, and forgets them.
    async fn revoke(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.assignment.cancel(partitions);
        self.queue.remove(partitions);
        if !lost && !matches!(tokio::time::timeout(DRAIN_TIMEOUT, self.drain(partitions)).await, Ok(Ok(()))) {
            tracing::warn!("partitions given up before all was durable; the next owner folds it again");
        }
        for partition in partitions {
            self.partitions.remove(partition);
            self.alarms.clear(partition);
            self.restarts.forget(partition);
            self.gauges.forget(partition);
        }
        self.partitions.share_cache(self.max_cached_sagas);
    }

    async fn drain(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        loop {
            let mut is_busy = false;
            for partition in partitions {
                if let Some(owned) = self.partitions.get_mut(partition) {
                    self.cold.flush(partition, owned);
                    is_busy |= owned.partition_chain.is_flushing() || !owned.partition.active.is_empty();
                }
            }
            if !is_busy && self.hot.is_idle() && !self.cold.is_committing() {
                break;
            }
            tokio::select! {
                Some(event) = self.cold.next(), if !self.cold.is_idle() => self.cold_event(event)?,
                Some(done) = self.hot.next_result(), if !self.hot.is_idle() => self.hot_written(done?),
                else => break,
            }
        }
        // The last moment to tell the group: once more for what was refused.
        self.cold.commit_now(&mut self.partitions).await;
        Ok(())
    }

    /// Folds the batch that is next.
    async fn fold_next(&mut self) -> Result<()> {
        let Some((records, permit)) = self.queue.take_next(&self.partitions) else { return Ok(()) };
        let partition = records.partition.clone();
        match self.fold(&records).await {
            Ok(Err(wait)) => {
                // The same batch again, later, and before the partition's others.
                self.queue.put_back((records, permit));
                self.wait_for(&partition, wait);
            }
            Ok(Ok(folded)) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.gate.folded();
                }
                if let Some(rest) = folded.rest {
                    self.queue.put_back((rest, permit));
                }
            }
            Err(error) => {
                self.queue.put_back((records, permit));
                self.fold_failed(&partition, error)?;
            }
        }
        Ok(())
    }

    /// Folds records of one partition, and has written what that gives.
    async fn fold(&mut self, records: &PartitionRecords) -> Result<FoldStep> {
        let owned = self.partitions.get_mut(&records.partition).filter(|owned| !owned.gate.is_stopped());
        let Some(owned) = owned else { return Ok(Ok(Folded::default())) };
        let mut folded = match self.folder.fold(records, owned).await? {
            Ok(folded) => folded,
            Err(wait) => return Ok(Err(wait)),
        };
        let (dead, outcomes) = (std::mem::take(&mut folded.dead), std::mem::take(&mut folded.outcomes));
        self.outbound.send(&mut owned.sends, &records.partition, dead, outcomes)?;
        let batch = std::mem::take(&mut folded.hot);
        self.hot.enqueue(HotWork { batch, ..HotWork::default() }, &mut self.partitions);
        self.cold.flush_due(&mut self.partitions, Instant::now());
        Ok(Ok(folded))
    }

    fn wait_for(&mut self, partition: &TopicPartition, wait: FoldWait) {
        if let FoldWait::Schema(schema, _) = wait {
            self.folder.decoder.ask(schema);
        }
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.gate.wait_for(wait);
        }
        self.queue.suspend_and_resume(&mut self.partitions, Instant::now());
    }

    /// Nothing was applied: what waits of the partition is tried again later.
    fn fold_failed(&mut self, partition: &TopicPartition, error: Error) -> Result<()> {
        match error {
            Error::Unavailable(reason) => {
                if let Some(owned) = self.partitions.get_mut(partition) {
                    owned.gate.failed(&reason, Instant::now());
                }
                self.queue.suspend_and_resume(&mut self.partitions, Instant::now());
            }
            // What is stored cannot be read: this partition would be folded wrongly, the others need not wait for it.
            Error::Corrupt(reason) => self.give_up(partition, Alarm::HistoryCorrupt, &reason),
            other => return Err(other),
        }
        Ok(())
    }

    /// Partitions that waited for a schema go on, or its records are given up.
    fn schema_looked_up(&mut self, (of, found): SchemaLookup) -> Result<()> {
        let waiting = self.partitions.iter().filter(|(_, owned)| owned.gate.waits_for_schema(of));
        let waiting: Vec<TopicPartition> = waiting.map(|(partition, _)| partition.clone()).collect();
        for partition in waiting {
            if let Some(owned) = self.partitions.get_mut(&partition) {
                owned.gate.schema_looked_up(found.as_ref().ok().copied());
            }
            if let Err(error) = &found {
                self.fold_failed(&partition, error.clone())?;
            }
        }
        Ok(())
    }

    fn hot_written(&mut self, done: HotWriteResult) {
        let restarts = self.hot.written(done, &mut self.partitions);
        self.restarts.add(restarts);
        self.restarts.reassign(&self.partitions, &self.intake);
    }

    fn cold_event(&mut self, event: ColdEvent) -> Result<()> {
        match event {
            ColdEvent::Committed(done) => self.cold.committed(done?, &mut self.partitions),
            ColdEvent::Flushed(done) => match self.cold.flushed(*done, &mut self.partitions)? {
                FlushOutcome::Outdated => {}
                FlushOutcome::Durable(partition, segment) => {
                    if let Some(owned) = self.partitions.get_mut(&partition) {
                        let work = self.expiry.expire_after_flush(owned, segment, self.hot.has_room_to_expire());
                        self.hot.enqueue(work, &mut self.partitions);
                    }
                    self.cold.commit_due(&self.partitions);
                }
                FlushOutcome::Corrupt(partition, reason) => self.flush_refused(&partition, &reason),
                FlushOutcome::Conflict(partition, durable, conflict) => self.restart(&partition, durable, conflict),
            },
        }
        Ok(())
    }

    /// Folds a partition again from the chain's end, `durable`.
    fn restart(&mut self, partition: &TopicPartition, durable: Offset, conflict: ChainConflict) {
        if let ChainConflict::EntryExists(sequence) = conflict
            && !self.restarts.may_restart(partition, durable)
        {
            let sequence = sequence.0;
            let reason = format!(
                "append at {durable}: the chain has entry {sequence} of a saga already, folded otherwise; folding again from the \
                 chain's end gave the same"
            );
            return self.flush_refused(partition, &reason);
        }
        let Some(owned) = self.partitions.get_mut(partition) else { return };
        conflict.report(&owned.partition.chain, durable, &self.metrics);
        owned.partition.durable = durable;
        owned.partition_chain.close();
        let ownership = Ownership { partition: partition.clone(), generation: owned.generation };
        self.stop_reading(partition);
        self.disown(partition, vec![ownership]);
    }

    async fn offsets_gone(&mut self, partition: &TopicPartition, position: Offset, reason: &str) {
        // Waits for the answer: rare, and what follows depends on it.
        let earliest = self.ends.earliest(std::slice::from_ref(partition)).await.ok();
        let earliest = earliest.and_then(|found| found.first().map(|(_, earliest)| *earliest));
        let lost = LostOffsets::of(Lost { position, earliest });
        self.give_up(partition, lost.alarm(), &format!("offset {position}: {reason}"));
        if lost == LostOffsets::Replaced {
            self.abort_and_disown(partition);
        }
    }

    /// What is stored disagrees with what was folded.
    fn flush_refused(&mut self, partition: &TopicPartition, reason: &str) {
        self.give_up(partition, Alarm::HistoryCorrupt, reason);
        self.abort_and_disown(partition);
    }

    /// Reads a partition no further; what was folded of it becomes durable.
    fn give_up(&mut self, partition: &TopicPartition, alarm: Alarm, reason: &str) {
        self.alarms.raise(partition, alarm, reason);
        self.stop_reading(partition);
    }

    fn stop_reading(&mut self, partition: &TopicPartition) {
        self.queue.remove(std::slice::from_ref(partition));
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.gate.stop();
        }
        if let Err(reason) = self.intake.let_go(partition.clone()) {
            tracing::debug!(%reason, "a stopped partition is not paused");
        }
    }

    fn abort_and_disown(&mut self, partition: &TopicPartition) {
        if let Some(owned) = self.partitions.get_mut(partition) {
            owned.partition_chain.abort_flush();
        }
        self.disown(partition, Vec::new());
    }

    /// What was folded and is not durable is not to be believed: it is not flushed, and hot neither keeps it nor vouches
    /// for it. What cold has of its sagas is read there.
    fn disown(&mut self, partition: &TopicPartition, restarts: Vec<Ownership>) {
        let Some(owned) = self.partitions.get_mut(partition) else { return };
        let forget = owned.partition.disown();
        owned.partition.check_marks_soon();
        self.hot.enqueue(HotWork { forget, restarts, ..HotWork::default() }, &mut self.partitions);
    }

    fn learn_ends(&mut self, polled: PolledEnds) {
        let at = polled.at;
        for end in polled.known() {
            if let Some(owned) = self.partitions.get_mut(&end.partition) {
                if let Some(at) = at {
                    owned.partition.completeness.note(EndAt { end: end.end, at });
                }
                owned.partition_chain.leader_epoch = end.leader_epoch.or(owned.partition_chain.leader_epoch);
                self.gauges.lag(&end.partition, end.end, &self.partitions);
            }
        }
    }
}
