//! What every hot store does: the same sentences for memory and for Redis, one server and a cluster.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use resaga::config;
use resaga::hot::index_bucket::IndexBucket;
use resaga::hot::{
    self, ActivityFact, DurableSaga, FailureFact, Hold, HotBatch, HotQuery, HotStore, IndexQuery, KEPT, Mark, MarkMove,
    MarkOutcome, Member, SagaWrite, Token, Tokens, Written,
};
use resaga::saga::installation::Installation;
use resaga::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use resaga::saga::time::Micros;

const MINUTE: i64 = 60_000_000;
/// 2026-01-10T10:00:00Z.
pub const NOW: i64 = 1_768_039_200_000_000;

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(async || hot::open(&config("memory://", 60_000)).expect("memory")).await;
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn redis_keeps_the_contract() {
    let url = std::env::var("RESAGA_TEST_REDIS").expect("RESAGA_TEST_REDIS: a redis url");
    contract(async || hot::open(&config(&fresh(&url), 60_000)).expect("open redis")).await;
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_cluster_keeps_the_contract() {
    let Ok(url) = std::env::var("RESAGA_TEST_REDIS_CLUSTER") else { return };
    contract(async || {
        let store = hot::open(&config(&fresh(&url), 60_000)).expect("open cluster");
        assert_eq!(store.buckets(), 16);
        store
    })
    .await;
}

#[tokio::test]
async fn memory_lets_keys_expire() {
    keys_expire(hot::open(&config("memory://", 80)).expect("memory")).await;
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn redis_lets_keys_expire() {
    let url = std::env::var("RESAGA_TEST_REDIS").expect("RESAGA_TEST_REDIS: a redis url");
    keys_expire(hot::open(&config(&fresh(&url), 80)).expect("open redis")).await;
}

/// The url with a prefix of this test alone.
fn fresh(url: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}prefix=test-{}", uuid::Uuid::new_v4())
}

pub fn config(url: &str, ttl_ms: u64) -> config::HotConfig {
    config::HotConfig {
        url: url.to_owned(),
        ttl: Duration::from_millis(ttl_ms),
        pipeline_bytes: 2_000,
        timeout: Duration::from_secs(5),
    }
}

async fn contract<F: Future<Output = Arc<dyn HotStore>>>(store: impl Fn() -> F) {
    a_repeated_batch_changes_nothing(&*store().await).await;
    newest_first_within_bound_and_limit(&*store().await).await;
    equal_times_sort_by_sequence(&*store().await).await;
    odd_ids_are_kept_apart(&*store().await).await;
    answers_come_in_the_order_of_many_queries(&*store().await).await;
    marks_move_by_compare_and_set(&*store().await).await;
    keys_belong_to_whoever_claims_them_first(&*store().await).await;
    marks_move_only_over_what_is_proved(&*store().await).await;
    tokens_of_others_prove_nothing_and_do_no_harm(&*store().await).await;
    what_was_settled_is_proved_as_what_was_written(&*store().await).await;
    the_durable_head_of_a_long_saga_goes(&*store().await).await;
    what_is_forgotten_is_gone_and_nothing_else(&*store().await).await;
    members_come_with_the_marks_of_their_bucket(&*store().await).await;
    members_come_with_the_marks_that_were_asked_for(&*store().await).await;
    a_mark_is_never_read_without_what_it_vouches_for(&*store().await).await;
    failures_are_found_by_window_name_and_step(&*store().await).await;
    activity_is_one_fact_per_saga_and_minute(&*store().await).await;
    limits_cut_the_oldest_and_say_so(&*store().await).await;
    dropped_minutes_are_gone_and_said_to_be(&*store().await).await;
    what_is_held_is_not_dropped(&*store().await).await;
    a_floor_of_a_wrong_clock_is_put_right(&*store().await).await;
    everything_is_empty_before_the_first_write(&*store().await).await;
}

/// Nothing was written that a mark must prove.
pub const NOTHING: Written = Written { token: Token { writer: 0, number: 0 }, pieces: std::collections::BTreeMap::new() };

/// A new one each time.
pub fn token() -> Token {
    Tokens::default().next()
}

pub fn member(sequence: u64, at: i64) -> Member {
    let mut bytes = sequence.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"\0\r\n\xff frame");
    Member { effective_time: Micros(at), bytes: bytes.into() }
}

pub fn saga(id: &str, members: impl IntoIterator<Item = Member>) -> SagaWrite {
    SagaWrite { saga: SagaId::from(id), members: members.into_iter().collect(), persist: false }
}

