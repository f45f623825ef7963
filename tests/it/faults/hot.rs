//! A hot store that fails before or after it did what was asked, is slow, is wiped, or is put back to an older copy of
//! itself, as a Redis does that was killed, flushed or failed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resaga::error::{Error, Result};
use resaga::hot::{
    ActivityFact, DurableSaga, FailureFact, Hold, HotBatch, HotHealth, HotQuery, HotRead, HotStore, IndexQuery, IndexRead, Mark,
    MarkMove, MarkOutcome, Token, Tokens, Written,
};
use resaga::saga::position::{ChainId, SagaId};
use resaga::saga::time::Micros;
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
    /// Everything is gone, then the call is carried out.
    pub wiped: u64,
    /// The last 1 to 20 changes are gone, then the call is carried out.
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
    async fn range(&self, saga: &SagaId, since: Micros, until: Micros, limit: usize) -> Result<HotRead> {
        let turn = self.enter("range").await?;
        let answer = turn.store().range(saga, since, until, limit).await;
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

mod tests {
    use super::*;
    use crate::hot_contract::{chain, config, mark};

    fn faulty(seed: u64, rates: Rates) -> FaultyHot {
        FaultyHot::new(seed, rates, || resaga::hot::open(&config("memory://", 60_000)).expect("memory"))
    }

    fn mark_move(from: Option<i64>, to: i64) -> [MarkMove; 1] {
        [MarkMove { chain: chain(0), bucket: 0, expect: from.map(|to| mark(0, to)), new: mark(0, to) }]
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_faults_each_time() {
        let rates = Rates { before: 100, after: 100, slow: 50, wiped: 50, older_copy: 100 };
        let run = async |seed| {
            let store = faulty(seed, rates);
            for to in 1..200 {
                let _ = store.move_marks(&mark_move(None, to), &Written::default()).await;
                let _ = store.marks(0).await;
            }
            store.trace().await
        };
        let trace = run(7).await;
        assert!(trace.len() > 100);
        assert_eq!(run(7).await, trace);
        assert_ne!(run(8).await, trace);
    }

    #[tokio::test]
    async fn a_call_that_fails_after_it_was_done_was_done() {
        let store = faulty(1, Rates { after: 1_000, ..Rates::default() });
        assert!(store.move_marks(&mark_move(None, 1), &Written::default()).await.is_err());
        store.set_rates(Rates { before: 1_000, ..Rates::default() }).await;
        assert!(store.move_marks(&mark_move(Some(1), 2), &Written::default()).await.is_err());
        store.set_rates(Rates::default()).await;
        assert_eq!(store.marks(0).await.expect("marks"), [(chain(0), mark(0, 1))]);
    }

    #[tokio::test]
    async fn an_older_copy_has_the_older_mark_and_a_wiped_store_none() {
        let store = faulty(1, Rates::default());
        for to in 1..=5 {
            store.move_marks(&mark_move((to > 1).then(|| to - 1), to), &Written::default()).await.expect("move mark");
        }
        store.put_back(2).await;
        assert_eq!(store.marks(0).await.expect("marks"), [(chain(0), mark(0, 3))]);
        store.wipe().await;
        assert_eq!(store.marks(0).await.expect("marks"), []);
        store.set_down(true);
        assert!(store.marks(0).await.expect_err("down").is_unavailable());
    }
    /// As the owner of a partition does, with a store that fails over at any moment: entry after entry, each followed by
    /// its mark, all that is not proved written again.
    #[tokio::test]
    async fn whatever_copy_a_store_is_put_back_to_a_mark_that_moved_has_its_entries() {
        use crate::hot_contract::{member, saga};
        let rates = Rates { before: 50, after: 100, slow: 0, wiped: 20, older_copy: 200 };
        for seed in 0..20 {
            let (store, tokens) = (faulty(seed, rates), Tokens::default());
            let (mut known, mut proved) = (None, 0);
            for to in 1..60 {
                loop {
                    // What the mark last known does not vouch for.
                    let from = known.map_or(0, |mark: Mark| mark.to.0);
                    let members = (from..to).map(|n| member(n as u64, n));
                    let batch = HotBatch { sagas: vec![saga("s", members)], ..HotBatch::default() };
                    let Ok(written) = store.write(&batch, tokens.next()).await else { continue };
                    let wanted = MarkMove { chain: chain(0), bucket: 0, expect: known, new: mark(0, to) };
                    match store.move_marks(&[wanted], &written).await {
                        Ok(outcomes) => match outcomes[0] {
                            MarkOutcome::Moved => known = Some(mark(0, to)),
                            MarkOutcome::Found(found) => known = found,
                            MarkOutcome::Unproved => continue,
                        },
                        Err(_) => continue,
                    }
                    if known == Some(mark(0, to)) {
                        break;
                    }
                }
                store.set_rates(Rates::default()).await;
                let read = store.range(&"s".into(), Micros::MIN, Micros::MAX, 100).await.expect("read");
                if let Some((_, mark)) = read.marks.first() {
                    assert!(read.members.len() as i64 >= mark.to.0, "seed {seed}: {} of {}", read.members.len(), mark.to);
                    proved += 1;
                }
                store.set_rates(rates).await;
            }
            assert!(proved > 0);
        }
    }
}
