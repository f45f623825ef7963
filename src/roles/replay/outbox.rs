//! What one transaction will write: restored sagas, SAGA_RESTORED events, log records, dead letters, forwarded requests,
//! and the offsets that answer for them. Data only; building it twice gives the same bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::log_overlay::UnappliedRecords;
use super::skipped::SkippedRequest;
use super::tally::Tally;
use crate::error::Result;
use crate::kafka::record::NewRecord;
use crate::replay_log::owner::LogOwner;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::partitioner::Partitioner;
use crate::saga::plan::Plan;
use crate::saga::position::{Offset, Position, TopicPartition};
use crate::saga::request::{
    Command, CommandName, ForceFailure, From, LogRecord, Refusal, ReplayOrder, ReplayRequest, ReplayStatus,
};
use crate::saga::restored::RestoredSaga;
use crate::saga::time::Micros;
use crate::saga::{ids, position::SagaId};
use crate::wire::avro::SchemaId;
use crate::wire::event::{encode_event, record_size};
use crate::wire::headers;
use crate::wire::log::encode_log;
use crate::wire::restored::encode_restored;

/// Bytes of a text in a log record that was cut.
const CUT_TEXT: usize = 256;

/// Names of topics and ids of schemas (with a registry) that are written.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    pub restored: String,
    pub log: String,
    pub dead_letters: String,
    pub requests: String,
    pub schemas: Schemas,
}

/// `None`: JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schemas {
    pub event: Option<SchemaId>,
    pub restored: Option<SchemaId>,
    pub log: Option<SchemaId>,
    pub request: Option<SchemaId>,
}

#[derive(Default)]
pub struct TransactionOutbox {
    pub records: Vec<NewRecord>,
    /// Restored sagas. They go last: even a reader that sees what is not committed finds a restored saga only after its
    /// SAGA_RESTORED is recorded, and what it then publishes comes behind that.
    pub restored: Vec<NewRecord>,
    /// Log records among them, to be remembered once committed.
    pub log: UnappliedRecords,
    pub tally: Tally,
    /// Requests that stay in the topic, by its partition.
    pub passed: Vec<(TopicPartition, SkippedRequest)>,
    /// Of those that were passed over before: what was looked at again.
    pub looked_again: HashMap<TopicPartition, HashSet<Offset>>,
    /// Requests that were passed over and that somebody wants to call off.
    pub wanted: Vec<(TopicPartition, String)>,
    /// As whose records go into the partitions of the log; into those that are nobody's as [`Self::own`].
    pub owners: HashMap<i32, LogOwner>,
    pub own: LogOwner,
}

impl TransactionOutbox {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.restored.is_empty()
    }

    /// This record was not looked at after all, in this batch.
    pub fn look_again_at(&mut self, partition: &TopicPartition, offset: Offset) {
        if let Some(looked) = self.looked_again.get_mut(partition) {
            looked.remove(&offset);
        }
    }

    /// One log record, to the partition of its request. A later one of the same replay replaces it for readers.
    pub fn log(&mut self, targets: &Targets, record: LogRecord, trace: Option<&str>) -> Result<()> {
        let partition = record.position.partition;
        let mut headers = headers::of_log(&record, targets.schemas.log.is_some(), trace);
        headers.push(self.owners.get(&partition).unwrap_or(&self.own).header());
        self.records.push(NewRecord {
            topic: targets.log.clone(),
            partition: Some(partition),
            key: Some(record.replay_id.clone().into()),
            value: Some(encode_log(&record, targets.schemas.log)?.into()),
            headers,
            timestamp: None,
        });
        self.log.insert(Arc::new(record));
        Ok(())
    }

    /// The restored saga and its SAGA_RESTORED event.
    pub fn restored(
        &mut self,
        targets: &Targets,
        (saga, event): (&RestoredSaga, RestoredEvent),
        target: Option<&str>,
        (partitioner, partitions): (Partitioner, i32),
        trace: Option<&str>,
    ) -> Result<()> {
        let key: bytes::Bytes = saga.saga_id.as_str().as_bytes().to_vec().into();
        self.restored.push(NewRecord {
            topic: target.unwrap_or(&targets.restored).to_owned(),
            partition: None,
            key: Some(key.clone()),
            value: Some(encode_restored(saga, targets.schemas.restored)?.into()),
            headers: headers::of_restored(saga, targets.schemas.restored.is_some(), trace),
            timestamp: None,
        });
        let RestoredEvent { event, json } = event;
        let value = if targets.schemas.event.is_some() { encode_event(&event, targets.schemas.event)? } else { json };
        self.records.push(NewRecord {
            topic: saga.checkpoint.position.topic.to_string(),
            partition: Some(partitioner.partition(&key, partitions)),
            key: Some(key),
            value: Some(value.into()),
            headers: headers::of_event(&event, targets.schemas.event.is_some(), trace),
            timestamp: None,
        });
        Ok(())
    }
}

