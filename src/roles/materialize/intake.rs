//! What the role does with the events of its intake: records are queued and folded one partition's batch at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Materialize;
use super::assign::HISTORY_CORRUPT;
use super::hot_writer::HotWork;
use super::partition::{Content, Decoded, MUCH_MERGED, record_begins};
use super::publish::DeadLetter;
use super::sweep;
use crate::cpu;
use crate::error::{Error, Result};
use crate::kafka::broker_clock::Stamp;
use crate::kafka::intake::{IntakeEvent, IntakeStats};
use crate::kafka::record::{PartitionRecords, Record};
use crate::roles::log_saga;
use crate::roles::partitioning::Strays;
use crate::roles::schema::learn;
use crate::saga::event::StepEvent;
use crate::saga::installation::OF_ANOTHER;
use crate::saga::json::Json;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::time::Micros;
use crate::wire::event::{decode_event, schema_missing};
use crate::wire::log::{decode_log, log_json};
use crate::wire::payload::NotDecoded;

/// Longest wait for a partition to become durable when it is taken away; the rest is folded again by the next owner.
const DRAIN: Duration = Duration::from_secs(20);

/// Bytes of sagas loaded for one fold; then what can be folded is.
const MAX_LOADED_BYTES: usize = 64 << 20;
/// Sagas loaded in one round trip, to begin with: how large they are shows afterwards.
pub(super) const FEW_TOGETHER: usize = 8;
/// Most of them.
const MANY_TOGETHER: usize = 4_096;

/// Codes of [`Materialize::alarm`].
const ALARMS: [&str; 5] = ["offsets_gone", "offsets_replaced", "topic_replaced", OF_ANOTHER, HISTORY_CORRUPT];

