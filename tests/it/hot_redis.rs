//! What is Redis alone: a server of the test's own is full, a replica, paused, wiped, gone.

use std::time::Duration;

use resaga::config;
use resaga::error::Error;
use resaga::hot::{self, HotBatch, HotQuery, HotStore, MarkOutcome, Member, Written};
use resaga::saga::time::Micros;

use crate::hot_contract::{NOTHING, NOW, config, mark, mark_move, member, saga, token};
use crate::redis_process::RedisProcess;

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn the_largest_member_is_what_the_server_takes() {
    let server = RedisProcess::start().await;
    let store = hot::open(&config(&server.url(), 60_000)).expect("open");
    store.health().await.expect("health");
    assert_eq!(store.max_member(), 512 << 20);
    server.config("proto-max-bulk-len", "2mb").await;
    store.takes_writes().await.expect("a write");
    assert_eq!(store.max_member(), 2 << 20);
    let write = async |bytes: usize| {
        let member = Member { effective_time: Micros(NOW), bytes: vec![7; bytes].into() };
        let batch = HotBatch { sagas: vec![saga("a", [member])], ..HotBatch::default() };
        store.write(&batch, token()).await
    };
    write(store.max_member()).await.expect("it fits");
    assert!(write(store.max_member() + 1).await.expect_err("too large").is_unavailable());
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_redis_in_trouble_is_unavailable_and_heals_by_itself() {
    let mut server = RedisProcess::start().await;
    let store =
        hot::open(&config::HotConfig { timeout: Duration::from_millis(500), ..config(&server.url(), 60_000) }).expect("open");
    let batch = HotBatch { sagas: vec![saga("a", [member(1, NOW)])], ..HotBatch::default() };
    let moves = [mark_move(0, 0, None, mark(0, 1))];
    let refuses = async |why: &str| {
        let written = store.write(&batch, token()).await.map(drop);
        for outcome in [written, store.move_marks(&moves, &NOTHING).await.map(drop), store.takes_writes().await] {
            let Err(Error::Unavailable(text)) = outcome else { panic!("{why}: {outcome:?}") };
            assert!(text.contains(why), "{text}");
        }
    };

    server.config("maxmemory", "1").await;
    refuses("out of memory").await;
    store.marks(0).await.expect("reads go on");
    assert!(store.health().await.expect("health").hints.iter().any(|hint| hint.contains("of maxmemory 0 MiB")));
    server.config("maxmemory", "0").await;
    store.write(&batch, token()).await.expect("heals");
    store.takes_writes().await.expect("heals");

    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    refuses("replica").await;
    assert!(store.health().await.expect("health").problems.iter().any(|p| p.contains("replica")));
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    store.write(&batch, token()).await.expect("heals");

    server.config("maxmemory-policy", "allkeys-lru").await;
    assert!(store.health().await.expect("health").problems.iter().any(|p| p.contains("volatile-ttl")));

    server.command(&["SET", "resaga:2:s:text", "x"]).await;
    let wrong = store.read(&[HotQuery::new("text".into(), Micros::MAX, 1)]).await;
    assert!(matches!(wrong, Err(Error::Corrupt(_))), "{wrong:?}");
    server.command(&["HSET", "resaga:2:marks", "t/0/0", "garbage"]).await;
    assert!(matches!(store.marks(0).await, Err(Error::Corrupt(_))));

    // It hangs: one try ends by the time-out.
    server.command(&["CLIENT", "PAUSE", "1500"]).await;
    refuses("no answer within 500 ms").await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.write(&batch, token()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it did not heal after a pause");
    }

    // It is gone, then there again without its data: the mark is lost and said to be.
    let outcome = store.move_marks(&moves, &NOTHING).await.expect("answers").remove(0);
    // The one that was not answered may have been executed.
    assert!(matches!(outcome, MarkOutcome::Moved | MarkOutcome::Found(Some(_))), "{outcome:?}");
    server.restart().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.write(&batch, token()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it did not heal after a restart");
    }
    let expecting = [mark_move(0, 0, Some(mark(0, 1)), mark(0, 2))];
    assert_eq!(store.move_marks(&expecting, &NOTHING).await.expect("answers"), [MarkOutcome::Found(None)]);
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_wipe_never_falls_between_a_mark_and_what_it_vouches_for() {
    const WIPES: usize = 200;
    let server = RedisProcess::start().await;
    let store = hot::open(&config(&server.url(), 60_000)).expect("open");
    let batch = HotBatch { sagas: vec![saga("s", [member(1, NOW)])], ..HotBatch::default() };
    let wiped = std::cell::Cell::new(false);
    let hurt = async {
        for _ in 0..WIPES {
            store.write(&batch, token()).await.expect("write");
            store.move_marks(&[mark_move(0, 0, None, mark(0, 1))], &NOTHING).await.expect("move mark");
            server.command(&["FLUSHALL"]).await;
        }
        wiped.set(true);
    };
    let reader = async {
        let mut vouched = 0;
        while !wiped.get() {
            let queries = [HotQuery::new("s".into(), Micros::MAX, 9)];
            let read = store.read(&queries).await.expect("read").remove(0);
            vouched += read.marks.len();
            assert!(read.marks.is_empty() || !read.members.is_empty(), "a mark without its member");
        }
        vouched
    };
    let ((), vouched) = tokio::join!(hurt, reader);
    assert!(vouched > 0, "no read met a mark");
}

/// The primary acknowledges entries, dies before its replica has them, and the replica takes its place: it has the mark
/// that the next one is compared with, and must not take it.
#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_fail_over_between_entries_and_their_mark_is_noticed() {
    let mut primary = RedisProcess::start().await;
    let mut replica = RedisProcess::start().await;
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port()]).await;
    replica.wait_for(&["INFO", "replication"], "master_link_status:up").await;
    let store = hot::open(&config(&primary.url(), 60_000)).expect("open");
    first_entry(&*store).await;
    primary.command(&["WAIT", "1", "5000"]).await;

    replica.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let second = HotBatch { sagas: vec![saga("s", [member(2, NOW + 1)])], ..HotBatch::default() };
    let written = store.write(&second, token()).await.expect("the primary takes it");
    primary.kill();
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    replica.move_to(&primary).await;
    the_mark_waits_for_what_was_lost(&*store, &second, &written).await;
}