async fn write(store: &dyn HotStore, sagas: Vec<SagaWrite>) {
    store.write(&HotBatch { sagas, ..HotBatch::default() }, token()).await.expect("write");
}

async fn read(store: &dyn HotStore, id: &str, upto: i64, limit: usize) -> Vec<Member> {
    let queries = [HotQuery::new(SagaId::from(id), Micros(upto), limit)];
    store.read(&queries).await.expect("read").remove(0).members
}

async fn a_repeated_batch_changes_nothing(store: &dyn HotStore) {
    let batch = HotBatch {
        sagas: vec![saga("a", [member(1, NOW), member(2, NOW + 1)])],
        failures: vec![failure("a", "order", "charge", NOW, 2)],
        activity: vec![active("a", "order", NOW / MINUTE)],
        ..HotBatch::default()
    };
    for _ in 0..3 {
        store.write(&batch, token()).await.expect("write");
    }
    assert_eq!(read(store, "a", i64::MAX, 10).await, [member(2, NOW + 1), member(1, NOW)]);
    assert_eq!(store.failures(&window(NOW, NOW + 1), 10).await.expect("read").facts, batch.failures);
    assert_eq!(store.activity(&window(NOW, NOW + 1), 10).await.expect("read").facts, batch.activity);
}

async fn newest_first_within_bound_and_limit(store: &dyn HotStore) {
    // Negative times and both ends of what a double holds exactly.
    let exact = (1 << 53) - 1;
    let times = [-exact, -1, 0, 1, NOW - 1, NOW, NOW + 1, exact - 1, exact];
    let members: Vec<_> = times.iter().enumerate().map(|(n, at)| member(n as u64 + 1, *at)).collect();
    write(store, vec![saga("s", members.clone())]).await;
    for (n, at) in times.iter().enumerate() {
        let newest: Vec<_> = members[..=n].iter().rev().take(3).cloned().collect();
        assert_eq!(read(store, "s", *at, 3).await, newest, "up to {at}");
    }
    assert_eq!(read(store, "s", -exact - 1, 3).await, []);
    assert_eq!(read(store, "s", i64::MAX, 0).await, []);
    assert_eq!(read(store, "s", i64::MAX, usize::MAX).await.len(), times.len());
}

async fn equal_times_sort_by_sequence(store: &dyn HotStore) {
    let members: Vec<_> = [1, 2, 255, 256, 65_536, 1 << 40].into_iter().map(|sequence| member(sequence, NOW)).collect();
    write(store, vec![saga("s", members.iter().rev().cloned())]).await;
    let newest: Vec<_> = members.iter().rev().cloned().collect();
    assert_eq!(read(store, "s", NOW, 10).await, newest);
}

async fn odd_ids_are_kept_apart(store: &dyn HotStore) {
    let longest = "🚚".repeat(SagaId::MAX_CHARS);
    let ids = [
        "a",
        "A",
        "a ",
        "\0",
        "\0\0",
        "{}",
        "{0}",
        "}{",
        "{1}:s:a",
        "..",
        "../..",
        "a:b",
        "a\r\nDEL x",
        "\"",
        "marks",
        "%00",
        &longest,
    ];
    write(store, ids.iter().enumerate().map(|(n, id)| saga(id, [member(n as u64 + 1, NOW)])).collect()).await;
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(read(store, id, NOW, 10).await, [member(n as u64 + 1, NOW)], "{id:?}");
        let mut batch = HotBatch::default();
        batch.failures.push(failure(id, id, id, NOW, n as u64));
        batch.activity.push(active(id, id, NOW / MINUTE));
        store.write(&batch, token()).await.expect("write");
    }
    for (n, id) in ids.iter().enumerate() {
        let named = IndexQuery { saga_name: Some((*id).into()), step: Some((*id).into()), ..window(NOW, NOW + 1) };
        assert_eq!(store.failures(&named, 10).await.expect("read").facts, [failure(id, id, id, NOW, n as u64)], "{id:?}");
        assert_eq!(store.activity(&named, 10).await.expect("read").facts, [active(id, id, NOW / MINUTE)], "{id:?}");
    }
}

