//! Builders of events and histories for tests.

use super::entry::Entry;
use super::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use super::fold::{Admitted, RecordMeta, Saga};
use super::fold_settings::{FoldSettings, SnapshotPolicy};
use super::json::Json;
use super::lineage::Mode;
use super::position::{Position, SagaId};
use super::request::{CommandName, LogRecord, ReplayStatus};
use super::restored::{CheckpointRef, RestoredSaga};
use super::state::State;
use super::time::Micros;

/// One second in microseconds.
pub const SECOND: i64 = 1_000_000;

pub fn event(kind: Kind) -> StepEvent {
    StepEvent::new("", SagaId::from("order-1"), "order-processing", kind)
}

pub fn step(kind: Kind, step: &str) -> StepEvent {
    StepEvent { step: Some(step.into()), ..event(kind) }
}

pub fn with_context(event: StepEvent, context: &str) -> StepEvent {
    StepEvent { context: ContextChange::Full(Json::from_valid(context)), ..event }
}

pub fn error(code: &str) -> Box<ErrorInfo> {
    Box::new(ErrorInfo { code: Some(code.into()), ..ErrorInfo::default() })
}

pub fn settings() -> FoldSettings {
    FoldSettings {
        max_clock_ahead_micros: 3_600 * SECOND,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::BeforeEachStep,
        policy_by_saga: Vec::new(),
    }
}

pub fn restored(replay_id: &str, mode: Mode) -> RestoredSaga {
    RestoredSaga {
        saga_id: SagaId::from("order-1"),
        saga_name: "order-processing".into(),
        saga_version: Some("7".into()),
        mode,
        resume_step: Some("b".into()),
        resume_step_index: Some(1),
        resume_steps: vec!["b".into()],
        completed_steps: vec!["a".into(), "c".into()],
        skipped_steps: vec!["d".into()],
        compensated_steps: Vec::new(),
        compensated_since: Vec::new(),
        attempts: vec![("a".into(), 2)],
        results: vec![("a".into(), Json::from_valid("5"))],
        context: None,
        force_failure: None,
        original_saga_id: SagaId::from("order-0"),
        root_saga_id: SagaId::from("order-0"),
        depth: 1,
        replay_id: replay_id.into(),
        request_id: "INC-1".into(),
        batch_id: None,
        checkpoint: CheckpointRef { sequence: 4, effective_time: Micros(0), position: Position::new("t", 0, 4) },
        requested_by: "ops".into(),
        reason: "INC-1".into(),
        restored_at: Micros(0),
        tenant: None,
        region: Some("eu".into()),
        labels: vec![("k".into(), "v".into())],
    }
}

/// A saga's log: one record a second, each with an event id of its own.
#[derive(Default)]
pub struct Log {
    pub saga: Option<Saga>,
    pub entries: Vec<Entry>,
}

impl Log {
    pub fn of(events: impl IntoIterator<Item = StepEvent>) -> Self {
        let mut log = Self::default();
        for event in events {
            log.read(event);
        }
        log
    }

    pub fn read(&mut self, mut event: StepEvent) -> Admitted {
        let offset = self.entries.len() as i64;
        if event.event_id.is_empty() {
            event.event_id = format!("e{offset}");
        }
        let record =
            RecordMeta { position: Position::new("saga.events.v1", 3, offset), timestamp: Micros((offset + 1) * SECOND) };
        let admitted = Saga::admit(&mut self.saga, event, &record, false, &settings());
        if let Admitted::Entry(entry) = &admitted {
            self.entries.push(entry.as_ref().clone());
        }
        admitted
    }

    pub fn state(&self) -> &State {
        &self.saga.as_ref().expect("an event was read").state
    }
}

/// A record of the replay log: `at` is when it was accepted, and its offset.
pub fn log_record(id: &str, saga: &str, at: i64, status: ReplayStatus) -> LogRecord {
    LogRecord {
        replay_id: id.into(),
        request_id: format!("request of {id}"),
        request_sha256: String::new(),
        batch_id: None,
        schedule_id: None,
        command: CommandName::Replay,
        original_saga_id: Some(saga.into()),
        new_saga_id: Some(format!("new of {id}").as_str().into()),
        from: None,
        override_sha256: None,
        force_failure: None,
        mode: None,
        dry_run: false,
        requested_by: "ops".into(),
        reason: "test".into(),
        checkpoint: None,
        resume_step: None,
        compensated_since: Vec::new(),
        changed: Vec::new(),
        executed_as: None,
        status,
        code: None,
        message: None,
        accepted_at: Micros(at),
        published_at: None,
        ended_at: None,
        outcome: None,
        outcome_sequence: None,
        undone_by: None,
        position: Position::new("requests", 0, at),
        request: None,
        batch_progress: None,
        schedule_progress: None,
    }
}
