//! One order through the pages of records: its step events are decoded and folded, its request is decoded and planned, and what the
//! pages show of state, restored saga, headers, log record and dead letter is what comes of them.

use bytes::Bytes;
use resaga::api::state_json;
use resaga::history::answer::{Coverage, Source, StateAnswer};
use resaga::replay_log::owner::{GROUP_WHY, LogOwner};
use resaga::saga::entry::Entry;
use resaga::saga::fold::{Admitted, RecordMeta, Saga};
use resaga::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use resaga::saga::ids;
use resaga::saga::partitioner::partition;
use resaga::saga::plan::{Plan, PlanFacts, plan};
use resaga::saga::position::{Position, SagaId};
use resaga::saga::request::Command;
use resaga::saga::time::Micros;
use resaga::wire::avro::Schemas;
use resaga::wire::dead_letter::{DeadLetterRecord, cut, dead_letter_headers};
use resaga::wire::event::{NotDecoded, decode_event};
use resaga::wire::headers::{of_log, of_restored};
use resaga::wire::log::{decode_log, encode_log, log_answer};
use resaga::wire::request::decode_request;
use resaga::wire::restored::{decode_restored, encode_json};
use serde_json::Value;

use crate::pages::{check_example, check_rows, example, read};

const EVENTS: &str = "docs/interface/events.md";
const REQUESTS: &str = "docs/interface/requests.md";
const RESTORED: &str = "docs/interface/restored-sagas.md";
const LOG: &str = "docs/interface/replay-log.md";
const DEAD_LETTERS: &str = "docs/interface/dead-letters.md";

const ORDER: &str = "order-1";
const MAX_RECORD: u64 = 1 << 20;
/// Of the first event's record; the others follow.
const FIRST_OFFSET: i64 = 36;

/// The fields of a schema in schemas/.
pub fn fields(schema: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&read(&format!("schemas/{schema}.avsc"))).expect("a schema is JSON");
    let fields = schema["fields"].as_array().expect("fields");
    fields.iter().map(|field| field["name"].as_str().expect("name").to_owned()).collect()
}

