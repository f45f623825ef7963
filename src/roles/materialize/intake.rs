//! What the role does with the events of its intake: records are queued and folded one partition's batch at a time.

use std::collections::VecDeque;
use std::time::Instant;

use super::assign::HISTORY_CORRUPT;
use super::hot_writer::HotWork;
use super::partition::{Content, Decoded, MUCH_MERGED};
use super::publish::DeadLetter;
use super::suspended::{Folded, Waits};
use super::{Materialize, OwnedPartition, sweep};
use crate::cpu;
use crate::error::Result;
use crate::kafka::broker_clock::Stamp;
use crate::kafka::intake::{IntakeEvent, IntakeStats, MemoryPermit};
use crate::kafka::record::{PartitionRecords, Record};
use crate::partitioning::Strays;
use crate::replay_log::in_history;
use crate::saga::event::StepEvent;
use crate::saga::installation::OF_ANOTHER;
use crate::saga::json::Json;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::time::Micros;
use crate::wire::avro::SchemaRef;
use crate::wire::event::{decode_event, schema_missing};
use crate::wire::log::{decode_log, log_json};
use crate::wire::payload::NotDecoded;

/// Codes of [`Materialize::alarm`].
const ALARMS: [&str; 5] = ["offsets_gone", "offsets_replaced", "topic_replaced", OF_ANOTHER, HISTORY_CORRUPT];