/// SAGA_RESTORED: what gives the restored saga a history at once.
pub struct RestoredEvent {
    event: StepEvent,
    /// As it is written where there is no registry.
    json: Vec<u8>,
}

impl RestoredEvent {
    pub fn of(saga: &RestoredSaga) -> Result<Self> {
        let event = restored_event(saga);
        let json = encode_event(&event, None)?;
        Ok(Self { event, json })
    }

    /// Bytes of the record as its reader counts them, in JSON, which is the larger of the two formats.
    pub fn record_bytes(&self) -> u64 {
        record_size(Some(self.event.saga_id.as_str().as_bytes()), Some(&self.json), &headers::of_event(&self.event, false, None))
    }
}

fn restored_event(saga: &RestoredSaga) -> StepEvent {
    let context = saga.context.clone();
    StepEvent {
        event_id: saga.replay_id.clone(),
        saga_id: saga.saga_id.clone(),
        saga_name: saga.saga_name.clone(),
        kind: Kind::SagaRestored,
        occurred_at: Some(saga.restored_at),
        step: None,
        step_index: None,
        attempt: None,
        sequence: None,
        context: context.map_or(ContextChange::None, ContextChange::Full),
        result: None,
        error: None,
        saga_version: saga.saga_version.clone(),
        tenant: saga.tenant.clone(),
        region: saga.region.clone(),
        labels: None,
        lineage: None,
        restored: Some(Box::new(RestoredSaga { context: None, ..saga.clone() })),
    }
}

/// A log record with what every command's has; the rest is filled in by what became of it.
pub fn record_of(request: &ReplayRequest, position: Position, accepted_at: Micros) -> LogRecord {
    let (command, saga, named) = match &request.command {
        Command::Replay(order) => (CommandName::Replay, Some(order.saga_id.clone()), None),
        Command::Cancel { saga_id, replay_id } => (CommandName::Cancel, Some(saga_id.clone()), Some(replay_id.as_str())),
        Command::Invalid { command, saga_id, replay_id, .. } => (*command, saga_id.clone(), replay_id.as_deref()),
        Command::Outcome(outcome) => (CommandName::Outcome, Some(outcome.original_saga_id.clone()), None),
    };
    let replay_id = match (command, named, &saga) {
        (CommandName::Undo | CommandName::Cancel, Some(named), _) => ids::command_replay_id(&request.request_id, named),
        (_, _, Some(saga)) => ids::replay_id(&request.request_id, saga),
        (_, _, None) => ids::request_uuid(&request.request_id),
    };
    let replay_id = replay_id.to_string();
    let mut record = LogRecord {
        replay_id,
        request_id: request.request_id.clone(),
        request_sha256: request.sha256.clone(),
        batch_id: None,
        schedule_id: None,
        command,
        original_saga_id: saga,
        new_saga_id: None,
        from: None,
        override_sha256: None,
        force_failure: None,
        mode: None,
        dry_run: false,
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        checkpoint: None,
        resume_step: None,
        compensated_since: Vec::new(),
        changed: Vec::new(),
        executed_as: None,
        status: ReplayStatus::Published,
        code: None,
        message: None,
        accepted_at,
        published_at: None,
        ended_at: None,
        outcome: None,
        outcome_sequence: None,
        undone_by: None,
        position,
        request: None,
    };
    if let Command::Replay(order) = &request.command {
        of_order(&mut record, order);
    }
    record
}

fn of_order(record: &mut LogRecord, order: &ReplayOrder) {
    record.new_saga_id = Some(new_saga_id(&record.request_id, order));
    record.from = Some(order.from_text.clone());
    record.override_sha256.clone_from(&order.override_sha256);
    record.force_failure = match (&order.force_failure, &order.from) {
        (Some(ForceFailure::Step(step)), _) | (Some(ForceFailure::ResumeStep), From::Step { step, .. }) => Some(step.clone()),
        // Which step that is shows once it is planned.
        (Some(ForceFailure::ResumeStep), _) | (None, _) => None,
    };
    record.mode = Some(order.mode);
    record.dry_run = order.dry_run;
}

pub fn new_saga_id(request_id: &str, order: &ReplayOrder) -> SagaId {
    let replay_id = ids::replay_id(request_id, &order.saga_id);
    order.new_saga_id.clone().unwrap_or_else(|| ids::new_saga_id(replay_id, &order.saga_id))
}

