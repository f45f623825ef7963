//! Stores in memory for the tests of the wiring, and what materialize would write to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::stores::{self, Stores};
use crate::cold::chain::ChainWriter;
use crate::cold::directory::Directory;
use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put};
use crate::cold::segment::{NewRow, NewSegment};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hot::memory::MemoryHot;
use crate::hot::{ActivityFact, HotBatch, HotStore, Mark, MarkMove, Member, SagaWrite, Tokens};
use crate::replay_log::in_history;
use crate::saga::entry::Entry;
use crate::saga::event::StepEvent;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::time::Micros;
use crate::wire::frame::{encode_member, encode_saga};

pub const MINUTE: i64 = 60_000_000;

/// A memory and a directory, for the events topic and the replay log with `partitions` each.
pub async fn stores_for(config: &Config, partitions: i32) -> (Stores, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let objects = Arc::new(Directory::open(directory.path()).expect("store"));
    (stores_on(config, partitions, objects).await, directory)
}

/// The same, on these objects.
pub async fn stores_on(config: &Config, partitions: i32, objects: Arc<dyn ObjectStore>) -> Stores {
    let hot = Arc::new(MemoryHot::new(Duration::from_secs(1 << 40), Box::new(|| Duration::ZERO)));
    let counts = [(config.topics.events[0].clone(), partitions), (config.topics.log.clone(), partitions)];
    stores::with(config, &counts, (hot, objects), Default::default()).await.expect("stores")
}

/// A store that takes nothing while it is held, and of which single reads fail.
pub struct Faulty {
    store: Directory,
    held: watch::Sender<bool>,
    waits: watch::Sender<bool>,
    /// So many reads from now on succeed.
    good: AtomicI64,
    /// Then so many fail.
    bad: AtomicI64,
    pub failed: AtomicUsize,
}

impl Faulty {
    pub fn new(store: Directory) -> Self {
        let (held, waits) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { store, held, waits, good: AtomicI64::new(i64::MAX), bad: AtomicI64::new(0), failed: AtomicUsize::new(0) }
    }

    /// `bad` reads fail after `good` more.
    pub fn fail(&self, good: i64, bad: i64) {
        self.bad.store(bad, Ordering::SeqCst);
        self.good.store(good, Ordering::SeqCst);
        self.failed.store(0, Ordering::SeqCst);
    }

    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Until somebody waits for it.
    pub async fn is_waited_for(&self) {
        let _ = self.waits.subscribe().wait_for(|waits| *waits).await;
    }

    fn read(&self) -> Result<()> {
        if self.good.fetch_sub(1, Ordering::SeqCst) > 0 || self.bad.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(Error::unavailable("read object: a fault of the test"))
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        self.waits.send_replace(true);
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        self.store.create(key, body, metadata).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.read()?;
        self.store.head(key).await
    }
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.read()?;
        self.store.get_range(key, start, end).await
    }
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.read()?;
        self.store.get_suffix(key, len).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.store.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }
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
pub async fn materialize(hot: &dyn HotStore, topic: &str, events: Vec<StepEvent>) {
    let mut batch = HotBatch::default();
    let end = Offset(events.len() as i64);
    for (n, (entry, saga, before)) in fold(topic, events).into_iter().enumerate() {
        let bytes = encode_member(&entry, settings().id(), before.as_ref(), Some(&saga));
        let members = vec![Member { effective_time: entry.effective_time, bytes }];
        let (id, saga_name) = (entry.event.saga_id.clone(), saga.state.saga_name.clone());
        batch.sagas.push(SagaWrite { saga: id.clone(), members, persist: false });
        // The log is in no index.
        if ![in_history::SAGA_NAME, in_history::INDEX_NAME].contains(&saga_name.as_str()) {
            batch.activity.push(ActivityFact { saga: id, saga_name, minute: n as i64 });
        }
    }
    let written = hot.write(&batch, Tokens::default().next()).await.expect("written");
    let chain = ChainId { topic: topic.into(), incarnation: 0, partition: 0 };
    let new = Mark { from: Offset(0), to: end, complete_through: Micros(0), settled: Offset(0) };
    hot.move_marks(&[MarkMove { chain, bucket: 0, expect: None, new }], &written).await.expect("marked");
}

/// Folds events into the archive.
pub async fn archive(objects: Arc<dyn ObjectStore>, topic: &str, events: Vec<StepEvent>) {
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
        rows: Arc::new(fold(topic, events).into_iter().map(row).collect()),
        complete_through: Micros(i64::MAX),
        ..NewSegment::empty(Offset(0), end)
    };
    writer.append(&segment).await.expect("append");
}
