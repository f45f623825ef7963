//! Random domain values for the property tests of `wire`.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use crate::saga::fold::{Saga, Seen};
use crate::saga::json::Json;
use crate::saga::lineage::{Lineage, Mode};
use crate::saga::position::{EntrySequence, Position, SagaId};
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::saga::restored::{CheckpointRef, RestoredSaga};
use crate::saga::state::{Anomaly, EntryRef, State, Status};
use crate::saga::time::Micros;

pub fn text() -> BoxedStrategy<String> {
    "[a-zé🚚\"\\\\\n]{1,8}".boxed()
}
pub fn json() -> BoxedStrategy<Json> {
    let texts = ["1.10", "12345678901234567890", "true", "\"x\\u0041\"", "{\"z\":1, \"a\":[null,{}]}", "[]", "-0.0e-3", "\"é\""];
    select(texts.to_vec()).prop_map(Json::from_valid).boxed()
}
pub fn object() -> BoxedStrategy<Json> {
    (text(), json(), 0..90_usize)
        .prop_map(|(name, value, fill)| {
            let fill = "lorem ipsum ".repeat(fill);
            Json::from_valid(format!("{{{}:{},\"fill\":\"{fill}\"}}", serde_json::to_string(&name).unwrap(), value.as_str()))
        })
        .boxed()
}
/// Times that RFC 3339 can write.
pub fn micros() -> BoxedStrategy<Micros> {
    (0..4_102_444_800_000_000_i64).prop_map(Micros).boxed()
}
/// Counts that an Avro long can hold.
pub fn count() -> BoxedStrategy<u64> {
    (0..i64::MAX as u64).boxed()
}
fn id() -> BoxedStrategy<SagaId> {
    text().prop_map(SagaId::new).boxed()
}
fn position() -> BoxedStrategy<Position> {
    (text(), 0..i32::MAX, 0..i64::MAX).prop_map(|(topic, partition, offset)| Position::new(topic, partition, offset)).boxed()
}
fn mode() -> BoxedStrategy<Mode> {
    any::<bool>().prop_map(|c| if c { Mode::Compensate } else { Mode::Resume }).boxed()
}
/// Distinct names, as the members of an object have.
fn pairs<T: std::fmt::Debug + 'static>(value: BoxedStrategy<T>) -> BoxedStrategy<Vec<(String, T)>> {
    vec(value, 0..4).prop_map(|values| values.into_iter().enumerate().map(|(n, v)| (format!("n{n} é"), v)).collect()).boxed()
}
fn error() -> BoxedStrategy<Box<ErrorInfo>> {
    (of(text()), of(text()), of(text()), of(json()))
        .prop_map(|(code, kind, message, details)| Box::new(ErrorInfo { code, kind, message, details }))
        .boxed()
}
pub fn lineage() -> BoxedStrategy<Lineage> {
    (id(), id(), 0..1_000_u32, text(), of(text()), mode(), of(text()), id())
        .prop_map(|(parent, root, depth, replay_id, resume_step, mode, force_failure, executes)| Lineage {
            parent,
            root,
            depth,
            replay_id,
            resume_step,
            mode,
            force_failure,
            executes: Some(executes),
        })
        .boxed()
}
pub fn checkpoint() -> BoxedStrategy<CheckpointRef> {
    (count(), micros(), position())
        .prop_map(|(sequence, effective_time, position)| CheckpointRef { sequence, effective_time, position })
        .boxed()
}
pub fn restored() -> BoxedStrategy<RestoredSaga> {
    let names = || vec(text(), 0..3);
    (
        (id(), text(), of(text()), mode(), of(text()), of(any::<i64>()), names(), names(), names(), names()),
        (names(), pairs(any::<i64>().boxed()), pairs(json()), of(object()), of(text()), id(), id(), 0..1_000_u32, text(), text()),
        (of(text()), checkpoint(), text(), text(), micros(), of(text()), of(text()), pairs(text())),
    )
        .prop_map(|(a, b, c)| RestoredSaga {
            saga_id: a.0,
            saga_name: a.1,
            saga_version: a.2,
            mode: a.3,
            resume_step: a.4,
            resume_step_index: a.5,
            resume_steps: a.6,
            completed_steps: a.7,
            skipped_steps: a.8,
            compensated_steps: a.9,
            compensated_since: b.0,
            attempts: b.1,
            results: b.2,
            context: b.3,
            force_failure: b.4,
            original_saga_id: b.5,
            root_saga_id: b.6,
            depth: b.7,
            replay_id: b.8,
            request_id: b.9,
            batch_id: c.0,
            checkpoint: c.1,
            requested_by: c.2,
            reason: c.3,
            restored_at: c.4,
            tenant: c.5,
            region: c.6,
            labels: c.7,
        })
        .boxed()
}
pub fn context_change() -> BoxedStrategy<ContextChange> {
    prop_oneof![
        Just(ContextChange::None),
        object().prop_map(ContextChange::Full),
        object().prop_map(ContextChange::Patch),
        object().prop_map(ContextChange::Set),
    ]
    .boxed()
}
/// Any event; as it may come from a decoder if `restored` and `lineage` are looked after.
pub fn event() -> BoxedStrategy<StepEvent> {
    (
        (text(), id(), text(), select(Kind::ALL.to_vec()), of(micros()), text(), of(any::<i64>()), of(any::<i64>())),
        (of(count()), context_change(), of(json()), of(error()), of(text()), of(text()), of(text()), of(pairs(text()))),
        (of(lineage()), restored()),
    )
        .prop_map(|(a, b, c)| {
            let mut restored = c.1;
            restored.context = None;
            restored.saga_id = a.1.clone();
            StepEvent {
                event_id: a.0,
                saga_id: a.1,
                saga_name: a.2,
                kind: a.3,
                occurred_at: a.4,
                step: Some(a.5),
                step_index: a.6,
                attempt: a.7,
                sequence: b.0,
                context: b.1,
                result: b.2,
                error: b.3,
                saga_version: b.4,
                tenant: b.5,
                region: b.6,
                labels: b.7,
                lineage: c.0.filter(|_| a.3 == Kind::SagaStarted).map(Box::new),
                restored: (a.3 == Kind::SagaRestored).then(|| Box::new(restored)),
            }
        })
        .boxed()
}
pub fn entry() -> BoxedStrategy<Entry> {
    (any::<u64>(), position(), micros(), any::<i64>(), micros(), any::<bool>(), vec(select(Anomaly::ALL.to_vec()), 0..3), event())
        .prop_map(|(sequence, position, effective_time, occurred, recorded_time, snapshot, anomalies, event)| Entry {
            sequence: EntrySequence(sequence),
            position,
            effective_time,
            occurred_time: Micros(occurred),
            recorded_time,
            snapshot,
            anomalies,
            event,
        })
        .boxed()
}
pub fn saga() -> BoxedStrategy<Saga> {
    let names = || vec(text(), 0..3);
    let reference = (any::<u64>(), text(), select(Kind::ALL.to_vec()), micros(), micros(), position());
    let window = vec((any::<u64>(), of(any::<u64>())), 0..5);
    (
        (id(), text(), of(text()), select(Status::ALL.to_vec()), pairs(of(any::<i64>()).boxed()), names(), names(), names()),
        (pairs(of(error()).boxed()), of(error()), of(text()), of(error()), pairs(any::<i64>().boxed()), pairs(json()), object()),
        (micros(), of(micros()), of(text()), of(text()), pairs(text()), of(lineage()), vec(select(Anomaly::ALL.to_vec()), 0..3)),
        (of(any::<u64>()), reference, window, of(any::<u64>())),
    )
        .prop_map(|(a, b, c, d)| Saga {
            state: State {
                saga_id: a.0,
                saga_name: a.1,
                saga_version: a.2,
                status: a.3,
                running_steps: a.4,
                completed_steps: a.5,
                skipped_steps: a.6,
                compensated_steps: a.7,
                failed_steps: b.0,
                end_error: b.1,
                compensation_failed_step: b.2,
                compensation_error: b.3,
                attempts: b.4,
                results: b.5,
                context: b.6,
                started_at: c.0,
                ended_at: c.1,
                tenant: c.2,
                region: c.3,
                labels: c.4,
                lineage: c.5.map(Box::new),
                anomalies: c.6,
                snapshot: d.0.map(EntrySequence),
                entry: EntryRef {
                    sequence: EntrySequence(d.1.0),
                    event_id: d.1.1,
                    kind: d.1.2,
                    effective_time: d.1.3,
                    recorded_time: d.1.4,
                    position: d.1.5,
                },
            },
            window: d.2.into_iter().map(|(event_id_hash, sequence)| Seen { event_id_hash, sequence }).collect(),
            highest_sequence: d.3,
        })
        .boxed()
}

