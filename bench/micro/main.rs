//! The parts of an event's way alone, without servers: decode, fold, write for hot, write for cold, read back.
//!
//! Without arguments: how long each takes. `--count NAME`: that one a few times and nothing else, for callgrind, which
//! counts what happens inside [`counted`]. `--names`: the names. Started by `bench/micro/run`.

#[path = "../orders.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which uses the rest")]
mod orders;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use resaga::cold::chain::ChainWriter;
use resaga::cold::directory::Directory;
use resaga::cold::segment::{NewRow, NewSegment};
use resaga::saga::event::StepEvent;
use resaga::saga::fold::{Admitted, RecordMeta, Saga};
use resaga::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use resaga::saga::json::Json;
use resaga::saga::position::{ChainId, Offset, Position, SagaId};
use resaga::saga::time::Micros;
use resaga::wire::avro::{SchemaId, SchemaRef, Schemas};
use resaga::wire::event::{decode_event, encode_event};
use resaga::wire::frame;

use orders::{EVENTS_PER_SAGA, Load, Orders};

const EVENTS: u64 = 2_000;
const TOPIC: &str = "saga.events.v1";
/// The whole saga goes with every so many entries, as the role does it.
const WHOLE_EVERY: u64 = 16;
const AVRO: SchemaId = SchemaId(1);

/// What it does to all events.
type Routine = fn(&Prepared);

const ROUTINES: [(&str, Routine); 7] = [
    ("decode-json", decode_json),
    ("decode-avro", decode_avro),
    ("fold", fold),
    ("write-hot", write_hot),
    ("read-hot", read_hot),
    ("write-cold-frames", write_cold_frames),
    ("write-segment", write_segment),
];

struct Prepared {
    keys: Vec<String>,
    json: Vec<String>,
    avro: Vec<Vec<u8>>,
    schemas: Schemas,
    events: Vec<StepEvent>,
    rows: Vec<Row>,
    members: Vec<Bytes>,
    segment: NewSegment,
    runtime: tokio::runtime::Runtime,
}

/// An entry and the saga around it.
struct Row {
    row: NewRow,
    before: Option<Json>,
    after: Saga,
}

static PREPARED: LazyLock<Prepared> = LazyLock::new(Prepared::new);

