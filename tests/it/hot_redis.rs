//! What is Redis alone: a server of the test's own is full, a replica, paused, wiped, gone.

use std::time::Duration;

use resaga::config;
use resaga::error::Error;
use resaga::hot::{self, HotBatch, HotQuery, MarkOutcome, Member};
use resaga::saga::time::Micros;

use crate::hot_contract::{NOW, config, mark, mark_move, member, saga};
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
        store.write(&batch).await
    };
    write(store.max_member()).await.expect("it fits");
    assert!(write(store.max_member() + 1).await.expect_err("too large").is_unavailable());
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn a_redis_in_trouble_is_unavailable_and_heals_by_itself() {
    let mut server = RedisProcess::start().await;
    let store = hot::open(&config::Hot { timeout: Duration::from_millis(500), ..config(&server.url(), 60_000) }).expect("open");
    let batch = HotBatch { sagas: vec![saga("a", [member(1, NOW)])], ..HotBatch::default() };
    let moves = [mark_move(0, 0, None, mark(0, 1))];
    let refuses = async |why: &str| {
        for outcome in [store.write(&batch).await, store.move_marks(&moves).await.map(drop), store.takes_writes().await] {
            let Err(Error::Unavailable(text)) = outcome else { panic!("{why}: {outcome:?}") };
            assert!(text.contains(why), "{text}");
        }
    };

    server.config("maxmemory", "1").await;
    refuses("out of memory").await;
    store.marks(0).await.expect("reads go on");
    assert!(store.health().await.expect("health").hints.iter().any(|hint| hint.contains("of maxmemory 0 MiB")));
    server.config("maxmemory", "0").await;
    store.write(&batch).await.expect("heals");
    store.takes_writes().await.expect("heals");

    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    refuses("replica").await;
    assert!(store.health().await.expect("health").problems.iter().any(|p| p.contains("replica")));
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    store.write(&batch).await.expect("heals");

    server.config("maxmemory-policy", "allkeys-lru").await;
    assert!(store.health().await.expect("health").problems.iter().any(|p| p.contains("volatile-ttl")));

    server.command(&["SET", "resaga:2:s:text", "x"]).await;
    let wrong = store.read(&[HotQuery { saga: "text".into(), upto: Micros::MAX, limit: 1 }]).await;
    assert!(matches!(wrong, Err(Error::Corrupt(_))), "{wrong:?}");
    server.command(&["HSET", "resaga:2:marks", "t/0/0", "garbage"]).await;
    assert!(matches!(store.marks(0).await, Err(Error::Corrupt(_))));

    // It hangs: one try ends by the time-out.
    server.command(&["CLIENT", "PAUSE", "1500"]).await;
    refuses("no answer within 500 ms").await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.write(&batch).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it did not heal after a pause");
    }

    // It is gone, then there again without its data: the mark is lost and said to be.
    let outcome = store.move_marks(&moves).await.expect("answers").remove(0);
    // The one that was not answered may have been carried out.
    assert!(matches!(outcome, MarkOutcome::Moved | MarkOutcome::Found(Some(_))), "{outcome:?}");
    server.restart().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while store.write(&batch).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it did not heal after a restart");
    }
    let expecting = [mark_move(0, 0, Some(mark(0, 1)), mark(0, 2))];
    assert_eq!(store.move_marks(&expecting).await.expect("answers"), [MarkOutcome::Found(None)]);
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
            store.write(&batch).await.expect("write");
            store.move_marks(&[mark_move(0, 0, None, mark(0, 1))]).await.expect("move mark");
            server.command(&["FLUSHALL"]).await;
        }
        wiped.set(true);
    };
    let reader = async {
        let mut vouched = 0;
        while !wiped.get() {
            let queries = [HotQuery { saga: "s".into(), upto: Micros::MAX, limit: 9 }];
            let read = store.read(&queries).await.expect("read").remove(0);
            vouched += read.marks.len();
            assert!(read.marks.is_empty() || !read.members.is_empty(), "a mark without its member");
        }
        vouched
    };
    let ((), vouched) = tokio::join!(hurt, reader);
    assert!(vouched > 0, "no read met a mark");
}