impl Materialize {
    pub(super) async fn intake_event(&mut self, event: IntakeEvent) -> Result<()> {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                self.deps.metrics.consumer_rebalances.with_label_values(&["materialize"]).inc();
                self.assigned(partitions, reply);
            }
            IntakeEvent::Revoked { partitions, lost, reply } => {
                self.revoked(&partitions, lost).await?;
                self.assigned_metric();
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch } => {
                self.hear(&batch);
                self.records(batch);
            }
            IntakeEvent::ReachedEnd { partition, position } => {
                if !has_waiting_records(&mut self.waiting, &partition, position)
                    && let Some(owned) = self.owned.get_mut(&partition).filter(|owned| !owned.stopped && owned.rest.is_read())
                {
                    owned.partition.position = owned.partition.position.max(position);
                    self.start_hot();
                }
            }
            IntakeEvent::OffsetsGone { partition, position, reason } => {
                self.offsets_gone(&partition, position, &reason).await;
            }
            IntakeEvent::ReadsAgain { partition, ticket, outcome } => self.reads_again(&partition, ticket, outcome),
            IntakeEvent::Stats(stats) => self.stats(&stats),
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read step events")),
        }
        Ok(())
    }

    /// Of a partition that is not read from where it stands they were on their way, and come again.
    fn records(&mut self, batch: Vec<(PartitionRecords, MemoryPermit)>) {
        let goes_on = |owned: &OwnedPartition| !owned.stopped && owned.rest.is_read();
        for (records, held) in batch {
            if !self.stopping && self.owned.get(&records.partition).is_some_and(goes_on) {
                self.waiting.push_back((records, held));
            }
        }
    }

    /// What time it is at the brokers. Who stamps the events matters; the replay log's records are our own.
    fn hear(&self, batch: &[(PartitionRecords, MemoryPermit)]) {
        let now = Instant::now();
        for (records, _) in batch {
            if matches!(records.stamp, Stamp::Broker(_)) || *records.partition.topic != *self.settings.log {
                self.deps.clock.read(records.stamp, now);
            }
        }
    }

    pub(super) fn assigned_metric(&self) {
        self.deps.metrics.consumer_assigned_partitions.with_label_values(&["materialize"]).set(self.owned.len() as i64);
    }

    pub(super) async fn fold(&mut self, batch: &PartitionRecords) -> Result<Folded> {
        let Some(owned) = self.owned.get(&batch.partition).filter(|owned| !owned.stopped) else { return Ok(Folded::All) };
        let given_up = owned.given_up;
        let content = owned.partition.content;
        let position = owned.partition.position;
        let mut clock = owned.partition.clock;
        let (mut dead, mut cut) = (Vec::new(), None);
        let mut decoded = Vec::with_capacity(batch.records.len());
        // A seek or a new assignment may give records again.
        for record in batch.records.iter().filter(|record| record.offset >= position) {
            let recorded = match content {
                Content::StepEvents => clock.read(record.timestamp, record.by_broker),
                // Compaction takes records away, so those before it say nothing; resaga alone writes it.
                Content::ReplayLog => Ok(record.timestamp),
            };
            match self.decode(content, &batch.partition, record, given_up == Some(record.offset)) {
                Ok((event, index)) => {
                    let before = |before: Option<Micros>| before.unwrap_or_else(|| LogClock::of_event(event.occurred_at));
                    let recorded = recorded.unwrap_or_else(before);
                    let offset = record.offset;
                    decoded.push(Decoded { offset, recorded, size: record.size(), event });
                    decoded.extend(index.map(|event| Decoded { offset, recorded, size: 0, event: *event }));
                }
                Err(NotFolded::Dead(letter)) => dead.push(*letter),
                Err(NotFolded::NeedSchema(schema)) if decoded.is_empty() && dead.is_empty() => {
                    return Ok(Folded::Waits(Waits::Schema(schema, record.offset)));
                }
                // What comes before it need not wait.
                Err(NotFolded::NeedSchema(_)) => {
                    cut = Some(record.offset);
                    break;
                }
            }
        }
        let Some(loaded) = self.load_missing(&batch.partition, &decoded).await? else { return Ok(Folded::Waits(Waits::Load)) };
        let Some(owned) = self.owned.get(&batch.partition) else { return Ok(Folded::All) };
        let (fits, merged) = owned.partition.affordable(&decoded[..loaded]);
        let rest = decoded.get(fits).map(|first| first.offset).or(cut);
        decoded.truncate(fits);
        let is_in = |offset: Offset| rest.is_none_or(|rest| offset < rest);
        dead.retain(|letter| is_in(letter.offset));
        crate::failpoint::pass("materialize.before_hot");

        if content == Content::StepEvents
            && let Some(partitions) = self.deps.chains.partitions_of(&batch.partition.topic)
        {
            let keys = decoded.iter().map(|event| event.event.saga_id.as_str().as_bytes());
            if let Some(strays) = self.deps.partitioning.see(keys, batch.partition.partition, partitions) {
                self.strays(&batch.partition, decoded.get(strays.first).map(|first| first.offset), strays);
            }
        }
        let (now, held_before) = (Instant::now(), self.held_before());
        let Some(owned) = self.owned.get_mut(&batch.partition) else { return Ok(Folded::All) };
        for _ in &dead {
            owned.partition.active.skip(now);
        }
        owned.partition.max_member = self.deps.hot.max_member();
        let apply = || owned.partition.apply(decoded, &self.settings.fold, now);
        let mut work = if merged < MUCH_MERGED { apply() } else { cpu::long(apply).await };
        owned.partition.position = owned.partition.position.max(rest.unwrap_or(batch.position));
        sweep::hold_old(&mut work.hot, held_before, &owned.partition.chain, owned.partition.position, &*self.deps.hot);
        let doubted = match content {
            Content::StepEvents => read_times(&mut owned.partition.clock, batch, position, is_in),
            Content::ReplayLog => 0,
        };

        let metrics = &self.deps.metrics;
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
        let metrics = &self.deps.metrics;
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
        Ok(rest.map_or(Folded::All, |from| Folded::Suspension(rest_of(from))))
    }

    /// Says where records are that a producer with another partitioner wrote, or somebody by hand: at the first, then ever
    /// more rarely.
    fn strays(&self, partition: &TopicPartition, offset: Option<Offset>, strays: Strays) {
        let counter = self.deps.metrics.events_misplaced.with_label_values(&[&*partition.topic]);
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

    /// The event of a record, of the replay log also that of an index. `given_up`: its schema was asked for and is nowhere.
    fn decode(
        &self,
        content: Content,
        partition: &TopicPartition,
        record: &Record,
        given_up: bool,
    ) -> std::result::Result<(StepEvent, Option<Box<StepEvent>>), NotFolded> {
        let (value, schemas) = (record.value.as_deref(), &self.deps.schemas);
        let dead = |(code, message)| NotFolded::Dead(Box::new(DeadLetter::of(record, "decode", code, message)));
        let read = match content {
            Content::StepEvents => {
                let max = self.settings.max_record_bytes;
                decode_event(record.key.as_deref(), value, &record.headers, max, schemas).map(|event| (event, None))
            }
            Content::ReplayLog => decode_log(value, &record.headers, schemas).map(|replay| {
                let text = Json::from_valid(log_json(&replay));
                let event = in_history::as_step_event(&replay.replay_id, text, partition, record.offset);
                (event, in_history::as_index_event(&replay).map(Box::new))
            }),
        };
        read.map_err(|not_decoded| match not_decoded {
            NotDecoded::DeadLetter { code, message } => dead((code, message)),
            NotDecoded::NeedSchema(schema) if given_up || self.lookups.is_missing(schema) => {
                let max_record = match content {
                    Content::StepEvents => self.settings.max_record_bytes,
                    Content::ReplayLog => u64::MAX,
                };
                dead(schema_missing(schema, record.size() as u64, max_record))
            }
            NotDecoded::NeedSchema(schema) => NotFolded::NeedSchema(schema),
        })
    }

    fn stats(&self, stats: &IntakeStats) {
        let metrics = &self.deps.metrics;
        let micros = |micros: u64| micros as f64 / 1e6;
        metrics.broker_rtt_seconds.with_label_values(&["0.5"]).set(micros(stats.round_trip_p50_micros));
        metrics.broker_rtt_seconds.with_label_values(&["0.99"]).set(micros(stats.round_trip_p99_micros));
        for partition in &stats.partitions {
            let labels = [&*partition.partition.topic, &partition.partition.partition.to_string()];
            let stuck = partition.last_stable_stuck.as_secs_f64();
            metrics.last_stable_offset_stuck_seconds.with_label_values(&labels).set(stuck);
            if let (Some(end), Some(owned)) = (partition.end, self.owned.get(&partition.partition)) {
                let lag = (end.0 - owned.partition.position.0).max(0);
                metrics.consumer_lag_records.with_label_values(&labels).set(lag);
            }
        }
    }

    /// Ends the alarms of a partition that goes on, or goes to another process.
    pub(super) fn is_clear(&self, partition: &TopicPartition) {
        for code in ALARMS {
            let labels = [&*partition.topic, &partition.partition.to_string(), code];
            // It is an error that there is none, and nothing else.
            let _ = self.deps.metrics.partition_alarms.remove_label_values(&labels);
        }
    }

    /// Stops one partition until an operator acts; the others go on.
    pub(super) fn alarm(&self, partition: &TopicPartition, code: &str, reason: &str) {
        let labels = [&*partition.topic, &partition.partition.to_string(), code];
        self.deps.metrics.partition_alarms.with_label_values(&labels).set(1);
        tracing::error!(
            topic = %partition.topic, partition = partition.partition, code, reason,
            "partition stopped; `resaga doctor` explains, `resaga store accept-gap` accepts the loss"
        );
    }
}

