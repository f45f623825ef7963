use std::sync::Arc;

use super::super::testing::{materialize, stores_for};
use super::*;
use crate::config::Config;
use crate::kafka::ends::Ends;
use crate::kafka::mock::MockKafka;
use crate::kafka::publisher::Publisher;
use crate::roles::replay::desk::Rules;
use crate::roles::replay::fresh::Freshness;
use crate::roles::replay_log::ReplayLog;
use crate::saga::position::Offset;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::log::decode_log_json;

const BODY: &[u8] =
    br#"{"request_id":"r-1","command":"REPLAY","saga_id":"order-1","from":{"start":true},"reason":"x","requested_by":"ops"}"#;

/// A replay side over a saga that failed, brokers without a worker, and a log that is not read yet.
struct World {
    side: ReplaySide,
    log: Arc<ReplayLog>,
    _cluster: MockKafka,
    _directory: tempfile::TempDir,
}

async fn world() -> World {
    let cluster = MockKafka::start().expect("cluster");
    let mut config = Config::default();
    config.kafka.brokers = cluster.brokers();
    for topic in [&config.topics.events[0], &config.topics.requests] {
        cluster.create_topic(topic, 1).expect("topic");
    }
    let (stores, directory) = stores_for(&config, 1).await;
    let event = |(n, kind): (usize, &str)| {
        let text = format!(r#"{{"event_id":"{n}","saga_id":"order-1","saga_name":"order","kind":"{kind}"}}"#);
        decode_event(Some(b"order-1"), Some(text.as_bytes()), &Vec::new(), 1 << 20, &Schemas::new(false)).expect("an event")
    };
    let events = ["SAGA_STARTED", "SAGA_FAILED"].into_iter().enumerate().map(event).collect();
    materialize(&*stores.hot, &config.topics.events[0], events).await;
    let log = Arc::new(ReplayLog::new(10));
    let rules = Rules { max_depth: 10, restored_allowed: Vec::new(), max_restored_bytes: 1 << 20, max_event_bytes: 1 << 20 };
    let desk = Desk { history: stores.history.clone(), log_history: stores.log_history.clone(), log: log.clone(), rules };
    let ends = Ends::new(&config.kafka).expect("ends");
    let freshness = Freshness { ends, history: stores.history.clone(), chains: stores.chains.clone() };
    let publisher = Publisher::new(&config.kafka).expect("producer");
    let submit = Submit::new(desk, freshness, publisher, (config.topics.requests.clone(), None), || Micros(7));
    World { side: ReplaySide { submit }, log, _cluster: cluster, _directory: directory }
}

/// A record of the log for [`BODY`], with these members besides.
fn known(members: &str) -> LogRecord {
    let sha256 = decode_body(BODY, "").expect("a request").sha256;
    let replay_id = crate::saga::ids::replay_id("r-1", &"order-1".into());
    let text = format!(
        r#"{{"replay_id":"{replay_id}","request_id":"r-1","request_sha256":"{sha256}","command":"REPLAY","original_saga_id":"order-1",
        "requested_by":"ops","reason":"x","accepted_at":"2026-01-10T10:00:00Z","position":{{"topic":"t","partition":0,"offset":1}},{members}}}"#
    );
    decode_log_json(text.as_bytes()).expect("a log record")
}

fn code<T: std::fmt::Debug>(answer: Result<T>) -> &'static str {
    answer.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_from_a_log_that_is_not_read_to_its_end() {
    let World { side, log, .. } = &world().await;
    log.whole_from([(0, Offset(1))]);
    assert_eq!(code(side.get("r").await), "unavailable");
    assert_eq!(code(side.list(&ReplayFilter::default(), None, 10).await), "unavailable");
    assert_eq!(code(side.submit(BODY, None).await), "unavailable");
    assert_eq!(code(side.cancel("r", "ops", "x").await), "unavailable");
    assert_eq!(code(side.children(&"order-1".into()).await), "unavailable");
    assert_eq!(code(side.standing(&"order-1".into()).await), "unavailable");
    log.apply(0, Vec::new(), Offset(1));
    assert_eq!(side.get("r").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_found_and_called_off_before_the_log_shows_it() {
    let World { side, log, .. } = &world().await;
    log.whole_from([]);
    let Submitted::Accepted { replay_id, .. } = side.submit(BODY, None).await.expect("accepted") else { panic!("dry") };
    let record = side.get(&replay_id).await.expect("answered").expect("found");
    assert_eq!((record.status, record.request_id.as_str()), (ReplayStatus::Accepted, "r-1"));
    side.cancel(&replay_id, "ops", "x").await.expect("published behind the request");
    assert_eq!(code(side.cancel("another", "ops", "x").await), "replay_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_refused_is_refused_again_with_the_code_recorded() {
    let World { side, log, .. } = &world().await;
    log.whole_from([]);
    log.apply(0, vec![known(r#""status":"refused","code":"saga_running","message":"it ran""#)], Offset(1));
    assert_eq!(side.submit(BODY, None).await, Err(Error::refused("saga_running", "it ran")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_never_the_real_run_seen_before() {
    for status in ["accepted", "dry_run", "refused"] {
        let World { side, log, .. } = &world().await;
        log.whole_from([]);
        log.apply(
            0,
            vec![known(&format!(r#""dry_run":true,"request_sha256":"other","status":"{status}","code":"expired""#))],
            Offset(1),
        );
        let Submitted::Accepted { replay_id, .. } = side.submit(BODY, None).await.expect(status) else { panic!("dry") };
        let found = side.get(&replay_id).await.expect("answered").expect("found");
        assert!(!found.dry_run, "the record of the real run comes before that of the dry one");
        // And it is known from then on.
        let other = String::from_utf8_lossy(BODY).replace("\"x\"", "\"y\"");
        assert_eq!(code(side.submit(other.as_bytes(), None).await), "id_taken");
    }
}
