//! From a record of the requests topic to something that can be carried out, and back from a waiting log record.

use bytes::Bytes;

use super::fresh::EndsThen;
use super::parked::Parked;
use crate::error::{Error, Result};
use crate::kafka::record::{Headers, NewRecord, Record};
use crate::saga::partitioner;
use crate::saga::position::{Position, TopicPartition};
use crate::saga::request::{Command, LogRecord, ReplayRequest};
use crate::saga::time::Micros;
use crate::wire::avro::Schemas;
use crate::wire::dead_letter::dead_letter_headers;
use crate::wire::payload::NotDecoded;
use crate::wire::request;

use super::draft::record_of;

/// Headers of a request that was found in another partition than its key's and sent on: when and where it was recorded.
const FORWARDED_AT: &str = "resaga-forwarded-at";
const FORWARDED_FROM: &str = "resaga-forwarded-from";

/// One thing to do.
#[derive(Debug, Clone)]
pub struct Item {
    pub request: ReplayRequest,
    pub partition: TopicPartition,
    /// The log record so far.
    pub record: LogRecord,
    /// W3C `traceparent` of the request's record.
    pub trace: Option<String>,
    /// The ends of the events topics at a moment after it was read, or woke; if known.
    pub ends: Option<EndsThen>,
    /// It was parked before.
    pub parked: Option<Parked>,
}

/// What a record of the requests topic is.
pub enum Taken {
    Item(Box<Item>),
    /// To the dead letters.
    Dead(NewRecord),
    /// To its key's partition.
    Forward(NewRecord),
}

/// Reads one record. `Err`: a schema is needed first.
pub fn take_up(
    record: &Record,
    partition: &TopicPartition,
    partitions: i32,
    dead_letters: &str,
    schemas: &Schemas,
) -> std::result::Result<Taken, NotDecoded> {
    let key = record.key.as_deref();
    let read = request::decode_request(key, record.value.as_deref(), &record.headers, schemas);
    let request = match read {
        Ok(request) => request,
        Err(NotDecoded::DeadLetter { code, message }) => {
            return Ok(Taken::Dead(dead(record, partition, dead_letters, code, &message)));
        }
        Err(need) => return Err(need),
    };
    let home = partitioner::partition(key.unwrap_or_default(), partitions);
    if home != partition.partition {
        return Ok(Taken::Forward(forward(record, partition, home)));
    }
    let accepted_at = forwarded_at(&record.headers).unwrap_or(record.timestamp);
    let position = Position { topic: partition.topic.clone(), partition: partition.partition, offset: record.offset };
    let log_record = record_of(&request, position, accepted_at);
    Ok(Taken::Item(Box::new(Item {
        request,
        partition: partition.clone(),
        record: log_record,
        trace: traceparent(&record.headers),
        ends: None,
        parked: None,
    })))
}

/// A waiting request, from its log record.
pub fn parked_again(record: &LogRecord) -> Result<Parked> {
    let text = record.request.as_ref().ok_or_else(|| Error::corrupt("read waiting replay: its log record has no request"))?;
    let request = request::decode_json(text.as_str().as_bytes())?;
    let Command::Replay(order) = &request.command else {
        return Err(Error::corrupt("read waiting replay: its log record holds another command"));
    };
    let order = order.clone();
    Ok(Parked { request, order, record: record.clone(), trace: None, ends: None })
}

pub fn dead(record: &Record, partition: &TopicPartition, topic: &str, code: &'static str, message: &str) -> NewRecord {
    let position = Position { topic: partition.topic.clone(), partition: partition.partition, offset: record.offset };
    let headers = dead_letter_headers(&record.headers, &position, "replay", code, message);
    let (key, value) = (record.key.clone(), record.value.clone());
    NewRecord { topic: topic.to_owned(), partition: None, key, value, headers, timestamp: None }
}

fn forward(record: &Record, from: &TopicPartition, home: i32) -> NewRecord {
    let mut headers = record.headers.clone();
    if forwarded_at(&headers).is_none() {
        headers.push((FORWARDED_AT.into(), Some(Bytes::from(record.timestamp.0.to_string()))));
        headers.push((FORWARDED_FROM.into(), Some(Bytes::from(format!("{from}@{}", record.offset)))));
    }
    let (key, value) = (record.key.clone(), record.value.clone());
    NewRecord { topic: from.topic.to_string(), partition: Some(home), key, value, headers, timestamp: None }
}

fn forwarded_at(headers: &Headers) -> Option<Micros> {
    let (_, value) = headers.iter().rfind(|(name, _)| name == FORWARDED_AT)?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok().map(Micros)
}

fn traceparent(headers: &Headers) -> Option<String> {
    let (_, value) = headers.iter().rfind(|(name, _)| name == "traceparent")?;
    String::from_utf8(value.as_deref()?.to_vec()).ok()
}