/// One member of an object a line.
fn laid_out(json: &str) -> String {
    let value: Value = serde_json::from_str(json).expect("JSON");
    let members = value.as_object().expect("an object").iter();
    let lines: Vec<_> = members.map(|(name, value)| format!("  \"{name}\": {value}")).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// Without the white space of a page.
fn compact(json: &str) -> String {
    serde_json::from_str::<Value>(json).unwrap_or_else(|e| panic!("{e}: {json}")).to_string()
}

fn at(text: &str) -> Micros {
    text.parse().expect("a time")
}

fn settings() -> FoldSettings {
    FoldSettings {
        max_clock_ahead_micros: 3_600_000_000,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::default(),
        policy_by_saga: Vec::new(),
    }
}

/// The entries of the events on the page, each recorded 250 ms after it occurred, and the saga.
fn folded() -> (Vec<Entry>, Saga) {
    let (mut saga, mut entries): (Option<Saga>, Vec<Entry>) = (None, Vec::new());
    for (line, offset) in example(EVENTS, "events").lines().zip(FIRST_OFFSET..) {
        let event = decode_event(Some(ORDER.as_bytes()), Some(line.as_bytes()), &[], MAX_RECORD, &Schemas::new(false));
        let event = event.unwrap_or_else(|e| panic!("{EVENTS}: {e:?}: {line}"));
        let occurred_at = event.occurred_at.expect("occurred_at");
        let position = Position::new("saga.events.v1", partition(ORDER.as_bytes(), 12), offset);
        let record = RecordMeta { position, timestamp: occurred_at.saturating_add(250_000) };
        match Saga::admit(&mut saga, event, &record, false, &settings()) {
            Admitted::Entry(entry) => entries.push(*entry),
            other => panic!("{EVENTS}: no entry: {other:?}"),
        }
    }
    (entries, saga.expect("an event"))
}

fn planned() -> Plan {
    let value = example(REQUESTS, "request");
    let request = decode_request(Some(ORDER.as_bytes()), Some(value.as_bytes()), &[], &Schemas::new(false)).expect("a request");
    let Command::Replay(order) = &request.command else { panic!("{REQUESTS}: {:?}", request.command) };
    let facts = PlanFacts {
        now: at("2026-01-10T11:00:00.25Z"),
        restored_at: at("2026-01-10T11:00:00Z"),
        max_depth: 10,
        target_allowed: true,
        already_replayed: false,
        lineage_full: None,
        id_taken: false,
        split: false,
        max_bytes: MAX_RECORD,
        context: None,
    };
    plan(&request, order, &folded().0, &facts).expect("a plan")
}

#[test]
fn the_events_fold_to_the_state_on_the_page() {
    let (_, saga) = folded();
    let reach = Coverage { to: Vec::new(), complete_through: at("2026-01-10T10:00:30Z") };
    let found = StateAnswer { state: saga.state, folded: 0, source: Source::Hot, reach, split: false };
    check_example(EVENTS, "state", &laid_out(&state_json(&found)));
    check_rows(EVENTS, "members", fields("StepEvent"));
}

#[test]
fn the_request_plans_the_restored_saga_on_the_page() {
    check_rows(REQUESTS, "members", fields("ReplayRequest"));
    check_rows(RESTORED, "members", fields("RestoredSaga"));
    let restored = planned().restored;
    check_example(RESTORED, "restored", &laid_out(&encode_json(&restored)));
    let shown = compact(&example(RESTORED, "restored"));
    assert_eq!(decode_restored(Some(shown.as_bytes()), &[], &Schemas::new(false)), Ok(restored));
}

#[test]
fn the_headers_of_a_restored_saga_are_those_on_the_page() {
    let restored = planned().restored;
    check_example(RESTORED, "headers", &lines(&of_restored(&restored, false, None)));
    let mut forced = restored;
    forced.force_failure = Some("charge_payment".to_owned());
    check_rows(RESTORED, "headers", of_restored(&forced, false, None).iter().map(|(name, _)| name));
}

#[test]
fn the_log_record_on_the_page_is_that_of_the_replay() {
    check_rows(LOG, "members", fields("ReplayLogEntry"));
    let shown = compact(&example(LOG, "record"));
    let mut record = decode_log(Some(shown.as_bytes()), &[], &Schemas::new(false)).unwrap_or_else(|e| panic!("{LOG}: {e:?}"));
    assert_eq!(String::from_utf8(encode_log(&record, None).expect("JSON")).expect("UTF-8"), shown);
    let (plan, request) = (planned(), example(REQUESTS, "request"));
    let request = decode_request(Some(ORDER.as_bytes()), Some(request.as_bytes()), &[], &Schemas::new(false)).expect("a request");
    let Command::Replay(order) = &request.command else { panic!("{:?}", request.command) };
    assert_eq!(record.replay_id, ids::replay_id(&request.request_id, &SagaId::from(ORDER)).to_string());
    assert_eq!((&record.request_sha256, &record.override_sha256), (&request.sha256, &order.override_sha256));
    assert_eq!(record.new_saga_id.as_ref(), Some(&plan.restored.saga_id));
    assert_eq!((record.checkpoint.as_ref(), &record.resume_step), (Some(&plan.restored.checkpoint), &plan.restored.resume_step));
    assert_eq!((&record.changed, record.accepted_at), (&plan.changed, plan.restored.restored_at));
    assert!(!log_answer(&record).contains("\"request\""), "answers leave it out");

    record.outcome_sequence = Some(9);
    let mut headers = of_log(&record, false, None);
    headers.push(LogOwner { group: "resaga".to_owned(), generation: 1 }.header());
    headers.push((GROUP_WHY.to_owned(), None));
    check_rows(LOG, "headers", headers.iter().map(|(name, _)| name));
}

#[test]
fn the_dead_letter_on_the_page_is_one() {
    let record = example(DEAD_LETTERS, "record");
    let dead = decode_event(Some(b"order-2"), Some(record.as_bytes()), &[], MAX_RECORD, &Schemas::new(false));
    let Err(NotDecoded::DeadLetter { code, message }) = dead else { panic!("{DEAD_LETTERS}: {dead:?}") };
    let position = Position::new("saga.events.v1", partition(b"order-2", 12), 44);
    let headers = dead_letter_headers(&[], &position, "decode", code, &message);
    check_example(DEAD_LETTERS, "headers", &lines(&headers));
    let letter = DeadLetterRecord { key: None, value: Some(Bytes::from_static(b"x")), headers };
    check_rows(DEAD_LETTERS, "headers", cut(&letter, 0).headers.iter().map(|(name, _)| name));
}

#[test]
fn the_codes_of_dead_letters_are_those_that_the_decoders_give() {
    let event = r#"{"event_id":"e","saga_id":"s","saga_name":"n","kind":"SAGA_STARTED"}"#;
    let decode = |key: &'static str, value: &[u8], max_record| {
        let decoded = decode_event(Some(key.as_bytes()), Some(value), &[], max_record, &Schemas::new(false));
        dead(decoded.map(|_| ()))
    };
    let mut codes = vec![
        decode("s", event.as_bytes(), 10),
        decode("s", b"no JSON", MAX_RECORD),
        decode("s", b"\0\0\0\0\x01x", MAX_RECORD),
        decode("s", b"{\"event_id\":\"e\"}", MAX_RECORD),
        decode("t", event.as_bytes(), MAX_RECORD),
    ];
    codes.extend(["stale_sequence", "id_taken"].map(str::to_owned));
    codes.push(dead(decode_request(None, Some(b"{}"), &[], &Schemas::new(false)).map(|_| ())));
    check_rows(DEAD_LETTERS, "codes", codes);
}

fn dead(decoded: Result<(), NotDecoded>) -> String {
    match decoded {
        Err(NotDecoded::DeadLetter { code, .. }) => code.to_owned(),
        other => panic!("no dead letter: {other:?}"),
    }
}

#[test]
fn every_request_on_the_page_is_understood() {
    for line in example(REQUESTS, "more").lines() {
        let decoded = decode_request(Some(ORDER.as_bytes()), Some(line.as_bytes()), &[], &Schemas::new(false));
        let request = decoded.unwrap_or_else(|e| panic!("{REQUESTS}: {e:?}: {line}"));
        assert!(!matches!(request.command, Command::Invalid { .. }), "{REQUESTS}: {:?}: {line}", request.command);
    }
}

/// `name: value`, one a line.
fn lines(headers: &[(String, Option<Bytes>)]) -> String {
    let text = |value: &Option<Bytes>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
    headers.iter().map(|(name, value)| format!("{name}: {}\n", text(value))).collect()
}
