//! A hot store of several buckets, as a cluster has, each one a memory store that can be wiped or put back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::hot::memory::MemoryHot;
use crate::hot::{
    ActivityFact, DurableSaga, FailureFact, Hold, HotBatch, HotHealth, HotQuery, HotRead, HotStore, IndexQuery, IndexRead, Mark,
    MarkMove, MarkOutcome, Token, Written,
};
use crate::saga::position::{ChainId, SagaId};
use crate::saga::time::Micros;

const TTL: Duration = Duration::from_secs(1);

/// What changed one bucket, to play it again up to some point: an older copy of the store.
#[derive(Clone)]
enum Change {
    Write(HotBatch, Token),
    Mark(MarkMove, Written),
    Drop(i64),
    Settle(Vec<DurableSaga>, Written),
    Forget(SagaId),
    Pass,
}

struct Bucket {
    store: Arc<MemoryHot>,
    clock: Arc<AtomicU64>,
    changes: Vec<Change>,
}

impl Bucket {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let now = clock.clone();
        let store = MemoryHot::new(TTL, Box::new(move || Duration::from_secs(now.load(Ordering::Relaxed))));
        Self { store: Arc::new(store), clock, changes: Vec::new() }
    }

    async fn make(&mut self, change: Change) -> Result<Option<MarkOutcome>> {
        self.changes.push(change.clone());
        match change {
            Change::Write(batch, token) => drop(self.store.write(&batch, token).await?),
            Change::Drop(minute) => self.store.drop_indexes_before(minute, i64::MAX).await?,
            Change::Settle(sagas, written) => drop(self.store.settle(&sagas, &written).await?),
            Change::Forget(saga) => self.store.forget(&[saga]).await?,
            Change::Pass => {
                self.clock.fetch_add(2, Ordering::Relaxed);
            }
            Change::Mark(wanted, written) => return Ok(self.store.move_marks(&[wanted], &written).await?.pop()),
        }
        Ok(None)
    }
}

pub struct Buckets {
    buckets: Vec<tokio::sync::Mutex<Bucket>>,
    /// The store does not answer.
    pub down: Mutex<bool>,
    /// Calls that were not answered.
    pub unanswered: AtomicU64,
}

impl Buckets {
    pub fn new(count: u16) -> Self {
        let buckets = (0..count).map(|_| tokio::sync::Mutex::new(Bucket::new())).collect();
        Self { buckets, down: Mutex::new(false), unanswered: AtomicU64::new(0) }
    }

    pub async fn wipe(&self, bucket: u16) {
        *self.buckets[usize::from(bucket)].lock().await = Bucket::new();
    }

    /// Puts a bucket back to an older copy of itself: only its first `share`/8 changes.
    pub async fn go_back(&self, bucket: u16, share: usize) {
        let mut slot = self.buckets[usize::from(bucket)].lock().await;
        let mut older = Bucket::new();
        for change in &slot.changes[..slot.changes.len() * share / 8] {
            older.make(change.clone()).await.expect("memory store");
        }
        *slot = older;
    }

    /// Keys that may expire do.
    pub async fn evict(&self, sagas: &[DurableSaga]) {
        self.settle(sagas, &Written::default()).await.expect("memory store");
        for bucket in &self.buckets {
            bucket.lock().await.make(Change::Pass).await.expect("memory store");
        }
    }

    fn up(&self) -> Result<()> {
        match *self.down.lock().expect("not poisoned") {
            true => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                Err(crate::error::Error::unavailable("hot store is down"))
            }
            false => Ok(()),
        }
    }

    /// Whether it answers or not.
    pub async fn stored_marks(&self, bucket: u16) -> Vec<(ChainId, Mark)> {
        self.store(bucket).await.marks(0).await.expect("memory store")
    }

    async fn store(&self, bucket: u16) -> Arc<MemoryHot> {
        self.buckets[usize::from(bucket)].lock().await.store.clone()
    }
}

