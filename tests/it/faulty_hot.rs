//! What the store that fails on a schedule does itself: the same each time, and as a store does that was killed or failed over.

use resaga::hot::{HotBatch, HotQuery, HotStore, Mark, MarkMove, MarkOutcome, Tokens, Written};
use resaga::saga::time::Micros;

use crate::faults::hot::{FaultyHot, Rates};
use crate::hot_contract::{chain, config, mark, member, saga};

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
    assert_eq!(store.without_faults().await.marks(0).await.expect("the store itself is up"), []);
}
/// As the owner of a partition does, with a store that fails over at any moment: entry after entry, each followed by
/// its mark, all that is not proved written again.
#[tokio::test]
async fn whatever_copy_a_store_is_put_back_to_a_mark_that_moved_has_its_entries() {
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
            let query = HotQuery::new("s".into(), Micros::MAX, 100);
            let read = store.read(&[query]).await.expect("read").remove(0);
            if let Some((_, mark)) = read.marks.first() {
                assert!(read.members.len() as i64 >= mark.to.0, "seed {seed}: {} of {}", read.members.len(), mark.to);
                proved += 1;
            }
            store.set_rates(rates).await;
        }
        assert!(proved > 0);
    }
}
