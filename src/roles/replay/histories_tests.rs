use super::*;
use crate::roles::replay::log_record::record_of;
use crate::roles::replay::queue::parked::Parked;
use crate::saga::position::{Position, TopicPartition};
use crate::wire::request::decode_json;

/// A request of `order-1`, read; `more`: members besides.
fn item(number: i64, more: &str, ends: Option<&EndOffsets>) -> RequestItem {
    let text = format!(
        r#"{{"request_id":"r-{number}","command":"REPLAY","saga_id":"order-1","from":{{"start":true}},"requested_by":"ops","reason":"x"{more}}}"#
    );
    let request = decode_json(text.as_bytes()).expect("a request");
    let record = record_of(&request, Position::new("requests", 0, number), Micros(number));
    let partition = TopicPartition::new("requests", 0);
    RequestItem { request, partition, record, trace: None, ends: ends.cloned(), undoes: None, parked: None }
}

fn parked(number: i64, ends: Option<&EndOffsets>) -> RequestItem {
    let item = item(number, "", ends);
    RequestItem { parked: Parked::of(item.request.clone(), item.record.clone(), None, ends.cloned()), ..item }
}

/// The ends that `order-1` is looked at to: 1 or 2, or those of now.
fn ends_of(items: &[RequestItem], just_restored: &[&str], asked: [&EndOffsets; 2]) -> Option<usize> {
    let just_restored = just_restored.iter().map(|id| SagaId::from(*id)).collect();
    let ends = needed_ends(items, &just_restored)[&SagaId::from("order-1")].ends;
    ends.map(|ends| 1 + asked.iter().position(|asked| asked.is_same(ends)).expect("one of them"))
}

#[test]
fn a_request_sees_what_was_recorded_before_it_was_read_or_woke() {
    let (older, newer) = (EndOffsets::asked_at(Instant::now()), EndOffsets::asked_at(Instant::now() + Duration::from_secs(1)));
    let of = |items: &[RequestItem], just_restored: &[&str]| ends_of(items, just_restored, [&older, &newer]);
    assert_eq!(of(&[item(1, "", Some(&older))], &[]), Some(1));
    assert_eq!(of(&[item(1, "", None)], &[]), None, "ends were not asked since it was read");
    assert_eq!(of(&[item(1, "", Some(&older))], &["order-1"]), None, "the saga was restored since");
    let later = r#","not_before":"2026-01-10T10:00:00Z""#;
    assert_eq!(of(&[item(1, later, Some(&older))], &[]), None, "it woke after that");
    assert_eq!(of(&[parked(1, Some(&newer)), item(2, "", Some(&older))], &[]), Some(2), "of several the latest");
    assert_eq!(of(&[item(2, "", Some(&older)), parked(1, Some(&newer))], &[]), Some(2), "in whatever order");
    assert_eq!(of(&[parked(1, None), item(2, "", Some(&older))], &[]), None, "or those of now");
}