#[async_trait]
impl HotStore for Buckets {
    fn buckets(&self) -> u16 {
        self.buckets.len() as u16
    }

    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written> {
        let mut written = Written { token, ..Written::default() };
        for bucket in 0..self.buckets() {
            let mut part = batch.clone();
            part.retain(|saga| self.bucket(saga), |of| of == bucket);
            if !part.is_empty() {
                self.buckets[usize::from(bucket)].lock().await.make(Change::Write(part, token)).await?;
                written.pieces.insert(bucket, 1);
            }
        }
        Ok(written)
    }

    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        let mut outcomes = Vec::new();
        for wanted in moves {
            // Each bucket is a store of one.
            let pieces = written.pieces.get(&wanted.bucket).map(|pieces| (0, *pieces)).into_iter().collect();
            let written = Written { token: written.token, pieces };
            let mut bucket = self.buckets[usize::from(wanted.bucket)].lock().await;
            outcomes.extend(bucket.make(Change::Mark(wanted.clone(), written)).await?);
        }
        Ok(outcomes)
    }

    async fn marks(&self, bucket: u16) -> Result<Vec<(ChainId, Mark)>> {
        self.up()?;
        self.store(bucket).await.marks(0).await
    }

    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>> {
        self.up()?;
        let mut reads = Vec::new();
        for query in queries {
            reads.extend(self.store(self.bucket(&query.saga)).await.read(std::slice::from_ref(query)).await?);
        }
        Ok(reads)
    }

    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        let mut written = written.clone();
        for bucket in 0..self.buckets() {
            let part: Vec<DurableSaga> = sagas.iter().filter(|durable| self.bucket(&durable.saga) == bucket).cloned().collect();
            if !part.is_empty() {
                let before = Written { token: written.token, pieces: [(0, written.pieces(bucket))].into() };
                self.buckets[usize::from(bucket)].lock().await.make(Change::Settle(part, before)).await?;
                *written.pieces.entry(bucket).or_default() += 1;
            }
        }
        Ok(written)
    }

    async fn forget(&self, sagas: &[SagaId]) -> Result<()> {
        for saga in sagas {
            self.buckets[usize::from(self.bucket(saga))].lock().await.make(Change::Forget(saga.clone())).await?;
        }
        Ok(())
    }

    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>> {
        self.up()?;
        let mut all = IndexRead { facts: Vec::new(), marks: Vec::new(), kept_from: Micros::MIN, more: false };
        for bucket in 0..self.buckets() {
            let read = self.store(bucket).await.failures(query, usize::MAX).await?;
            gather(&mut all, read, bucket);
        }
        all.facts.sort_by_key(|fact| std::cmp::Reverse((fact.at, fact.sequence)));
        cut(&mut all, limit);
        Ok(all)
    }

    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>> {
        self.up()?;
        let mut all = IndexRead { facts: Vec::new(), marks: Vec::new(), kept_from: Micros::MIN, more: false };
        for bucket in 0..self.buckets() {
            let read = self.store(bucket).await.activity(query, usize::MAX).await?;
            gather(&mut all, read, bucket);
        }
        all.facts.sort_by_key(|fact| std::cmp::Reverse(fact.minute));
        cut(&mut all, limit);
        Ok(all)
    }

    async fn drop_indexes_before(&self, minute: i64, _latest: i64) -> Result<()> {
        for bucket in &self.buckets {
            bucket.lock().await.make(Change::Drop(minute)).await?;
        }
        Ok(())
    }

    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        self.store(bucket).await.holds(bucket, before, skip, limit).await
    }

    async fn hold(&self, holds: &[Hold]) -> Result<()> {
        for bucket in 0..self.buckets() {
            let part: Vec<Hold> = holds.iter().filter(|hold| hold.bucket == bucket).cloned().collect();
            self.store(bucket).await.hold(&part).await?;
        }
        Ok(())
    }

    async fn release(&self, holds: &[Hold]) -> Result<()> {
        for bucket in 0..self.buckets() {
            self.store(bucket).await.release(holds).await?;
        }
        Ok(())
    }

    async fn takes_writes(&self) -> Result<()> {
        self.up()
    }

    async fn health(&self) -> Result<HotHealth> {
        Ok(HotHealth::default())
    }
}

fn gather<F>(all: &mut IndexRead<F>, read: IndexRead<F>, bucket: u16) {
    all.facts.extend(read.facts);
    all.marks.extend(read.marks.into_iter().map(|(_, chain, mark)| (bucket, chain, mark)));
    all.kept_from = all.kept_from.max(read.kept_from);
}

fn cut<F>(all: &mut IndexRead<F>, limit: usize) {
    all.more = all.facts.len() > limit;
    all.facts.truncate(limit);
}
