//! Ridding the hot indexes of old minutes, which every process does to the same store: what any owner has there that cold
//! does not have yet is held by name, and stays.
//!
//! An owner holds a late fact when it writes it, and what is old and still not durable once a minute; whoever sweeps
//! releases what is durable. Knows chains and index buckets; must not know sagas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::error::Result;
use crate::history::History;
use crate::hot::index_bucket::IndexBucket;
use crate::hot::{Hold, HotBatch, HotStore};
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

use super::clocks::Clocks;
use super::content::Histories;
use super::index_facts;
use super::partitions::Partitions;

/// How often old minutes are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// So many minutes before they are dropped facts are held: sweepers and owners need not agree to the minute.
const HELD_AHEAD: i64 = 60;
/// Holds read in one round trip: a backlog of old events may have one for each fact.
const MAX_HOLDS_AT_ONCE: usize = 10_000;

/// How long index facts are kept, by the brokers' clock: one that is ahead would drop what is searched for, for everybody.
#[derive(Clone)]
pub struct IndexRetention {
    clocks: Clocks,
    /// Microseconds.
    keep: i64,
}

impl IndexRetention {
    pub fn new(clocks: Clocks, ttl: Duration) -> Self {
        Self { clocks, keep: i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX) }
    }

    /// Index facts of earlier minutes may be dropped soon, by any process.
    pub fn held_before(&self) -> i64 {
        held_before(self.clocks.latest(), self.keep)
    }

    /// `None`: nothing tells the time.
    fn sweep(&self) -> Option<Sweep> {
        Some(Sweep::at(BrokerTime { past: self.clocks.past()?, latest: self.clocks.latest() }, self.keep))
    }
}

/// What is known of the time at the brokers.
#[derive(Debug, Clone, Copy)]
struct BrokerTime {
    past: Micros,
    /// It may not be reached yet.
    latest: Micros,
}

/// When what is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Facts of earlier minutes are dropped.
    before: i64,
    /// No earlier sweep can rightly have dropped anything after this minute.
    latest: i64,
}

impl Sweep {
    fn at(time: BrokerTime, keep: i64) -> Self {
        let before = index_facts::minute(time.past.saturating_add(keep.saturating_neg()));
        Self { before, latest: index_facts::minute(time.latest) }
    }
}

/// Facts of earlier minutes are held until they are durable.
fn held_before(latest: Micros, keep: i64) -> i64 {
    index_facts::minute(latest.saturating_add(keep.saturating_neg())).saturating_add(HELD_AHEAD)
}

/// Puts holds on the index buckets of the batch's facts of minutes before `minute`: they are not durable before the chain is, up to
/// `until`.
pub fn hold_old(batch: &mut HotBatch, minute: i64, chain: &ChainId, until: Offset, hot: &dyn HotStore) {
    let mut buckets: BTreeSet<(u16, IndexBucket)> = BTreeSet::new();
    for fact in batch.failures.iter().filter(|fact| index_facts::minute(fact.at) < minute) {
        buckets.insert((hot.bucket(&fact.saga), IndexBucket::of_failure(fact)));
    }
    for fact in batch.activity.iter().filter(|fact| fact.minute < minute) {
        buckets.insert((hot.bucket(&fact.saga), IndexBucket::of_activity(fact)));
    }
    batch.holds.extend(buckets.into_iter().map(|(bucket, shelf)| Hold { bucket, shelf, chain: chain.clone(), until }));
}

/// Sweeps the indexes once a minute.
pub struct IndexSweeper {
    hot: Arc<dyn HotStore>,
    histories: Histories,
    retention: IndexRetention,
    swept_at: Instant,
    /// The sweep that was begun last.
    running: Option<JoinHandle<()>>,
}

impl IndexSweeper {
    pub fn new(hot: Arc<dyn HotStore>, histories: Histories, retention: IndexRetention, now: Instant) -> Self {
        Self { hot, histories, retention, swept_at: now, running: None }
    }

