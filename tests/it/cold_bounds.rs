//! A chain of thousands of segments: reads never list and stay within a few requests; and a store that fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use resaga::cold::chain::{Appended, ChainWriter};
use resaga::cold::keys;
use resaga::cold::object_store::ObjectStore;
use resaga::cold::reader::ColdReader;
use resaga::saga::event::Kind;
use resaga::saga::fold::Saga;
use resaga::saga::position::{Offset, SagaId};
use resaga::saga::time::Micros;

use crate::cold_rows::{Log, NOW, SECOND, chain, directory, event, folder, with_context};
use crate::faults::objects::{CountedObjects, FaultyObjects, Rates};

const CACHE: u64 = 64 << 10;

#[tokio::test]
async fn look_ups_in_a_thousand_segments_take_few_requests_and_no_listing() {
    look_ups_are_bounded(4 * 256 + 3 * 16 + 5).await;
}

#[tokio::test]
#[ignore = "takes minutes: tests/run --full"]
async fn look_ups_in_thousands_of_segments_take_few_requests_and_no_listing() {
    // More than one level-3 file.
    look_ups_are_bounded(4_096 + 256 + 3 * 16 + 5).await;
}

async fn look_ups_are_bounded(segments: u64) {
    let folder = folder();
    let store = Arc::new(CountedObjects::new(directory(folder.path())));
    let mut writer = ChainWriter::open(store.clone(), chain(), Some(Offset(0))).await.expect("open");
    let mut log = Log::default();
    for number in 0..segments {
        // One saga of its own, and one that comes back every 100 segments.
        log.read(with_context(&format!("own {number}"), Kind::SagaStarted, &format!(r#"{{"n":{number}}}"#)));
        log.read(event(&format!("back {}", number % 100), Kind::StepStarted));
        let segment = log.segment(writer.next());
        log.rows.retain(|row| row.entry.event.saga_id.as_str() == "back 7");
        let done = writer.append(&segment).await.expect("append");
        assert!(matches!(done, Appended::Created { .. }));
    }
    assert!((0..segments).all(|n| writer.may_contain(&SagaId::from(format!("own {n}").as_str()))));
    let wrong = (0..20_000).filter(|n| writer.may_contain(&SagaId::from(format!("never {n}").as_str()))).count();
    assert!(wrong <= 20, "{wrong} of 20000 were never there");

    store.take_reads();
    let again = ChainWriter::open(store.clone(), chain(), None).await.expect("open again");
    assert_eq!((again.next(), again.newest()), (writer.next(), writer.newest()));
    let opening = store.take_reads();
    assert!(opening <= 30, "{opening} requests to find the end");

    let reader = ColdReader::new(store.clone(), CACHE);
    reader.follow(&chain()).await.expect("follow");
    let opening = store.take_reads();
    assert!(opening <= 30, "{opening} requests to follow");
    reader.follow(&chain()).await.expect("follow");
    assert_eq!(store.take_reads(), 1, "nothing is new");

    let mut costs = Vec::new();
    for number in (0..segments).step_by(37) {
        costs.push(one_entry_of(&reader, &store, number).await);
    }
    // Nothing is in the cache here: a block of the catalog, the index of the segment, the data.
    assert!(costs.iter().all(|cost| *cost <= 3), "{costs:?}");
    let reader = ColdReader::new(store.clone(), 64 << 20);
    reader.follow(&chain()).await.expect("follow");
    store.take_reads();
    let mut costs = Vec::new();
    for number in (0..segments).step_by(3) {
        costs.push(one_entry_of(&reader, &store, number).await);
    }
    costs.sort_unstable();
    assert!(costs[costs.len() / 2] <= 2 && *costs.last().expect("some") <= 3, "{costs:?}");

    // A saga that goes through the whole chain, at a time in the middle of it.
    let saga = SagaId::from("back 7");
    let all = reader.segments_of(&chain(), &saga).await.expect("segments");
    let expected: Vec<u64> = (0..segments).filter(|n| n % 100 == 7).collect();
    assert_eq!(all.iter().map(|s| s.segment.ordinal).collect::<Vec<_>>(), expected);
    store.take_reads();
    for upto in [NOW + 300 * SECOND, NOW + 1_029 * SECOND, i64::MAX] {
        let upto = Micros(upto);
        let entries = reader.entries_at(&chain(), &saga, upto).await.expect("find");
        let mut slot = entries[0].saga.as_deref().cloned();
        for stored in entries.iter().skip(1).filter(|stored| stored.entry.effective_time <= upto) {
            Saga::apply(&mut slot, &stored.entry);
        }
        assert_eq!(slot, log.naive(&saga, upto));
        let cost = store.take_reads();
        assert!(cost <= 4, "{cost}");
    }
    let never = (0..1_000).map(|n| SagaId::from(format!("never {n}").as_str()));
    for saga in never {
        assert_eq!(reader.segments_of(&chain(), &saga).await, Ok(vec![]));
    }
    assert!(store.take_reads() <= 2, "sagas never seen cost nothing");
    assert_eq!(store.lists.load(Ordering::SeqCst), 0);
}

/// Requests that it takes to read the newest entry of a saga with one.
async fn one_entry_of(reader: &ColdReader, store: &CountedObjects, number: u64) -> u64 {
    let saga = SagaId::from(format!("own {number}").as_str());
    let entries = reader.entries_at(&chain(), &saga, Micros::MAX).await.expect("find");
    // Two events a segment, the saga's own one first.
    let places: Vec<i64> = entries.iter().map(|stored| stored.entry.position.offset.0).collect();
    assert_eq!(places, [2 * number as i64]);
    store.take_reads()
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_and_takes_up_what_the_catalog_gained() {
    let folder = folder();
    let store = Arc::new(CountedObjects::new(directory(folder.path())));
    let mut writer = ChainWriter::open(store.clone(), chain(), Some(Offset(0))).await.expect("open");
    let reader = ColdReader::new(store.clone(), CACHE);
    let mut log = Log::default();
    for number in 0..600u64 {
        log.read(event(&format!("s{number}"), Kind::SagaStarted));
        writer.append(&log.segment(writer.next())).await.expect("append");
        if number < 300 || number == 599 {
            assert_eq!(reader.follow(&chain()).await.expect("follow").segments, number + 1);
        }
    }
    let cost = store.take_reads();
    assert!(cost < 300 * 3 + 60, "{cost} requests");
    for number in 0..600 {
        let saga = SagaId::from(format!("s{number}").as_str());
        let found = reader.segments_of(&chain(), &saga).await.expect("segments");
        assert_eq!(found.iter().map(|s| s.segment.ordinal).collect::<Vec<_>>(), [number]);
    }
}

#[tokio::test]
async fn a_missing_or_damaged_catalog_is_gone_round_and_healed() {
    let folder = folder();
    let store = directory(folder.path());
    let mut writer = ChainWriter::open(store.clone(), chain(), Some(Offset(0))).await.expect("open");
    let mut log = Log::default();
    for number in 0..300u64 {
        log.read(event(&format!("s{number}"), Kind::SagaStarted));
        writer.append(&log.segment(writer.next())).await.expect("append");
    }
    store.delete(&keys::catalog(&chain(), 2, 0)).await.expect("delete");
    store.delete(&keys::catalog(&chain(), 1, 3)).await.expect("delete");
    let damaged = folder.path().join("data").join(keys::catalog(&chain(), 1, 17));
    let mut bytes = std::fs::read(&damaged).expect("read");
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).expect("write");

    let everything_is_found = async || {
        let reader = ColdReader::new(store.clone(), CACHE);
        assert_eq!(reader.follow(&chain()).await.expect("follow").segments, 300);
        for number in 0..300 {
            let saga = SagaId::from(format!("s{number}").as_str());
            assert_eq!(reader.segments_of(&chain(), &saga).await.expect("segments").len(), 1, "{number}");
        }
    };
    everything_is_found().await;
    let again = ChainWriter::open(store.clone(), chain(), None).await.expect("open");
    assert_eq!(again.next(), Offset(300));
    for (level, number) in [(2, 0), (1, 3)] {
        let healed = store.head(&keys::catalog(&chain(), level, number)).await.expect("head");
        assert!(healed.is_some(), "level {level} number {number}");
    }
    everything_is_found().await;
}

#[tokio::test]
async fn a_store_that_fails_and_loses_replies_leaves_a_whole_chain() {
    for seed in 0..6 {
        let run = async || {
            let folder = folder();
            let rates = Rates { before: 100, after: 150, slow_down: 50, slow: 5 };
            let inner = directory(folder.path());
            let store = Arc::new(FaultyObjects::new(inner.clone(), seed, rates));
            let mut log = Log::default();
            (0..120)
                .for_each(|n| log.read(with_context(&format!("s{}", n % 9), Kind::ContextUpdated, &format!("{{\"n\":{n}}}"))));
            let mut writer = loop {
                if let Ok(writer) = ChainWriter::open(store.clone(), chain(), Some(Offset(0))).await {
                    break writer;
                }
            };
            while writer.next() < Offset(120) {
                match writer.append(&log.segment_to(writer.next(), writer.next().0 + 2)).await {
                    Ok(done) => assert!(matches!(done, Appended::Created { .. }), "{done:?}"),
                    Err(error) => assert!(error.is_unavailable(), "{error}"),
                }
            }
            let reader = ColdReader::new(inner, CACHE);
            assert_eq!(reader.follow(&chain()).await.expect("follow").next, Some(Offset(120)));
            for n in 0..9 {
                let saga = SagaId::from(format!("s{n}").as_str());
                let mut sequences = Vec::new();
                for segment in reader.segments_of(&chain(), &saga).await.expect("segments") {
                    sequences.extend(reader.load(&segment, &saga).await.expect("load").iter().map(|e| e.entry.sequence.0));
                }
                let whole = log.rows.iter().filter(|row| row.entry.event.saga_id == saga).count() as u64;
                assert_eq!(sequences, (1..=whole).collect::<Vec<_>>());
            }
            store.set_rates(Rates::default());
            store.set_down(true);
            assert!(store.head("x").await.is_err_and(|e| e.is_unavailable()));
            store.trace()
        };
        assert_eq!(run().await, run().await, "the same seed gives the same faults");
    }
}