/// The record of a replay that was planned: published, or a dry run.
pub fn planned(mut record: LogRecord, plan: &Plan, now: Micros) -> LogRecord {
    let saga = &plan.restored;
    record.new_saga_id = Some(saga.saga_id.clone());
    record.force_failure.clone_from(&saga.force_failure);
    record.checkpoint = Some(saga.checkpoint.clone());
    record.resume_step.clone_from(&saga.resume_step);
    record.compensated_since.clone_from(&saga.compensated_since);
    record.changed.clone_from(&plan.changed);
    record.request = None;
    if record.dry_run {
        record.status = ReplayStatus::DryRun;
    } else {
        record.status = ReplayStatus::Published;
        record.published_at = Some(now);
    }
    record
}

/// The record of what is not carried out.
pub fn refused(mut record: LogRecord, refusal: &Refusal) -> LogRecord {
    record.status = ReplayStatus::Refused;
    record.code = Some(refusal.code.to_owned());
    record.message = Some(refusal.message.clone());
    record.request = None;
    record
}

/// The record in little more than a kilobyte, of a request whose own does not fit the log: it says where the request is, and
/// how large.
pub fn cut(mut record: LogRecord, request: &ReplayRequest) -> LogRecord {
    let has_id = |id: &SagaId| id.as_str().chars().count() <= SagaId::MAX_CHARS;
    for text in [&mut record.request_id, &mut record.requested_by, &mut record.reason] {
        shorten(text);
    }
    for text in [&mut record.force_failure, &mut record.resume_step].into_iter().flatten() {
        shorten(text);
    }
    record.original_saga_id = record.original_saga_id.filter(has_id);
    record.new_saga_id = record.new_saga_id.filter(has_id);
    record.executed_as = record.executed_as.filter(has_id);
    record.from = record.from.filter(|from| from.as_str().len() <= CUT_TEXT);
    record.changed.clear();
    record.compensated_since.clear();
    let size = request.json.as_str().len();
    let why = record.message.take().unwrap_or_default();
    let why: String = why.chars().take(CUT_TEXT / 4).collect();
    let at = format!("{}[{}]@{}", record.position.topic, record.position.partition, record.position.offset);
    record.message =
        Some(format!("{why} (this record is cut: the request at {at} has {size} bytes, sha256 {})", record.request_sha256));
    record
}

fn shorten(text: &mut String) {
    if text.len() > CUT_TEXT {
        *text = text.chars().take(CUT_TEXT / 4).chain(std::iter::once('…')).collect();
    }
}

/// The record of a request that waits, with the whole request inside.
pub fn accepted(mut record: LogRecord, request: &ReplayRequest) -> LogRecord {
    record.status = ReplayStatus::Accepted;
    record.request = Some(request.json.clone());
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::testing::log_record;
    use crate::wire::request::decode_json;

    #[test]
    fn every_log_record_says_whose_it_is_whatever_partition_it_goes_to() {
        let owner = |group: &str, generation| LogOwner { group: group.into(), generation };
        let mut draft = TransactionOutbox {
            owners: HashMap::from([(3, owner("blue", 2))]),
            own: owner("blue", 1),
            ..TransactionOutbox::default()
        };
        for partition in [3, 4] {
            let record = log_record("r", "order-1", 1, ReplayStatus::Cancelled);
            let record = LogRecord { position: Position::new("requests", partition, 1), ..record };
            draft.log(&Targets::default(), record, None).expect("drafted");
        }
        let owners: Vec<_> = draft.records.iter().map(|record| LogOwner::of(&record.headers)).collect();
        assert_eq!(owners, [Some(owner("blue", 2)), Some(owner("blue", 1))]);
    }

    #[test]
    fn a_cut_record_is_small_whatever_the_request_holds_and_says_where_it_is() {
        let long = "ö".repeat(300_000);
        let text = format!(
            r#"{{"request_id":"{long}","command":"REPLAY","saga_id":"{long}","from":{{"step":"{long}"}},"force_failure":"{long}",
                "new_saga_id":"{long}","requested_by":"{long}","reason":"{long}"}}"#
        );
        let request = decode_json(text.as_bytes()).expect("a request");
        let record = record_of(&request, Position::new("requests", 3, 41), Micros(1));
        let record = cut(refused(record, &Refusal::new("too_large", long)), &request);
        let size = encode_log(&record, None).expect("encoded").len();
        assert!(size < 4_096, "{size}");
        let message = record.message.unwrap_or_default();
        let said = format!("requests[3]@41 has {} bytes, sha256 {}", text.len(), request.sha256);
        assert!(message.contains(&said), "{message}");
        assert_eq!((record.code.as_deref(), record.status), (Some("too_large"), ReplayStatus::Refused));
    }
}
