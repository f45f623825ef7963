use proptest::prelude::*;

use super::batch::MemberRequests;
use super::batch_body::read_body;
use super::*;
use crate::saga::batch::{BatchOrder, BatchRow, BatchSource, Verdict};
use crate::saga::batch_progress::MaxFailures;
use crate::saga::json::Json;
use crate::saga::lineage::Mode;
use crate::saga::request::{ForceFailure, From, IfCompensated, Override, Refusal, ReplayOrder};
use crate::saga::time::Micros;
use crate::wire::avro::{SchemaRef, texts};

const ID: &str = "0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10";

fn decode(key: &str, value: &str) -> Result<ReplayRequest, NotDecoded> {
    decode_request(Some(key.as_bytes()), Some(value.as_bytes()), &[], &Schemas::new(false))
}
fn replay(members: &str) -> String {
    format!(
        r#"{{"request_id":"{ID}","command":"REPLAY","saga_id":"order-1","from":{{"step":"pay"}},"requested_by":"ops","reason":"why"{members}}}"#
    )
}
fn order(text: &str) -> ReplayOrder {
    match decode("order-1", text).unwrap().command {
        Command::Replay(order) => *order,
        other => panic!("{other:?}"),
    }
}
fn refused(key: &str, text: &str) -> String {
    match decode(key, text).unwrap().command {
        Command::Invalid { message, .. } => message,
        other => panic!("{other:?}"),
    }
}
fn dead(key: &str, text: &str) -> String {
    match decode(key, text) {
        Err(NotDecoded::DeadLetter { code: "invalid_request", message }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_interface() {
    let read = order(&replay(""));
    let defaults = ReplayOrder {
        saga_id: SagaId::from("order-1"),
        from: From::Step { step: "pay".into(), attempt: None },
        from_text: Json::from_valid(r#"{"step":"pay"}"#),
        override_: None,
        override_sha256: None,
        force_failure: None,
        mode: Mode::Resume,
        dry_run: false,
        allow_running: false,
        allow_repeat: false,
        allow_completed: false,
        if_compensated: IfCompensated::Refuse,
        saga_version: None,
        target: None,
        new_saga_id: None,
        not_before: None,
        expires_at: None,
        member: None,
        schedule: None,
    };
    assert_eq!(read, defaults);
    assert_eq!(order(&replay(r#","mode":null,"override":null,"dry_run":null,"labels":null,"unknown":7"#)), defaults);
}

#[test]
fn every_point_to_start_from_is_read() {
    let from = |text: &str| order(&replay("").replace(r#"{"step":"pay"}"#, text)).from;
    assert_eq!(from(r#"{"step":"a","attempt":2}"#), From::Step { step: "a".into(), attempt: Some(2) });
    assert_eq!(from(r#"{"after_step":"a"}"#), From::AfterStep("a".into()));
    assert_eq!(from(r#"{"at":"1970-01-01T00:00:01Z"}"#), From::At(Micros(1_000_000)));
    assert_eq!(from(r#"{"sequence":7,"step":null}"#), From::Sequence(7));
    assert_eq!(from(r#"{"checkpoint":"c"}"#), From::Checkpoint("c".into()));
    assert_eq!(from(r#"{"start":true}"#), From::Start);
    assert_eq!(from(r#"{"latest":true}"#), From::Latest);
}

#[test]
fn overrides_are_kept_as_text_and_hashed_as_received() {
    let read = order(&replay(r#","override":{"merge": {"a":1.10}},"force_failure":true"#));
    assert_eq!(read.override_, Some(Override::Merge(Json::from_valid(r#"{"a":1.10}"#))));
    assert_eq!(read.override_sha256, Some(hash::sha256_hex(br#"{"merge": {"a":1.10}}"#)));
    assert_eq!(read.force_failure, Some(ForceFailure::ResumeStep));
    assert_eq!(order(&replay(r#","force_failure":"pay""#)).force_failure, Some(ForceFailure::Step("pay".into())));
    let with_nulls = order(&replay(r#","override":{"merge":null,"shallow":{"a":null},"patch":null,"replace":null}"#));
    assert_eq!(with_nulls.override_, Some(Override::Shallow(Json::from_valid(r#"{"a":null}"#))));
}

#[test]
fn a_member_that_is_wrong_is_refused_and_named_without_its_value() {
    let cases = [
        (replay(r#","mode":"SECRET""#), "mode"),
        (replay(r#","dry_run":"SECRET""#), "dry_run"),
        (replay(r#","override":{"merge":{},"patch":[]}"#), "override"),
        (replay(r#","override":[]"#), "override"),
        (replay(r#","not_before":"2026-01-10T10:00:00""#), "not_before"),
        (replay(r#","labels":{"SECRET":1}"#), "labels"),
        (replay("").replace(r#"{"step":"pay"}"#, r#"{"step":"a","at":"x"}"#), "from"),
        (replay("").replace(r#"{"step":"pay"}"#, r#"{"sequence":2.0}"#), "from.sequence"),
        (replay("").replace(r#"{"step":"pay"}"#, r#"{"sequence":9223372036854775808}"#), "from.sequence"),
        (replay("").replace(r#"{"step":"pay"}"#, r#"{"start":false}"#), "from.start"),
        (replay("").replace(r#"{"step":"pay"}"#, "null"), "from"),
        (replay("").replace("\"why\"", "\"\""), "reason"),
        (replay("").replace("\"ops\"", "7"), "requested_by"),
        (replay("").replace("\"order-1\"", "null"), "saga_id"),
    ];
    for (text, field) in cases {
        let message = refused("order-1", &text);
        assert!(message.contains(&format!("\"{field}\"")) && !message.contains("SECRET"), "{field}: {message}");
    }
    let request = decode("order-1", &replay("").replace("\"order-1\"", "null")).unwrap();
    assert!(matches!(request.command, Command::Invalid { saga_id: Some(id), .. } if id.as_str() == "order-1"));
    assert_eq!((request.requested_by.as_str(), request.reason.as_str()), ("ops", "why"));
}

#[test]
fn a_member_that_nobody_reads_and_avro_cannot_hold_is_the_requesters_mistake() {
    for (member, field) in [
        (r#","batch_id":5"#, "batch_id"),
        (r#","replay_id":7"#, "replay_id"),
        (r#","outcome":1"#, "outcome"),
        (r#","outcome":{"saga_id":"a","status":"failed","sequence":18446744073709551615,"ended_at":"x"}"#, "sequence"),
    ] {
        let request = decode("order-1", &replay(member)).unwrap();
        assert!(matches!(request.command, Command::Replay(_)), "{member}");
        assert!(encode_request(&request, None).is_ok());
        match encode_request(&request, Some(SchemaId(1))) {
            Err(Error::Invalid { code: "request_invalid", message }) => {
                assert_eq!(message, format!("field \"{field}\" does not fit its schema"));
            }
            other => panic!("{member}: {other:?}"),
        }
    }
}

#[test]
fn the_largest_numbers_go_through_avro() {
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::REPLAY_REQUEST).unwrap();
    let text = replay(r#","expires_at":"9999-12-31T23:59:59.999999Z","not_before":"0000-01-01T00:00:00Z""#)
        .replace(r#"{"step":"pay"}"#, r#"{"sequence":9223372036854775807}"#);
    let json = decode("order-1", &text).unwrap();
    let value = encode_request(&json, Some(SchemaId(1))).unwrap();
    let avro = decode_request(Some(b"order-1"), Some(&value), &[], &schemas).unwrap();
    assert_eq!((avro.command, avro.sha256), (json.command, json.sha256));
}

#[test]
fn an_avro_field_that_json_lacks_refuses_the_request_and_names_it() {
    let schemas = Schemas::new(true);
    let schema = r#"{"type":"record","name":"Mine","fields":[{"name":"request_id","type":"string"},{"name":"command","type":"string"},
        {"name":"requested_by","type":"string"},{"name":"reason","type":"string"},{"name":"override","type":{"type":"fixed","name":"F","size":1}}]}"#;
    schemas.insert(SchemaRef::Id(SchemaId(1)), schema).unwrap();
    let value = b"\0\0\0\0\x01\x02r\x0cREPLAY\x02o\x02wx";
    match decode_request(Some(b"order-1"), Some(value), &[], &schemas).unwrap().command {
        Command::Invalid { message, .. } => assert_eq!(message, "field \"override\" has a type that JSON lacks"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_names_no_request_is_a_dead_letter() {
    dead("order-1", "[]");
    dead("order-1", "{");
    assert!(dead("order-1", &replay("").replace(ID, "")).contains("request_id"));
    assert!(dead("order-1", &replay("").replace("REPLAY", "SECRET")).contains("command"));
    assert!(dead("other", &replay("")).contains("saga_id"));
    assert!(dead("b", &format!(r#"{{"request_id":"{ID}","command":"BATCH"}}"#)).contains("request_id"));
    let avro = decode_request(Some(b"order-1"), Some(b"\0\0\0\0\x07abc"), &[], &Schemas::new(false));
    assert!(matches!(avro, Err(NotDecoded::DeadLetter { code: "invalid_request", .. })), "no registry: {avro:?}");
    let null = decode_request(None, Some(replay("").as_bytes()), &[], &Schemas::new(false));
    assert!(matches!(null, Err(NotDecoded::DeadLetter { code: "invalid_request", .. })));
}

#[test]
fn what_is_asked_of_a_schedule_names_it() {
    let text = |command: &str, members: &str| {
        format!(r#"{{"request_id":"{ID}","command":"{command}",{members}"requested_by":"o","reason":"r"}}"#)
    };
    assert!(refused(ID, &text("SCHEDULE", "")).contains("\"schedule\" is missing"));
    for command in ["SCHEDULE_CANCEL", "SCHEDULE_ENABLE", "SCHEDULE_DISABLE"] {
        assert!(refused("s", &text(command, "")).contains("schedule_id"));
        let asked = decode_json(text(command, r#""schedule_id":"s","#).as_bytes()).expect("a request");
        assert!(matches!(asked.command, Command::ScheduleControl { schedule_id, .. } if schedule_id == "s"));
    }
}

fn batch(members: &str) -> String {
    format!(r#"{{"request_id":"{ID}","command":"BATCH","batch":{{{members}}},"requested_by":"o","reason":"r"}}"#)
}

fn batch_order(members: &str) -> BatchOrder {
    match decode(ID, &batch(members)).expect("a request").command {
        Command::Batch(order) => *order,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_read_with_what_all_its_replays_share() {
    let found = batch_order(
        r#""name":"n","selector":{"status":["failed"],"label":"k:v","since":"2026-01-10T10:00:00Z","replay":"none"},"from":{"step":"pay"},"mode":null,"rate_per_second":2,"max_failures":"5%""#,
    );
    let BatchSource::Selector(filter) = &found.source else { panic!("{found:?}") };
    assert_eq!((&filter.statuses[..], &filter.labels[..]), (&[Status::Failed][..], &[("k".into(), "v".into())][..]));
    assert_eq!(found.template.as_str(), r#"{"from":{"step":"pay"}}"#);
    assert_eq!(found.limits.max_failures, Some(MaxFailures::Percent(5.0)));
    let named = batch_order(r#""saga_ids":["a","b"],"from":{"start":true},"overrides":{"a":{"merge":{"t":1}}}"#);
    assert_eq!(named.source, BatchSource::Sagas(vec!["a".into(), "b".into()]));
    assert_eq!(named.overrides, Some(vec![("a".into(), Json::from_valid(r#"{"merge":{"t":1}}"#))]));
}

#[test]
fn a_batch_that_cannot_be_meant_is_refused_with_the_field() {
    for (members, field) in [
        ("", "selector"),
        (r#""selector":{},"saga_ids":["a"],"from":{"start":true}"#, "selector"),
        (r#""saga_ids":["a"]"#, "batch.from"),
        (r#""saga_ids":["a"],"from":{"step":1}"#, "batch.from.step"),
        (r#""saga_ids":[""],"from":{"start":true}"#, "saga_ids"),
        (r#""saga_ids":["a"],"from":{"start":true},"new_saga_id":"x""#, "new_saga_id"),
        (r#""saga_ids":["a"],"from":{"start":true},"overrides":{"a":{}}"#, "overrides"),
        (r#""saga_ids":["a"],"from":{"start":true},"dry_run":true"#, "dry_run"),
        (r#""selector":{"status":"lost"},"from":{"start":true}"#, "selector.status"),
        (r#""plan_id":"p","from":{"start":true}"#, "from"),
    ] {
        let said = refused(ID, &batch(members));
        assert!(said.contains(field), "{members}: {said}");
    }
}

#[test]
fn the_request_of_each_saga_has_what_the_batch_says_and_its_own_override() {
    let order =
        batch_order(r#""saga_ids":["a"],"from":{"step":"pay"},"override":{"merge":{"t":1}},"overrides":{"a":{"patch":[]}}"#);
    let requests = MemberRequests {
        request_id: ID,
        requested_by: "ops",
        reason: "r",
        batch_id: ID,
        accepted_at: Micros(7),
        template: &order.template,
        needs_override: true,
        schedule: None,
    };
    let member = |row: BatchRow| {
        let request = decode_json(requests.of(&row).unwrap().as_bytes()).unwrap();
        let Command::Replay(order) = request.command else { panic!("a replay") };
        (order.override_, *order.member.expect("of a batch"))
    };
    let own = Some(Json::from_valid(r#"{"patch":[]}"#));
    let (change, with) = member(BatchRow { own_override: own, ..BatchRow::of("a".into()) });
    assert_eq!(change, Some(Override::Merge(Json::from_valid(r#"{"t":1}"#))));
    assert_eq!(with.own_override, Some(Override::Patch(Json::from_valid("[]"))));
    assert_eq!((with.batch_id.as_str(), with.accepted_at, with.refusal), (ID, Micros(7), None));
    let (_, without) = member(BatchRow::of("b".into()));
    assert_eq!(without.refusal.map(|refusal| refusal.code), Some("override_missing"));
    let verdict = Some(Verdict::Refuse { code: "saga_running".into(), message: "m".into() });
    let (_, refused) = member(BatchRow { verdict, ..BatchRow::of("c".into()) });
    assert_eq!(refused.refusal, Some(Refusal::new("saga_running", "m")));
}

#[test]
fn with_an_expression_each_saga_has_its_item() {
    let jq = r#""saga_ids":["a"],"from":{"step":"pay"},"override":{"jq":". + $item"}"#;
    let order = batch_order(&format!(
        r#"{jq},"overrides":{{"a":{{"t":1.10}},"b":3,"c":{{"merge":{{"x":1}}}},"d":{{"merge":{{}},"t":1}},"e":{{"jq":"."}}}}"#
    ));
    let requests = MemberRequests {
        request_id: ID,
        requested_by: "ops",
        reason: "r",
        batch_id: ID,
        accepted_at: Micros(7),
        template: &order.template,
        needs_override: true,
        schedule: None,
    };
    let given = order.overrides.expect("overrides");
    let found = given.iter().map(|(saga, own)| {
        let row = BatchRow { own_override: Some(own.clone()), ..BatchRow::of(saga.clone()) };
        let request = decode_json(requests.of(&row).unwrap().as_bytes()).unwrap();
        let Command::Replay(order) = request.command else { panic!("a replay") };
        assert_eq!(order.override_, Some(Override::Jq(Json::from_valid(r#"". + $item""#))));
        let member = *order.member.expect("of a batch");
        assert_eq!((member.item.as_ref(), member.refusal), (Some(own), None));
        member.own_override
    });
    let merge = Override::Merge(Json::from_valid(r#"{"x":1}"#));
    let another = Override::Jq(Json::from_valid(r#"".""#));
    assert_eq!(found.collect::<Vec<_>>(), [None, None, Some(merge), None, Some(another)]);
    for others in [r#"{"a":null}"#, r#"{"a":1,"b":null}"#] {
        assert!(refused(ID, &batch(&format!(r#"{jq},"overrides":{others}"#))).contains("overrides"));
    }
    assert!(refused(ID, &batch(r#""saga_ids":["a"],"from":{"start":true},"overrides":{"a":{"t":1}}"#)).contains("overrides"));
}

#[test]
fn the_body_of_a_batch_has_no_unknown_member() {
    let read = |text: &str| read_body(text.as_bytes()).map_err(|error| error.to_string());
    let body = |batch: &str| format!(r#"{{"batch":{{{batch}}},"requested_by":"o","reason":"r"}}"#);
    let found = read(&body(r#""saga_ids":["a"],"from":{"start":true},"dry_run":true"#)).expect("read");
    assert!(found.dry_run && found.request_id.is_none());
    let plan = read(r#"{"plan_id":"p","requested_by":"o","reason":"r"}"#).expect("read");
    assert_eq!(plan.order.source, BatchSource::Frozen { list_id: "p".into(), digest: None });
    for (batch, meant) in [
        (r#""saga_ids":["a"],"from":{"start":true},"dryrun":true"#, "dry_run"),
        (r#""selector":{"statuses":"failed"},"from":{"start":true}"#, "status"),
        (r#""saga_ids":["a"],"from":{"stp":"x"}"#, "step"),
    ] {
        let said = read(&body(batch)).expect_err(batch);
        assert!(said.contains("not known") && said.contains(meant), "{said}");
    }
    assert!(read(r#"{"batch":{},"plan_id":"p","requested_by":"o","reason":"r"}"#).is_err());
}

#[test]
fn cancels_and_outcomes_are_read_as_they_are_made() {
    let saga = SagaId::from("order-1");
    let made = |name| about_replay(name, "c-1", (&saga, "r-1"), ("ops", "why")).unwrap().command;
    assert_eq!(made(CommandName::Cancel), Command::Cancel { saga_id: saga.clone(), replay_id: "r-1".into() });
    assert_eq!(made(CommandName::Undo), Command::Undo { saga_id: saga.clone(), replay_id: "r-1".into(), batch_id: None });
    let ended = Outcome {
        replay_id: "r-1".into(),
        original_saga_id: saga,
        ended_saga_id: SagaId::from("new"),
        status: Status::Cancelled,
        sequence: 9,
        ended_at: Micros(1),
    };
    let made = outcome("o-1", &ended).unwrap();
    assert_eq!(made.command, Command::Outcome(ended));
    let schemas = Schemas::new(true);
    schemas.insert(SchemaRef::Id(SchemaId(1)), texts::REPLAY_REQUEST).unwrap();
    for id in [None, Some(SchemaId(1))] {
        let value = encode_request(&made, id).unwrap();
        let read = decode_request(Some(b"order-1"), Some(&value), &[], &schemas).unwrap();
        assert_eq!((&read.command, &read.sha256), (&made.command, &made.sha256));
    }
}

#[test]
fn a_body_needs_neither_id_nor_command() {
    let body = r#"{"saga_id":"order-1","request_id":null,"from":{"step":"pay"},"requested_by":"ops","reason":"why"}"#;
    let read = decode_body(body.as_bytes(), ID).unwrap();
    assert_eq!(read.request_id, ID);
    assert_eq!(read.sha256, decode("order-1", &replay("")).unwrap().sha256);
    assert!(matches!(decode_body(b"[", ID), Err(Error::Invalid { code: "request_invalid", .. })));
}

#[test]
fn a_body_has_no_member_that_nobody_reads_though_a_record_may() {
    let refused = |text: &str| match decode_body(text.as_bytes(), ID) {
        Err(Error::Invalid { code: "request_invalid", message }) => message,
        other => panic!("{text}: {other:?}"),
    };
    for (text, wrong, meant) in [
        (replay(r#","dryrun":true"#), "dryrun", "dry_run"),
        (replay(r#","dryRun":null"#), "dryRun", "dry_run"),
        (replay(r#","allow_repeats":true"#), "allow_repeats", "allow_repeat"),
        (replay(r#","batch_id":"b""#), "batch_id", "saga_id"),
        (replay("").replace(r#"{"step":"pay"}"#, r#"{"step":"pay","atempt":2}"#), "from.atempt", "from.attempt"),
        (replay(r#","override":{"merge":{},"pach":[]}"#), "override.pach", "override.patch"),
    ] {
        let message = refused(&text);
        assert!(message.contains(&format!("\"{wrong}\"")) && message.contains(&format!("\"{meant}\"")), "{message}");
        assert!(decode("order-1", &text).is_ok(), "on the topic it is ignored: {text}");
    }
    let free = replay(r#","override":{"merge":{"stpe":1}},"labels":{"dryrun":"yes"}"#);
    assert!(decode_body(free.as_bytes(), ID).is_ok(), "the saga's own members are no names of ours");
    let long = refused(&replay(&format!(r#","{}":1"#, "x".repeat(10_000))));
    assert!(long.len() < 200, "{long}");
}

#[test]
fn layout_defaults_and_zones_do_not_change_the_hash_but_values_do() {
    let hash = |text: &str| decode("order-1", text).unwrap().sha256;
    let plain = hash(&replay(r#","not_before":"2026-01-10T10:00:00Z","override":{"merge":{"a":1,"b":2}}"#));
    let other = replay(
        r#","override": {"merge":{"b":2, "a":1}},"mode":"resume","labels":{},"x":1,"not_before":"2026-01-10T11:00:00+01:00""#,
    );
    assert_eq!(plain, hash(&other));
    assert_ne!(plain, hash(&other.replace("\"a\":1", "\"a\":1.0")));
    assert_ne!(plain, hash(&other.replace("why", "who")));
}

proptest! {
    #[test]
    fn json_avro_and_the_log_agree(
        from in prop::sample::select(vec![
            r#"{"step":"pay","attempt":2}"#, r#"{"at":"2026-01-10T11:00:00+01:00"}"#, r#"{"sequence":3}"#, r#"{"latest":true}"#, "null",
        ]),
        over in prop::sample::select(vec!["null", r#"{"merge": {"é":1.10}}"#, r#"{"patch":[{"op":"test","path":"/a","value":null}]}"#]),
        force in prop::sample::select(vec!["null", "true", "\"pay\""]),
        dry_run: bool, reason: String, label: String,
    ) {
        let text = format!(
            r#"{{"request_id":"r/1","command":"REPLAY","saga_id":"s","from":{from},"override":{over},"force_failure":{force},"dry_run":{dry_run},
            "requested_by":"o","reason":{},"labels":{{"k":{}}},"expires_at":"2026-01-10T10:00:00.5Z"}}"#,
            serde_json::to_string(&reason).unwrap(), serde_json::to_string(&label).unwrap(),
        );
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(SchemaId(1)), texts::REPLAY_REQUEST).unwrap();
        let json = decode_request(Some(b"s"), Some(text.as_bytes()), &[], &schemas).unwrap();
        let value = encode_request(&json, Some(SchemaId(1))).unwrap();
        let avro = decode_request(Some(b"s"), Some(&value), &[], &schemas).unwrap();
        let again = decode_json(json.json.as_str().as_bytes()).unwrap();
        prop_assert_eq!(&again, &json);
        prop_assert_eq!((&avro.sha256, &avro.labels, &avro.reason), (&json.sha256, &json.labels, &json.reason));
        if let (Command::Replay(avro), Command::Replay(json)) = (avro.command, json.command) {
            prop_assert_eq!(&avro.override_sha256, &json.override_sha256);
            prop_assert_eq!(ReplayOrder { from_text: json.from_text.clone(), ..*avro }, *json);
        }
    }
}
