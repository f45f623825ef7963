//! What one transaction will write: restored sagas, SAGA_RESTORED events, log records, dead letters and forwarded requests.
//! Data only; building it twice gives the same bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::log_overlay::UnappliedRecords;
use crate::error::Result;
use crate::kafka::record::NewRecord;
use crate::replay_log::owner::LogOwner;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::partitioner::Partitioner;
use crate::saga::position::SagaId;
use crate::saga::request::LogRecord;
use crate::saga::restored::RestoredSaga;
use crate::wire::avro::SchemaId;
use crate::wire::event::{encode_event, record_size};
use crate::wire::headers;
use crate::wire::log::encode_log;
use crate::wire::restored::encode_restored;

/// Names of topics and ids of schemas (with a registry) that are written.
#[derive(Debug, Clone, Default)]
pub struct ReplayTargets {
    pub restored: String,
    pub log: String,
    pub dead_letters: String,
    pub requests: String,
    pub schemas: SchemaIds,
}

/// `None`: JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct SchemaIds {
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
    pub signatures: LogSignatures,
}

/// As whose records go into the partitions of the log.
#[derive(Default)]
pub struct LogSignatures {
    pub owners: HashMap<i32, LogOwner>,
    /// Into partitions that are unclaimed.
    pub own: LogOwner,
}

impl LogSignatures {
    fn of(&self, partition: i32) -> &LogOwner {
        self.owners.get(&partition).unwrap_or(&self.own)
    }
}

/// How keys of a topic of step events are spread over how many partitions.
#[derive(Debug, Clone, Copy)]
pub struct EventPartitions {
    pub partitioner: Partitioner,
    pub count: i32,
}

impl EventPartitions {
    pub fn partition(&self, saga: &SagaId) -> i32 {
        self.partitioner.partition(saga.as_str().as_bytes(), self.count)
    }
}

impl TransactionOutbox {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.restored.is_empty()
    }

    /// One log record, to the partition of its request. A later one of the same replay replaces it for readers.
    pub fn log(&mut self, targets: &ReplayTargets, record: LogRecord, trace: Option<&str>) -> Result<()> {
        let partition = record.position.partition;
        let mut headers = headers::of_log(&record, targets.schemas.log.is_some(), trace);
        headers.push(self.signatures.of(partition).header());
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

    /// What the consumers of a restored saga are asked to compensate; the saga has its history already.
    pub fn undo(&mut self, targets: &ReplayTargets, asked: &RestoredSaga, trace: Option<&str>) -> Result<()> {
        self.restored.push(restored_record(targets, asked, None, trace)?);
        Ok(())
    }

    /// The restored saga and its SAGA_RESTORED event.
    pub fn restored(
        &mut self,
        targets: &ReplayTargets,
        (saga, event): (&RestoredSaga, RestoredEvent),
        target: Option<&str>,
        events: EventPartitions,
        trace: Option<&str>,
    ) -> Result<()> {
        let key: bytes::Bytes = saga.saga_id.as_str().as_bytes().to_vec().into();
        self.restored.push(restored_record(targets, saga, target, trace)?);
        let RestoredEvent { event, json } = event;
        let value = if targets.schemas.event.is_some() { encode_event(&event, targets.schemas.event)? } else { json };
        self.records.push(NewRecord {
            topic: saga.checkpoint.position.topic.to_string(),
            partition: Some(events.partition(&saga.saga_id)),
            key: Some(key),
            value: Some(value.into()),
            headers: headers::of_event(&event, targets.schemas.event.is_some(), trace),
            timestamp: None,
        });
        Ok(())
    }
}

fn restored_record(targets: &ReplayTargets, saga: &RestoredSaga, target: Option<&str>, trace: Option<&str>) -> Result<NewRecord> {
    Ok(NewRecord {
        topic: target.unwrap_or(&targets.restored).to_owned(),
        partition: None,
        key: Some(saga.saga_id.as_str().as_bytes().to_vec().into()),
        value: Some(encode_restored(saga, targets.schemas.restored)?.into()),
        headers: headers::of_restored(saga, targets.schemas.restored.is_some(), trace),
        timestamp: None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::position::Position;
    use crate::saga::request::ReplayStatus;
    use crate::saga::testing::log_record;

    #[test]
    fn every_log_record_says_whose_it_is_whatever_partition_it_goes_to() {
        let owner = |group: &str, generation| LogOwner { group: group.into(), generation };
        let mut draft = TransactionOutbox {
            signatures: LogSignatures { owners: HashMap::from([(3, owner("blue", 2))]), own: owner("blue", 1) },
            ..TransactionOutbox::default()
        };
        for partition in [3, 4] {
            let record = log_record("r", "order-1", 1, ReplayStatus::Cancelled);
            let record = LogRecord { position: Position::new("requests", partition, 1), ..record };
            draft.log(&ReplayTargets::default(), record, None).expect("drafted");
        }
        let owners: Vec<_> = draft.records.iter().map(|record| LogOwner::of(&record.headers)).collect();
        assert_eq!(owners, [Some(owner("blue", 2)), Some(owner("blue", 1))]);
    }
}
