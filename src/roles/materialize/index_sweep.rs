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
    batch.holds.extend(buckets.into_iter().map(|(bucket, index_bucket)| Hold {
        bucket,
        index_bucket,
        chain: chain.clone(),
        until,
    }));
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
#[path = "index_sweep_tests.rs"]
mod tests;
