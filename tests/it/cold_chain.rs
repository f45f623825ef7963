//! Chains on a directory: what was appended is what is read, whoever appends and whatever breaks.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use resaga::cold::chain::{Appended, ChainWriter, is_written, newest_incarnation};
use resaga::cold::keys;
use resaga::cold::object_store::ObjectStore;
use resaga::cold::reader::ColdReader;
use resaga::cold::segment::NewSegment;
use resaga::error::Error;
use resaga::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use resaga::saga::fold::Saga;
use resaga::saga::json::Json;
use resaga::saga::position::{ChainId, Offset, SagaId};
use resaga::saga::time::Micros;

use crate::cold_rows::{Log, NOW, SECOND, chain, directory, event, folder, with_context};

struct Fixture {
    folder: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
}

impl Fixture {
    fn new() -> Self {
        let folder = folder();
        let store = directory(folder.path());
        Self { folder, store }
    }
    async fn writer(&self) -> ChainWriter {
        ChainWriter::open(self.store.clone(), chain(), Some(Offset(0))).await.expect("open chain")
    }
    fn reader(&self) -> ColdReader {
        ColdReader::new(self.store.clone(), 8 << 20)
    }
    fn file_of(&self, start: Offset) -> PathBuf {
        self.folder.path().join("data").join(keys::segment(&chain(), start))
    }
}

/// The state at a time as a reader finds it.
async fn state_at(reader: &ColdReader, saga: &SagaId, upto: Micros) -> Option<Saga> {
    let entries = reader.entries_at(&chain(), saga, upto).await.expect("find entries");
    let mut slot = entries.first()?.saga.as_deref().cloned();
    for stored in entries.iter().skip(1).filter(|stored| stored.entry.effective_time <= upto) {
        Saga::apply(&mut slot, &stored.entry);
    }
    slot
}

async fn appended(writer: &mut ChainWriter, segment: &NewSegment) {
    let done = writer.append(segment).await.expect("append");
    assert!(matches!(done, Appended::Created { .. }), "{done:?}");
}

