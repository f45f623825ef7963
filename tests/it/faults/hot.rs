//! A hot store that fails before or after it did what was asked, is slow, is wiped, or is put back to an older copy of
//! itself, as a Redis does that was killed, flushed or failed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resaga::error::{Error, Result};
use resaga::hot::{
    ActivityFact, DurableSaga, FailureFact, Hold, HotBatch, HotHealth, HotQuery, HotRead, HotStore, IndexQuery, IndexRead, Mark,
    MarkMove, MarkOutcome, Token, Written,
};
use resaga::saga::position::{ChainId, SagaId};
use tokio::sync::{Mutex, MutexGuard};

use super::Dice;

/// How often each fault strikes, in calls per thousand; they exclude each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Nothing was done; the caller hears `Unavailable`.
    pub before: u64,
    /// It was done; the caller hears `Unavailable` all the same.
    pub after: u64,
    /// Up to 20 ms late.
    pub slow: u64,
    /// Everything is gone, then the call is executed.
    pub wiped: u64,
    /// The last 1 to 20 changes are gone, then the call is executed.
    pub older_copy: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Before,
    After,
    Slow(Duration),
    Wiped,
    OlderCopy { changes: usize },
}

type NewStore = Box<dyn Fn() -> Arc<dyn HotStore> + Send + Sync>;

pub struct FaultyHot {
    /// Makes an empty store.
    new_store: NewStore,
    buckets: u16,
    down: AtomicBool,
    state: Mutex<State>,
}

struct State {
    store: Arc<dyn HotStore>,
    /// Every change since the store was empty, to build an older copy from.
    changes: Vec<Change>,
    dice: Dice,
    rates: Rates,
    trace: Vec<(&'static str, Fault)>,
}

#[derive(Clone)]
enum Change {
    Write(HotBatch, Token),
    MoveMarks(Vec<MarkMove>, Written),
    Settle(Vec<DurableSaga>, Written),
    Forget(Vec<SagaId>),
    DropBefore(i64),
    Hold(Vec<Hold>),
    Release(Vec<Hold>),
}

impl Change {
    async fn redo(&self, store: &dyn HotStore) -> Result<()> {
        match self {
            Self::Write(batch, token) => store.write(batch, *token).await.map(drop),
            Self::MoveMarks(moves, written) => store.move_marks(moves, written).await.map(drop),
            Self::Settle(sagas, written) => store.settle(sagas, written).await.map(drop),
            Self::Forget(sagas) => store.forget(sagas).await,
            Self::DropBefore(minute) => store.drop_indexes_before(*minute, i64::MAX).await,
            Self::Hold(holds) => store.hold(holds).await,
            Self::Release(holds) => store.release(holds).await,
        }
    }
}

impl FaultyHot {
    pub fn new(seed: u64, rates: Rates, new_store: impl Fn() -> Arc<dyn HotStore> + Send + Sync + 'static) -> Self {
        let store = new_store();
        let buckets = store.buckets();
        let state = State { store, changes: Vec::new(), dice: Dice::new(seed), rates, trace: Vec::new() };
        Self { new_store: Box::new(new_store), buckets, down: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// While down every call is `Unavailable` and does nothing.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub async fn set_rates(&self, rates: Rates) {
        self.state.lock().await.rates = rates;
    }

    pub async fn wipe(&self) {
        self.state.lock().await.forget(&self.new_store, usize::MAX).await;
    }

    /// Puts the store back to what it was so many changes ago.
    pub async fn put_back(&self, changes: usize) {
        self.state.lock().await.forget(&self.new_store, changes).await;
    }

    /// The store as it is now, without faults.
    pub async fn without_faults(&self) -> Arc<dyn HotStore> {
        self.state.lock().await.store.clone()
    }

    /// What struck so far.
    pub async fn trace(&self) -> Vec<(&'static str, Fault)> {
        self.state.lock().await.trace.clone()
    }

    /// Waits for the call's turn and lets strike what strikes before it.
    async fn enter(&self, name: &'static str) -> Result<Turn<'_>> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable(format!("{name}: fault down")));
        }
        let mut state = self.state.lock().await;
        let fault = state.throw();
        if let Some(fault) = fault {
            state.trace.push((name, fault));
        }
        match fault {
            Some(Fault::Before) => return Err(Error::unavailable(format!("{name}: fault before"))),
            Some(Fault::Wiped) => state.forget(&self.new_store, usize::MAX).await,
            Some(Fault::OlderCopy { changes }) => state.forget(&self.new_store, changes).await,
            Some(Fault::Slow(wait)) => {
                drop(state);
                tokio::time::sleep(wait).await;
                state = self.state.lock().await;
            }
            Some(Fault::After) | None => {}
        }
        Ok(Turn { state, name, fault })
    }
}

/// A call in progress: no other goes on meanwhile.
struct Turn<'a> {
    state: MutexGuard<'a, State>,
    name: &'static str,
    fault: Option<Fault>,
}