/// Why a record gives no event.
enum NotFolded {
    Dead(Box<DeadLetter>),
    /// Not yet.
    NeedSchema(SchemaRef),
}

/// Moves the log's clock past the records of the batch that were folded; gives how many timestamps it doubts.
fn read_times(clock: &mut LogClock, batch: &PartitionRecords, from: Offset, is_in: impl Fn(Offset) -> bool) -> u64 {
    let folded = batch.records.iter().filter(|record| record.offset >= from && is_in(record.offset));
    folded.map(|record| u64::from(clock.read(record.timestamp, record.by_broker).is_err())).sum()
}

/// A position that was reached behind records which still wait counts once they are folded: it is told only once, and
/// passes control records that no record follows. `false`: nothing of the partition waits.
fn has_waiting_records<H>(waiting: &mut VecDeque<(PartitionRecords, H)>, partition: &TopicPartition, position: Offset) -> bool {
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
        assert!(has_waiting_records(&mut waiting, &TopicPartition::new("events", 0), Offset(10)));
        let positions: Vec<i64> = waiting.iter().map(|(records, ())| records.position.0).collect();
        assert_eq!(positions, [5, 7, 10], "the last batch of the partition ends behind the control record");
        assert!(!has_waiting_records(&mut waiting, &TopicPartition::new("events", 2), Offset(3)));
    }
}
