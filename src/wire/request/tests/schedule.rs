use super::*;
use crate::saga::position::EntrySequence;
use crate::saga::request::Command;
use crate::wire::request::decode_json;

const AUTHOR: ScheduleAuthor<'_> =
    ScheduleAuthor { schedule_id: "0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10", requested_by: "ops", reason: "INC-1" };

fn order(text: &str) -> Result<ScheduleOrder, String> {
    read_definition(&Json::from_valid(text)).map_err(|wrong| wrong.0)
}

#[test]
fn a_policy_has_the_defaults_of_the_interface() {
    let read = order(r#"{"policy":{"on":{"saga_name":"order"}}}"#).expect("a policy");
    let Trigger::Policy(policy) = read.trigger else { panic!("a policy") };
    let minutes = |minutes: i64| minutes * 60_000_000;
    assert_eq!((policy.delay, policy.max_delay), (minutes(5), minutes(360)));
    assert_eq!((policy.backoff, policy.max_replays, policy.window, policy.stop), (2.0, 3, None, None));
    let read = order(r#"{"policy":{"on":{},"stop_ratio":0.1}}"#).expect("a policy");
    let Trigger::Policy(policy) = read.trigger else { panic!("a policy") };
    assert_eq!(policy.stop, Some(StopRule { ratio: 0.1, after: 20 }));
}

#[test]
fn what_cannot_be_meant_is_refused_by_the_name_of_its_field() {
    for (field, text) in [
        ("at", r#"{"saga_id":"a","from":{"latest":true}}"#),
        ("at", r#"{"at":"2026-01-01T00:00:00Z","cron":"* * * * *","saga_id":"a","from":{"latest":true}}"#),
        ("at", r#"{"at":"2026-01-01T00:00:00","saga_id":"a","from":{"latest":true}}"#),
        ("cron", r#"{"cron":"* * * *","saga_id":"a","from":{"latest":true}}"#),
        ("zone", r#"{"cron":"* * * * *","zone":"Mars","saga_id":"a","from":{"latest":true}}"#),
        ("saga_id", r#"{"cron":"* * * * *","from":{"latest":true}}"#),
        ("schedule.from", r#"{"cron":"* * * * *","saga_id":"a"}"#),
        ("from", r#"{"cron":"* * * * *","batch":{"saga_ids":["a"],"from":{"latest":true}},"from":{"latest":true}}"#),
        ("batch.selector.last", r#"{"cron":"* * * * *","batch":{"selector":{"last":"1x"},"from":{"latest":true}}}"#),
        ("policy.on", r#"{"policy":{}}"#),
        ("policy.delay", r#"{"policy":{"on":{},"delay":5}}"#),
        ("policy.stop_ratio", r#"{"policy":{"on":{},"stop_ratio":2}}"#),
        ("policy.window.from", r#"{"policy":{"on":{},"window":{"from":"6","until":"22:00"}}}"#),
        ("saga_id", r#"{"policy":{"on":{}},"saga_id":"a"}"#),
        ("batch", r#"{"policy":{"on":{}},"batch":{"saga_ids":["a"],"from":{"latest":true}}}"#),
        ("catch_up", r#"{"cron":"* * * * *","saga_id":"a","from":{"latest":true},"catch_up":"all"}"#),
        ("schedule.mode", r#"{"policy":{"on":{}},"mode":"sideways"}"#),
    ] {
        let wrong = order(text).expect_err(text);
        assert!(wrong.contains(&format!("\"{field}\"")), "{text}: {wrong}");
    }
}

#[test]
fn runs_are_requests_that_say_whose_they_are() {
    let due: Micros = "2026-07-01T02:00:00Z".parse().expect("a time");
    let read = order(r#"{"cron":"0 2 * * *","saga_id":"order-1","from":{"step":"pay"},"override":{"merge":{"a":1}}}"#);
    let run = run_of(&read.expect("a schedule").work, AUTHOR, due).expect("a request");
    let request = decode_json(run.value.as_bytes()).expect("a request");
    let Command::Replay(replay) = &request.command else { panic!("a replay: {request:?}") };
    assert_eq!((run.key.as_str(), replay.saga_id.as_str(), request.requested_by.as_str()), ("order-1", "order-1", "ops"));
    assert_eq!(request.request_id, ids::run_request_id(AUTHOR.schedule_id, due).to_string());
    let member = ScheduleMember { schedule_id: AUTHOR.schedule_id.into(), due };
    assert_eq!(replay.schedule.as_deref(), Some(&member));

    let read = order(r#"{"cron":"0 2 * * *","batch":{"selector":{"saga_name":"o","last":"1d"},"from":{"latest":true}}}"#);
    let run = run_of(&read.expect("a schedule").work, AUTHOR, due).expect("a request");
    let request = decode_json(run.value.as_bytes()).expect("a request");
    let Command::Batch(batch) = &request.command else { panic!("a batch: {request:?}") };
    let crate::saga::batch::BatchSource::Selector(filter) = &batch.source else { panic!("a selector") };
    let since: Micros = "2026-06-30T02:00:00Z".parse().expect("a time");
    assert_eq!((filter.since, filter.until, batch.schedule.as_ref()), (Some(since), Some(due), Some(&member)));
    assert_eq!(run.key, ids::request_uuid(&request.request_id).to_string());
}

#[test]
fn a_policy_replays_from_the_failed_step_unless_it_says_where() {
    let found = PolicyMatch {
        saga_id: "order-1".into(),
        sequence: EntrySequence(7),
        recorded_time: Micros(5),
        depth: 0,
        step: Some("pay".into()),
    };
    let from = |definition: &str, found: &PolicyMatch| {
        let ScheduledWork::Replay { members, .. } = order(definition).expect("a policy").work else { panic!("replays") };
        let request = policy_request(&members, AUTHOR, found, Micros(9), false).expect("a request");
        let request = decode_json(request.value.as_bytes()).expect("a request");
        let Command::Replay(replay) = request.command else { panic!("a replay") };
        assert_eq!(replay.not_before, Some(Micros(9)));
        (request.request_id, replay.from)
    };
    let (id, step) = from(r#"{"policy":{"on":{}}}"#, &found);
    assert_eq!(id, uuid::Uuid::new_v5(&ids::request_uuid(AUTHOR.schedule_id), b"order-1/7").to_string());
    assert_eq!(step, crate::saga::request::From::Step { step: "pay".into(), attempt: None });
    assert_eq!(from(r#"{"policy":{"on":{}},"from":{"start":true}}"#, &found).1, crate::saga::request::From::Start);
    let unknown = PolicyMatch { step: None, ..found };
    assert_eq!(from(r#"{"policy":{"on":{}}}"#, &unknown).1, crate::saga::request::From::Latest);
}