/// The same in a cluster, whose client goes to the new primary by itself.
#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_fail_over_that_the_client_of_a_cluster_follows_is_noticed() {
    let mut primary = RedisProcess::start_node().await;
    let replica = RedisProcess::start_node().await;
    primary.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    replica.command(&["CLUSTER", "MEET", "127.0.0.1", &primary.port()]).await;
    let id = primary.ask(&["CLUSTER", "MYID"]).await;
    replica.wait_for(&["CLUSTER", "NODES"], &format!("{id} 127.0.0.1:{}", primary.port())).await;
    replica.wait_for(&["CLUSTER", "INFO"], "cluster_state:ok").await;
    replica.command(&["CLUSTER", "REPLICATE", &id]).await;
    replica.wait_for(&["INFO", "replication"], "master_link_status:up").await;
    primary.wait_for(&["CLUSTER", "INFO"], "cluster_state:ok").await;
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", primary.port(), replica.port());
    let store = hot::open(&config(&url, 60_000)).expect("open");
    first_entry(&*store).await;
    primary.command(&["WAIT", "1", "5000"]).await;

    // The replica does not get in again; the client is in.
    primary.config("requirepass", "closed").await;
    primary.cut_replica("closed").await;
    let second = HotBatch { sagas: vec![saga("s", [member(2, NOW + 1)])], ..HotBatch::default() };
    let written = store.write(&second, token()).await.expect("the primary takes it");
    primary.kill();
    replica.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    replica.wait_for(&["INFO", "replication"], "role:master").await;
    the_mark_waits_for_what_was_lost(&*store, &second, &written).await;
}

async fn first_entry(store: &dyn HotStore) {
    let first = HotBatch { sagas: vec![saga("s", [member(1, NOW)])], ..HotBatch::default() };
    let written = store.write(&first, token()).await.expect("write");
    let moved = store.move_marks(&[mark_move(0, store.bucket(&"s".into()), None, mark(0, 1))], &written).await;
    assert_eq!(moved.expect("moved"), [MarkOutcome::Moved]);
}

async fn the_mark_waits_for_what_was_lost(store: &dyn HotStore, lost: &HotBatch, written: &Written) {
    let onward = [mark_move(0, store.bucket(&"s".into()), Some(mark(0, 1)), mark(0, 2))];
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let outcome = loop {
        match store.move_marks(&onward, written).await {
            Ok(outcomes) => break outcomes,
            Err(error) => assert!(error.is_unavailable() && std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(outcome, [MarkOutcome::Unproved]);
    let again = store.write(lost, token()).await.expect("write again");
    assert_eq!(store.move_marks(&onward, &again).await.expect("moved"), [MarkOutcome::Moved]);
    let read = store.read(&[HotQuery::new("s".into(), Micros::MAX, 9)]).await.expect("read").remove(0);
    assert_eq!(read.members, [member(2, NOW + 1), member(1, NOW)]);
}
