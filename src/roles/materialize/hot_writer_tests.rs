use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::hot::memory::MemoryHot;
use crate::hot::{
    ActivityFact, FailureFact, Hold, HotHealth, HotQuery, HotRead, IndexQuery, IndexRead, Member, SagaWrite, Token,
};
use crate::saga::position::ChainId;

fn mark(from: i64, to: i64) -> Mark {
    Mark { from: Offset(from), to: Offset(to), complete_through: Micros(0), settled: Offset(from) }
}

fn repaired(write_from: i64, from: i64, to: i64) -> MarkRepair {
    MarkRepair { write_from: Offset(write_from), from: Offset(from), to: Offset(to) }
}

fn undurable(from: i64, to: i64) -> UndurableRange {
    UndurableRange { from: Offset(from), to: Offset(to) }
}

fn chain() -> ChainId {
    ChainId { topic: "events".into(), incarnation: 0, partition: 0 }
}

fn memory() -> Arc<MemoryHot> {
    Arc::new(MemoryHot::new(std::time::Duration::from_secs(60), Box::new(std::time::Duration::default)))
}

fn entry(sequence: u64) -> HotBatch {
    let bytes = sequence.to_be_bytes().to_vec().into();
    let members = vec![Member { effective_time: Micros(sequence as i64), bytes }];
    HotBatch { sagas: vec![SagaWrite { saga: "a".into(), members, persist: false }], ..HotBatch::default() }
}

fn onward(expect: Option<Mark>, new: Mark) -> MarkRequest {
    let mark = MarkMove { chain: chain(), bucket: 0, expect, new };
    MarkRequest { mark, generation: Generation::default(), position: new.to, complete_through: None }
}

async fn entries(hot: &dyn HotStore) -> usize {
    let query = HotQuery::new("a".into(), Micros::MAX, 9);
    hot.read(&[query]).await.expect("memory store")[0].members.len()
}

#[tokio::test]
async fn entries_that_a_fail_over_lost_before_their_mark_moved_are_written_again() {
    for wiped in [false, true] {
        // The copy has what the primary had before this write: a mark or nothing.
        let (primary, copy) = (memory(), memory());
        let known = (!wiped).then_some(mark(10, 11));
        for store in [&primary, &copy] {
            let first = HotWork {
                batch: entry(1),
                marks: known.map(|new| onward(None, new)).into_iter().collect(),
                ..HotWork::default()
            };
            if !wiped {
                write(store.clone(), Arc::default(), first).await.expect("memory store");
            }
        }
        let hot = Arc::new(FailsOver { stores: [primary, copy.clone()], at: AtomicUsize::new(0) });
        let work = HotWork { batch: entry(2), marks: vec![onward(known, mark(10, 12))], ..HotWork::default() };
        let done = write(hot, Arc::default(), work).await.expect("memory store");
        assert_eq!((done.rewritten, done.marks.len()), (1, 1));
        assert_eq!(copy.marks(0).await.expect("memory store"), [(chain(), mark(10, 12))]);
        assert_eq!(entries(&*copy).await, if wiped { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_first_mark_moves_and_says_so() {
    let hot = memory();
    let work = HotWork { batch: entry(1), marks: vec![onward(None, mark(10, 25))], ..HotWork::default() };
    let done = write(hot.clone(), Arc::default(), work).await.expect("memory store");
    assert_eq!((done.marks[0].found, done.rewritten), (None, 0));
    assert_eq!(hot.marks(0).await.expect("memory store"), [(chain(), mark(10, 25))]);
}

#[tokio::test]
async fn what_never_happened_is_forgotten_only_where_no_other_owner_vouches_for_it() {
    for (stands, left) in [(mark(10, 12), 0), (mark(10, 15), 1)] {
        let hot = memory();
        let first = HotWork { batch: entry(1), marks: vec![onward(None, stands)], ..HotWork::default() };
        write(hot.clone(), Arc::default(), first).await.expect("memory store");
        let back = onward(Some(mark(10, 12)), mark(10, 11));
        let work = HotWork { marks: vec![back], forget: [SagaId::from("a")].into(), ..HotWork::default() };
        write(hot.clone(), Arc::default(), work).await.expect("memory store");
        assert_eq!(entries(&*hot).await, left, "{stands:?}");
    }
}

#[test]
fn a_saga_that_is_written_after_it_was_to_be_forgotten_is_kept() {
    let mut work = HotWork { forget: [SagaId::from("a"), "b".into()].into(), ..HotWork::default() };
    work.append(HotWork { batch: entry(1), ..HotWork::default() });
    assert_eq!(work.forget, ["b".into()].into());
}

/// Another store from the first move of a mark on.
struct FailsOver {
    stores: [Arc<MemoryHot>; 2],
    at: AtomicUsize,
}

impl FailsOver {
    fn store(&self) -> &MemoryHot {
        &self.stores[self.at.load(Ordering::Relaxed)]
    }
}

#[async_trait::async_trait]
impl HotStore for FailsOver {
    fn buckets(&self) -> u16 {
        1
    }
    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written> {
        self.store().write(batch, token).await
    }
    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        self.at.store(1, Ordering::Relaxed);
        self.store().move_marks(moves, written).await
    }
    async fn marks(&self, bucket: u16) -> Result<Vec<(ChainId, Mark)>> {
        self.store().marks(bucket).await
    }
    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>> {
        self.store().read(queries).await
    }
    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        self.store().settle(sagas, written).await
    }
    async fn forget(&self, sagas: &[SagaId]) -> Result<()> {
        self.store().forget(sagas).await
    }
    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>> {
        self.store().failures(query, limit).await
    }
    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>> {
        self.store().activity(query, limit).await
    }
    async fn drop_indexes_before(&self, minute: i64, latest: i64) -> Result<()> {
        self.store().drop_indexes_before(minute, latest).await
    }
    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        self.store().holds(bucket, before, skip, limit).await
    }
    async fn hold(&self, holds: &[Hold]) -> Result<()> {
        self.store().hold(holds).await
    }
    async fn release(&self, holds: &[Hold]) -> Result<()> {
        self.store().release(holds).await
    }
    async fn takes_writes(&self) -> Result<()> {
        self.store().takes_writes().await
    }
    async fn health(&self) -> Result<HotHealth> {
        self.store().health().await
    }
}

#[test]
fn a_wiped_store_gets_everything_that_is_not_durable() {
    assert_eq!(repair(None, undurable(10, 25)), repaired(10, 10, 25));
}

#[test]
fn a_wiped_store_is_not_said_to_have_what_an_owner_before_wrote() {
    // That one wrote up to 25; this one began at 10 and is at 12.
    assert_eq!(repair(None, undurable(10, 12)), repaired(10, 10, 12));
}

#[test]
fn a_store_that_lost_less_than_cold_has_keeps_its_head() {
    assert_eq!(repair(Some(mark(3, 12)), undurable(10, 25)), repaired(12, 3, 25));
}

#[test]
fn a_store_that_lost_more_than_cold_covers_begins_again_at_the_chain_end() {
    assert_eq!(repair(Some(mark(3, 9)), undurable(10, 25)), repaired(10, 10, 25));
    assert_eq!(repair(None, undurable(30, 25)), repaired(30, 30, 30));
}