async fn answers_come_in_the_order_of_many_queries(store: &dyn HotStore) {
    let sagas = 0..1_000_u64;
    write(store, sagas.clone().map(|n| saga(&format!("s{n}"), [member(n, NOW), member(n + 1, NOW)])).collect()).await;
    let queries: Vec<_> =
        sagas.clone().rev().map(|n| HotQuery::new(SagaId::from(format!("s{}", n * 2).as_str()), Micros::MAX, 1)).collect();
    let reads = store.read(&queries).await.expect("read");
    assert_eq!(reads.len(), queries.len());
    for (n, read) in sagas.rev().zip(&reads) {
        let expected: &[Member] = if n < 500 { &[member(n * 2 + 1, NOW)] } else { &[] };
        assert_eq!(read.members, expected, "s{}", n * 2);
    }
    assert_eq!(store.read(&[]).await.expect("read"), []);
}

pub fn chain(partition: i32) -> ChainId {
    ChainId { topic: "saga.events.v1".into(), incarnation: 1, partition }
}

pub fn mark(from: i64, to: i64) -> Mark {
    Mark { from: Offset(from), to: Offset(to), complete_through: Micros(to - 1_000), settled: Offset(from) }
}

pub fn mark_move(partition: i32, bucket: u16, expect: Option<Mark>, new: Mark) -> MarkMove {
    MarkMove { chain: chain(partition), bucket, expect, new }
}

async fn marks_move_by_compare_and_set(store: &dyn HotStore) {
    use MarkOutcome::{Found, Moved};
    let last = store.buckets() - 1;
    let moves = async |moves: &[MarkMove]| store.move_marks(moves, &NOTHING).await.expect("move marks");
    assert_eq!(moves(&[]).await, []);
    // A mark that is lost is found as none, and nothing changes.
    assert_eq!(moves(&[mark_move(0, 0, Some(mark(0, 5)), mark(0, 9))]).await, [Found(None)]);
    assert_eq!(store.marks(0).await.expect("marks"), []);

    let both = [mark_move(1, last, None, mark(3, 10)), mark_move(0, 0, None, mark(0, 5))];
    assert_eq!(moves(&both).await, [Moved, Moved]);
    // Again: the earlier try did it.
    assert_eq!(moves(&both).await, [Found(Some(mark(3, 10))), Found(Some(mark(0, 5)))]);
    // Each on its own: one can move while another does not.
    let mixed = [
        mark_move(0, 0, Some(mark(0, 5)), mark(0, 7)),
        mark_move(1, last, Some(mark(3, 11)), mark(3, 12)),
        mark_move(2, 0, None, mark(-1, 0)),
        mark_move(0, 0, Some(mark(0, 7)), mark(0, i64::MAX)),
    ];
    assert_eq!(moves(&mixed).await, [Moved, Found(Some(mark(3, 10))), Moved, Moved]);

    let mut all = Vec::new();
    for bucket in 0..store.buckets() {
        all.extend(store.marks(bucket).await.expect("marks"));
    }
    all.sort_by_key(|(chain, _)| chain.partition);
    assert_eq!(all, [(chain(0), mark(0, i64::MAX)), (chain(1), mark(3, 10)), (chain(2), mark(-1, 0))]);
}

async fn keys_belong_to_whoever_claims_them_first(store: &dyn HotStore) {
    let of = |group: &str| Installation { cluster_id: "cluster".into(), group_id: group.into() };
    assert_eq!(store.owner().await.expect("owner"), None);
    for claimed_by in ["first", "second", "first"] {
        assert_eq!(store.claim(&of(claimed_by)).await.expect("claim"), of("first"));
        assert_eq!(store.owner().await.expect("owner"), Some(of("first")));
    }
}

async fn marks_move_only_over_what_is_proved(store: &dyn HotStore) {
    use MarkOutcome::{Found, Moved, Unproved};
    let bucket = store.bucket(&"s".into());
    let tokens = Tokens::default();
    // Larger than one pipeline of this store.
    let batch = HotBatch { sagas: vec![saga("s", (0..400).map(|n| member(n, NOW)))], ..HotBatch::default() };
    let lost = store.write(&batch, tokens.next()).await.expect("write");
    assert!(lost.pieces(bucket) >= 1 && lost.pieces.len() == 1, "{lost:?}");
    // It is there, but another write of the same writer is what the mark asks for.
    let other = Written { token: tokens.next(), ..lost.clone() };
    let moves = [mark_move(0, bucket, None, mark(0, 5)), mark_move(1, bucket, Some(mark(0, 1)), mark(0, 2))];
    let answer = async |written: &Written| store.move_marks(&moves, written).await.expect("move marks");
    assert_eq!(answer(&other).await, [Unproved, Found(None)]);
    assert_eq!(store.marks(bucket).await.expect("marks"), []);
    // A piece more than there is: its end was lost.
    let longer = Written { pieces: lost.pieces.iter().map(|(bucket, pieces)| (*bucket, pieces + 1)).collect(), ..lost.clone() };
    if store.buckets() > 1 || lost.pieces(bucket) > 1 {
        assert_eq!(answer(&longer).await, [Unproved, Found(None)]);
    }
    assert_eq!(answer(&lost).await, [Moved, Found(None)]);
    // Once is enough: the mark says it from now on.
    let onward = [mark_move(0, bucket, Some(mark(0, 5)), mark(0, 9))];
    assert_eq!(store.move_marks(&onward, &lost).await.expect("move marks"), [Unproved]);
    let again = store.write(&batch, tokens.next()).await.expect("write");
    assert_eq!(store.move_marks(&onward, &again).await.expect("move marks"), [Moved]);
}