    pub fn sweep_if_due(&mut self, partitions: &Partitions, now: Instant) {
        if now.duration_since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            self.start(partitions);
        }
    }

    fn start(&mut self, partitions: &Partitions) {
        // One at a time: a slow store gets no more to do for being slow.
        if self.running.as_ref().is_some_and(|sweep| !sweep.is_finished()) {
            return;
        }
        let held_before = self.retention.held_before();
        let mut holds = Vec::new();
        for owned in partitions.values() {
            let mut batch = owned.partition.undurable_facts(held_before);
            hold_old(&mut batch, held_before, &owned.partition.chain, owned.partition.position, &*self.hot);
            holds.extend(batch.holds);
        }
        let Some(plan) = self.retention.sweep() else { return };
        let (hot, Histories { step_events, replay_log }) = (self.hot.clone(), self.histories.clone());
        self.running = Some(tokio::spawn(async move {
            if let Err(reason) = sweep(&*hot, [&step_events, &replay_log], holds, plan).await {
                tracing::debug!(%reason, "old index facts not dropped yet");
            }
        }));
    }
}

/// Holds what gets old here, releases what is durable, drops the rest.
async fn sweep(hot: &dyn HotStore, histories: [&History; 2], holds: Vec<Hold>, sweep: Sweep) -> Result<()> {
    if !holds.is_empty() {
        hot.hold(&holds).await?;
    }
    let mut ends = ChainEnds { histories, known: BTreeMap::new() };
    for bucket in 0..hot.buckets() {
        let mut kept = 0;
        loop {
            let page = hot.holds(bucket, sweep.before, kept, MAX_HOLDS_AT_ONCE).await?;
            let read = page.len();
            let mut durable = Vec::new();
            for hold in page {
                if hold.until <= ends.of(&hold.chain).await {
                    durable.push(hold);
                }
            }
            if !durable.is_empty() {
                hot.release(&durable).await?;
            }
            kept += read - durable.len();
            if read < MAX_HOLDS_AT_ONCE {
                break;
            }
        }
    }
    hot.drop_indexes_before(sweep.before, sweep.latest).await
}

/// How far chains are durable, each asked once.
struct ChainEnds<'a> {
    histories: [&'a History; 2],
    known: BTreeMap<ChainId, Offset>,
}