impl Turn<'_> {
    fn store(&self) -> &dyn HotStore {
        &*self.state.store
    }

    fn end<T>(mut self, change: Option<Change>, answer: Result<T>) -> Result<T> {
        let answer = answer?;
        self.state.changes.extend(change);
        match self.fault {
            Some(Fault::After) => Err(Error::unavailable(format!("{}: fault after", self.name))),
            _ => Ok(answer),
        }
    }
}

impl State {
    fn throw(&mut self) -> Option<Fault> {
        // Always as many throws, so that the schedule of one rate does not depend on another's detail.
        let (mut face, detail) = (self.dice.below(1_000), self.dice.next());
        let faults = [
            (self.rates.before, Fault::Before),
            (self.rates.after, Fault::After),
            (self.rates.slow, Fault::Slow(Duration::from_millis(1 + detail % 20))),
            (self.rates.wiped, Fault::Wiped),
            (self.rates.older_copy, Fault::OlderCopy { changes: 1 + (detail % 20) as usize }),
        ];
        for (rate, fault) in faults {
            if face < rate {
                return Some(fault);
            }
            face -= rate;
        }
        None
    }

    async fn forget(&mut self, new_store: &NewStore, changes: usize) {
        self.changes.truncate(self.changes.len().saturating_sub(changes));
        self.store = new_store();
        for change in &self.changes {
            change.redo(&*self.store).await.expect("redo a change that once went through");
        }
    }
}

#[async_trait]
impl HotStore for FaultyHot {
    fn buckets(&self) -> u16 {
        self.buckets
    }
    async fn write(&self, batch: &HotBatch, token: Token) -> Result<Written> {
        let turn = self.enter("write").await?;
        let answer = turn.store().write(batch, token).await;
        turn.end(Some(Change::Write(batch.clone(), token)), answer)
    }
    async fn move_marks(&self, moves: &[MarkMove], written: &Written) -> Result<Vec<MarkOutcome>> {
        let turn = self.enter("move_marks").await?;
        let answer = turn.store().move_marks(moves, written).await;
        turn.end(Some(Change::MoveMarks(moves.to_vec(), written.clone())), answer)
    }
    async fn marks(&self, bucket: u16) -> Result<Vec<(ChainId, Mark)>> {
        let turn = self.enter("marks").await?;
        let answer = turn.store().marks(bucket).await;
        turn.end(None, answer)
    }
    async fn read(&self, queries: &[HotQuery]) -> Result<Vec<HotRead>> {
        let turn = self.enter("read").await?;
        let answer = turn.store().read(queries).await;
        turn.end(None, answer)
    }
    async fn settle(&self, sagas: &[DurableSaga], written: &Written) -> Result<Written> {
        let turn = self.enter("settle").await?;
        let answer = turn.store().settle(sagas, written).await;
        turn.end(Some(Change::Settle(sagas.to_vec(), written.clone())), answer)
    }
    async fn forget(&self, sagas: &[SagaId]) -> Result<()> {
        let turn = self.enter("forget").await?;
        let answer = turn.store().forget(sagas).await;
        turn.end(Some(Change::Forget(sagas.to_vec())), answer)
    }
    async fn failures(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<FailureFact>> {
        let turn = self.enter("failures").await?;
        let answer = turn.store().failures(query, limit).await;
        turn.end(None, answer)
    }
    async fn activity(&self, query: &IndexQuery, limit: usize) -> Result<IndexRead<ActivityFact>> {
        let turn = self.enter("activity").await?;
        let answer = turn.store().activity(query, limit).await;
        turn.end(None, answer)
    }
    async fn drop_indexes_before(&self, minute: i64, latest: i64) -> Result<()> {
        let turn = self.enter("drop_indexes_before").await?;
        let answer = turn.store().drop_indexes_before(minute, latest).await;
        turn.end(Some(Change::DropBefore(minute)), answer)
    }
    async fn holds(&self, bucket: u16, before: i64, skip: usize, limit: usize) -> Result<Vec<Hold>> {
        let turn = self.enter("holds").await?;
        let answer = turn.store().holds(bucket, before, skip, limit).await;
        turn.end(None, answer)
    }
    async fn hold(&self, holds: &[Hold]) -> Result<()> {
        let turn = self.enter("hold").await?;
        let answer = turn.store().hold(holds).await;
        turn.end(Some(Change::Hold(holds.to_vec())), answer)
    }
    async fn release(&self, holds: &[Hold]) -> Result<()> {
        let turn = self.enter("release").await?;
        let answer = turn.store().release(holds).await;
        turn.end(Some(Change::Release(holds.to_vec())), answer)
    }
    fn max_member(&self) -> usize {
        usize::MAX
    }
    async fn takes_writes(&self) -> Result<()> {
        let turn = self.enter("takes_writes").await?;
        let answer = turn.store().takes_writes().await;
        turn.end(None, answer)
    }
    async fn health(&self) -> Result<HotHealth> {
        let turn = self.enter("health").await?;
        let answer = turn.store().health().await;
        turn.end(None, answer)
    }
}