async fn tokens_of_others_prove_nothing_and_do_no_harm(store: &dyn HotStore) {
    let bucket = store.bucket(&"s".into());
    let batch = HotBatch { sagas: vec![saga("s", [member(1, NOW)])], ..HotBatch::default() };
    let (one, other) = (Tokens::default(), Tokens::default());
    let first = store.write(&batch, one.next()).await.expect("write");
    let second = store.write(&batch, other.next()).await.expect("write");
    for (partition, written) in [(0, first), (1, second)] {
        let wanted = [mark_move(partition, bucket, None, mark(0, 5))];
        assert_eq!(store.move_marks(&wanted, &written).await.expect("move marks"), [MarkOutcome::Moved]);
    }
    // Another bucket has nothing to prove.
    let written = store.write(&batch, one.next()).await.expect("write");
    let last = (0..store.buckets()).rev().find(|other| *other != bucket);
    if let Some(elsewhere) = last {
        let wanted = [mark_move(0, elsewhere, None, mark(0, 5))];
        assert_eq!(store.move_marks(&wanted, &written).await.expect("move marks"), [MarkOutcome::Moved]);
    }
}

async fn settle(store: &dyn HotStore, sagas: &[(&str, u64)]) -> Written {
    let durable = |(saga, sequence): &(&str, u64)| DurableSaga { saga: SagaId::from(*saga), sequence: EntrySequence(*sequence) };
    let written = Written { token: token(), ..Written::default() };
    store.settle(&sagas.iter().map(durable).collect::<Vec<_>>(), &written).await.expect("settle")
}

async fn what_was_settled_is_proved_as_what_was_written(store: &dyn HotStore) {
    let bucket = store.bucket(&"s".into());
    let batch = HotBatch { sagas: vec![saga("s", [member(1, NOW)])], ..HotBatch::default() };
    let written = store.write(&batch, token()).await.expect("write");
    let durable = [DurableSaga { saga: "s".into(), sequence: EntrySequence(1) }];
    let both = store.settle(&durable, &written).await.expect("settle");
    assert_eq!((both.token, both.pieces(bucket)), (written.token, written.pieces(bucket) + 1));
    let moves = [mark_move(0, bucket, None, mark(0, 5))];
    assert_eq!(store.move_marks(&moves, &both).await.expect("move marks"), [MarkOutcome::Moved]);
    // A token of its own, where nothing was written.
    let alone = settle(store, &[("s", 1)]).await;
    let moves = [mark_move(0, bucket, Some(mark(0, 5)), mark(0, 6))];
    let lost = Written { token: token(), ..alone.clone() };
    assert_eq!(store.move_marks(&moves, &lost).await.expect("move marks"), [MarkOutcome::Unproved]);
    assert_eq!(store.move_marks(&moves, &alone).await.expect("move marks"), [MarkOutcome::Moved]);
}

/// However long a saga goes on without a rest: its newest entries stay, its undurable ones whole.
async fn the_durable_head_of_a_long_saga_goes(store: &dyn HotStore) {
    let many = 3 * KEPT;
    // All at a few times: only the sequence tells them apart.
    write(store, vec![saga("long", (1..=many).map(|n| member(n, NOW + n as i64 / 1_000)))]).await;
    write(store, vec![saga("short", (1..=2 * KEPT).map(|n| member(n, NOW)))]).await;
    settle(store, &[("long", KEPT + 10), ("short", 2 * KEPT)]).await;
    let kept = |first: u64| (first..=many).rev().map(|n| member(n, NOW + n as i64 / 1_000)).collect::<Vec<_>>();
    assert_eq!(read(store, "long", i64::MAX, usize::MAX).await, kept(11));
    assert_eq!(read(store, "short", i64::MAX, usize::MAX).await.len() as u64, 2 * KEPT);
    settle(store, &[("long", many)]).await;
    assert_eq!(read(store, "long", i64::MAX, usize::MAX).await, kept(many - KEPT + 1));
    settle(store, &[("long", many)]).await;
    assert_eq!(read(store, "long", i64::MAX, usize::MAX).await.len() as u64, KEPT);
}