impl Prepared {
    fn new() -> Self {
        let orders = Orders::new(EVENTS, 20, Load { in_flight: 100, ..Load::default() });
        let schemas = Schemas::new(true);
        schemas.insert(SchemaRef::Id(AVRO), include_str!("../../schemas/StepEvent.avsc")).expect("our own schema");
        let (mut keys, mut json) = (Vec::new(), Vec::new());
        for first in (0..orders.sagas).step_by(orders.load.in_flight as usize) {
            for at in 0..EVENTS_PER_SAGA {
                for saga in first..(first + orders.load.in_flight).min(orders.sagas) {
                    let mut value = String::new();
                    orders.event(saga, at, &mut value);
                    keys.push(Orders::id(saga));
                    json.push(value);
                }
            }
        }
        let texts = keys.iter().zip(&json).map(|(key, value)| (key.as_str(), value.as_bytes()));
        let events: Vec<StepEvent> = texts.map(|(key, value)| decode(key, value, &schemas)).collect();
        let avro = events.iter().map(|event| encode_event(event, Some(AVRO)).expect("an event fits")).collect();
        let rows = folded(&events);
        let members = rows.iter().map(member).collect();
        let segment = NewSegment {
            start: Offset(0),
            end: Offset(rows.len() as i64 - 1),
            rows: Arc::new(rows.iter().map(|row| row.row.clone()).collect()),
            complete_through: Micros(0),
            leader_epoch: None,
            topic_id: None,
            clock: Default::default(),
            installation: Default::default(),
            fold_settings: "{}".into(),
            gap: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { keys, json, avro, schemas, events, rows, members, segment, runtime }
    }
}

fn decode(key: &str, value: &[u8], schemas: &Schemas) -> StepEvent {
    match decode_event(Some(key.as_bytes()), Some(value), &Vec::new(), 1 << 20, schemas) {
        Ok(event) => event,
        Err(_) => panic!("an event that resaga does not take"),
    }
}

fn settings() -> FoldSettings {
    FoldSettings {
        max_clock_ahead_micros: 60_000_000,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::BeforeEachStep,
        policy_by_saga: Vec::new(),
    }
}

fn admit(sagas: &mut HashMap<SagaId, Option<Saga>>, event: StepEvent, offset: usize, settings: &FoldSettings) -> Admitted {
    let record =
        RecordMeta { position: Position::new(TOPIC, 3, offset as i64), timestamp: event.occurred_at.unwrap_or_default() };
    Saga::admit(sagas.entry(event.saga_id.clone()).or_default(), event, &record, false, settings)
}

fn folded(events: &[StepEvent]) -> Vec<Row> {
    let (mut sagas, settings) = (HashMap::new(), settings());
    let mut rows = Vec::new();
    for (offset, event) in events.iter().enumerate() {
        let known: Option<&Saga> = sagas.get(&event.saga_id).and_then(Option::as_ref);
        let before = known.map(|saga| saga.state.context.clone());
        let Admitted::Entry(entry) = admit(&mut sagas, event.clone(), offset, &settings) else { panic!("each is an entry") };
        let Some(Some(after)) = sagas.get(&event.saga_id).cloned() else { panic!("an entry makes a saga") };
        let (status, context) = (after.state.status, Some(after.state.context.clone()));
        rows.push(Row {
            row: NewRow { entry: Arc::new(*entry), status, context, saga: Some(frame::encode_saga(&after).into()) },
            before,
            after,
        });
    }
    rows
}

fn member(row: &Row) -> Bytes {
    let whole = row.row.entry.sequence.0.is_multiple_of(WHOLE_EVERY).then_some(&row.after);
    frame::encode_member(&row.row.entry, 0, row.before.as_ref(), whole)
}

fn decode_json(all: &Prepared) {
    for (key, value) in all.keys.iter().zip(&all.json) {
        black_box(decode(key, value.as_bytes(), &all.schemas));
    }
}

fn decode_avro(all: &Prepared) {
    for (key, value) in all.keys.iter().zip(&all.avro) {
        black_box(decode(key, value, &all.schemas));
    }
}

/// Copies of the events included.
fn fold(all: &Prepared) {
    let (mut sagas, settings) = (HashMap::new(), settings());
    for (offset, event) in all.events.iter().enumerate() {
        black_box(admit(&mut sagas, event.clone(), offset, &settings));
    }
}

fn write_hot(all: &Prepared) {
    for row in &all.rows {
        black_box(member(row));
    }
}

fn read_hot(all: &Prepared) {
    for (row, member) in all.rows.iter().zip(&all.members) {
        black_box(frame::decode_member(&row.row.entry.event.saga_id, member).expect("a member"));
    }
}

fn write_cold_frames(all: &Prepared) {
    for row in &all.rows {
        black_box(frame::encode_entry(&row.row.entry));
    }
}

/// Sorted, as Parquet, into a directory.
fn write_segment(all: &Prepared) {
    let directory = tempfile::tempdir().expect("a directory");
    let chain = ChainId { topic: TOPIC.into(), incarnation: 0, partition: 3 };
    let store = Arc::new(Directory::open(directory.path()).expect("a store"));
    all.runtime.block_on(async {
        let mut writer = ChainWriter::open(store, chain, Some(Offset(0))).await.expect("a chain");
        writer.append(&all.segment).await.expect("a segment");
    });
}

#[divan::bench(args = ROUTINES.map(|(name, _)| name))]
fn event(bencher: Bencher<'_, '_>, name: &str) {
    let all = &*PREPARED;
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| counted(named(name), all));
}

/// Callgrind counts instructions from here on, and stops when it returns.
#[inline(never)]
fn counted(routine: Routine, all: &Prepared) {
    routine(all);
}

fn named(name: &str) -> Routine {
    match ROUTINES.iter().find(|(known, _)| *known == name) {
        Some((_, routine)) => *routine,
        None => panic!("{name}: not one of --names"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--names") => ROUTINES.iter().for_each(|(name, _)| println!("{name} {EVENTS}")),
        Some("--count") => counted(named(&arguments[2]), &PREPARED),
        _ => divan::main(),
    }
}
