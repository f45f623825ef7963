//! Ridding the hot indexes of old minutes, which every process does to the same store: what any owner has there that cold
//! does not have yet is held by name, and stays.
//!
//! An owner holds a late fact when it writes it, and what is old and still not durable once a minute; whoever sweeps lets
//! go of what is durable. Knows chains and index buckets; must not know sagas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::error::Result;
use crate::history::History;
use crate::hot::index_bucket::IndexBucket;
use crate::hot::{Hold, HotBatch, HotStore};
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

use super::{Materialize, facts};

/// So many minutes before they are dropped facts are held: sweepers and owners need not agree to the minute.
const HELD_AHEAD: i64 = 60;
/// Holds read in one round trip: a backlog of old events may have one for each fact.
const HOLDS_AT_ONCE: usize = 10_000;

/// When what is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Facts of earlier minutes are dropped.
    pub before: i64,
    /// No earlier sweep can rightly have dropped anything after this minute.
    pub latest: i64,
}

impl Sweep {
    /// `now`: surely past; `latest`: perhaps not reached.
    pub fn at(now: Micros, latest: Micros, keep: i64) -> Self {
        Self { before: facts::minute(now.saturating_add(keep.saturating_neg())), latest: facts::minute(latest) }
    }

    /// Facts of earlier minutes are held until they are durable.
    pub fn held_before(latest: Micros, keep: i64) -> i64 {
        facts::minute(latest.saturating_add(keep.saturating_neg())).saturating_add(HELD_AHEAD)
    }
}

/// Puts holds on the index buckets of the batch's old facts: they are not durable before the chain is, up to `until`.
pub fn hold_old(batch: &mut HotBatch, before: i64, chain: &ChainId, until: Offset, hot: &dyn HotStore) {
    let mut index_buckets: BTreeSet<(u16, IndexBucket)> = BTreeSet::new();
    for fact in batch.failures.iter().filter(|fact| facts::minute(fact.at) < before) {
        index_buckets.insert((hot.bucket(&fact.saga), IndexBucket::of_failure(fact)));
    }
    for fact in batch.activity.iter().filter(|fact| fact.minute < before) {
        index_buckets.insert((hot.bucket(&fact.saga), IndexBucket::of_activity(fact)));
    }
    batch.holds.extend(index_buckets.into_iter().map(|(bucket, index_bucket)| Hold {
        bucket,
        index_bucket,
        chain: chain.clone(),
        until,
    }));
}

impl Materialize {
    fn index_keep(&self) -> i64 {
        i64::try_from(self.settings.index_ttl.as_micros()).unwrap_or(i64::MAX)
    }

    /// Index facts of earlier minutes may be dropped soon, by any process.
    pub(super) fn held_before(&self) -> i64 {
        Sweep::held_before(self.deps.clock.latest(Instant::now(), (self.deps.now)()), self.index_keep())
    }

    pub(super) fn sweep_indexes(&mut self) {
        // One at a time: a slow store gets no more to do for being slow.
        if self.sweep.as_ref().is_some_and(|sweep| !sweep.is_finished()) {
            return;
        }
        let (deps, held_before) = (&self.deps, self.held_before());
        let mut old = HotBatch::default();
        for owned in self.owned.values() {
            let mut batch = owned.partition.undurable_facts(held_before);
            hold_old(&mut batch, held_before, &owned.partition.chain, owned.partition.position, &*deps.hot);
            old.holds.extend(batch.holds);
        }
        // By the brokers' clock: one that is ahead would drop what is searched for, for everybody.
        let Some(now) = self.broker_time() else { return };
        let plan = Sweep::at(now, deps.clock.latest(Instant::now(), (deps.now)()), self.index_keep());
        let (hot, history, log_history) = (deps.hot.clone(), deps.history.clone(), deps.log_history.clone());
        self.sweep = Some(tokio::spawn(async move {
            if let Err(reason) = sweep(&*hot, [&history, &log_history], old.holds, plan).await {
                tracing::debug!(%reason, "old index facts not dropped yet");
            }
        }));
    }
}

/// Holds what comes of age here, lets go of what is durable, drops the rest.
pub async fn sweep(hot: &dyn HotStore, histories: [&History; 2], holds: Vec<Hold>, sweep: Sweep) -> Result<()> {
    if !holds.is_empty() {
        hot.hold(&holds).await?;
    }
    let mut ends = Ends { histories, known: BTreeMap::new() };
    for bucket in 0..hot.buckets() {
        let mut kept = 0;
        loop {
            let page = hot.holds(bucket, sweep.before, kept, HOLDS_AT_ONCE).await?;
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
            if read < HOLDS_AT_ONCE {
                break;
            }
        }
    }
    hot.drop_indexes_before(sweep.before, sweep.latest).await
}

/// How far chains are durable, each asked once.
struct Ends<'a> {
    histories: [&'a History; 2],
    known: BTreeMap<ChainId, Offset>,
}

impl Ends<'_> {
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
    use std::sync::Arc;
    use std::time::Duration;

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
        sweep(hot, histories, Vec::new(), Sweep::at(NOW, NOW, KEEP)).await.expect("swept");
    }

    #[tokio::test]
    async fn a_failure_of_long_ago_is_found_until_it_is_durable_whoever_sweeps() {
        let directory = tempfile::tempdir().expect("directory");
        let objects: Arc<dyn ObjectStore> = Arc::new(Directory::open(directory.path()).expect("store"));
        let hot = Arc::new(MemoryHot::new(Duration::from_secs(1), Box::new(|| Duration::ZERO)));
        let cold = Arc::new(ColdReader::new(objects.clone(), 1 << 20));
        let history = History::new(hot.clone(), cold, Arc::new(Chains::new(Vec::new())), 100);

        let mut batch = HotBatch { failures: vec![failure("long-ago", 40), failure("today", 0)], ..HotBatch::default() };
        hold_old(&mut batch, Sweep::held_before(NOW, KEEP), &chain(), Offset(2), &*hot);
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
        let all = HOLDS_AT_ONCE as i64 * 2 + 1;
        let bucket = hot.bucket(&"long-ago".into());
        // Each third is not durable yet.
        let until = |at: i64| Offset(if at % 3 == 0 { 9 } else { 5 });
        let index_bucket = IndexBucket::of_failure(&failure("long-ago", 40));
        let hold = |at| Hold {
            bucket,
            index_bucket: IndexBucket { minute: index_bucket.minute - at, ..index_bucket.clone() },
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