async fn what_is_forgotten_is_gone_and_nothing_else(store: &dyn HotStore) {
    write(store, vec![saga("a", [member(1, NOW)]), saga("b", [member(1, NOW)])]).await;
    store.forget(&["a".into(), "nobody".into()]).await.expect("forget");
    assert_eq!(read(store, "a", i64::MAX, 9).await, []);
    assert_eq!(read(store, "b", i64::MAX, 9).await, [member(1, NOW)]);
}

async fn members_come_with_the_marks_of_their_bucket(store: &dyn HotStore) {
    write(store, (0..64).map(|n| saga(&n.to_string(), [member(1, NOW)])).collect()).await;
    let moves: Vec<_> = (0..store.buckets()).map(|bucket| mark_move(7, bucket, None, mark(i64::from(bucket), 1_000))).collect();
    store.move_marks(&moves, &NOTHING).await.expect("move marks");
    let queries: Vec<_> = (0..64).map(|n: i32| HotQuery::new(n.to_string().as_str().into(), Micros::MAX, 1)).collect();
    for (query, read) in queries.iter().zip(store.read(&queries).await.expect("read")) {
        assert_eq!(*read.marks, [(chain(7), mark(i64::from(store.bucket(&query.saga)), 1_000))]);
    }
    let index = store.failures(&window(NOW, NOW + 1), 1).await.expect("read");
    let expected: Vec<_> = moves.into_iter().map(|m| (m.bucket, m.chain, m.new)).collect();
    assert_eq!(index.marks, expected);
}

async fn members_come_with_the_marks_that_were_asked_for(store: &dyn HotStore) {
    write(store, vec![saga("s", [member(1, NOW)])]).await;
    let bucket = store.bucket(&"s".into());
    let moves = [7, 8, 9].map(|partition| mark_move(partition, bucket, None, mark(0, i64::from(partition))));
    store.move_marks(&moves, &NOTHING).await.expect("move marks");
    let query = HotQuery { marks_of: vec![chain(8), chain(10), chain(9)], ..HotQuery::new("s".into(), Micros::MAX, 1) };
    let read = store.read(&[query]).await.expect("read").remove(0);
    assert_eq!(read.members, [member(1, NOW)]);
    let of = |partition| read.marks.iter().find(|(of, _)| *of == chain(partition)).map(|(_, mark)| *mark);
    assert_eq!((of(8), of(9), of(10)), (Some(mark(0, 8)), Some(mark(0, 9)), None));
}

/// One writes entries and then moves the mark, another reads: each read holds all that its mark covers.
async fn a_mark_is_never_read_without_what_it_vouches_for(store: &dyn HotStore) {
    const ENTRIES: i64 = 200;
    let bucket = store.bucket(&"s".into());
    let writer = async {
        for n in 0..ENTRIES {
            let batch = HotBatch {
                sagas: vec![saga("s", [member(n as u64, NOW + n)])],
                failures: vec![failure("s", "order", "charge", NOW + n, n as u64)],
                ..HotBatch::default()
            };
            let written = store.write(&batch, token()).await.expect("write");
            let expect = (n > 0).then(|| mark(0, n));
            let moved = store.move_marks(&[mark_move(0, bucket, expect, mark(0, n + 1))], &written).await.expect("move mark");
            assert_eq!(moved, [MarkOutcome::Moved]);
        }
    };
    let covered = |mark: Option<&Mark>| mark.map_or(0, |mark| mark.to.0 as usize);
    let reader = async {
        let mut seen = 0;
        while seen < ENTRIES as usize {
            let queries = [HotQuery::new("s".into(), Micros::MAX, usize::MAX)];
            let read = store.read(&queries).await.expect("read").remove(0);
            seen = covered(read.marks.first().map(|(_, mark)| mark));
            assert!(read.members.len() >= seen, "{} members, {seen} vouched for", read.members.len());
            let read = store.failures(&window(NOW, NOW + ENTRIES), usize::MAX).await.expect("read");
            assert!(read.facts.len() >= covered(read.marks.first().map(|(_, _, mark)| mark)));
            tokio::task::yield_now().await;
        }
    };
    // The memory store never waits: its writer runs first, then its reader.
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(writer, reader) }).await.expect("in time");
}

