//! Stores in memory for the tests of the wiring, and what materialize would write to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::stores::{self, Stores};
use crate::cold::directory::Directory;
use crate::config::Config;
use crate::hot::memory::MemoryHot;
use crate::hot::{ActivityFact, HotBatch, HotStore, Mark, MarkMove, Member, SagaWrite, Tokens};
use crate::saga::event::StepEvent;
use crate::saga::fold::{Admitted, FoldSettings, RecordMeta, Saga, SnapshotPolicy};
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::time::Micros;
use crate::wire::frame::encode_member;

pub(super) const MINUTE: i64 = 60_000_000;

/// A memory and a directory, for the events topic and the replay log with `partitions` each.
pub(super) async fn stores_for(config: &Config, partitions: i32) -> (Stores, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let hot = Arc::new(MemoryHot::new(Duration::from_secs(1 << 40), Box::new(|| Duration::ZERO)));
    let objects = Arc::new(Directory::open(directory.path()).expect("store"));
    let counts = [(config.topics.events[0].clone(), partitions), (config.topics.log.clone(), partitions)];
    (stores::with(config, &counts, (hot, objects), Default::default()).await.expect("stores"), directory)
}

/// Folds events, one a minute, all in partition 0, and vouches for them.
pub(super) async fn materialize(hot: &dyn HotStore, topic: &str, events: Vec<StepEvent>) {
    let settings = FoldSettings {
        max_clock_ahead_micros: i64::MAX,
        max_state_bytes: 4 << 20,
        policy: SnapshotPolicy::EveryEvent,
        policy_by_saga: Vec::new(),
    };
    let (mut batch, mut sagas) = (HotBatch::default(), BTreeMap::<SagaId, Option<Saga>>::new());
    let end = Offset(events.len() as i64);
    for (n, event) in events.into_iter().enumerate() {
        let (saga, saga_name) = (event.saga_id.clone(), event.saga_name.clone());
        let slot = sagas.entry(saga.clone()).or_default();
        let before = slot.as_ref().map(|saga| saga.state.context.clone());
        let meta = RecordMeta { position: Position::new(topic, 0, n as i64), timestamp: Micros(n as i64 * MINUTE) };
        let Admitted::Entry(entry) = Saga::admit(slot, event, &meta, false, &settings) else { panic!("no entry") };
        let bytes = encode_member(&entry, settings.id(), before.as_ref(), slot.as_ref());
        let members = vec![Member { effective_time: entry.effective_time, bytes }];
        batch.sagas.push(SagaWrite { saga: saga.clone(), members, persist: false });
        batch.activity.push(ActivityFact { saga, saga_name, minute: n as i64 });
    }
    let written = hot.write(&batch, Tokens::default().next()).await.expect("written");
    let chain = ChainId { topic: topic.into(), incarnation: 0, partition: 0 };
    let new = Mark { from: Offset(0), to: end, complete_through: Micros(0), settled: Offset(0) };
    hot.move_marks(&[MarkMove { chain, bucket: 0, expect: None, new }], &written).await.expect("marked");
}
