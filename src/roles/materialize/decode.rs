//! From records to events: what cannot be decoded becomes a dead letter, what needs a schema that is not known yet waits for it.

use std::sync::Arc;

use super::content::Content;
use super::fold_gate::FoldWait;
use super::outbound::DeadLetter;
use crate::error::Result;
use crate::kafka::record::{PartitionRecords, Record};
use crate::replay_log::in_history;
use crate::saga::event::StepEvent;
use crate::saga::json::Json;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::time::Micros;
use crate::schema_registry::lookups::{SchemaLookup, SchemaLookups};
use crate::wire::avro::{SchemaRef, Schemas};
use crate::wire::event::{decode_event, schema_missing};
use crate::wire::log::{decode_log, log_json};
use crate::wire::payload::NotDecoded;

/// The event of a record.
pub struct DecodedEvent {
    pub offset: Offset,
    /// When the log recorded it: the record's timestamp, unless that is doubted.
    pub recorded: Micros,
    /// Bytes of the record.
    pub size: usize,
    pub event: StepEvent,
}

/// Where decoding begins, and what is known there.
pub struct DecodeFrom {
    pub content: Content,
    /// Records before it are folded already: a seek or a new assignment may give them again.
    pub position: Offset,
    pub clock: LogClock,
    /// The schema of the record at this offset is nowhere.
    pub missing_schema_at: Option<Offset>,
}

#[derive(Default)]
pub struct DecodedBatch {
    pub events: Vec<DecodedEvent>,
    pub dead: Vec<DeadLetter>,
    /// From here on it must wait.
    pub cut: Option<Offset>,
}

/// Why a record gives no event.
enum NotFolded {
    Dead(Box<DeadLetter>),
    /// Not yet.
    NeedSchema(SchemaRef),
}

pub struct EventDecoder {
    schemas: Arc<Schemas>,
    lookups: SchemaLookups,
    max_record_bytes: u64,
}

impl EventDecoder {
    pub fn new(schemas: Arc<Schemas>, lookups: SchemaLookups, max_record_bytes: u64) -> Self {
        Self { schemas, lookups, max_record_bytes }
    }

    pub fn is_asking(&self) -> bool {
        !self.lookups.is_idle()
    }

    /// Asks for a schema that records wait for: [`Self::next_schema`] will tell.
    pub fn ask(&mut self, schema: SchemaRef) {
        self.lookups.ask(schema);
    }

    /// `None`: no schema was asked for. May be dropped while it waits.
    pub async fn next_schema(&mut self) -> Option<Result<SchemaLookup>> {
        self.lookups.next().await
    }

    /// `Err`: nothing can be decoded before this is there.
    pub fn decode(&self, batch: &PartitionRecords, from: DecodeFrom) -> std::result::Result<DecodedBatch, FoldWait> {
        let DecodeFrom { content, position, mut clock, missing_schema_at } = from;
        let mut decoded = DecodedBatch { events: Vec::with_capacity(batch.records.len()), ..DecodedBatch::default() };
        for record in batch.records.iter().filter(|record| record.offset >= position) {
            let recorded = match content {
                Content::StepEvents => clock.read(record.timestamp, record.by_broker),
                // Compaction takes records away, so those before it say nothing; resaga alone writes it.
                Content::ReplayLog => Ok(record.timestamp),
            };
            match self.decode_record(content, &batch.partition, record, missing_schema_at == Some(record.offset)) {
                Ok((event, index)) => {
                    let before = |before: Option<Micros>| before.unwrap_or_else(|| LogClock::of_event(event.occurred_at));
                    let recorded = recorded.unwrap_or_else(before);
                    let offset = record.offset;
                    decoded.events.push(DecodedEvent { offset, recorded, size: record.size(), event });
                    decoded.events.extend(index.map(|event| DecodedEvent { offset, recorded, size: 0, event: *event }));
                }
                Err(NotFolded::Dead(letter)) => decoded.dead.push(*letter),
                Err(NotFolded::NeedSchema(schema)) if decoded.events.is_empty() && decoded.dead.is_empty() => {
                    return Err(FoldWait::Schema(schema, record.offset));
                }
                // What comes before it need not wait.
                Err(NotFolded::NeedSchema(_)) => {
                    decoded.cut = Some(record.offset);
                    break;
                }
            }
        }
        Ok(decoded)
    }

    /// The event of a record, of the replay log also that of an index. `is_missing`: its schema was asked for and is nowhere.
    fn decode_record(
        &self,
        content: Content,
        partition: &TopicPartition,
        record: &Record,
        is_missing: bool,
    ) -> std::result::Result<(StepEvent, Option<Box<StepEvent>>), NotFolded> {
        let (value, schemas) = (record.value.as_deref(), &self.schemas);
        let dead = |(code, message)| NotFolded::Dead(Box::new(DeadLetter::of(record, "decode", code, message)));
        let read = match content {
            Content::StepEvents => {
                let max = self.max_record_bytes;
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
            NotDecoded::NeedSchema(schema) if is_missing || self.lookups.is_missing(schema) => {
                let max_record = match content {
                    Content::StepEvents => self.max_record_bytes,
                    Content::ReplayLog => u64::MAX,
                };
                dead(schema_missing(schema, record.size() as u64, max_record))
            }
            NotDecoded::NeedSchema(schema) => NotFolded::NeedSchema(schema),
        })
    }
}

/// Where the record of the event at this place begins: the events of one record are folded together, for a position
/// lies between records.
pub fn record_begins(events: &[DecodedEvent], place: usize) -> usize {
    let Some(at) = events.get(place) else { return place };
    events[..place].iter().rposition(|before| before.offset != at.offset).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::event::Kind;
    use crate::saga::testing::event;

    #[test]
    fn a_batch_is_cut_between_records_not_between_the_events_of_one() {
        let of = |offset| DecodedEvent { offset: Offset(offset), recorded: Micros(0), size: 0, event: event(Kind::Checkpoint) };
        let events = [of(7), of(7), of(8), of(9), of(9)];
        let begins: Vec<usize> = (0..=5).map(|place| record_begins(&events, place)).collect();
        assert_eq!(begins, [0, 0, 2, 3, 3, 5]);
    }
}