fn failure(id: &str, name: &str, step: &str, at: i64, sequence: u64) -> FailureFact {
    FailureFact {
        saga: SagaId::from(id),
        saga_name: name.into(),
        step: step.into(),
        compensation: false,
        at: Micros(at),
        sequence: EntrySequence(sequence),
        error_code: Some("E\0:1".into()),
        error_type: sequence.is_multiple_of(2).then(String::new),
    }
}

fn active(id: &str, name: &str, minute: i64) -> ActivityFact {
    ActivityFact { saga: SagaId::from(id), saga_name: name.into(), minute }
}

fn window(since: i64, until: i64) -> IndexQuery {
    IndexQuery { since: Micros(since), until: Micros(until), saga_name: None, step: None, compensation: false }
}

async fn failures_are_found_by_window_name_and_step(store: &dyn HotStore) {
    let (day, before) = (1_440 * MINUTE, -3 * MINUTE - 1);
    let mut facts = vec![
        failure("late", "order", "ship", NOW + day, 9),
        failure("b", "order", "charge", NOW + MINUTE, 5),
        failure("c", "order:x", "charge", NOW + MINUTE - 1, 4),
        failure("a", "order", "", NOW, 3),
        failure("a", "order", "charge", NOW, 2),
        failure("old", "order", "charge", before, 1),
    ];
    let unnamed = failure("any", "", "", NOW + 30 * day, 7);
    let compensation = FailureFact { compensation: true, ..failure("a", "order", "charge", NOW, 6) };
    let batch = HotBatch { failures: facts.iter().rev().chain([&compensation]).cloned().collect(), ..HotBatch::default() };
    store.write(&batch, token()).await.expect("write");

    let found = async |query: &IndexQuery| store.failures(query, 100).await.expect("read").facts;
    assert_eq!(found(&window(i64::MIN, i64::MAX)).await, facts);
    assert_eq!(found(&window(NOW, NOW + MINUTE)).await, facts[2..5]);
    assert_eq!(found(&window(NOW, NOW + MINUTE + 1)).await, facts[1..5]);
    assert_eq!(found(&window(NOW + 1, NOW + MINUTE)).await, facts[2..3]);
    assert_eq!(found(&window(before, before + 1)).await, facts[5..]);
    assert_eq!(found(&window(NOW, NOW)).await, []);
    assert_eq!(found(&IndexQuery { compensation: true, ..window(i64::MIN, i64::MAX) }).await, [compensation]);
    assert_eq!(found(&IndexQuery { step: Some(String::new()), ..window(i64::MIN, i64::MAX) }).await, facts[3..4]);
    assert_eq!(found(&IndexQuery { saga_name: Some("order:x".into()), ..window(i64::MIN, i64::MAX) }).await, facts[2..3]);
    store.write(&HotBatch { failures: vec![unnamed.clone()], ..HotBatch::default() }, token()).await.expect("write");
    facts.retain(|fact| fact.saga_name == "order" && fact.step == "charge");
    facts.insert(0, unnamed);
    let both = IndexQuery { saga_name: Some("order".into()), step: Some("charge".into()), ..window(i64::MIN, i64::MAX) };
    assert_eq!(found(&both).await, facts);
}

async fn activity_is_one_fact_per_saga_and_minute(store: &dyn HotStore) {
    let minute = NOW / MINUTE;
    let facts = [
        active("z", "order", minute + 1),
        active("a", "order", minute),
        active("b", "other", minute),
        active("a", "order", minute - 1),
    ];
    let batch = HotBatch { activity: facts.iter().chain(&facts).cloned().collect(), ..HotBatch::default() };
    store.write(&batch, token()).await.expect("write");

    let found = async |query: &IndexQuery| store.activity(query, 100).await.expect("read").facts;
    assert_eq!(found(&window(i64::MIN, i64::MAX)).await, facts);
    // The minutes that the window touches.
    assert_eq!(found(&window(NOW + 7, NOW + 8)).await, facts[1..3]);
    assert_eq!(found(&window(NOW - 1, NOW)).await, facts[3..]);
    assert_eq!(found(&IndexQuery { saga_name: Some("other".into()), ..window(NOW, NOW + MINUTE) }).await, facts[2..3]);
}

