//! What every object store does: the same sentences for a directory and for S3.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resaga::cold::directory::Directory;
use resaga::cold::object_store::{Metadata, ObjectStore, Put};
use resaga::cold::s3::{AccessKey, S3, S3Settings};
use resaga::error::Error;

use crate::cold_rows::folder;

const WRITERS: usize = 32;

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let folder = folder();
    contract(Arc::new(Directory::open(folder.path()).expect("open"))).await;
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn s3_keeps_the_contract() {
    contract(Arc::new(S3::open(&settings()).await.expect("open"))).await;
}

#[tokio::test]
#[ignore = "needs servers: tests/run"]
async fn s3_says_what_is_wrong_with_credentials_bucket_and_address() {
    let wrong_key = AccessKey { id: "nobody".into(), secret: "nothing".into() };
    let told = async |settings: S3Settings| {
        let store = S3::open(&settings).await.expect("open");
        // Nor is an object that is looked at only said to be missing.
        assert!(store.head("some/key").await.is_err_and(|error| error.is_unavailable()));
        match store.get_suffix("some/key", 10).await {
            Err(Error::Unavailable(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let text = told(S3Settings { keys: Some(wrong_key), ..settings() }).await;
    assert!(text.contains("access denied") && text.contains("credentials"), "{text}");
    let text = told(S3Settings { bucket: "no-such-bucket-here".into(), ..settings() }).await;
    assert!(text.contains("no such bucket") || text.contains("access denied"), "{text}");
    let text = told(S3Settings { endpoint: Some("http://127.0.0.1:1".into()), ..settings() }).await;
    assert!(text.contains("cannot reach"), "{text}");
}

#[tokio::test]
async fn a_directory_that_is_gone_is_not_empty() {
    let folder = folder();
    let store = Directory::open(folder.path()).expect("open");
    assert_eq!(store.head("a/b").await, Ok(None));
    std::fs::rename(folder.path().join("meta"), folder.path().join("elsewhere")).expect("rename");
    assert!(store.head("a/b").await.is_err_and(|error| error.is_unavailable()));
}

#[tokio::test]
async fn a_directory_finishes_what_a_crash_left_undone() {
    let folder = folder();
    let store = Directory::open(folder.path()).expect("open");
    store.create("a/b", Bytes::from_static(b"body"), &pairs()).await.expect("create");
    // As after a crash between linking the metadata and moving the bytes.
    let meta = std::fs::read_to_string(folder.path().join("meta/a/b")).expect("metadata");
    let written_as = meta.split('"').nth(3).expect("a name");
    std::fs::rename(folder.path().join("data/a/b"), folder.path().join("tmp").join(written_as)).expect("rename");
    assert_eq!(store.create("a/b", Bytes::from_static(b"other"), &pairs()).await, Ok(Put::Exists));
    assert_eq!(store.get_suffix("a/b", 9).await.expect("get").expect("there").bytes, "body");
}

fn settings() -> S3Settings {
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    S3Settings {
        bucket: var("RESAGA_TEST_S3_BUCKET"),
        prefix: format!("contract/{}", uuid::Uuid::new_v4()),
        endpoint: Some(var("RESAGA_TEST_S3_ENDPOINT")),
        region: Some("us-east-1".into()),
        path_style: true,
        timeout: Duration::from_secs(20),
        keys: Some(AccessKey { id: var("RESAGA_TEST_S3_KEY"), secret: var("RESAGA_TEST_S3_SECRET") }),
    }
}

fn pairs() -> Metadata {
    vec![("end".into(), "12".into()), ("entries-hash".into(), "0a".into())]
}

async fn contract(store: Arc<dyn ObjectStore>) {
    what_is_created_is_read_in_parts(&*store).await;
    what_is_not_there_is_none(&*store).await;
    the_first_creation_wins(&*store).await;
    of_many_racing_writers_one_wins(store.clone()).await;
    keys_are_listed_in_order(&*store).await;
    odd_names_are_names(&*store).await;
    large_objects_are_whole(&*store).await;
}

async fn what_is_created_is_read_in_parts(store: &dyn ObjectStore) {
    let body = Bytes::from_static(b"0123456789");
    assert_eq!(store.create("read/a", body.clone(), &pairs()).await, Ok(Put::Created));
    let info = store.head("read/a").await.expect("head").expect("there");
    assert_eq!((info.len, info.metadata), (10, pairs()));
    for (start, end, expected, at) in
        [(0, 10, "0123456789", 0), (3, 5, "34", 3), (8, 99, "89", 8), (4, 4, "", 4), (50, 60, "", 10)]
    {
        let part = store.get_range("read/a", start, end).await.expect("get").expect("there");
        assert_eq!((&part.bytes[..], part.start, part.len), (expected.as_bytes(), at, 10), "{start}..{end}");
        assert_eq!(part.metadata, pairs());
    }
    for (len, expected, at) in [(4, "6789", 6), (10, "0123456789", 0), (1_000_000, "0123456789", 0), (0, "", 10)] {
        let part = store.get_suffix("read/a", len).await.expect("get").expect("there");
        assert_eq!((&part.bytes[..], part.start, part.len), (expected.as_bytes(), at, 10), "last {len}");
        assert_eq!(part.metadata, pairs());
    }
    assert_eq!(store.create("read/empty", Bytes::new(), &Vec::new()).await, Ok(Put::Created));
    let part = store.get_suffix("read/empty", 5).await.expect("get").expect("there");
    assert_eq!((part.bytes.len(), part.start, part.len, part.metadata), (0, 0, 0, vec![]));
    assert_eq!(store.get_range("read/empty", 0, 5).await.expect("get").expect("there").len, 0);
}

async fn what_is_not_there_is_none(store: &dyn ObjectStore) {
    assert_eq!(store.head("none/a").await, Ok(None));
    assert_eq!(store.get_range("none/a", 0, 5).await, Ok(None));
    assert_eq!(store.get_suffix("none/a", 5).await, Ok(None));
    assert_eq!(store.list("none/", None, 10).await, Ok(vec![]));
    assert_eq!(store.delete("none/a").await, Ok(()));
}

async fn the_first_creation_wins(store: &dyn ObjectStore) {
    assert_eq!(store.create("first/a", Bytes::from_static(b"one"), &pairs()).await, Ok(Put::Created));
    assert_eq!(store.create("first/a", Bytes::from_static(b"two"), &Vec::new()).await, Ok(Put::Exists));
    let part = store.get_suffix("first/a", 9).await.expect("get").expect("there");
    assert_eq!((&part.bytes[..], part.metadata), (b"one".as_slice(), pairs()));
    assert_eq!(store.delete("first/a").await, Ok(()));
    assert_eq!(store.head("first/a").await, Ok(None));
    assert_eq!(store.create("first/a", Bytes::from_static(b"two"), &Vec::new()).await, Ok(Put::Created));
}

async fn of_many_racing_writers_one_wins(store: Arc<dyn ObjectStore>) {
    let writers = (0..WRITERS).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let (body, metadata) = (Bytes::from(vec![number as u8; 10_000]), vec![("writer".to_owned(), number.to_string())]);
            // A 409 is `Unavailable`: try again, as roles do.
            for _ in 0..20 {
                match store.create("race/a", body.clone(), &metadata).await {
                    Ok(put) => return (number, put),
                    Err(error) => assert!(error.is_unavailable(), "{error}"),
                }
            }
            panic!("no answer in 20 tries");
        })
    });
    let mut winners = Vec::new();
    for writer in futures::future::join_all(writers).await {
        let (number, put) = writer.expect("writer");
        if put == Put::Created {
            winners.push(number);
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let stored = store.get_suffix("race/a", 20_000).await.expect("get").expect("there");
    assert_eq!(stored.bytes, vec![winners[0] as u8; 10_000]);
    assert_eq!(stored.metadata, [("writer".to_owned(), winners[0].to_string())]);
}

async fn keys_are_listed_in_order(store: &dyn ObjectStore) {
    let names = ["list/0/b", "list/0/a", "list/00/a", "list/1/x/y", "listen/a"];
    for name in names {
        store.create(name, Bytes::from_static(b"x"), &Vec::new()).await.expect("create");
    }
    let all = store.list("list/", None, 100).await.expect("list");
    assert_eq!(all, ["list/0/a", "list/0/b", "list/00/a", "list/1/x/y"]);
    assert_eq!(store.list("list/0/", None, 100).await.expect("list"), ["list/0/a", "list/0/b"]);
    assert_eq!(store.list("list/", Some("list/0/a"), 2).await.expect("list"), ["list/0/b", "list/00/a"]);
    assert_eq!(store.list("list/0", Some("list/0/a1"), 100).await.expect("list"), ["list/0/b", "list/00/a"]);
    assert_eq!(store.list("list/", None, 0).await.expect("list"), Vec::<String>::new());
}

async fn odd_names_are_names(store: &dyn ObjectStore) {
    for name in ["odd/a=b/c%2Fd.e_f-g", "odd/.hidden", "odd/..x", "odd/%"] {
        assert_eq!(store.create(name, Bytes::from_static(b"x"), &Vec::new()).await, Ok(Put::Created), "{name}");
        assert!(store.head(name).await.expect("head").is_some(), "{name}");
    }
    assert_eq!(store.list("odd/", None, 9).await.expect("list").len(), 4);
    for name in ["odd//a", "/odd/a", "odd/../a", "odd/", "odd/a b"] {
        assert!(matches!(store.head(name).await, Err(Error::Bug(_))), "{name}");
    }
}

async fn large_objects_are_whole(store: &dyn ObjectStore) {
    let body: Bytes = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    assert_eq!(store.create("large/a", body.clone(), &pairs()).await, Ok(Put::Created));
    let part = store.get_range("large/a", 4_000_000, 4_000_400).await.expect("get").expect("there");
    assert_eq!(part.bytes, body.slice(4_000_000..4_000_400));
    assert_eq!(store.get_suffix("large/a", u64::MAX >> 1).await.expect("get").expect("there").bytes, body);
}