fn change() -> impl Strategy<Value = ContextChange> {
    prop_oneof![
        2 => Just(ContextChange::None),
        2 => (0..4u8).prop_map(|n| ContextChange::Full(Json::from_valid(format!(r#"{{"n":{n},"text":"é{n}"}}"#)))),
        1 => (0..4u8).prop_map(|n| ContextChange::Patch(Json::from_valid(format!(r#"{{"p{n}":{n}}}"#)))),
        1 => Just(ContextChange::Set(Json::from_valid(r#"{"n":null}"#))),
    ]
}

fn any_event() -> impl Strategy<Value = StepEvent> {
    let kind = prop::sample::select(&Kind::ALL[..14]);
    (0..4u8, kind, change(), -90..90i64, prop::option::of(0..9u64), any::<bool>()).prop_map(
        |(saga, kind, context, ago, sequence, with_result)| StepEvent {
            occurred_at: Some(Micros(NOW + ago * SECOND)),
            context,
            sequence,
            result: with_result.then(|| Json::from_valid("[1.50]")),
            error: (kind == Kind::StepFailed).then(|| Box::new(ErrorInfo { code: Some("E1".into()), ..ErrorInfo::default() })),
            attempt: with_result.then_some(2),
            tenant: with_result.then(|| "t1".to_owned()),
            ..event(&format!("saga {saga}"), kind)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_saga_at_any_time_is_as_the_naive_fold_says(
        events in prop::collection::vec(any_event(), 1..60),
        cuts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(async {
            let (fixture, mut log) = (Fixture::new(), Log::default());
            let mut writer = fixture.writer().await;
            let count = events.len();
            for (number, event) in events.into_iter().enumerate() {
                log.read(event);
                if cuts[number] || number + 1 == count {
                    let segment = log.segment(writer.next());
            appended(&mut writer, &segment).await;
                }
            }
            let reader = fixture.reader();
            reader.follow(&chain()).await.expect("follow");
            for saga in log.sagas.keys() {
                let entries = log.rows.iter().filter(|row| row.entry.event.saga_id == *saga);
                let mut times: Vec<Micros> = entries.map(|row| row.entry.effective_time).collect();
                times.extend([Micros(NOW), Micros(NOW - 91 * SECOND), Micros::MAX]);
                for upto in times {
                    assert_eq!(state_at(&reader, saga, upto).await, log.naive(saga, upto), "{saga} at {upto}");
                }
                let mut entries = Vec::new();
                for segment in reader.segments_of(&chain(), saga).await.expect("segments") {
                    entries.extend(reader.load(&segment, saga).await.expect("load"));
                }
                let mut contexts = Vec::new();
                for (stored, row) in entries.iter().zip(log.rows.iter().filter(|r| r.entry.event.saga_id == *saga)) {
                    let (mut stored, mut sent) = (stored.entry.clone(), (*row.entry).clone());
                    let before = std::mem::take(&mut sent.event.context);
                    match std::mem::take(&mut stored.event.context) {
                        ContextChange::None => assert_eq!(before, ContextChange::None),
                        after => {
                            assert_ne!(before, ContextChange::None);
                            assert_eq!(after, ContextChange::Full(row.context.clone().expect("given")));
                        }
                    }
                    assert_eq!(stored, sent);
                    contexts.push(stored.sequence);
                }
                assert_eq!(contexts.len(), log.rows.iter().filter(|r| r.entry.event.saga_id == *saga).count());
            }
        });
    }
}

#[tokio::test]
async fn a_long_saga_with_large_contexts_is_read_across_row_groups() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let mut writer = fixture.writer().await;
    for number in 0..300u64 {
        let noise: String = (0..2_000u64).map(|i| format!("{:016x}", (number + 1).wrapping_mul(i ^ 0x9E37_79B9))).collect();
        log.read(with_context("long", Kind::ContextUpdated, &format!(r#"{{"noise":"{noise}"}}"#)));
        log.read(with_context(&format!("other {number}"), Kind::SagaStarted, r#"{"a":1}"#));
    }
    appended(&mut writer, &log.segment(Offset(0))).await;
    let reader = fixture.reader();
    reader.follow(&chain()).await.expect("follow");
    for (saga, upto) in [("long", NOW + 20 * SECOND), ("long", i64::MAX), ("other 7", i64::MAX), ("other 299", i64::MAX)] {
        let (saga, upto) = (SagaId::from(saga), Micros(upto));
        assert_eq!(state_at(&reader, &saga, upto).await, log.naive(&saga, upto), "{saga}");
    }
}

#[tokio::test]
async fn a_chain_that_was_only_begun_is_not_written() {
    let folder = folder();
    let store = directory(folder.path());
    let chain = |partition| ChainId { partition, ..chain() };
    assert_eq!(is_written(&*store, &chain(0)).await, Ok(false));
    let mut writer = ChainWriter::open(store.clone(), chain(0), Some(Offset(0))).await.expect("open");
    assert_eq!(is_written(&*store, &chain(0)).await, Ok(false), "its owner was there first");
    appended(&mut writer, &NewSegment::empty(Offset(0), Offset(3))).await;
    assert_eq!(is_written(&*store, &chain(0)).await, Ok(true));
    ChainWriter::open(store.clone(), chain(1), Some(Offset(7))).await.expect("open");
    assert_eq!(is_written(&*store, &chain(1)).await, Ok(true), "the topic had dropped records before");
}

#[tokio::test]
async fn a_segment_may_have_offsets_and_no_rows_and_a_gap_says_so() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer().await;
    assert_eq!((writer.next(), writer.newest()), (Offset(0), None));
    let empty = Log::default().segment_to(Offset(0), 9);
    appended(&mut writer, &empty).await;
    let gap = NewSegment { end: Offset(99), gap: true, ..Log::default().segment_to(Offset(10), 99) };
    appended(&mut writer, &gap).await;
    let again = ChainWriter::open(fixture.store.clone(), chain(), Some(Offset(50))).await.expect("open again");
    assert_eq!(again.next(), Offset(100));
    let newest = again.newest().expect("newest");
    assert!(newest.gap && newest.rows == 0 && newest.ordinal == 1 && newest.effective.is_none());
    assert_eq!((newest.leader_epoch, newest.topic_id.as_deref()), (Some(7), Some("topic-id")));
    let reader = fixture.reader();
    let end = reader.follow(&chain()).await.expect("follow");
    assert_eq!((end.next, end.segments, end.complete_through), (Some(Offset(100)), 2, Micros(NOW + 99 * SECOND)));
    assert_eq!(reader.segments_of(&chain(), &"x".into()).await, Ok(vec![]));
    assert_eq!(reader.overlapping(&chain(), Micros::MIN, Micros::MAX).await, Ok(vec![]));
}

#[tokio::test]
async fn of_two_owners_the_first_wins_and_the_other_is_told_what_is_stored() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let (mut first, mut second) = (fixture.writer().await, fixture.writer().await);
    (0..10).for_each(|n| log.read(with_context(&format!("s{n}"), Kind::SagaStarted, r#"{"a":1}"#)));
    appended(&mut first, &log.segment_to(Offset(0), 6)).await;
    let told = second.append(&log.segment_to(Offset(0), 9)).await.expect("append");
    let Appended::Exists { stored, agrees: Some(true) } = told else { panic!("{told:?}") };
    assert_eq!((stored.start, stored.end, stored.rows, second.next()), (Offset(0), Offset(6), 7, Offset(7)));
    assert!(second.may_contain(&"s3".into()));
    appended(&mut second, &log.segment(Offset(7))).await;

    // Folded otherwise: the same end with other entries.
    let mut other = Log { next: 7, ..Log::default() };
    (7..10).for_each(|n| other.read(with_context(&format!("s{n}"), Kind::SagaStarted, r#"{"a":2}"#)));
    let told = first.append(&other.segment(Offset(7))).await.expect("append");
    assert!(matches!(told, Appended::Exists { agrees: Some(false), .. }), "{told:?}");
    assert_eq!(first.next(), second.next());

    // Folded otherwise as far as the stored one goes; and of one that covers more nothing is said.
    (10..14).for_each(|n| log.read(with_context(&format!("s{n}"), Kind::SagaStarted, r#"{"a":1}"#)));
    (10..14).for_each(|n| other.read(with_context(&format!("s{n}"), Kind::SagaStarted, r#"{"a":2}"#)));
    let mut third = fixture.writer().await;
    appended(&mut first, &log.segment_to(Offset(10), 11)).await;
    let told = second.append(&other.segment_to(Offset(10), 13)).await.expect("append");
    assert!(matches!(told, Appended::Exists { agrees: Some(false), .. }), "{told:?}");
    let told = third.append(&log.segment_to(Offset(10), 10)).await.expect("append");
    assert!(matches!(told, Appended::Exists { agrees: None, .. }), "{told:?}");
}

#[tokio::test]
async fn the_same_segment_again_counts_as_created() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let (mut first, mut again) = (fixture.writer().await, fixture.writer().await);
    log.read(with_context("a", Kind::SagaStarted, "{}"));
    appended(&mut first, &log.segment(Offset(0))).await;
    appended(&mut again, &log.segment(Offset(0))).await;
    assert_eq!((again.next(), again.newest()), (first.next(), first.newest()));
}

#[tokio::test]
async fn racing_owners_leave_one_chain_without_holes() {
    let fixture = Fixture::new();
    let mut log = Log::default();
    (0..60).for_each(|n| log.read(with_context(&format!("s{}", n % 7), Kind::ContextUpdated, &format!(r#"{{"n":{n}}}"#))));
    let log = Arc::new(log);
    let owners = (0..4i64).map(|owner| {
        let (store, log) = (fixture.store.clone(), log.clone());
        tokio::spawn(async move {
            // The owners disagree where the chain begins, and how long a segment is.
            let mut writer = ChainWriter::open(store, chain(), Some(Offset(owner % 2))).await.expect("open");
            while writer.next() < Offset(60) {
                let end = (writer.next().0 + owner).min(59);
                writer.append(&log.segment_to(writer.next(), end)).await.expect("append");
            }
        })
    });
    for owner in futures::future::join_all(owners).await {
        owner.expect("owner");
    }
    let reader = fixture.reader();
    assert_eq!(reader.follow(&chain()).await.expect("follow").next, Some(Offset(60)));
    let mut next = reader.overlapping(&chain(), Micros::MIN, Micros::MAX).await.expect("all").last().expect("some").start;
    for segment in reader.overlapping(&chain(), Micros::MIN, Micros::MAX).await.expect("all").iter().rev() {
        assert_eq!(segment.start, next);
        next = segment.end.next();
    }
}

#[tokio::test]
async fn any_damage_to_what_is_read_is_noticed() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let mut writer = fixture.writer().await;
    for n in 0..20 {
        log.read(with_context(&format!("s{}", n % 3), Kind::ContextUpdated, &format!(r#"{{"n":{n}}}"#)));
    }
    appended(&mut writer, &log.segment(Offset(0))).await;
    let file = fixture.file_of(Offset(0));
    let whole = fs::read(&file).expect("read");
    let upto = Micros::MAX;
    let saga = SagaId::from("s1");
    let read = async || {
        let reader = fixture.reader();
        reader.follow(&chain()).await?;
        let entries = reader.entries_at(&chain(), &saga, upto).await?;
        let segments = reader.segments_of(&chain(), &saga).await?;
        let segment = segments.last().ok_or_else(|| Error::corrupt("not found"))?;
        let rows = reader.scan(&segment.segment, Micros::MIN, Micros::MAX).await?;
        Ok::<_, Error>((entries, rows))
    };
    let good = read().await.expect("undamaged");
    let (mut noticed, mut harmless) = (0, 0);
    for byte in (0..whole.len()).step_by(3) {
        let mut broken = whole.clone();
        broken[byte] ^= 1 << (byte % 8);
        fs::write(&file, &broken).expect("write");
        match read().await {
            Err(Error::Corrupt(_)) => noticed += 1,
            Ok(found) => {
                assert_eq!(found, good, "byte {byte}");
                harmless += 1;
            }
            Err(other) => panic!("byte {byte}: {other}"),
        }
    }
    // Columns and footer that only other readers use.
    assert!(noticed > 500 && harmless > 0, "{noticed} noticed, {harmless} harmless");
    for len in [0, 1, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..len]).expect("write");
        assert!(matches!(read().await, Err(Error::Corrupt(_))), "cut to {len}");
    }
}

#[tokio::test]
async fn rows_are_searched_by_time_from_key_columns() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let mut writer = fixture.writer().await;
    for n in 0..40 {
        let kind = if n % 4 == 3 { Kind::StepFailed } else { Kind::StepStarted };
        let error = (kind == Kind::StepFailed)
            .then(|| Box::new(ErrorInfo { code: Some("E7".into()), kind: Some("Timeout".into()), ..ErrorInfo::default() }));
        log.read(StepEvent { error, ..event(&format!("s{}", n % 5), kind) });
        if n % 10 == 9 {
            let segment = log.segment(writer.next());
            appended(&mut writer, &segment).await;
        }
    }
    let reader = fixture.reader();
    reader.follow(&chain()).await.expect("follow");
    let (since, until) = (Micros(NOW + 15 * SECOND), Micros(NOW + 25 * SECOND));
    let segments = reader.overlapping(&chain(), since, until).await.expect("overlapping");
    assert_eq!(segments.iter().map(|s| s.ordinal).collect::<Vec<_>>(), [2, 1]);
    let mut found = Vec::new();
    for segment in &segments {
        found.extend(reader.scan(segment, since, until).await.expect("scan"));
    }
    found.sort_by_key(|row| row.effective_time);
    let expected: Vec<_> = log.rows[15..25].iter().collect();
    assert_eq!(found.len(), expected.len());
    for (row, sent) in found.iter().zip(expected) {
        let event = &sent.entry.event;
        assert_eq!((&row.saga_id, row.sequence, row.kind), (&event.saga_id, sent.entry.sequence, event.kind));
        assert_eq!((&row.step, row.effective_time, row.status), (&event.step, sent.entry.effective_time, sent.status));
        let error = event.error.clone().unwrap_or_default();
        assert_eq!((&row.error_code, &row.error_type), (&error.code, &error.kind));
    }
}

#[tokio::test]
async fn a_topic_made_again_gets_the_next_incarnation() {
    let fixture = Fixture::new();
    assert_eq!(newest_incarnation(&*fixture.store, "saga.events.v1", 3).await, Ok(0));
    fixture.writer().await;
    assert_eq!(newest_incarnation(&*fixture.store, "saga.events.v1", 3).await, Ok(0));
    let next = ChainId { incarnation: 1, ..chain() };
    ChainWriter::open(fixture.store.clone(), next.clone(), Some(Offset(0))).await.expect("open");
    assert_eq!(newest_incarnation(&*fixture.store, "saga.events.v1", 3).await, Ok(1));
    assert_eq!(fixture.reader().newest_incarnation("saga.events.v1", 3).await, Ok(1));
    let reader = fixture.reader();
    assert_eq!(reader.follow(&next).await.expect("follow").next, Some(Offset(0)));
    assert_eq!(reader.follow(&ChainId { incarnation: 2, ..chain() }).await.expect("follow").next, None);
}

#[tokio::test]
async fn rows_that_break_the_rules_are_a_bug_not_a_segment() {
    let (fixture, mut log) = (Fixture::new(), Log::default());
    let mut writer = fixture.writer().await;
    log.read(event("a", Kind::SagaStarted));
    let good = log.segment(Offset(0));
    let without_saga: Vec<_> = good.rows.iter().map(|row| resaga::cold::segment::NewRow { saga: None, ..row.clone() }).collect();
    let twice: Vec<_> = good.rows.iter().chain(good.rows.iter()).cloned().collect();
    let bad = [
        NewSegment { rows: Arc::new(without_saga), ..good.clone() },
        NewSegment { rows: Arc::new(twice), ..good.clone() },
        NewSegment { gap: true, ..good.clone() },
        NewSegment { start: Offset(1), end: Offset(1), ..good.clone() },
        NewSegment { end: Offset(-1), ..good.clone() },
    ];
    for segment in bad {
        assert!(matches!(writer.append(&segment).await, Err(Error::Bug(_))));
    }
    appended(&mut writer, &good).await;
}
