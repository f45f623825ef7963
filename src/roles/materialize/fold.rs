//! Folding one partition's batch: decode, load the sagas that are not in memory, apply. What must be written comes out as data.

use std::sync::Arc;
use std::time::Instant;

use super::content::{Content, Histories};
use super::decode::{DecodeFrom, DecodedBatch, EventDecoder};
use super::fold_events::Applied;
use super::fold_gate::FoldWait;
use super::index_sweep::{self, IndexRetention};
use super::outbound::DeadLetter;
use super::partitions::OwnedPartition;
use super::saga_loader::SagaLoader;
use super::{misplaced_events, sequence_conflicts};
use crate::cpu;
use crate::error::Result;
use crate::history::chains::Chains;
use crate::hot::{HotBatch, HotStore};
use crate::kafka::record::PartitionRecords;
use crate::partitioning::Partitioning;
use crate::saga::fold_settings::FoldSettings;
use crate::saga::log_clock::LogClock;
use crate::saga::position::Offset;
use crate::saga::request::Outcome;
use crate::telemetry::Metrics;

/// What folding a batch asks the role to write.
#[derive(Default)]
pub struct Folded {
    pub hot: HotBatch,
    pub dead: Vec<DeadLetter>,
    pub outcomes: Vec<Outcome>,
    /// This was too much for one fold, or must wait.
    pub rest: Option<PartitionRecords>,
}

/// What came of a batch. `Err`: nothing was applied before this is there.
pub type FoldStep = std::result::Result<Folded, FoldWait>;

pub struct FolderParts {
    pub hot: Arc<dyn HotStore>,
    pub histories: Histories,
    pub chains: Arc<Chains>,
    pub partitioning: Arc<Partitioning>,
    pub metrics: Arc<Metrics>,
    pub settings: FoldSettings,
    pub retention: IndexRetention,
}

pub struct Folder {
    parts: FolderParts,
    pub decoder: EventDecoder,
    pub loader: SagaLoader,
}

impl Folder {
    pub fn new(parts: FolderParts, decoder: EventDecoder) -> Self {
        let loader = SagaLoader::new(parts.histories.clone(), parts.metrics.clone());
        Self { parts, decoder, loader }
    }

    pub async fn fold(&mut self, batch: &PartitionRecords, owned: &mut OwnedPartition) -> Result<FoldStep> {
        let (content, position) = (owned.partition.content, owned.partition.position);
        let from =
            DecodeFrom { content, position, clock: owned.partition.clock, missing_schema_at: owned.gate.missing_schema_at() };
        let DecodedBatch { mut events, mut dead, cut } = match self.decoder.decode(batch, from) {
            Ok(decoded) => decoded,
            Err(wait) => return Ok(Err(wait)),
        };
        let Some(loaded) = self.loader.load_missing(&batch.partition, owned, &events).await? else {
            return Ok(Err(FoldWait::Sagas));
        };
        let affordable = owned.partition.affordable(&events[..loaded]);
        let rest = events.get(affordable.events).map(|first| first.offset).or(cut);
        events.truncate(affordable.events);
        let is_in = |offset: Offset| rest.is_none_or(|rest| offset < rest);
        dead.retain(|letter| is_in(letter.offset));
        crate::failpoint::pass("materialize.before_hot");

        if content == Content::StepEvents
            && let Some(partitions) = self.parts.chains.partitions_of(&batch.partition.topic)
        {
            let keys = events.iter().map(|event| event.event.saga_id.as_str().as_bytes());
            if let Some(strays) = self.parts.partitioning.see(keys, batch.partition.partition, partitions) {
                let first = events.get(strays.first).map(|first| first.offset);
                misplaced_events::report(strays, first, &batch.partition, &self.parts.metrics);
            }
        }
        let (now, held_before) = (Instant::now(), self.parts.retention.held_before());
        for _ in &dead {
            owned.partition.active.skip(now);
        }
        owned.partition.max_member = self.parts.hot.max_member();
        let fold = || owned.partition.fold_events(events, &self.parts.settings, now);
        let mut applied = if affordable.is_long() { cpu::long(fold).await } else { fold() };
        owned.partition.position = owned.partition.position.max(rest.unwrap_or(batch.position));
        let (chain, until) = (&owned.partition.chain, owned.partition.position);
        index_sweep::hold_old(&mut applied.hot, held_before, chain, until, &*self.parts.hot);
        let doubted = match content {
            Content::StepEvents => read_times(&mut owned.partition.clock, batch, position, is_in),
            Content::ReplayLog => 0,
        };
        self.count(batch, is_in, doubted, &applied);
        let conflicts = applied.sequence_conflicts;
        sequence_conflicts::report(conflicts, &mut owned.partition, &self.parts.histories, &self.parts.metrics, now);
        for rejected in applied.dead {
            if let Some(record) = batch.records.iter().find(|record| record.offset == rejected.offset) {
                dead.push(DeadLetter::of(record, "fold", rejected.code, rejected.message));
            }
        }
        let rest = rest.map(|from| PartitionRecords {
            records: batch.records.iter().filter(|record| record.offset >= from).cloned().collect(),
            partition: batch.partition.clone(),
            ..*batch
        });
        Ok(Ok(Folded { hot: applied.hot, dead, outcomes: applied.outcomes, rest }))
    }

    fn count(&self, batch: &PartitionRecords, is_in: impl Fn(Offset) -> bool, doubted: u64, applied: &Applied) {
        let metrics = &self.parts.metrics;
        let consumed = metrics.events_consumed.with_label_values(&[&*batch.partition.topic]);
        consumed.inc_by(batch.records.iter().filter(|record| is_in(record.offset)).count() as u64);
        metrics.events_time_doubted.inc_by(doubted);
        metrics.events_duplicate.inc_by(applied.duplicates);
        for anomaly in &applied.anomalies {
            metrics.events_anomalies.with_label_values(&[anomaly.as_str()]).inc();
        }
    }
}

/// Moves the log's clock past the records of the batch that were folded; gives how many timestamps it doubts.
fn read_times(clock: &mut LogClock, batch: &PartitionRecords, from: Offset, is_in: impl Fn(Offset) -> bool) -> u64 {
    let folded = batch.records.iter().filter(|record| record.offset >= from && is_in(record.offset));
    folded.map(|record| u64::from(clock.read(record.timestamp, record.by_broker).is_err())).sum()
}