impl Materialize {
    pub(super) async fn intake_event(&mut self, event: IntakeEvent) -> Result<()> {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                self.parts.metrics.consumer_rebalances.with_label_values(&["materialize"]).inc();
                self.assigned(partitions, reply);
            }
            IntakeEvent::Revoked { partitions, lost, reply } => {
                self.revoked(&partitions, lost).await?;
                self.assigned_metric();
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch, held } => {
                let held = Arc::new(held);
                self.hear(&batch);
                if !self.stopping {
                    self.waiting.extend(batch.into_iter().map(|records| (records, held.clone())));
                }
            }
            IntakeEvent::ReachedEnd { partition, position } => {
                if !follows_what_waits(&mut self.waiting, &partition, position)
                    && let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.stopped)
                {
                    owned.partition.position = owned.partition.position.max(position);
                    self.start_hot();
                }
            }
            IntakeEvent::OffsetsGone { partition, position, reason } => {
                self.offsets_gone(&partition, position, &reason).await;
            }
            IntakeEvent::Stats(stats) => self.stats(&stats),
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read step events")),
        }
        Ok(())
    }

    /// What time it is at the brokers. Who stamps the events matters; the replay log's records are our own.
    fn hear(&self, batch: &[PartitionRecords]) {
        let now = Instant::now();
        for records in batch {
            if matches!(records.stamp, Stamp::Broker(_)) || *records.partition.topic != *self.settings.log {
                self.parts.clock.read(records.stamp, now);
            }
        }
    }

    pub(super) fn assigned_metric(&self) {
        self.parts.metrics.consumer_assigned_partitions.with_label_values(&["materialize"]).set(self.owned.len() as i64);
    }

    /// Makes what these partitions have durable, for a while, and forgets them.
    async fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) -> Result<()> {
        self.waiting.retain(|(records, _)| !partitions.contains(&records.partition));
        if !lost {
            let deadline = tokio::time::Instant::now() + DRAIN;
            if tokio::time::timeout_at(deadline, self.drain(partitions))
                .await
                .map_err(|_| ())
                .and_then(|r| r.map_err(|_| ()))
                .is_err()
            {
                tracing::warn!("partitions given up before all was durable; the next owner folds it again");
            }
        }
        for partition in partitions {
            self.owned.remove(partition);
            self.all_clear(partition);
            let labels = [&*partition.topic, &partition.partition.to_string()];
            // A series of a partition that somebody else has would stand still and mislead.
            let _ = self.parts.metrics.consumer_lag_records.remove_label_values(&labels);
        }
        self.share_cache();
        Ok(())
    }

    async fn drain(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        loop {
            for partition in partitions {
                self.start_flush(partition);
            }
            let busy = |owned: &super::Owned| owned.flush.is_some() || !owned.partition.active.is_empty();
            let cold_busy = partitions.iter().filter_map(|partition| self.owned.get(partition)).any(busy);
            if !cold_busy && self.hot.is_empty() && self.commits.is_empty() {
                break;
            }
            tokio::select! {
                Some(done) = self.flushes.join_next(), if !self.flushes.is_empty() => self.flush_ended(done)?,
                Some(done) = self.hot.join_next(), if !self.hot.is_empty() => self.hot_written(super::joined(done)??)?,
                Some(done) = self.commits.join_next(), if !self.commits.is_empty() => self.committed(super::joined(done)?),
                else => break,
            }
        }
        // The last moment to tell the group: once more for what was refused.
        let due = self.due_commits();
        if !due.is_empty() {
            let committed = super::flush::commit(&self.intake, due.clone()).await;
            self.committed((due, committed));
        }
        Ok(())
    }

    /// Place of the batch that waits longest among those of partitions that can go on: what one cannot read or send must
    /// not keep the others.
    pub(super) fn next_to_fold(&self) -> Option<usize> {
        let now = Instant::now();
        let rests = |owned: &super::Owned| owned.sends.is_full() || now < owned.not_before;
        self.waiting.iter().position(|(records, _)| !self.owned.get(&records.partition).is_some_and(rests))
    }

    /// Folds that batch.
    pub(super) async fn fold_next(&mut self) -> Result<()> {
        let next = self.next_to_fold().and_then(|at| self.waiting.remove(at));
        let Some((records, held)) = next else { return Ok(()) };
        match self.fold(&records).await {
            Ok(rest) => {
                if let Some(owned) = self.owned.get_mut(&records.partition) {
                    owned.loading.succeeded();
                }
                if let Some(rest) = rest {
                    self.waiting.push_front((rest, held));
                }
            }
            Err(Error::Unavailable(reason)) => {
                // Nothing was applied: the same batch again, later, and before the partition's others.
                if let Some(owned) = self.owned.get_mut(&records.partition) {
                    owned.not_before = Instant::now() + owned.loading.failed(&reason);
                }
                self.waiting.push_front((records, held));
            }
            // What is stored cannot be read: this partition would be folded wrongly, the others need not wait for it.
            Err(Error::Corrupt(reason)) => self.give_up(&records.partition, HISTORY_CORRUPT, &reason),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Gives back what of the batch was too much for one fold.
    async fn fold(&mut self, batch: &PartitionRecords) -> Result<Option<PartitionRecords>> {
        let Some(owned) = self.owned.get(&batch.partition).filter(|owned| !owned.stopped) else { return Ok(None) };
        let content = owned.partition.content;
        let position = owned.partition.position;
        let mut clock = owned.partition.clock;
        let mut dead = Vec::new();
        let mut decoded = Vec::with_capacity(batch.records.len());
        // A seek or a new assignment may give records again.
        for record in batch.records.iter().filter(|record| record.offset >= position) {
            let recorded = match content {
                Content::StepEvents => clock.read(record.timestamp, record.by_broker),
                // Compaction takes records away, so those before it say nothing; resaga alone writes it.
                Content::ReplayLog => Ok(record.timestamp),
            };
            match self.decode(content, &batch.partition, record).await? {
                Ok((event, index)) => {
                    let before = |before: Option<Micros>| before.unwrap_or_else(|| LogClock::of_event(event.occurred_at));
                    let recorded = recorded.unwrap_or_else(before);
                    let offset = record.offset;
                    decoded.push(Decoded { offset, recorded, size: record.size(), event });
                    decoded.extend(index.map(|event| Decoded { offset, recorded, size: 0, event: *event }));
                }
                Err(letter) => dead.push(letter),
            }
        }
        let loaded = self.load_missing(&batch.partition, &decoded).await?;
        let Some(owned) = self.owned.get(&batch.partition) else { return Ok(None) };
        let (fits, merged) = owned.partition.affordable(&decoded[..loaded]);
        let rest = decoded.get(fits).map(|first| first.offset);
        decoded.truncate(fits);
        let is_in = |offset: Offset| rest.is_none_or(|rest| offset < rest);
        dead.retain(|letter| is_in(letter.offset));
        crate::crash::point("materialize.before_hot");

        if content == Content::StepEvents
            && let Some(partitions) = self.parts.chains.partitions_of(&batch.partition.topic)
        {
            let keys = decoded.iter().map(|event| event.event.saga_id.as_str().as_bytes());
            if let Some(strays) = self.parts.partitioning.see(keys, batch.partition.partition, partitions) {
                self.strays(&batch.partition, decoded.get(strays.first).map(|first| first.offset), strays);
            }
        }
        let (now, held_before) = (Instant::now(), self.held_before());
        let Some(owned) = self.owned.get_mut(&batch.partition) else { return Ok(None) };
        for _ in &dead {
            owned.partition.active.skip(now);
        }
        owned.partition.max_member = self.parts.hot.max_member();
        let apply = || owned.partition.apply(decoded, &self.settings.fold, now);
        let mut work = if merged < MUCH_MERGED { apply() } else { cpu::long(apply).await };
        owned.partition.position = owned.partition.position.max(rest.unwrap_or(batch.position));
        sweep::hold_old(&mut work.hot, held_before, &owned.partition.chain, owned.partition.position, &*self.parts.hot);
        let doubted = match content {
            Content::StepEvents => read_times(&mut owned.partition.clock, batch, position, is_in),
            Content::ReplayLog => 0,
        };

        let metrics = &self.parts.metrics;
        metrics
            .events_consumed
            .with_label_values(&[&*batch.partition.topic])
            .inc_by(batch.records.iter().filter(|record| is_in(record.offset)).count() as u64);
        metrics.events_time_doubted.inc_by(doubted);
        metrics.events_duplicate.inc_by(work.tally.duplicates);
        for anomaly in &work.tally.anomalies {
            metrics.events_anomalies.with_label_values(&[anomaly.as_str()]).inc();
        }
        self.sequences_taken(&batch.partition, work.taken, now);
        let metrics = &self.parts.metrics;
        for (offset, code, message) in work.dead {
            if let Some(record) = batch.records.iter().find(|record| record.offset == offset) {
                dead.push(DeadLetter::of(record, "fold", code, message));
            }
        }
        for letter in &dead {
            metrics.dead_letters.with_label_values(&[letter.stage, letter.code]).inc();
        }
        self.publish(&batch.partition, dead, work.outcomes)?;
        self.queue_hot(HotWork { batch: work.hot, ..HotWork::default() });
        self.flush_due(now);
        let rest_of = |from: Offset| {
            let records = batch.records.iter().filter(|record| record.offset >= from).cloned().collect();
            PartitionRecords { records, partition: batch.partition.clone(), ..*batch }
        };
        Ok(rest.map(rest_of))
    }

    /// Says where records are that a producer with another partitioner wrote, or somebody by hand: at the first, then ever
    /// more rarely.
    fn strays(&self, partition: &TopicPartition, offset: Option<Offset>, strays: Strays) {
        let counter = self.parts.metrics.events_misplaced.with_label_values(&[&*partition.topic]);
        let before = counter.get();
        counter.inc_by(strays.count);
        if before.checked_ilog2() != counter.get().checked_ilog2() {
            tracing::warn!(
                topic = %partition.topic, partition = partition.partition, offset = offset.map(|offset| offset.0),
                expected_partition = strays.home, partitioner = strays.partitioner.as_str(), strays = counter.get(),
                "step event in another partition than its key's: find its producer by this record, and let it use the partitioner \
                 that the others use"
            );
        }
    }

    /// The event of a record (of the replay log also that of an index), or its dead letter. `Unavailable`: the schema
    /// registry does not answer.
    async fn decode(
        &self,
        content: Content,
        partition: &TopicPartition,
        record: &Record,
    ) -> Result<std::result::Result<(StepEvent, Option<Box<StepEvent>>), DeadLetter>> {
        let value = record.value.as_deref();
        loop {
            let schemas = &self.parts.schemas;
            let read = match content {
                Content::StepEvents => {
                    let max = self.settings.max_record_bytes;
                    decode_event(record.key.as_deref(), value, &record.headers, max, schemas).map(|event| (event, None))
                }
                Content::ReplayLog => decode_log(value, &record.headers, schemas).map(|replay| {
                    let text = Json::from_valid(log_json(&replay));
                    let event = log_saga::as_step_event(&replay.replay_id, text, partition, record.offset);
                    (event, log_saga::as_index_event(&replay).map(Box::new))
                }),
            };
            match read {
                Ok(event) => return Ok(Ok(event)),
                Err(NotDecoded::DeadLetter { code, message }) => return Ok(Err(DeadLetter::of(record, "decode", code, message))),
                Err(NotDecoded::NeedSchema(schema)) => {
                    if !learn(self.parts.registry.as_deref(), schema, schemas).await? {
                        let max_record = match content {
                            Content::StepEvents => self.settings.max_record_bytes,
                            Content::ReplayLog => u64::MAX,
                        };
                        let (code, message) = schema_missing(schema, record.size() as u64, max_record);
                        return Ok(Err(DeadLetter::of(record, "decode", code, message)));
                    }
                }
            }
        }
    }

    /// Puts sagas that have durable entries into the cache, in the order in which they are needed and as many as fit in
    /// memory; gives how many of the events can be folded then. The rest finds more in the cache the next time.
    async fn load_missing(&mut self, partition: &TopicPartition, decoded: &[Decoded]) -> Result<usize> {
        let Some(owned) = self.owned.get(partition) else { return Ok(decoded.len()) };
        let may_have_entries = |id: &SagaId| {
            // While a flush has the writer, ask: it is rare, and a false yes only costs a look-up. Of what an earlier
            // incarnation of the topic holds the writer knows nothing.
            owned.partition.chain.incarnation > 0 || owned.writer.as_ref().is_none_or(|writer| writer.may_contain(id))
        };
        let mut missing = owned.partition.missing(decoded.iter().map(|d| &d.event), may_have_entries);
        let mut loaded = 0;
        while !missing.is_empty() {
            if loaded >= MAX_LOADED_BYTES {
                let missing: HashSet<SagaId> = missing.into_iter().collect();
                let waits = |decoded: &Decoded| missing.contains(&decoded.event.saga_id);
                return Ok(decoded.iter().position(waits).map_or(decoded.len(), |at| record_begins(decoded, at)));
            }
            let later = missing.split_off(self.load_together.min(missing.len()));
            let bytes = self.load(partition, &missing).await?;
            // Large ones in ever smaller company.
            self.load_together = match bytes < MAX_LOADED_BYTES / 4 {
                true => (self.load_together * 2).min(MANY_TOGETHER),
                false => (self.load_together / 2).max(1),
            };
            loaded += bytes;
            missing = later;
        }
        Ok(decoded.len())
    }

    /// Loads these sagas in one round trip; gives their bytes.
    async fn load(&mut self, partition: &TopicPartition, sagas: &[SagaId]) -> Result<usize> {
        let Some(owned) = self.owned.get(partition) else { return Ok(0) };
        let (chain, durable) = (owned.partition.chain.clone(), owned.partition.durable);
        let started = Instant::now();
        let history = self.parts.history_of(owned.partition.content);
        let found = history.newest_sagas(sagas, &chain, durable).await?;
        let timer = self.parts.metrics.event_process_duration.with_label_values(&["load"]);
        timer.observe(started.elapsed().as_secs_f64());
        let Some(owned) = self.owned.get_mut(partition) else { return Ok(0) };
        let (mut bytes, mut failure) = (0, None);
        for newest in found {
            match newest {
                Ok(Some(newest)) => {
                    bytes += newest.saga.state.size();
                    if newest.of_before {
                        owned.partition.of_before.insert(newest.saga.state.saga_id.clone());
                    }
                    owned.partition.cache.keep(Box::new(newest.saga));
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        // What was loaded stays for the next try.
        failure.map_or(Ok(bytes), Err)
    }

    fn stats(&self, stats: &IntakeStats) {
        let metrics = &self.parts.metrics;
        let micros = |micros: u64| micros as f64 / 1e6;
        metrics.broker_rtt_seconds.with_label_values(&["0.5"]).set(micros(stats.round_trip_p50_micros));
        metrics.broker_rtt_seconds.with_label_values(&["0.99"]).set(micros(stats.round_trip_p99_micros));
        for partition in &stats.partitions {
            if let (Some(end), Some(owned)) = (partition.end, self.owned.get(&partition.partition)) {
                let lag = (end.0 - owned.partition.position.0).max(0);
                let labels = [&*partition.partition.topic, &partition.partition.partition.to_string()];
                metrics.consumer_lag_records.with_label_values(&labels).set(lag);
            }
        }
    }

    /// Ends the alarms of a partition that goes on, or goes to another process.
    pub(super) fn all_clear(&self, partition: &TopicPartition) {
        for code in ALARMS {
            let labels = [&*partition.topic, &partition.partition.to_string(), code];
            // It is an error that there is none, and nothing else.
            let _ = self.parts.metrics.partition_alarms.remove_label_values(&labels);
        }
    }

    /// Stops one partition until an operator acts; the others go on.
    pub(super) fn alarm(&self, partition: &TopicPartition, code: &str, reason: &str) {
        let labels = [&*partition.topic, &partition.partition.to_string(), code];
        self.parts.metrics.partition_alarms.with_label_values(&labels).set(1);
        tracing::error!(
            topic = %partition.topic, partition = partition.partition, code, reason,
            "partition stopped; `resaga doctor` explains, `resaga store accept-gap` accepts the loss"
        );
    }
}

/// Moves the log's clock past the records of the batch that were folded; gives how many timestamps it doubts.
fn read_times(clock: &mut LogClock, batch: &PartitionRecords, from: Offset, is_in: impl Fn(Offset) -> bool) -> u64 {
    let folded = batch.records.iter().filter(|record| record.offset >= from && is_in(record.offset));
    folded.map(|record| u64::from(clock.read(record.timestamp, record.by_broker).is_err())).sum()
}

/// A position that was reached behind records which still wait counts once they are folded: it is told only once, and
/// passes control records that no record follows. `false`: nothing of the partition waits.
fn follows_what_waits<H>(waiting: &mut VecDeque<(PartitionRecords, H)>, partition: &TopicPartition, position: Offset) -> bool {
    let last = waiting.iter_mut().rev().map(|(records, _)| records).find(|records| records.partition == *partition);
    if let Some(records) = last {
        records.position = records.position.max(position);
        return true;
    }
    false
}

impl DeadLetter {
    fn of(record: &Record, stage: &'static str, code: &'static str, message: String) -> Self {
        Self { record: record.clone(), offset: record.offset, stage, code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(partition: i32, position: i64) -> (PartitionRecords, ()) {
        let partition = TopicPartition::new("events", partition);
        (
            PartitionRecords {
                partition,
                records: Vec::new(),
                position: Offset(position),
                leader_epoch: None,
                stamp: Stamp::Producer,
            },
            (),
        )
    }

    #[test]
    fn an_end_reached_behind_records_that_wait_is_not_forgotten() {
        let mut waiting: VecDeque<_> = [records(0, 5), records(1, 7), records(0, 9)].into();
        assert!(follows_what_waits(&mut waiting, &TopicPartition::new("events", 0), Offset(10)));
        let positions: Vec<i64> = waiting.iter().map(|(records, ())| records.position.0).collect();
        assert_eq!(positions, [5, 7, 10], "the last batch of the partition ends behind the control record");
        assert!(!follows_what_waits(&mut waiting, &TopicPartition::new("events", 2), Offset(3)));
    }
}