async fn limits_cut_the_oldest_and_say_so(store: &dyn HotStore) {
    let mut batch = HotBatch::default();
    for n in 0..300 {
        batch.failures.push(failure(&format!("s{n:03}"), &format!("name{}", n % 7), "step", NOW - n * MINUTE / 3, 1));
        batch.activity.push(active(&format!("s{n:03}"), "order", (NOW - n * MINUTE / 3).div_euclid(MINUTE)));
    }
    store.write(&batch, token()).await.expect("write");

    // Pages read on just after the last time; what comes twice is dropped.
    let (mut failures, mut until, mut pages) = (Vec::<FailureFact>::new(), NOW + 1, 0);
    loop {
        let page = store.failures(&window(NOW - 1_000 * MINUTE, until), 50).await.expect("read");
        assert!(page.facts.len() <= 50);
        for fact in page.facts {
            if !failures.contains(&fact) {
                failures.push(fact);
            }
        }
        pages += 1;
        if !page.more {
            break;
        }
        until = failures.last().expect("a cut page has facts").at.0 + 1;
    }
    assert_eq!((failures, pages), (batch.failures, 7));

    let page = store.activity(&window(NOW - 1_000 * MINUTE, NOW + 1), 10).await.expect("read");
    assert_eq!((page.facts.len(), page.more), (10, true));
    assert!(page.facts.is_sorted_by_key(|fact| -fact.minute));
    let all = store.activity(&window(NOW - 1_000 * MINUTE, NOW + 1), 300).await.expect("read");
    assert_eq!((all.facts.len(), all.more, &all.facts[..10]), (300, false, &page.facts[..]));
}

async fn dropped_minutes_are_gone_and_said_to_be(store: &dyn HotStore) {
    let minute = NOW / MINUTE;
    let mut batch = HotBatch::default();
    for ago in [0, 1, 2, 1_440, 10_000] {
        batch.failures.push(failure(&format!("s{ago}"), "order", "charge", NOW - ago * MINUTE, 1));
        batch.activity.push(active(&format!("s{ago}"), "order", minute - ago));
    }
    store.write(&batch, token()).await.expect("write");
    let everything = window(i64::MIN, i64::MAX);
    assert_eq!(store.failures(&everything, 10).await.expect("read").kept_from, Micros::MIN);

    store.drop_indexes_before(minute - 1, minute).await.expect("drop");
    let (failures, activity) =
        (store.failures(&everything, 10).await.expect("read"), store.activity(&everything, 10).await.expect("read"));
    assert_eq!((&failures.facts[..], failures.kept_from), (&batch.failures[..2], Micros(NOW - MINUTE)));
    assert_eq!((&activity.facts[..], activity.kept_from), (&batch.activity[..2], Micros(NOW - MINUTE)));

    // An owner whose clock is behind does not bring the floor back; what it writes below is dropped next time.
    store.write(&batch, token()).await.expect("write");
    store.drop_indexes_before(minute - 5_000, minute).await.expect("drop");
    assert_eq!(store.failures(&everything, 10).await.expect("read").kept_from, Micros(NOW - MINUTE));
    store.drop_indexes_before(minute + 1, minute + 1).await.expect("drop");
    assert_eq!(store.failures(&everything, 10).await.expect("read").facts, []);
}

async fn what_is_held_is_not_dropped(store: &dyn HotStore) {
    let minute = NOW / MINUTE;
    let at = NOW - 57_600 * MINUTE;
    let failures = [failure("held", "order/1", "charge:2", at, 1), failure("gone", "order", "charge", at, 1)];
    let activity = [active("held", "order/1", minute - 57_600), active("gone", "order", minute - 57_600)];
    let hold =
        |index_bucket, until| Hold { bucket: store.bucket(&"held".into()), index_bucket, chain: chain(0), until: Offset(until) };
    let holds: Vec<Hold> = vec![
        hold(IndexBucket::of_failure(&failures[0]), 5),
        hold(IndexBucket::of_activity(&activity[0]), 5),
        hold(IndexBucket::of_failure(&failures[0]), 9),
    ];
    let batch =
        HotBatch { failures: failures.to_vec(), activity: activity.to_vec(), holds: holds.clone(), ..HotBatch::default() };
    store.write(&batch, token()).await.expect("write");
    let bucket = store.bucket(&"held".into());
    let held = async |before, skip, limit| store.holds(bucket, before, skip, limit).await.expect("read");
    let mut found = held(minute, 0, 10).await;
    assert_eq!([held(minute, 0, 2).await, held(minute, 2, 2).await].concat(), found, "page by page");
    found.sort();
    let mut wanted = holds.clone();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(held(minute - 57_600, 0, 10).await, []);

    let everything = window(i64::MIN, i64::MAX);
    let failures_left = async || store.failures(&everything, 10).await.expect("read").facts;
    // Once more: it is the same.
    store.hold(&holds[..1]).await.expect("hold");
    for _ in 0..2 {
        store.drop_indexes_before(minute - 43_200, minute).await.expect("drop");
        assert_eq!(failures_left().await, failures[..1]);
        assert_eq!(store.activity(&everything, 10).await.expect("read").facts, activity[..1]);
    }
    store.release(&holds[..2]).await.expect("release");
    store.drop_indexes_before(minute - 43_200, minute).await.expect("drop");
    assert_eq!(failures_left().await, failures[..1], "one hold is left");
    assert_eq!(store.activity(&everything, 10).await.expect("read").facts, []);
    store.release(&holds[2..]).await.expect("release");
    store.drop_indexes_before(minute - 43_200, minute).await.expect("drop");
    assert_eq!(failures_left().await, []);
    assert_eq!(held(i64::MAX, 0, 10).await, []);
}

