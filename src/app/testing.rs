//! Stores in memory for the tests of the wiring, and what materialize would write to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::stores::{self, Stores};
use crate::cold::chain::ChainWriter;
use crate::cold::directory::Directory;
use crate::cold::object_store::ObjectStore;
use crate::cold::segment::{NewRow, NewSegment};
use crate::config::Config;
use crate::hot::memory::MemoryHot;
use crate::hot::{ActivityFact, HotBatch, HotStore, Mark, MarkMove, Member, SagaWrite, Tokens};
use crate::roles::log_saga;
use crate::saga::entry::Entry;
use crate::saga::event::StepEvent;
use crate::saga::fold::{Admitted, FoldSettings, RecordMeta, Saga, SnapshotPolicy};
use crate::saga::installation::Installation;
use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::time::Micros;
use crate::wire::frame::{encode_member, encode_saga};

pub(super) const MINUTE: i64 = 60_000_000;

/// A memory and a directory, for the events topic and the replay log with `partitions` each.
pub(super) async fn stores_for(config: &Config, partitions: i32) -> (Stores, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let hot = Arc::new(MemoryHot::new(Duration::from_secs(1 << 40), Box::new(|| Duration::ZERO)));
    let objects = Arc::new(Directory::open(directory.path()).expect("store"));
    let counts = [(config.topics.events[0].clone(), partitions), (config.topics.log.clone(), partitions)];
    (stores::with(config, &counts, (hot, objects), Default::default()).await.expect("stores"), directory)
}

/// Folds events, one a minute, all in partition 0; gives each entry with its saga after it and the context before.
fn fold(topic: &str, events: Vec<StepEvent>) -> Vec<(Entry, Saga, Option<Json>)> {
    let mut sagas = BTreeMap::<SagaId, Option<Saga>>::new();
    let mut folded = Vec::with_capacity(events.len());
    for (n, event) in events.into_iter().enumerate() {
        let slot = sagas.entry(event.saga_id.clone()).or_default();
        let before = slot.as_ref().map(|saga| saga.state.context.clone());
        let meta = RecordMeta { position: Position::new(topic, 0, n as i64), timestamp: Micros(n as i64 * MINUTE) };
        let Admitted::Entry(entry) = Saga::admit(slot, event, &meta, false, &settings()) else { panic!("no entry") };
        folded.push((*entry, slot.clone().expect("folded"), before));
    }
    folded
}

fn settings() -> FoldSettings {
    FoldSettings {
        max_clock_ahead_micros: i64::MAX,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::EveryEvent,
        policy_by_saga: Vec::new(),
    }
}

/// Folds events and vouches for them.
pub(super) async fn materialize(hot: &dyn HotStore, topic: &str, events: Vec<StepEvent>) {
    let mut batch = HotBatch::default();
    let end = Offset(events.len() as i64);
    for (n, (entry, saga, before)) in fold(topic, events).into_iter().enumerate() {
        let bytes = encode_member(&entry, settings().id(), before.as_ref(), Some(&saga));
        let members = vec![Member { effective_time: entry.effective_time, bytes }];
        let (id, saga_name) = (entry.event.saga_id.clone(), saga.state.saga_name.clone());
        batch.sagas.push(SagaWrite { saga: id.clone(), members, persist: false });
        // The log is in no index.
        if ![log_saga::SAGA_NAME, log_saga::INDEX_NAME].contains(&saga_name.as_str()) {
            batch.activity.push(ActivityFact { saga: id, saga_name, minute: n as i64 });
        }
    }
    let written = hot.write(&batch, Tokens::default().next()).await.expect("written");
    let chain = ChainId { topic: topic.into(), incarnation: 0, partition: 0 };
    let new = Mark { from: Offset(0), to: end, complete_through: Micros(0), settled: Offset(0) };
    hot.move_marks(&[MarkMove { chain, bucket: 0, expect: None, new }], &written).await.expect("marked");
}

/// Folds events into the archive.
pub(super) async fn archive(objects: Arc<dyn ObjectStore>, topic: &str, events: Vec<StepEvent>) {
    let chain = ChainId { topic: topic.into(), incarnation: 0, partition: 0 };
    let mut writer = ChainWriter::open(objects, chain, Some(Offset(0))).await.expect("open");
    let end = Offset(events.len() as i64 - 1);
    let row = |(entry, saga, _): (Entry, Saga, Option<Json>)| NewRow {
        entry: Arc::new(entry),
        status: saga.state.status,
        context: Some(saga.state.context.clone()),
        saga: Some(encode_saga(&saga).into()),
    };
    let segment = NewSegment {
        start: Offset(0),
        end,
        rows: Arc::new(fold(topic, events).into_iter().map(row).collect()),
        complete_through: Micros(i64::MAX),
        leader_epoch: None,
        topic_id: None,
        clock: Default::default(),
        installation: Installation::default(),
        fold_settings: String::new(),
        gap: false,
    };
    writer.append(&segment).await.expect("append");
}
