//! The fold against its model on random streams, and the facts of docs/interface/events.md that deserve a name of their own.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::saga::context::changed_context;
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::fold_model::{Model, Verdict, error_value, labels_value};
use crate::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use crate::saga::json::Json;
use crate::saga::labels::Labels;
use crate::saga::lineage::{Lineage, Mode};
use crate::saga::position::{EntrySequence, Position, SagaId};
use crate::saga::splice::splice;
use crate::saga::state::{State, Status};
use crate::saga::testing::{Log, SECOND, error, event, restored, settings, step, with_context};
use crate::saga::time::Micros;

/// One record of a random stream.
#[derive(Debug, Clone)]
struct Read {
    event: StepEvent,
    record: RecordMeta,
    across_gap: bool,
}

/// What varies from record to record, before times, ids and sequences are laid along the stream.
#[derive(Debug, Clone)]
struct Draft {
    event: StepEvent,
    /// Of the record's timestamp.
    tick: i64,
    /// `occurred_at` from the timestamp.
    lag: Option<i64>,
    /// How many records ago the event id was used first; 0: new.
    id_back: usize,
    /// From one above the last; `None`: the event has no sequence.
    sequence_shift: Option<i64>,
    moved: bool,
    across_gap: bool,
}

fn change() -> impl Strategy<Value = ContextChange> {
    let text = select(vec![
        r#"{}"#,
        r#"{"a":1.10,"b":{"c":12345678901234567890,"d":[1,2]}}"#,
        r#"{"b":{"c":null,"e":"é🚚"}}"#,
        r#"{"a":null,"z":{}}"#,
        r#"{"b":5}"#,
        r#"{"a":{"b":{"c":null}}}"#,
    ]);
    (text, 0..6).prop_map(|(text, form)| match form {
        0 => ContextChange::Full(Json::from_valid(text)),
        1 => ContextChange::Patch(Json::from_valid(text)),
        2 => ContextChange::Set(Json::from_valid(text)),
        _ => ContextChange::None,
    })
}

fn random_event() -> impl Strategy<Value = StepEvent> {
    let name = |names: &'static [&'static str]| select(names).prop_map(str::to_owned);
    let kind = prop_oneof![20 => select(&Kind::ALL[..]), 10 => Just(Kind::StepStarted), 10 => Just(Kind::StepCompleted)];
    let lineage = (name(&["r1", "r2"]), any::<bool>()).prop_map(|(replay_id, compensate)| Lineage {
        parent: SagaId::from("order-0"),
        root: SagaId::from("order-0"),
        depth: 2,
        replay_id,
        resume_step: None,
        mode: if compensate { Mode::Compensate } else { Mode::Resume },
        force_failure: None,
        executes: Some(SagaId::from("restored-1")),
    });
    let errors = of((of(name(&["E1", "E2"])), of(Just(Json::from_valid("{\"at\":1.0}"))))
        .prop_map(|(code, details)| ErrorInfo { code, kind: Some("T".into()), message: None, details })
        .prop_map(Box::new));
    let labels = weighted(0.1, vec((name(&["k"]), name(&["v", "w"])), 0..2));
    (
        (kind, name(&["a", "b", "c", "d"]), of(0..9_i64), weighted(0.2, 1..9_i64), change(), any::<bool>()),
        (of(select(&["5", "null", "{\"id\":1.0}"][..])), errors, weighted(0.1, name(&["1", "2"])), labels),
        (weighted(0.3, lineage), name(&["r1", "r1", "r1", "r2"]), any::<bool>()),
    )
        .prop_map(|(what, with, from)| {
            let (kind, step, step_index, attempt, context, names_step) = what;
            let (result, error, version, labels): (_, _, Option<String>, Option<Labels>) = with;
            let (lineage, replay_id, compensate) = from;
            let mode = if compensate { Mode::Compensate } else { Mode::Resume };
            StepEvent {
                step: (kind.needs_step() || names_step).then_some(step),
                step_index,
                attempt,
                context,
                result: result.map(Json::from_valid),
                error,
                saga_version: version.clone(),
                tenant: version.clone(),
                region: version,
                labels,
                lineage: lineage.filter(|_| kind == Kind::SagaStarted).map(Box::new),
                restored: (kind == Kind::SagaRestored).then(|| Box::new(restored(&replay_id, mode))),
                ..event(kind)
            }
        })
}

