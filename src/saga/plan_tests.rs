//! The plan, one fact of docs/interface/requests.md a test.

use crate::saga::effects::DeclaredEffects;
use crate::saga::event::{ContextChange, Kind, StepEvent};
use crate::saga::json::Json;
use crate::saga::lineage::Mode;
use crate::saga::plan::{Plan, PlanFacts, plan};
use crate::saga::position::SagaId;
use crate::saga::request::{Command, ForceFailure, From, IfCompensated, Override, Refusal, ReplayOrder, ReplayRequest};
use crate::saga::testing::{Log, SECOND, error, event, restored, step, with_context};
use crate::saga::time::Micros;

fn order(from: From) -> ReplayOrder {
    ReplayOrder {
        saga_id: SagaId::from("order-1"),
        from,
        from_text: Json::empty_object(),
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
    }
}

fn facts() -> PlanFacts {
    PlanFacts {
        now: Micros(100 * SECOND),
        restored_at: Micros(90 * SECOND),
        max_depth: 10,
        target_allowed: true,
        already_replayed: false,
        lineage_full: None,
        id_taken: false,
        split: false,
        max_bytes: 1 << 20,
        context: None,
    }
}

fn planned(log: &Log, order: ReplayOrder) -> Result<Plan, Refusal> {
    planned_with(log, order, &facts())
}

fn planned_with(log: &Log, order: ReplayOrder, facts: &PlanFacts) -> Result<Plan, Refusal> {
    let request = ReplayRequest {
        request_id: "0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10".into(),
        command: Command::Replay(Box::new(order.clone())),
        requested_by: "ops@example.org".into(),
        reason: "INC-4412".into(),
        labels: vec![("team".into(), "payments".into()), ("k".into(), "2".into())],
        sha256: String::new(),
        json: Json::empty_object(),
    };
    plan(&request, &order, &log.entries, facts)
}

fn code(result: Result<Plan, Refusal>) -> &'static str {
    result.expect_err("a refusal").code
}

fn from_step(step: &str) -> From {
    From::Step { step: step.into(), attempt: None }
}

fn indexed(event: StepEvent, index: i64) -> StepEvent {
    StepEvent { step_index: Some(index), ..event }
}

