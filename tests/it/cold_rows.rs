//! Rows for the cold store, made as materialize makes them: by folding events in log order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use resaga::cold::directory::Directory;
use resaga::cold::object_store::ObjectStore;
use resaga::cold::segment::{NewRow, NewSegment};
use resaga::saga::event::{ContextChange, Kind, StepEvent};
use resaga::saga::fold::{Admitted, RecordMeta, Saga};
use resaga::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use resaga::saga::installation::Installation;
use resaga::saga::json::Json;
use resaga::saga::position::{ChainId, Offset, Position, SagaId};
use resaga::saga::time::Micros;
use resaga::wire::frame::encode_saga;

/// 2026-01-10T10:00:00Z.
pub const NOW: i64 = 1_768_039_200_000_000;
pub const SECOND: i64 = 1_000_000;

pub fn chain() -> ChainId {
    ChainId { topic: "saga.events.v1".into(), incarnation: 0, partition: 3 }
}

/// A folder of its own, in memory where the system offers that: thousands of synced writes take long on a disk.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

pub fn directory(path: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(Directory::open(path).expect("a directory"))
}

pub fn event(saga: &str, kind: Kind) -> StepEvent {
    let step = kind.needs_step().then(|| "charge-card".into());
    StepEvent { step, ..StepEvent::new("", SagaId::from(saga), "order-processing", kind) }
}

pub fn with_context(saga: &str, kind: Kind, context: &str) -> StepEvent {
    StepEvent { context: ContextChange::Full(Json::from_valid(context)), ..event(saga, kind) }
}

/// A partition's log and the fold of its sagas; one record a second.
#[derive(Default)]
pub struct Log {
    pub sagas: HashMap<SagaId, Option<Saga>>,
    pub rows: Vec<NewRow>,
    pub next: i64,
}

impl Log {
    pub fn read(&mut self, mut event: StepEvent) {
        let offset = self.next;
        self.next += 1;
        if event.event_id.is_empty() {
            event.event_id = format!("e{offset}");
        }
        let record =
            RecordMeta { position: Position::new("saga.events.v1", 3, offset), timestamp: Micros(NOW + offset * SECOND) };
        let settings = FoldSettings {
            max_clock_ahead_micros: 3_600 * SECOND,
            max_state_bytes: 4 << 20,
            policy: SnapshotPolicy::BeforeEachStep,
            policy_by_saga: Vec::new(),
        };
        let slot = self.sagas.entry(event.saga_id.clone()).or_default();
        if let Admitted::Entry(entry) = Saga::admit(slot, event, &record, false, &settings) {
            let saga = slot.as_ref().expect("an entry was admitted");
            self.rows.push(NewRow {
                entry: Arc::new(*entry),
                status: saga.state.status,
                context: Some(saga.state.context.clone()),
                saga: Some(encode_saga(saga).into()),
            });
        }
    }

    /// What was read since `start` as a segment.
    pub fn segment(&self, start: Offset) -> NewSegment {
        self.segment_to(start, self.next - 1)
    }

    /// The same up to the offset `end`.
    pub fn segment_to(&self, start: Offset, end: i64) -> NewSegment {
        let inside = |row: &&NewRow| (start.0..=end).contains(&row.entry.position.offset.0);
        NewSegment {
            start,
            end: Offset(end),
            rows: Arc::new(self.rows.iter().filter(inside).cloned().collect()),
            complete_through: Micros(NOW + end * SECOND),
            leader_epoch: Some(7),
            topic_id: Some("topic-id".into()),
            clock: Default::default(),
            installation: Installation::default(),
            fold_settings: "{}".into(),
            gap: false,
        }
    }

    /// The fold of all entries of a saga with effective time <= `upto`, from the first on.
    pub fn naive(&self, saga: &SagaId, upto: Micros) -> Option<Saga> {
        let mut slot = None;
        for row in self.rows.iter().filter(|row| row.entry.event.saga_id == *saga && row.entry.effective_time <= upto) {
            Saga::apply(&mut slot, &row.entry);
        }
        slot
    }
}