/// The example of docs/interface/restored-sagas.md.
pub fn one_restored() -> RestoredSaga {
    let steps = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    RestoredSaga {
        saga_id: SagaId::from("new"),
        saga_name: "order-processing".into(),
        saga_version: None,
        mode: Mode::Resume,
        resume_step: Some("charge_payment".into()),
        resume_step_index: Some(2),
        resume_steps: steps(&["charge_payment"]),
        completed_steps: steps(&["reserve_inventory"]),
        skipped_steps: vec![],
        compensated_steps: vec![],
        compensated_since: vec![],
        attempts: vec![("reserve_inventory".into(), 1), ("charge_payment".into(), 1)],
        results: vec![("reserve_inventory".into(), Json::from_valid("{\"id\":\"r-9\"}"))],
        context: Some(Json::from_valid("{\"amount\":99.50,\"payment_token\":\"tok_new\"}")),
        force_failure: None,
        original_saga_id: SagaId::from("order-1"),
        root_saga_id: SagaId::from("order-1"),
        depth: 1,
        replay_id: "r".into(),
        request_id: "0194".into(),
        batch_id: None,
        checkpoint: CheckpointRef {
            sequence: 4,
            effective_time: Micros(1_768_039_200_000_000),
            position: Position::new("saga.events.v1", 3, 41),
        },
        requested_by: "ops@example.org".into(),
        reason: "INC-4412".into(),
        restored_at: Micros(1_768_039_200_000_000),
        tenant: None,
        region: None,
        labels: vec![],
    }
}
/// Any record of the replay log.
pub fn log_record() -> BoxedStrategy<LogRecord> {
    let names = || vec(text(), 0..3);
    let statuses = select(ReplayStatus::ALL.to_vec());
    (
        (text(), text(), text(), of(text()), of(text()), select(CommandName::ALL.to_vec()), of(id()), of(id()), any::<bool>()),
        (of(text()), of(text()), of(mode()), any::<bool>(), text(), text(), of(checkpoint()), of(text()), names(), names()),
        (of(id()), statuses, of(text()), of(text()), micros(), of(micros()), of(micros()), of(text()), of(count()), of(text())),
        (position(), of(object())),
    )
        .prop_map(|(a, b, c, d)| LogRecord {
            replay_id: a.0,
            request_id: a.1,
            request_sha256: a.2,
            batch_id: a.3,
            schedule_id: a.4,
            command: a.5,
            original_saga_id: a.6,
            new_saga_id: a.7,
            from: a.8.then(|| Json::from_valid("{\"step\":\"pay\",\"attempt\":2}")),
            override_sha256: b.0,
            force_failure: b.1,
            mode: b.2,
            dry_run: b.3,
            requested_by: b.4,
            reason: b.5,
            checkpoint: b.6,
            resume_step: b.7,
            compensated_since: b.8,
            changed: b.9,
            executed_as: c.0,
            status: c.1,
            code: c.2,
            message: c.3,
            accepted_at: c.4,
            published_at: c.5,
            ended_at: c.6,
            outcome: c.7,
            outcome_sequence: c.8,
            undone_by: c.9,
            position: d.0,
            request: d.1,
            batch_progress: None,
            schedule_progress: None,
        })
        .boxed()
}
