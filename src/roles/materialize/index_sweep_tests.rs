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
