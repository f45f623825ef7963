//! Headers of what resaga writes: CloudEvents binary mode (`ce_*`), W3C `traceparent`, our own `resaga-*`.
//!
//! Functions of the record alone: building one twice gives the same bytes.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::saga::event::StepEvent;
use crate::saga::request::LogRecord;
use crate::saga::restored::RestoredSaga;
use crate::saga::time::Micros;

type OwnedHeaders = Vec<(String, Option<Bytes>)>;

const SOURCE: &str = "/resaga";

/// Of a record of the restored-saga topic.
pub fn of_restored(restored: &RestoredSaga, avro: bool, incoming: Option<&str>) -> OwnedHeaders {
    let mut headers = CloudEventHeaders {
        id: &restored.replay_id,
        kind: "io.resaga.saga.restored.v1",
        subject: restored.saga_id.as_str(),
        time: restored.restored_at,
        correlation: &restored.request_id,
    }
    .headers(avro, incoming);
    push(&mut headers, "resaga-replay-id", &restored.replay_id);
    push(&mut headers, "resaga-original-id", restored.original_saga_id.as_str());
    push(&mut headers, "resaga-root-id", restored.root_saga_id.as_str());
    push(&mut headers, "resaga-depth", &restored.depth.to_string());
    push(&mut headers, "resaga-mode", restored.mode.as_str());
    if let Some(step) = &restored.force_failure {
        push(&mut headers, "resaga-force-failure", step);
    }
    headers
}

/// Of the SAGA_RESTORED event of the same replay.
pub fn of_event(event: &StepEvent, avro: bool, incoming: Option<&str>) -> OwnedHeaders {
    let request_id = event.restored.as_ref().map_or("", |restored| &restored.request_id);
    let mut headers = CloudEventHeaders {
        id: &event.event_id,
        kind: "io.resaga.step.event.v1",
        subject: event.saga_id.as_str(),
        time: event.occurred_at.unwrap_or_default(),
        correlation: request_id,
    }
    .headers(avro, incoming);
    push(&mut headers, "resaga-replay-id", &event.event_id);
    headers
}

/// Of a record of the replay log. Its states follow each other under one replay id.
pub fn of_log(record: &LogRecord, avro: bool, incoming: Option<&str>) -> OwnedHeaders {
    let id = format!("{}/{}", record.replay_id, record.status.as_str());
    let mut headers = CloudEventHeaders {
        id: &id,
        kind: "io.resaga.replay.log.v1",
        subject: &record.replay_id,
        time: record.ended_at.or(record.published_at).unwrap_or(record.accepted_at),
        correlation: &record.request_id,
    }
    .headers(avro, incoming);
    push(&mut headers, "resaga-replay-id", &record.replay_id);
    if let Some(sequence) = record.outcome_sequence {
        push(&mut headers, super::log::OUTCOME_SEQUENCE, &sequence.to_string());
    }
    if let Some(progress) = &record.batch_progress {
        push(&mut headers, super::batch::BATCH_PROGRESS, &super::batch::progress_json(progress));
    }
    if let Some(progress) = &record.schedule_progress {
        push(&mut headers, super::schedule::SCHEDULE_PROGRESS, &super::schedule::progress_json(progress));
    }
    headers
}

struct CloudEventHeaders<'a> {
    id: &'a str,
    kind: &'a str,
    subject: &'a str,
    time: Micros,
    /// The request id.
    correlation: &'a str,
}

impl CloudEventHeaders<'_> {
    fn headers(&self, avro: bool, incoming: Option<&str>) -> OwnedHeaders {
        let mut headers = OwnedHeaders::with_capacity(16);
        push(&mut headers, "ce_specversion", "1.0");
        push(&mut headers, "ce_id", self.id);
        push(&mut headers, "ce_source", SOURCE);
        push(&mut headers, "ce_type", self.kind);
        push(&mut headers, "ce_subject", self.subject);
        push(&mut headers, "ce_time", &self.time.to_string());
        push(&mut headers, "ce_correlationid", self.correlation);
        // With the schema id before it the value is not plain `application/avro`.
        push(&mut headers, "content-type", if avro { "application/vnd.confluent.avro" } else { "application/json" });
        push(&mut headers, "traceparent", &traceparent(incoming, self.correlation, self.id));
        headers
    }
}

fn push(headers: &mut OwnedHeaders, name: &str, value: &str) {
    headers.push((name.to_owned(), Some(Bytes::copy_from_slice(value.as_bytes()))));
}

/// W3C Trace Context, version 00: the trace of the request where it has one, else one derived from its id; the span is
/// derived from the id of what is written.
fn traceparent(incoming: Option<&str>, request_id: &str, id: &str) -> String {
    let (trace, flags) = incoming.and_then(parse).unwrap_or_else(|| {
        // All zeros is no valid id.
        (format!("{:032x}", xxh3_128(request_id.as_bytes()).max(1)), "01".to_owned())
    });
    format!("00-{trace}-{:016x}-{flags}", xxh3_64(id.as_bytes()).max(1))
}

/// Trace id and flags of a `traceparent`.
fn parse(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = hex(version, 2) && version != "ff" && hex(flags, 2);
    let set = |text: &str, len| hex(text, len) && text.bytes().any(|b| b != b'0');
    (known && set(trace, 32) && set(span, 16)).then(|| (trace.to_owned(), flags.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing;

    fn value<'h>(headers: &'h OwnedHeaders, name: &str) -> &'h [u8] {
        headers.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref()).unwrap()
    }

    #[test]
    fn a_trace_goes_on_and_a_broken_one_is_replaced() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let incoming = format!("00-{trace}-b7ad6b7169203331-00");
        let ours = traceparent(Some(&incoming), "r", "i");
        assert!(ours.starts_with(&format!("00-{trace}-")) && ours.ends_with("-00") && ours != incoming, "{ours}");
        let fresh = traceparent(None, "r", "i");
        for broken in ["", "00", "00-0-0-00", &incoming.replace(trace, &"0".repeat(32)), &incoming.to_uppercase()] {
            assert_eq!(traceparent(Some(broken), "r", "i"), fresh);
        }
        assert_eq!(fresh.len(), 55);
    }

    proptest! {
        #[test]
        fn built_twice_headers_are_the_same(restored in testing::restored()) {
            let headers = of_restored(&restored, false, None);
            prop_assert_eq!(&headers, &of_restored(&restored, false, None));
            prop_assert_eq!(value(&headers, "ce_id"), restored.replay_id.as_bytes());
            let depth = restored.depth.to_string();
            prop_assert_eq!(value(&headers, "resaga-depth"), depth.as_bytes());
            let forced = headers.iter().any(|(name, _)| name == "resaga-force-failure");
            prop_assert_eq!(forced, restored.force_failure.is_some());
        }
    }
}