/// Reserved, charged without luck, ended: 1 start, 2-3 reserve, 4-5 charge, 6 charge again, 7 failed, 8 end.
fn failed_order() -> Log {
    let labels = StepEvent { labels: Some(vec![("k".into(), "1".into())]), ..event(Kind::SagaStarted) };
    Log::of([
        with_context(labels, r#"{"amount":99.50,"token":"old"}"#),
        indexed(step(Kind::StepStarted, "reserve"), 1),
        StepEvent { result: Some(Json::from_valid(r#"{"id":"r-9"}"#)), ..step(Kind::StepCompleted, "reserve") },
        indexed(step(Kind::StepStarted, "charge"), 2),
        StepEvent { error: Some(error("timeout")), ..step(Kind::StepFailed, "charge") },
        step(Kind::StepStarted, "charge"),
        StepEvent { context: ContextChange::Set(Json::from_valid(r#"{"amount":0}"#)), ..step(Kind::StepFailed, "charge") },
        event(Kind::SagaFailed),
    ])
}

/// The failed order, its reservation compensated.
fn compensated_order() -> Log {
    let mut log = failed_order();
    for event in [event(Kind::CompensationStarted), step(Kind::StepCompensated, "reserve"), event(Kind::SagaCompensated)] {
        log.read(event);
    }
    log
}

#[test]
fn a_replay_from_a_step_starts_just_before_its_last_attempt() {
    let plan = planned(&failed_order(), order(from_step("charge"))).expect("a plan");
    let restored = &plan.restored;
    assert_eq!(restored.checkpoint.sequence, 6);
    assert_eq!((restored.resume_step.as_deref(), restored.resume_step_index), (Some("charge"), Some(2)));
    assert_eq!((&restored.resume_steps[..], &restored.completed_steps[..]), (&["charge".into()][..], &["reserve".into()][..]));
    assert_eq!(restored.attempts, [("reserve".to_owned(), 1), ("charge".to_owned(), 2)]);
    assert_eq!(restored.context.as_ref().map(Json::as_str), Some(r#"{"amount":99.50,"token":"old"}"#));
    assert_eq!(restored.saga_id.as_str(), "e9de0afa-4568-5eca-b7bf-49a4260d05a1");
    assert_eq!(restored.replay_id, "900f44fb-faac-5e2b-928c-b4ea3c60c892");
    assert_eq!((restored.depth, restored.root_saga_id.as_str()), (1, "order-1"));
    assert_eq!(restored.labels, [("k".to_owned(), "2".to_owned()), ("team".to_owned(), "payments".to_owned())]);
    assert_eq!((plan.runs.as_slice(), plan.changed.len()), (&["charge".to_owned()][..], 0));
    assert_eq!(plan.diff().to_string(), "[]");
}

#[test]
fn each_form_of_from_names_its_point() {
    let mut log = failed_order();
    log.read(step(Kind::Checkpoint, "gold"));
    let at = |from: From| planned(&log, order(from)).map(|plan| plan.restored.checkpoint.sequence).map_err(|r| r.code);
    assert_eq!(at(From::Step { step: "charge".into(), attempt: Some(1) }), Ok(4));
    assert_eq!(at(From::Step { step: "charge".into(), attempt: Some(3) }), Err("checkpoint_not_found"));
    assert_eq!(at(From::AfterStep("reserve".into())), Ok(3));
    assert_eq!(at(From::AfterStep("charge".into())), Err("checkpoint_not_found"));
    assert_eq!(at(From::At(Micros(4 * SECOND + 1))), Ok(4));
    assert_eq!(at(From::At(Micros(SECOND - 1))), Err("checkpoint_not_found"));
    assert_eq!(at(From::Sequence(8)), Ok(8));
    assert_eq!(at(From::Sequence(0)), Err("checkpoint_not_found"));
    assert_eq!(at(From::Sequence(10)), Err("checkpoint_not_found"));
    assert_eq!(at(From::Checkpoint("gold".into())), Ok(9));
    assert_eq!(at(From::Checkpoint("charge".into())), Err("checkpoint_not_found"));
    assert_eq!(at(From::Start), Ok(1));
    assert_eq!(at(From::Latest), Ok(9));
    assert_eq!(at(from_step("gold")), Err("checkpoint_not_found"), "a checkpoint's name is not a step");
}

#[test]
fn a_step_that_never_started_is_replayed_from_before_it_ended() {
    let log = Log::of([event(Kind::SagaStarted), step(Kind::StepFailed, "a"), event(Kind::SagaFailed)]);
    let restored = planned(&log, order(from_step("a"))).expect("a plan").restored;
    assert_eq!((restored.checkpoint.sequence, restored.resume_steps.as_slice()), (1, &["a".to_owned()][..]));
    let first = Log::of([step(Kind::StepFailed, "a"), event(Kind::SagaFailed)]);
    assert_eq!(code(planned(&first, order(from_step("a")))), "checkpoint_not_found");
}

#[test]
fn what_resumes_is_what_ran_else_what_failed_else_what_came_next() {
    let log = Log::of([
        event(Kind::SagaStarted),
        step(Kind::StepStarted, "a"),
        step(Kind::StepStarted, "b"),
        indexed(step(Kind::StepFailed, "a"), 7),
        step(Kind::StepFailed, "b"),
        event(Kind::SagaFailed),
    ]);
    let resumed = |from: From| {
        let restored = planned(&log, order(from)).expect("a plan").restored;
        (restored.resume_steps.join(","), restored.resume_step, restored.resume_step_index)
    };
    assert_eq!(resumed(From::Start), ("a".into(), Some("a".into()), Some(7)));
    assert_eq!(resumed(From::Sequence(3)), ("a,b".into(), Some("b".into()), None));
    assert_eq!(resumed(From::Sequence(4)), ("b".into(), Some("b".into()), None));
    assert_eq!(resumed(From::Latest), ("a,b".into(), Some("b".into()), None));
    assert_eq!(resumed(from_step("b")), ("b,a".into(), Some("b".into()), None));
}

#[test]
fn steps_that_resume_are_neither_completed_nor_skipped_and_have_no_result() {
    let log = Log::of([
        event(Kind::SagaStarted),
        step(Kind::StepCompleted, "a"),
        step(Kind::StepSkipped, "b"),
        step(Kind::StepStarted, "a"),
        step(Kind::StepStarted, "b"),
        event(Kind::SagaCancelled),
    ]);
    let restored = planned(&log, order(from_step("b"))).expect("a plan").restored;
    assert_eq!(restored.resume_steps, ["b", "a"]);
    assert!(restored.completed_steps.is_empty() && restored.skipped_steps.is_empty() && restored.results.is_empty());
}

#[test]
fn what_was_compensated_since_is_refused_kept_or_run_again() {
    let log = compensated_order();
    let with = |if_compensated| planned(&log, ReplayOrder { if_compensated, ..order(from_step("charge")) });
    let refusal = with(IfCompensated::Refuse).expect_err("a refusal");
    assert_eq!(refusal.code, "steps_compensated");
    assert!(refusal.message.contains("reserve"));

    let kept = with(IfCompensated::Keep).expect("a plan").restored;
    assert_eq!(
        (kept.completed_steps.as_slice(), kept.resume_steps.as_slice()),
        (&["reserve".into()][..], &["charge".into()][..])
    );
    assert_eq!(kept.compensated_since, ["reserve"]);

    let rerun = with(IfCompensated::Rerun).expect("a plan").restored;
    assert_eq!(rerun.resume_steps, ["reserve", "charge"]);
    assert_eq!((rerun.resume_step.as_deref(), rerun.resume_step_index), (Some("reserve"), Some(1)));
    assert!(rerun.completed_steps.is_empty() && rerun.results.is_empty());
    assert_eq!(rerun.compensated_since, ["reserve"]);
}

#[test]
fn mode_compensate_undoes_what_is_not_compensated_last_first() {
    let log = Log::of([
        event(Kind::SagaStarted),
        step(Kind::StepCompleted, "a"),
        step(Kind::StepCompleted, "b"),
        step(Kind::StepCompleted, "c"),
        step(Kind::StepStarted, "d"),
        step(Kind::StepCompensated, "b"),
        event(Kind::SagaFailed),
    ]);
    let plan = planned(&log, ReplayOrder { mode: Mode::Compensate, ..order(From::Latest) }).expect("a plan");
    let restored = plan.restored;
    assert_eq!(restored.completed_steps, ["c", "a"]);
    let from_start = planned(&log, ReplayOrder { mode: Mode::Compensate, ..order(From::Start) }).expect("a plan");
    assert!(plan.runs.is_empty() && from_start.runs.is_empty(), "no step runs again");
    assert_eq!((restored.resume_step.as_deref(), restored.resume_steps.len()), (None, 0));
    assert_eq!(restored.compensated_since, ["b"]);
}

#[test]
fn an_override_changes_the_context_and_says_where() {
    let merge = Override::Merge(Json::from_valid(r#"{"token":"new","gateway":"backup"}"#));
    let plan = planned(&failed_order(), ReplayOrder { override_: Some(merge), ..order(from_step("charge")) }).expect("a plan");
    let context = plan.restored.context.as_ref().map(Json::as_str);
    assert_eq!(context, Some(r#"{"amount":99.50,"token":"new","gateway":"backup"}"#));
    assert_eq!(plan.changed, ["/token", "/gateway"]);
    assert_eq!(
        plan.diff().to_string(),
        r#"[{"op":"replace","path":"/token","value":"new"},{"op":"add","path":"/gateway","value":"backup"}]"#
    );
}

#[test]
fn a_forced_failure_names_its_step_or_the_resume_step() {
    let forced = |force: ForceFailure, mode| {
        planned(&failed_order(), ReplayOrder { force_failure: Some(force), mode, ..order(From::Start) })
    };
    let step = |result: Result<Plan, Refusal>| result.expect("a plan").restored.force_failure;
    assert_eq!(step(forced(ForceFailure::ResumeStep, Mode::Resume)).as_deref(), Some("reserve"));
    assert_eq!(step(forced(ForceFailure::Step("ship".into()), Mode::Resume)).as_deref(), Some("ship"));
    assert_eq!(code(forced(ForceFailure::ResumeStep, Mode::Compensate)), "request_invalid");
    let nothing = Log::of([event(Kind::SagaStarted), event(Kind::SagaCompleted)]);
    let force_failure = Some(ForceFailure::ResumeStep);
    assert_eq!(code(planned(&nothing, ReplayOrder { force_failure, ..order(From::Latest) })), "request_invalid");
}

#[test]
fn a_replay_of_a_restored_saga_goes_one_deeper_under_the_same_root() {
    let first = StepEvent { restored: Some(Box::new(restored("r1", Mode::Resume))), ..event(Kind::SagaRestored) };
    let log = Log::of([first, event(Kind::SagaFailed)]);
    let plan = planned(&log, order(From::Start)).expect("a plan");
    assert_eq!(plan.restored.depth, 2);
    assert_eq!((plan.restored.original_saga_id.as_str(), plan.restored.root_saga_id.as_str()), ("order-1", "order-0"));
    assert_eq!(plan.restored.saga_version.as_deref(), Some("7"));
    assert_eq!(code(planned_with(&log, order(From::Start), &PlanFacts { max_depth: 1, ..facts() })), "too_deep");
}

#[test]
fn exemptions_lift_their_refusals() {
    let running = Log::of([event(Kind::SagaStarted), step(Kind::StepStarted, "a")]);
    assert_eq!(code(planned(&running, order(from_step("a")))), "saga_running");
    assert!(planned(&running, ReplayOrder { allow_running: true, ..order(from_step("a")) }).is_ok());

    let repeated = PlanFacts { already_replayed: true, ..facts() };
    let log = failed_order();
    assert_eq!(code(planned_with(&log, order(From::Start), &repeated)), "already_replayed");
    for exempt in [
        ReplayOrder { allow_repeat: true, ..order(From::Start) },
        ReplayOrder { dry_run: true, ..order(From::Start) },
        ReplayOrder { force_failure: Some(ForceFailure::ResumeStep), ..order(From::Start) },
    ] {
        assert!(planned_with(&log, exempt, &repeated).is_ok());
    }
}

#[test]
fn a_completed_saga_is_replayed_only_when_that_is_said() {
    let mut log = failed_order();
    log.read(event(Kind::SagaCompleted));
    assert_eq!(code(planned(&log, order(From::Start))), "saga_completed");
    assert_eq!(
        code(planned(&log, ReplayOrder { allow_repeat: true, allow_running: true, ..order(From::Start) })),
        "saga_completed"
    );
    for exempt in [
        ReplayOrder { allow_completed: true, ..order(From::Start) },
        ReplayOrder { dry_run: true, ..order(From::Start) },
        ReplayOrder { force_failure: Some(ForceFailure::Step("ship".into())), ..order(From::Start) },
        ReplayOrder { mode: Mode::Compensate, ..order(From::Latest) },
    ] {
        assert!(planned(&log, exempt).is_ok());
    }
    for end in [Kind::SagaFailed, Kind::SagaCompensated, Kind::SagaCancelled] {
        let ended = Log::of([event(Kind::SagaStarted), step(Kind::StepStarted, "a"), event(end)]);
        assert!(planned(&ended, order(From::Start)).is_ok(), "{end:?}");
    }
}

#[test]
fn a_dry_run_tells_which_refusal_the_real_run_would_meet() {
    let repeated = PlanFacts { already_replayed: true, ..facts() };
    let mut done = failed_order();
    done.read(event(Kind::SagaCompleted));
    let log = failed_order();
    let dry = || ReplayOrder { dry_run: true, ..order(From::Start) };
    let told = |log: &Log, order: ReplayOrder, facts: &PlanFacts| planned_with(log, order, facts).expect("a plan").would_refuse;
    assert_eq!(told(&log, dry(), &facts()), None);
    assert_eq!(told(&log, dry(), &repeated), Some("already_replayed"));
    assert_eq!(told(&done, dry(), &repeated), Some("saga_completed"));
    assert_eq!(told(&done, ReplayOrder { allow_completed: true, ..dry() }, &repeated), Some("already_replayed"));
    assert_eq!(told(&done, ReplayOrder { allow_completed: true, allow_repeat: true, ..dry() }, &repeated), None);
    assert_eq!(told(&done, ReplayOrder { mode: Mode::Compensate, ..dry() }, &repeated), Some("already_replayed"));
    assert_eq!(told(&done, ReplayOrder { force_failure: Some(ForceFailure::ResumeStep), ..dry() }, &repeated), None);
}

/// Everything is wrong; one after the other is put right, and the next in the order of the interface shows.
#[test]
fn of_several_refusals_the_first_in_order_is_given() {
    let (none, log) = (Log::default(), compensated_order());
    let mut running = compensated_order();
    running.read(step(Kind::StepStarted, "late"));
    let new_id = |id: &str| Some(SagaId::from(id));
    let mut order = ReplayOrder {
        override_: Some(Override::Patch(Json::from_valid(r#"[{"op":"sing","path":""}]"#))),
        expires_at: Some(Micros(SECOND)),
        new_saga_id: new_id(""),
        ..order(from_step("nowhere"))
    };
    let mut facts =
        PlanFacts { target_allowed: false, already_replayed: true, id_taken: true, max_depth: 0, max_bytes: 10, ..facts() };
    assert_eq!(code(planned_with(&none, order.clone(), &facts)), "request_invalid");
    order.new_saga_id = new_id("order-2");
    assert_eq!(code(planned_with(&none, order.clone(), &facts)), "expired");
    order.expires_at = None;
    assert_eq!(code(planned_with(&none, order.clone(), &facts)), "saga_not_found");
    assert_eq!(code(planned_with(&running, order.clone(), &facts)), "not_permitted");
    facts.target_allowed = true;
    assert_eq!(code(planned_with(&running, order.clone(), &facts)), "saga_running");
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "already_replayed");
    facts.already_replayed = false;
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "too_deep");
    facts.max_depth = 1;
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "checkpoint_not_found");
    order.from = from_step("charge");
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "steps_compensated");
    order.if_compensated = IfCompensated::Keep;
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "override_invalid");
    order.override_ = Some(Override::Patch(Json::from_valid(r#"[{"op":"test","path":"/amount","value":1}]"#)));
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "override_conflict");
    order.override_ = Some(Override::Patch(Json::from_valid(r#"[{"op":"test","path":"/amount","value":99.5}]"#)));
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "id_taken");
    facts.id_taken = false;
    assert_eq!(code(planned_with(&log, order.clone(), &facts)), "too_large");
    facts.max_bytes = 1 << 20;
    assert!(planned_with(&log, order, &facts).is_ok());
}

#[test]
fn the_restored_saga_folds_to_what_it_says() {
    let plan = planned(&failed_order(), order(from_step("charge"))).expect("a plan");
    let mut member = plan.restored.clone();
    let context = member.context.take().expect("a restored saga has a context");
    let published = StepEvent {
        saga_id: member.saga_id.clone(),
        context: ContextChange::Full(context.clone()),
        restored: Some(Box::new(member)),
        ..event(Kind::SagaRestored)
    };
    let log = Log::of([published]);
    assert_eq!(log.state().context, context);
    assert_eq!(log.state().completed_steps, plan.restored.completed_steps);
    assert_eq!(log.state().results, plan.restored.results);
    assert_eq!(log.state().lineage.as_ref().map(|lineage| lineage.parent.as_str()), Some("order-1"));
}

#[test]
fn declared_effects_are_of_the_steps_that_run_again_or_are_to_be_compensated() {
    let declared = |saga: &str, steps: &[&str]| {
        let steps = steps.iter().map(|step| ((*step).to_owned(), format!("does {step}"))).collect();
        DeclaredEffects::new([(saga.to_owned(), steps)].into())
    };
    let log = Log::of([
        event(Kind::SagaStarted),
        step(Kind::StepStarted, "a"),
        step(Kind::StepCompleted, "a"),
        step(Kind::StepStarted, "b"),
        step(Kind::StepCompleted, "b"),
        step(Kind::StepStarted, "c"),
        step(Kind::StepFailed, "c"),
        event(Kind::SagaFailed),
    ]);
    let name = log.state().saga_name.clone();
    let of = |declared: &DeclaredEffects, order: ReplayOrder| -> Vec<String> {
        declared.of_plan(&planned(&log, order).expect("planned")).into_iter().map(|effect| effect.effect).collect()
    };
    let from = |step: &str| order(From::Step { step: step.into(), attempt: None });
    let all = declared(&name, &["c", "b", "a"]);
    assert_eq!(of(&all, from("b")), ["does b", "does c"], "each once, in the order in which they run");
    assert_eq!(of(&declared(&name, &["a", "c"]), from("b")), ["does c"]);
    assert_eq!(of(&declared("another", &["a", "b", "c"]), from("b")), Vec::<String>::new());
    let forced = ReplayOrder { force_failure: Some(ForceFailure::ResumeStep), ..from("c") };
    assert_eq!(of(&all, forced), Vec::<String>::new(), "it is made to fail instead");
    let compensate = ReplayOrder { mode: Mode::Compensate, ..order(From::Latest) };
    assert_eq!(of(&all, compensate), ["does b", "does a"]);
}

#[test]
fn a_lineage_with_as_many_replays_as_it_may_have_gets_no_more_unless_that_is_said() {
    let log = failed_order();
    let full = PlanFacts { lineage_full: Some(3), ..facts() };
    let refusal = planned_with(&log, order(From::Start), &full).expect_err("refused");
    assert_eq!(refusal.code, "not_permitted");
    assert!(
        refusal.message.contains("3 replays or more") && refusal.message.contains("max_replays allows 3"),
        "{}",
        refusal.message
    );
    let said = ReplayOrder { allow_repeat: true, ..order(From::Start) };
    assert!(planned_with(&log, said, &full).is_ok());
    let forced = ReplayOrder { force_failure: Some(ForceFailure::Step("x".into())), ..order(From::Start) };
    assert!(planned_with(&log, forced, &full).is_ok());
    let dry = ReplayOrder { dry_run: true, ..order(From::Start) };
    assert_eq!(planned_with(&log, dry, &full).expect("planned").would_refuse, Some("not_permitted"));
}
