//! What a record of the requests topic is: a request, one to be forwarded to its key's partition, or a dead letter. Also a
//! waiting request, from its log record. Pure.

use bytes::Bytes;

use super::log_record::record_of;
use super::queue::item::RequestItem;
use super::queue::parked::Parked;
use crate::error::{Error, Result};
use crate::kafka::record::{Headers, NewRecord, Record};
use crate::saga::partitioner;
use crate::saga::position::{Position, TopicPartition};
use crate::saga::request::{Command, LogRecord};
use crate::saga::time::Micros;
use crate::wire::avro::Schemas;
use crate::wire::dead_letter::dead_letter_headers;
use crate::wire::payload::NotDecoded;
use crate::wire::request;

/// Headers of a request that was found in another partition than its key's and forwarded: when and where it was recorded.
const FORWARDED_AT: &str = "resaga-forwarded-at";
const FORWARDED_FROM: &str = "resaga-forwarded-from";
/// Bytes; W3C's has 55. It goes into every record that comes of the request.
const MAX_TRACEPARENT_BYTES: usize = 128;
/// Microseconds. A request is forwarded at most this long after it was recorded: the topic keeps none longer.
const MAX_FORWARDED_AGE: i64 = 30 * 86_400_000_000;

/// What a record of the requests topic is.
pub enum IncomingRecord {
    Request(Box<RequestItem>),
    /// To the dead letters.
    DeadLetter(NewRecord),
    /// To its key's partition.
    Forward(NewRecord),
}

/// Reads one record. `partitions`: of the topic; `None`: it stays where it is. `Err`: a schema is needed first.
pub fn read_record(
    record: &Record,
    partition: &TopicPartition,
    partitions: Option<i32>,
    dead_letters: &str,
    schemas: &Schemas,
) -> std::result::Result<IncomingRecord, NotDecoded> {
    let key = record.key.as_deref();
    let decoded = request::decode_request(key, record.value.as_deref(), &record.headers, schemas);
    let request = match decoded {
        Ok(request) => request,
        Err(NotDecoded::DeadLetter { code, message }) => {
            return Ok(IncomingRecord::DeadLetter(dead_letter(record, partition, dead_letters, code, &message)));
        }
        Err(need) => return Err(need),
    };
    let home = partitions.map_or(partition.partition, |of| partitioner::partition(key.unwrap_or_default(), of));
    let forwarded_at = forwarded_at(record, partition);
    // One hop at most: two processes that count partitions differently would send it back and forth for ever.
    if home != partition.partition && forwarded_at.is_none() {
        return Ok(IncomingRecord::Forward(forward(record, partition, home)));
    }
    // A replay of a batch counts from when that was recorded, a schedule's from when it was due.
    let counts_from = match &request.command {
        Command::Replay(order) => {
            let schedule = order.schedule.as_ref().map(|member| member.due);
            order.member.as_ref().map(|member| member.accepted_at).or(schedule)
        }
        Command::Batch(order) => order.schedule.as_ref().map(|member| member.due),
        _ => None,
    };
    let accepted_at = counts_from.filter(|at| *at <= record.timestamp).or(forwarded_at).unwrap_or(record.timestamp);
    let position = Position { topic: partition.topic.clone(), partition: partition.partition, offset: record.offset };
    let log_record = record_of(&request, position, accepted_at);
    Ok(IncomingRecord::Request(Box::new(RequestItem {
        request,
        partition: partition.clone(),
        record: log_record,
        trace: traceparent(&record.headers),
        ends: None,
        undoes: None,
        parked: None,
    })))
}

/// A waiting request, from its log record.
pub fn parked_again(record: &LogRecord) -> Result<Parked> {
    let text = record.request.as_ref().ok_or_else(|| Error::corrupt("read waiting replay: its log record has no request"))?;
    let request = request::decode_json(text.as_str().as_bytes())?;
    let parked = Parked::of(request, record.clone(), None, None);
    parked.ok_or_else(|| Error::corrupt("read waiting replay: its log record holds a command that does not wait"))
}

pub fn dead_letter(record: &Record, partition: &TopicPartition, topic: &str, code: &'static str, message: &str) -> NewRecord {
    let position = Position { topic: partition.topic.clone(), partition: partition.partition, offset: record.offset };
    let headers = dead_letter_headers(&record.headers, &position, "replay", code, message);
    let (key, value) = (record.key.clone(), record.value.clone());
    NewRecord { topic: topic.to_owned(), partition: None, key, value, headers, timestamp: None }
}

fn forward(record: &Record, from: &TopicPartition, home: i32) -> NewRecord {
    // Headers of these names that others wrote are dropped.
    let theirs = record.headers.iter().filter(|(name, _)| !matches!(name.as_str(), FORWARDED_AT | FORWARDED_FROM));
    let mut headers: Headers = theirs.cloned().collect();
    headers.push((FORWARDED_AT.into(), Some(Bytes::from(record.timestamp.0.to_string()))));
    headers.push((FORWARDED_FROM.into(), Some(Bytes::from(format!("{from}@{}", record.offset)))));
    let (key, value) = (record.key.clone(), record.value.clone());
    NewRecord { topic: from.topic.to_string(), partition: Some(home), key, value, headers, timestamp: None }
}