impl ChainEnds<'_> {
    async fn of(&mut self, chain: &ChainId) -> Offset {
        if let Some(end) = self.known.get(chain) {
            return *end;
        }
        // What an earlier incarnation has not made durable it never will.
        let is_past = self.histories.iter().any(|history| history.is_past(chain));
        let end = if is_past { Ok(Offset(i64::MAX)) } else { self.histories[0].durable_to(chain).await };
        // A chain that cannot be read keeps what is held for it; the rest is swept.
        let end = end.unwrap_or_else(|reason| {
            tracing::warn!(%chain, %reason, "index facts of a chain stay: how far it is durable is not known");
            Offset(i64::MIN)
        });
        self.known.insert(chain.clone(), end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::chain::ChainWriter;
    use crate::cold::directory::Directory;
    use crate::cold::object_store::ObjectStore;
    use crate::cold::reader::ColdReader;
    use crate::cold::segment::NewSegment;
    use crate::history::chains::Chains;
    use crate::hot::memory::MemoryHot;
    use crate::hot::{FailureFact, IndexQuery};
    use crate::saga::position::EntrySequence;

    const DAY: i64 = 86_400_000_000;
    const NOW: Micros = Micros(20_000 * DAY);
    const KEEP: i64 = 30 * DAY;

    fn chain() -> ChainId {
        ChainId { topic: "events".into(), incarnation: 0, partition: 0 }
    }

    fn failure(saga: &str, days_ago: i64) -> FailureFact {
        FailureFact {
            saga: saga.into(),
            saga_name: "order".into(),
            step: "charge".into(),
            compensation: false,
            at: NOW.saturating_add(-days_ago * DAY),
            sequence: EntrySequence(1),
            error_code: None,
            error_type: None,
        }
    }

    async fn found(hot: &MemoryHot) -> Vec<String> {
        let query = IndexQuery { since: Micros::MIN, until: Micros::MAX, saga_name: None, step: None, compensation: false };
        let read = hot.failures(&query, 10).await.expect("memory store");
        read.facts.into_iter().map(|fact| fact.saga.as_str().to_owned()).collect()
    }

    /// Another process's, or that of the replay log's materializer: it has no partition, so nothing to protect itself.
    async fn swept_by_another(hot: &MemoryHot, histories: [&History; 2]) {
        sweep(hot, histories, Vec::new(), Sweep::at(BrokerTime { past: NOW, latest: NOW }, KEEP)).await.expect("swept");
    }

    #[tokio::test]
    async fn a_failure_of_long_ago_is_found_until_it_is_durable_whoever_sweeps() {
        let directory = tempfile::tempdir().expect("directory");
        let objects: Arc<dyn ObjectStore> = Arc::new(Directory::open(directory.path()).expect("store"));
        let hot = Arc::new(MemoryHot::new(Duration::from_secs(1), Box::new(|| Duration::ZERO)));
        let cold = Arc::new(ColdReader::new(objects.clone(), 1 << 20));
        let history = History::new(hot.clone(), cold, Arc::new(Chains::new(Vec::new())), 100);

        let mut batch = HotBatch { failures: vec![failure("long-ago", 40), failure("today", 0)], ..HotBatch::default() };
        hold_old(&mut batch, held_before(NOW, KEEP), &chain(), Offset(2), &*hot);
        assert_eq!(batch.holds.len(), 1, "what is new need not be held");
        hot.write(&batch, crate::hot::Tokens::default().next()).await.expect("memory store");
        for _ in 0..2 {
            swept_by_another(&hot, [&history, &history]).await;
            assert_eq!(found(&hot).await, ["today", "long-ago"]);
        }

        let mut writer = ChainWriter::open(objects, chain(), Some(Offset(0))).await.expect("chain");
        writer.append(&NewSegment::empty(Offset(0), Offset(0))).await.expect("appended");
        swept_by_another(&hot, [&history, &history]).await;
        assert_eq!(found(&hot).await, ["today", "long-ago"], "offset 1 is not durable");
        writer.append(&NewSegment::empty(Offset(1), Offset(1))).await.expect("appended");
        swept_by_another(&hot, [&history, &history]).await;
        assert_eq!(found(&hot).await, ["today"]);
    }

    #[tokio::test]
    async fn of_more_holds_than_are_read_at_once_those_that_are_durable_go() {
        let directory = tempfile::tempdir().expect("directory");
        let objects: Arc<dyn ObjectStore> = Arc::new(Directory::open(directory.path()).expect("store"));
        let hot = Arc::new(MemoryHot::new(Duration::from_secs(1), Box::new(|| Duration::ZERO)));
        let cold = Arc::new(ColdReader::new(objects.clone(), 1 << 20));
        let history = History::new(hot.clone(), cold, Arc::new(Chains::new(Vec::new())), 100);
        let all = MAX_HOLDS_AT_ONCE as i64 * 2 + 1;
        let bucket = hot.bucket(&"long-ago".into());
        // Each third is not durable yet.
        let until = |at: i64| Offset(if at % 3 == 0 { 9 } else { 5 });
        let shelf = IndexBucket::of_failure(&failure("long-ago", 40));
        let hold = |at| Hold {
            bucket,
            shelf: IndexBucket { minute: shelf.minute - at, ..shelf.clone() },
            chain: chain(),
            until: until(at),
        };
        hot.hold(&(0..all).map(hold).collect::<Vec<_>>()).await.expect("memory store");
        let mut writer = ChainWriter::open(objects, chain(), Some(Offset(0))).await.expect("chain");
        writer.append(&NewSegment::empty(Offset(0), Offset(5))).await.expect("appended");
        swept_by_another(&hot, [&history, &history]).await;
        let left = hot.holds(bucket, i64::MAX, 0, all as usize).await.expect("memory store");
        assert!(left.iter().all(|hold| hold.until == Offset(9)));
        assert_eq!(left.len() as i64, (all + 2) / 3);
    }
}
