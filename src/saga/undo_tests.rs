use super::*;
use crate::saga::event::StepEvent;
use crate::saga::json::Json;
use crate::saga::testing::{Log, SECOND, event, log_record, restored, step};
use crate::wire::request::decode_json;

const ASKED_AT: Micros = Micros(900 * SECOND);

/// Begins with `a` and `c` completed.
fn begin() -> StepEvent {
    let restored = Box::new(restored("r", Mode::Resume));
    StepEvent { restored: Some(restored), event_id: "r".into(), ..event(Kind::SagaRestored) }
}

fn done(name: &str) -> StepEvent {
    StepEvent { result: Some(Json::from_valid("7")), ..step(Kind::StepCompleted, name) }
}

fn named(status: ReplayStatus) -> LogRecord {
    LogRecord { new_saga_id: Some("order-1".into()), published_at: Some(Micros(1)), ..log_record("r", "order-0", 1, status) }
}

fn request() -> ReplayRequest {
    let text = r#"{"request_id":"u","command":"UNDO","saga_id":"order-0","replay_id":"r","requested_by":"sam","reason":"wrong","labels":{"k":"w"}}"#;
    decode_json(text.as_bytes()).expect("a request")
}

fn plan(events: Vec<StepEvent>) -> Result<UndoPlan, Refusal> {
    plan_undo(&request(), "undo", &named(ReplayStatus::Completed), &Log::of(events).entries, ASKED_AT)
}

#[test]
fn only_what_the_restored_saga_did_itself_is_undone_the_last_first() {
    let asked = plan(vec![begin(), done("b"), done("x"), done("y"), event(Kind::SagaCompleted)]).expect("a plan").asked;
    assert_eq!(asked.completed_steps, ["y", "x", "b"]);
    assert_eq!((asked.mode, asked.resume_step, asked.resume_steps), (Mode::Compensate, None, Vec::new()));
    assert_eq!((asked.replay_id.as_str(), asked.request_id.as_str(), asked.restored_at), ("undo", "u", ASKED_AT));
    assert_eq!(
        (asked.saga_id.as_str(), asked.original_saga_id.as_str(), asked.root_saga_id.as_str()),
        ("order-1", "order-0", "order-0")
    );
    assert_eq!((asked.depth, asked.checkpoint.sequence), (1, 5));
    assert!(asked.results.iter().any(|(step, _)| step == "y"), "a compensation needs what its step returned");
    assert_eq!(asked.labels, [("k".to_owned(), "w".to_owned())]);
}

#[test]
fn what_is_compensated_already_is_not_undone_again() {
    let compensated = step(Kind::StepCompensated, "x");
    let events = vec![begin(), done("b"), done("x"), event(Kind::CompensationStarted), compensated, event(Kind::SagaFailed)];
    assert_eq!(plan(events).expect("a plan").asked.completed_steps, ["b"]);
}

#[test]
fn a_saga_under_an_id_of_its_own_has_done_all_its_steps_itself() {
    let events = vec![event(Kind::SagaStarted), done("b"), done("x"), event(Kind::SagaCancelled)];
    assert_eq!(plan(events).expect("a plan").asked.completed_steps, ["x", "b"]);
}

#[test]
fn what_cannot_be_undone_is_refused_with_the_reason() {
    let of = |events| plan(events).map_err(|refusal| (refusal.code, refusal.message)).expect_err("refused");
    assert_eq!(of(vec![begin(), done("b")]).0, "saga_running");
    assert_eq!(of(vec![begin(), done("b"), event(Kind::CompensationStarted)]).0, "saga_running");
    for (events, why) in [
        (vec![begin(), event(Kind::SagaFailed)], "nothing to undo"),
        (vec![begin(), done("b"), step(Kind::StepCompensated, "b"), event(Kind::SagaFailed)], "nothing to undo"),
        (vec![begin(), done("b"), event(Kind::SagaCompensated)], "has compensated"),
        (vec![], "not in the history"),
    ] {
        let (code, message) = of(events);
        assert!(code == "request_invalid" && message.contains(why), "{message}");
    }
}

#[test]
fn a_replay_that_published_nothing_or_was_undone_has_no_target() {
    let original = SagaId::from("order-0");
    let target = |record: &LogRecord| undo_target(Some(record), Some(&original)).map(|id| id.as_str().to_owned());
    for status in ReplayStatus::ALL {
        let may = matches!(
            status,
            ReplayStatus::Published | ReplayStatus::Completed | ReplayStatus::Failed | ReplayStatus::SagaCancelled
        );
        assert_eq!(target(&named(status)).is_ok(), may, "{}", status.as_str());
    }
    let completed = named(ReplayStatus::Completed);
    assert_eq!(target(&LogRecord { executed_as: Some("own".into()), ..completed.clone() }), Ok("own".into()));
    assert!(target(&LogRecord { undone_by: Some("u".into()), ..completed.clone() }).is_err());
    assert!(target(&LogRecord { command: CommandName::Undo, ..completed.clone() }).is_err());
    assert!(undo_target(Some(&completed), Some(&SagaId::from("another"))).is_err());
    assert!(undo_target(None, Some(&original)).is_err());
}

#[test]
fn an_end_that_the_log_was_not_told_of_yet_is_no_end_of_the_undo() {
    let newest = plan(vec![begin(), done("b"), event(Kind::SagaCompleted)]).expect("a plan").newest;
    let record = named(ReplayStatus::Published).undone("undo", &newest);
    assert_eq!((record.status, record.undone_by.as_deref()), (ReplayStatus::Undoing, Some("undo")));
    assert_eq!(
        (record.outcome.as_deref(), record.outcome_sequence, record.ended_at),
        (Some("completed"), Some(3), newest.ended_at)
    );
    let told = LogRecord { outcome: Some("failed".into()), ended_at: Some(Micros(5)), ..named(ReplayStatus::Failed) };
    let record = told.undone("undo", &newest);
    assert_eq!((record.outcome.as_deref(), record.ended_at), (Some("failed"), Some(Micros(5))));
}