fn stream(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Read>> {
    let draft = (
        random_event(),
        0..3_i64,
        of(prop_oneof![6 => -3..2_i64, 1 => 3_590..3_610_i64]),
        prop_oneof![9 => Just(0), 1 => 1..80_usize],
        of(prop_oneof![8 => Just(0), 1 => 1..4_i64, 1 => -80..0_i64]),
        weighted_bool(0.02),
        weighted_bool(0.02),
    )
        .prop_map(|(event, tick, lag, id_back, sequence_shift, moved, across_gap)| Draft {
            event,
            tick,
            lag,
            id_back,
            sequence_shift,
            moved,
            across_gap,
        });
    vec(draft, length).prop_map(lay_along)
}

fn weighted_bool(chance: f64) -> impl Strategy<Value = bool> {
    proptest::bool::weighted(chance)
}

fn lay_along(drafts: Vec<Draft>) -> Vec<Read> {
    let (mut now, mut next, mut partition) = (1_000, 0_i64, 3);
    let mut reads: Vec<Read> = Vec::new();
    for (at, draft) in drafts.into_iter().enumerate() {
        now += draft.tick;
        partition += i32::from(draft.moved);
        let sequence = draft.sequence_shift.map(|shift| {
            let sequence = (next + shift).max(0);
            next = next.max(sequence + 1);
            sequence as u64
        });
        let event_id = match at.checked_sub(draft.id_back) {
            Some(before) if before < at => reads[before].event.event_id.clone(),
            _ => format!("e{at}"),
        };
        reads.push(Read {
            event: StepEvent {
                event_id,
                sequence,
                occurred_at: draft.lag.map(|lag| Micros((now + lag) * SECOND)),
                ..draft.event
            },
            record: RecordMeta { position: Position::new("t", partition, at as i64), timestamp: Micros(now * SECOND) },
            across_gap: draft.across_gap,
        });
    }
    reads
}

fn shown(state: &State) -> Value {
    json!({
        "saga_name": state.saga_name, "saga_version": state.saga_version, "status": state.status.as_str(),
        "running_steps": state.running_steps.iter().map(|(s, i)| (s.clone(), json!(i))).collect::<Value>(),
        "completed_steps": state.completed_steps, "skipped_steps": state.skipped_steps,
        "compensated_steps": state.compensated_steps,
        "failed_steps": state.failed_steps.iter().map(|(s, e)| (s.clone(), error_value(e.as_deref()))).collect::<Value>(),
        "end_error": error_value(state.end_error.as_deref()),
        "compensation_failed_step": state.compensation_failed_step,
        "compensation_error": error_value(state.compensation_error.as_deref()),
        "attempts": state.attempts.iter().map(|(s, n)| (s.clone(), json!(n))).collect::<Value>(),
        "results": state.results.iter().map(|(s, r)| (s.clone(), r.to_value())).collect::<Value>(),
        "context": state.context.to_value(), "started_at": state.started_at.0,
        "updated_at": state.entry.effective_time.0, "ended_at": state.ended_at.map(|at| at.0),
        "tenant": state.tenant, "region": state.region, "labels": labels_value(&state.labels),
        "lineage": state.lineage.as_ref().map(|l| json!({"parent": l.parent, "root": l.root, "depth": l.depth,
            "replay_id": l.replay_id, "resume_step": l.resume_step, "mode": l.mode.as_str(),
            "force_failure": l.force_failure})),
        "anomalies": sorted(state.anomalies.iter().map(|a| a.as_str()).collect()),
    })
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

/// Texts, so that the order of members counts; the order of anomalies within one entry is not said.
fn model_text(model: &Model) -> String {
    let mut state = model.state.clone();
    let names = state["anomalies"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let names = sorted(names);
    state["anomalies"] = json!(names);
    Value::Object(state).to_string()
}

fn limits(max_state: u64) -> FoldSettings {
    FoldSettings { max_state_bytes: max_state, ..settings() }
}

fn admit_all(reads: &[Read], settings: &FoldSettings) -> (Option<Saga>, Vec<Entry>, Vec<Saga>) {
    let (mut saga, mut entries, mut after) = (None, Vec::new(), Vec::new());
    for read in reads {
        if let Admitted::Entry(entry) = Saga::admit(&mut saga, read.event.clone(), &read.record, read.across_gap, settings) {
            entries.push(*entry);
            after.extend(saga.clone());
        }
    }
    (saga, entries, after)
}

fn fold_on(mut saga: Option<Saga>, entries: &[Entry]) -> Option<Saga> {
    for entry in entries {
        Saga::apply(&mut saga, entry);
    }
    saga
}

/// The entry as a store gives it back: its context change as the whole text after it, or as a splice.
fn as_stored(entry: &Entry, before: Option<&Saga>, after: &Saga, spliced: bool) -> Entry {
    let mut stored = entry.clone();
    if matches!(entry.event.context, ContextChange::None) {
        return stored;
    }
    let text = after.state.context.as_str();
    stored.event.context = if spliced {
        let before = before.map_or("{}", |saga| saga.state.context.as_str());
        let (prefix, suffix, middle) = splice(before, text);
        ContextChange::Splice { prefix, suffix, middle: middle.into() }
    } else {
        ContextChange::Full(after.state.context.clone())
    };
    stored
}

fn equals_the_model(reads: &[Read], max_state: u64) -> Result<(), TestCaseError> {
    let settings = limits(max_state);
    let mut model = Model::new(settings.max_clock_ahead_micros, max_state as usize);
    let mut saga: Option<Saga> = None;
    for read in reads {
        let before = saga.clone();
        let verdict = model.read(&read.event, &read.record, read.across_gap);
        let admitted = Saga::admit(&mut saga, read.event.clone(), &read.record, read.across_gap, &settings);
        match (verdict, admitted) {
            (Verdict::Entry { anomalies, effective }, Admitted::Entry(entry)) => {
                prop_assert_eq!(sorted(anomalies), sorted(entry.anomalies.iter().map(|a| a.as_str()).collect()));
                prop_assert_eq!(effective, entry.effective_time.0);
                let state = &saga.as_ref().unwrap().state;
                prop_assert_eq!(model_text(&model), shown(state).to_string());
                prop_assert_eq!(model.error(), error_value(state.error()));
            }
            (Verdict::Duplicate, Admitted::Duplicate | Admitted::SequenceTaken { .. }) => prop_assert_eq!(&saga, &before),
            (Verdict::DeadLetter(code), Admitted::DeadLetter { code: same, .. }) => {
                prop_assert_eq!(code, same);
                prop_assert_eq!(&saga, &before);
            }
            (_, other) => prop_assert!(false, "the model decides otherwise than {:?}", other),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_equals_the_model(reads in stream(1..40), max_state in select(vec![40_u64, 90, 1 << 20])) {
        equals_the_model(&reads, max_state)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_equals_the_model_over_long_histories(reads in stream(60..200)) {
        equals_the_model(&reads, 1 << 20)?;
    }

    #[test]
    fn stored_entries_give_the_same_saga_from_any_snapshot(
        reads in stream(1..90), forms in vec(any::<bool>(), 90), max_state in select(vec![60_u64, 1 << 20])
    ) {
        let (saga, entries, after) = admit_all(&reads, &limits(max_state));
        let stored: Vec<Entry> = (0..entries.len())
            .map(|n| as_stored(&entries[n], n.checked_sub(1).map(|n| &after[n]), &after[n], forms[n]))
            .collect();
        for cut in 0..=entries.len() {
            let snapshot = cut.checked_sub(1).map(|n| after[n].clone());
            prop_assert_eq!(&fold_on(snapshot.clone(), &entries[cut..]), &saga);
            prop_assert_eq!(&fold_on(snapshot, &stored[cut..]), &saga);
        }
    }

    #[test]
    fn effective_times_never_go_back_and_sequences_have_no_holes(reads in stream(1..40)) {
        let (_, entries, _) = admit_all(&reads, &settings());
        prop_assert!(entries.is_sorted_by_key(|entry| entry.effective_time));
        prop_assert!(entries.iter().map(|entry| entry.sequence.0).eq(1..=entries.len() as u64));
    }

    #[test]
    fn the_context_after_a_change_does_not_depend_on_its_stored_form(changes in vec(change(), 1..20)) {
        let mut context = Json::empty_object();
        for change in changes {
            let Some(after) = changed_context(&context, &change) else { continue };
            let (prefix, suffix, middle) = splice(context.as_str(), after.as_str());
            let spliced = ContextChange::Splice { prefix, suffix, middle: middle.into() };
            prop_assert_eq!(changed_context(&context, &spliced), Some(after.clone()));
            context = after;
        }
    }
}

#[test]
fn a_full_context_keeps_its_text() {
    let text = "{\"a\" : 1.10,\n \"a\u{301}\":12345678901234567890}";
    let log = Log::of([with_context(event(Kind::SagaStarted), text)]);
    assert_eq!(log.state().context.as_str(), text);
}

#[test]
fn what_happened_before_the_end_does_not_change_how_the_saga_ended() {
    let at = |seconds: i64, event: StepEvent| StepEvent { occurred_at: Some(Micros(seconds * SECOND)), ..event };
    let mut log = Log::of([at(1, event(Kind::SagaStarted)), at(2, event(Kind::SagaCompleted))]);
    log.read(at(2, step(Kind::StepStarted, "a")));
    assert_eq!((log.state().status, log.state().ended_at), (Status::Completed, Some(Micros(2 * SECOND))));
    assert_eq!(log.state().current_step(), Some("a"));
    log.read(at(3, step(Kind::StepStarted, "b")));
    assert_eq!((log.state().status, log.state().ended_at), (Status::Running, None));
}

#[test]
fn an_error_of_the_end_stands_until_a_step_starts_again() {
    let with_error = |event: StepEvent, code: &str| StepEvent { error: Some(error(code)), ..event };
    let mut log = Log::of([
        event(Kind::SagaStarted),
        with_error(step(Kind::StepFailed, "pay"), "declined"),
        with_error(event(Kind::SagaFailed), "gave_up"),
    ]);
    assert_eq!(log.state().error(), Some(&*error("gave_up")));
    assert_eq!(log.state().failed_step(), Some("pay"));
    log.read(step(Kind::StepStarted, "ship"));
    assert_eq!(log.state().error(), Some(&*error("declined")));
    log.read(step(Kind::StepStarted, "pay"));
    assert_eq!((log.state().failed_step(), log.state().error()), (None, None));
}

#[test]
fn a_failed_saga_keeps_the_error_its_step_had() {
    let log = Log::of([
        event(Kind::SagaStarted),
        StepEvent { error: Some(error("declined")), ..step(Kind::StepFailed, "pay") },
        step(Kind::StepFailed, "ship"),
        step(Kind::SagaFailed, "pay"),
    ]);
    assert_eq!((log.state().failed_step(), log.state().error()), (Some("pay"), Some(&*error("declined"))));
}

#[test]
fn a_step_that_completes_again_is_no_longer_compensated() {
    let log = Log::of([
        event(Kind::SagaStarted),
        step(Kind::StepCompleted, "a"),
        step(Kind::StepCompensated, "a"),
        step(Kind::StepCompleted, "a"),
    ]);
    assert_eq!((log.state().completed_steps.as_slice(), log.state().compensated_steps.len()), (&["a".to_owned()][..], 0));
    assert_eq!(log.state().status, Status::Compensating);
}

#[test]
fn starting_a_saga_restored_to_compensate_leaves_it_compensating() {
    let restore = |id: &str| StepEvent {
        event_id: id.into(),
        restored: Some(Box::new(restored(id, Mode::Compensate))),
        ..with_context(event(Kind::SagaRestored), "{\"n\":1}")
    };
    let mut log = Log::of([restore("r1"), event(Kind::SagaStarted)]);
    assert_eq!(log.state().status, Status::Compensating);
    assert_eq!(log.state().completed_steps, ["c", "a"]);
    assert!(matches!(log.read(restore("r1")), Admitted::Duplicate));
    assert!(matches!(log.read(restore("r2")), Admitted::DeadLetter { code: "id_taken", .. }));
}

#[test]
fn a_sequence_below_the_last_64_is_stale_and_one_above_65_entries_ago_is_not_a_duplicate() {
    let numbered = |sequence| StepEvent { sequence: Some(sequence), ..event(Kind::ContextUpdated) };
    let mut log = Log::of((10..73).map(numbered));
    assert!(matches!(log.read(numbered(5)), Admitted::Entry(_)), "63 entries are not enough to call it stale");
    assert!(matches!(log.read(numbered(4)), Admitted::DeadLetter { code: "stale_sequence", .. }));
    assert_eq!(log.read(numbered(72)), Admitted::SequenceTaken { by: EntrySequence(63) });
    assert_eq!(log.read(StepEvent { event_id: "e0".into(), ..numbered(99) }), Admitted::Duplicate);
    log.read(numbered(73));
    assert!(matches!(log.read(numbered(10)), Admitted::Entry(_)), "out of the window, above its lowest");
}

#[test]
fn a_policy_takes_what_it_names_and_every_checkpoint() {
    let taken = |policy: SnapshotPolicy| Kind::ALL.into_iter().filter(|kind| policy.takes(*kind)).count();
    assert_eq!(taken(SnapshotPolicy::BeforeEachStep), 7);
    assert_eq!(taken(SnapshotPolicy::OnFailure), 4);
    assert_eq!(taken(SnapshotPolicy::OnCompletion), 5);
    assert_eq!(taken(SnapshotPolicy::EveryEvent), 15);
    assert_eq!(taken(SnapshotPolicy::Manual), 1);
    let settings = FoldSettings { policy_by_saga: vec![("x".into(), SnapshotPolicy::Manual)], ..settings() };
    assert_eq!(settings.policy_of("x"), SnapshotPolicy::Manual);
    assert_eq!(settings.policy_of("y"), SnapshotPolicy::BeforeEachStep);
}