/// When a request that a process of ours forwarded was recorded first. `None`: none did, for the headers do not say what
/// only a forwarded request says: another partition of this topic, and a time before this record's that the topic goes back to.
fn forwarded_at(record: &Record, here: &TopicPartition) -> Option<Micros> {
    let text = |wanted| {
        let (_, value) = record.headers.iter().rfind(|(name, _)| name == wanted)?;
        std::str::from_utf8(value.as_deref()?).ok()
    };
    let (place, offset) = text(FORWARDED_FROM)?.rsplit_once('@')?;
    let (topic, partition) = place.strip_suffix(']')?.rsplit_once('[')?;
    let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
    let at = Micros(text(FORWARDED_AT)?.parse().ok()?);
    let is_elsewhere = topic == &*here.topic && partition != here.partition && partition >= 0 && offset >= 0;
    let oldest = record.timestamp.saturating_add(-MAX_FORWARDED_AGE);
    (is_elsewhere && (oldest..=record.timestamp).contains(&at)).then_some(at)
}

fn traceparent(headers: &Headers) -> Option<String> {
    let (_, value) = headers.iter().rfind(|(name, _)| name == "traceparent")?;
    let value = value.as_deref().filter(|value| value.len() <= MAX_TRACEPARENT_BYTES)?;
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::position::Offset;

    const NOW: i64 = 1_780_000_000_000_000;
    const DAY: i64 = 86_400_000_000;

    fn key(partition: i32, of: i32) -> String {
        (0..).map(|n| format!("order-{n}")).find(|key| partitioner::partition(key.as_bytes(), of) == partition).expect("a key")
    }

    fn record(key: &str, headers: &[(&str, &str)]) -> Record {
        let text = format!(
            r#"{{"request_id":"r","command":"REPLAY","saga_id":"{key}","from":{{"start":true}},"requested_by":"ops","reason":"x"}}"#
        );
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(Bytes::from((*value).to_owned()))));
        let (key, value) = (Some(key.to_owned().into()), Some(text.into()));
        Record { offset: Offset(41), timestamp: Micros(NOW), by_broker: false, key, value, headers: headers.collect() }
    }

    /// Read in this partition of `of`: the time it counts from, or the partition it is sent to.
    fn taken(record: &Record, partition: i32, of: i32) -> Result<i64, i32> {
        let here = TopicPartition::new("requests", partition);
        match read_record(record, &here, Some(of), "dead", &Schemas::new(false)).expect("JSON") {
            IncomingRecord::Request(item) => Ok(item.record.accepted_at.0),
            IncomingRecord::Forward(sent) => Err(sent.partition.expect("chosen")),
            IncomingRecord::DeadLetter(_) => panic!("a request"),
        }
    }

    #[test]
    fn a_request_is_forwarded_once_however_others_count_the_partitions() {
        // Of 12 partitions its home is 3, of 24 it is 15.
        let key = (0..)
            .map(|n| format!("order-{n}"))
            .find(|key| (partitioner::partition(key.as_bytes(), 12), partitioner::partition(key.as_bytes(), 24)) == (3, 15));
        let record = record(&key.expect("a key"), &[]);
        let here = TopicPartition::new("requests", 3);
        let IncomingRecord::Forward(sent) = read_record(&record, &here, Some(24), "dead", &Schemas::new(false)).expect("JSON")
        else {
            panic!("forwarded")
        };
        assert_eq!(sent.partition, Some(15));
        let NewRecord { key, value, headers, .. } = sent;
        let later = Record { offset: Offset(7), timestamp: Micros(NOW + 5), by_broker: false, key, value, headers };
        assert_eq!(taken(&later, 15, 24), Ok(NOW), "it counts from when it was recorded first");
        assert_eq!(taken(&later, 15, 12), Ok(NOW), "one that counts 12 does not send it back");
    }

    #[test]
    fn only_what_a_forwarding_says_is_believed() {
        let key = key(2, 4);
        let from = "requests[1]@9";
        let at = |at: i64| (NOW - at).to_string();
        let of = |at: &str, from: &str| taken(&record(&key, &[(FORWARDED_AT, at), (FORWARDED_FROM, from)]), 2, 4);
        assert_eq!(of(&at(DAY), from), Ok(NOW - DAY));
        assert_eq!(taken(&record(&key, &[(FORWARDED_AT, "0")]), 2, 4), Ok(NOW), "without where it came from");
        for (at, from) in [
            ("0".to_owned(), from),
            (at(31 * DAY), from),
            (at(-1), from),
            ("x".to_owned(), from),
            (at(DAY), "requests[2]@9"),
            (at(DAY), "other[1]@9"),
            (at(DAY), "requests[-1]@9"),
            (at(DAY), "requests[1]"),
            (at(DAY), ""),
        ] {
            assert_eq!(of(&at, from), Ok(NOW), "{at} {from}");
        }
        let strange = record(&key, &[(FORWARDED_AT, "0"), ("other", "kept"), (FORWARDED_FROM, "x")]);
        assert_eq!(taken(&strange, 1, 4), Err(2), "forwarded all the same");
        let sent = forward(&strange, &TopicPartition::new("requests", 1), 2);
        let names: Vec<&str> = sent.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["other", FORWARDED_AT, FORWARDED_FROM]);
    }
}