/// A sweeper whose clock is 40 days ahead; then one whose clock is right.
async fn a_floor_of_a_wrong_clock_is_put_right(store: &dyn HotStore) {
    let minute = NOW / MINUTE;
    let days = |n: i64| n * 1_440;
    store.move_marks(&[mark_move(0, 0, None, mark(0, 1))], &NOTHING).await.expect("move marks");
    store.drop_indexes_before(minute + days(10), minute + days(40)).await.expect("drop");
    let everything = window(i64::MIN, i64::MAX);
    let wrong = store.failures(&everything, 10).await.expect("read");
    assert_eq!((wrong.kept_from, wrong.marks.len()), (Micros((minute + days(10)) * MINUTE), 1));

    store.drop_indexes_before(minute - days(30), minute).await.expect("drop");
    let right = store.failures(&everything, 10).await.expect("read");
    assert_eq!(right.kept_from, Micros((minute - days(30)) * MINUTE));
    assert_eq!(right.marks, [], "they vouched for what the wrong clock dropped");
}

async fn everything_is_empty_before_the_first_write(store: &dyn HotStore) {
    assert_eq!(read(store, "nobody", i64::MAX, 1).await, []);
    let index = store.activity(&window(i64::MIN, i64::MAX), 1).await.expect("read");
    assert_eq!((index.facts, index.marks, index.more), (vec![], vec![], false));
    store.write(&HotBatch::default(), token()).await.expect("write");
    settle(store, &[("nobody", 1)]).await;
    store.drop_indexes_before(0, 1).await.expect("drop");
    let health = store.health().await.expect("health");
    assert_eq!(health.problems, Vec::<String>::new());
}

/// Keys expire whole after the ttl, and one that is written with `persist` does not; marks and indexes never do.
async fn keys_expire(store: Arc<dyn HotStore>) {
    let newer = saga("newer", [member(1, NOW), member(2, NOW)]);
    let batch = HotBatch {
        sagas: vec![saga("gone", [member(1, NOW)]), saga("kept", [member(1, NOW)]), saga("bare", [member(1, NOW)]), newer],
        failures: vec![failure("gone", "order", "charge", NOW, 1)],
        ..HotBatch::default()
    };
    store.write(&batch, token()).await.expect("write");
    store.move_marks(&[mark_move(0, 0, None, mark(0, 1))], &NOTHING).await.expect("move marks");
    settle(&*store, &[("gone", 1), ("kept", 1), ("bare", 1)]).await;
    let again =
        vec![SagaWrite { persist: true, ..saga("kept", [member(2, NOW)]) }, SagaWrite { persist: true, ..saga("bare", []) }];
    write(&*store, again).await;
    // One who owned the partition once comes late: what it saw become durable is not the newest any more.
    settle(&*store, &[("kept", 1), ("newer", 1)]).await;

    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !read(&*store, "gone", i64::MAX, 9).await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "the key did not expire");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read(&*store, "kept", i64::MAX, 9).await.len(), 2);
    assert_eq!(read(&*store, "bare", i64::MAX, 9).await.len(), 1);
    assert_eq!(read(&*store, "newer", i64::MAX, 9).await.len(), 2);
    assert_eq!(store.marks(0).await.expect("marks").len(), 1);
    assert_eq!(store.failures(&window(NOW, NOW + 1), 9).await.expect("read").facts.len(), 1);
    // A later entry makes a new key without its head: the reader sees the hole by the sequence.
    write(&*store, vec![saga("gone", [member(2, NOW)])]).await;
    assert_eq!(read(&*store, "gone", i64::MAX, 9).await, [member(2, NOW)]);
}
