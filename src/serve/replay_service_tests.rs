use std::sync::Arc;

use super::super::testing::{materialize, stores_for};
use super::*;
use crate::config::Config;
use crate::hot::HotStore;
use crate::kafka::ends::Ends;
use crate::kafka::mock::MockKafka;
use crate::kafka::publisher::Publisher;
use crate::replay_log::ReplayLog;
use crate::replay_log::homes::Homes;
use crate::replay_log::in_history;
use crate::roles::replay::catch_up::CatchUpBarrier;
use crate::roles::replay::log_overlay::{LogOverlay, UnappliedRecords};
use crate::roles::replay::planner::Rules;
use crate::roles::replay::replay_records::ReplayRecords;
use crate::saga::json::Json;
use crate::saga::partitioner::partition;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::request::ReplayStatus;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::log::{decode_log_json, log_json};

const BODY: &[u8] =
    br#"{"request_id":"r-1","command":"REPLAY","saga_id":"order-1","from":{"start":true},"reason":"x","requested_by":"ops"}"#;

/// Most partitions of the log.
const LOG_PARTITIONS: i32 = 5;

/// A replay side over a saga that failed, brokers without a worker, and a log that is not read yet.
struct World {
    side: ReplayApi,
    log: Arc<ReplayLog>,
    hot: Arc<dyn HotStore>,
    _cluster: MockKafka,
    _directory: tempfile::TempDir,
}

/// Of requests and log there is one partition.
async fn world() -> World {
    world_of(Homes::new(1, &[1], true, 1)).await
}

async fn world_of(homes: Homes) -> World {
    let homes = tokio::sync::watch::channel(homes);
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
    let rules = Rules {
        max_depth: 10,
        max_replays: None,
        restored_allowed: Vec::new(),
        max_restored_bytes: 1 << 20,
        max_event_bytes: 1 << 20,
    };
    stores.log_chains.raise(&config.topics.log, LOG_PARTITIONS);
    let planner = ReplayPlanner {
        history: stores.history.clone(),
        records: ReplayRecords { log_history: stores.log_history.clone(), log: log.clone(), homes: homes.1 },
        rules,
        expressions: crate::expression::Evaluator::new(crate::expression::Bounds {
            time: std::time::Duration::from_secs(1),
            max_bytes: 4 << 20,
        }),
    };
    let ends = Ends::new(&config.kafka).expect("ends");
    let catch_up = CatchUpBarrier { ends, history: stores.history.clone(), chains: stores.chains.clone() };
    let publisher = Publisher::new(&config.kafka).expect("producer");
    let submit = Submit::new(planner, catch_up, publisher, (config.topics.requests.clone(), None), || Micros(7));
    World {
        side: ReplayApi { submit, effects: Arc::default() },
        log,
        hot: stores.hot.clone(),
        _cluster: cluster,
        _directory: directory,
    }
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
    log.set_initial_ends([(0, Offset(1))]);
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
    log.set_initial_ends([(0, Offset(0))]);
    let SubmitAnswer::Accepted { replay_id, .. } = side.submit(BODY, None).await.expect("accepted") else { panic!("dry") };
    let record = side.get(&replay_id).await.expect("answered").expect("found");
    assert_eq!((record.status, record.request_id.as_str()), (ReplayStatus::Accepted, "r-1"));
    side.cancel(&replay_id, "ops", "x").await.expect("published behind the request");
    assert_eq!(code(side.cancel("another", "ops", "x").await), "replay_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_refused_is_refused_again_with_the_code_recorded() {
    let World { side, log, .. } = &world().await;
    log.set_initial_ends([(0, Offset(0))]);
    let refused = known(r#""status":"refused","code":"saga_running","message":"it ran""#);
    log.apply(0, vec![(Offset(0), refused)], Offset(1));
    assert_eq!(side.submit(BODY, None).await, Err(Error::refused("saga_running", "it ran")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_memory_dropped_is_looked_up_in_history_to_a_known_end() {
    let World { side, log, hot, .. } = &world().await;
    let saga = SagaId::from("order-1");
    log.set_initial_ends([(0, Offset(0))]);
    let record = known(r#""status":"published","published_at":"2026-01-10T10:00:00Z","new_saga_id":"new","mode":"resume""#);
    log.set_topic_start(0, Offset(2));
    let planner = &side.submit.planner;
    assert_eq!(planner.records.is_known(&[0]).await, Ok(false), "history has nothing of the log yet");
    assert_eq!(code(planner.records.find(&record.replay_id, Some(&[0]), LogOverlay::default()).await), "unavailable");
    assert_eq!(code(side.get(&record.replay_id).await), "unavailable");
    assert_eq!(code(side.standing(&saga).await), "unavailable");
    assert_eq!(code(side.children(&saga).await), "unavailable");

    let partition = TopicPartition::new(Config::default().topics.log.as_str(), 0);
    let text = Json::from_valid(log_json(&record));
    let event = in_history::as_step_event(&record.replay_id, text, &partition, Offset(0));
    let index = in_history::as_index_event(&record).expect("a replay of a saga");
    materialize(&**hot, &partition.topic, vec![event, index]).await;
    assert_eq!(planner.records.is_known(&[0]).await, Ok(true));
    assert_eq!(side.get(&record.replay_id).await, Ok(Some(record.clone())));
    assert_eq!(side.get("another").await, Ok(None));
    assert_eq!(side.standing(&saga).await, Ok(ReplayStanding::Open));
    let children = side.children(&saga).await.expect("answered");
    assert_eq!(children.iter().map(|child| child.saga_id.as_str()).collect::<Vec<_>>(), ["new"]);
    let listed = ReplayFilter { saga_id: Some(saga), ..ReplayFilter::default() };
    assert_eq!(side.list(&listed, None, 10).await.map(|page| page.records), Ok(vec![record]));
    let another = String::from_utf8_lossy(BODY).replace("\"r-1\"", "\"r-2\"");
    assert_eq!(code(side.submit(another.as_bytes(), None).await), "already_replayed");
    let unknown = String::from_utf8_lossy(BODY).replace("\"x\"", "\"y\"");
    assert_eq!(code(side.submit(unknown.as_bytes(), None).await), "id_taken");
}

/// The record is in partition 0 of what was one; now there are more, and requests for the saga go to another.
#[tokio::test(flavor = "multi_thread")]
async fn what_memory_dropped_is_looked_up_where_an_earlier_partition_count_put_it() {
    let now = (2..=LOG_PARTITIONS).find(|count| partition(b"order-1", *count) != 0).expect("a count that moves the saga");
    for homes in [Homes::new(now, &[1, now], true, now), Homes::of_unknown(now)] {
        let World { side, log, hot, .. } = &world_of(homes.clone()).await;
        let record = known(r#""status":"published","published_at":"2026-01-10T10:00:00Z","new_saga_id":"new","mode":"resume""#);
        log.set_topic_start(0, Offset(2));
        log.set_initial_ends((0..now).map(|partition| (partition, Offset(0))));
        log.start_reading(0, Offset(3));
        let (planner, home) = (&side.submit.planner, homes.home(b"order-1"));
        let here = planner.records.homes_of(&"order-1".into());
        assert!(here.contains(&0) && here.contains(&home), "{here:?}");
        assert_eq!(planner.records.is_known(&here).await, Ok(false), "partition 0 is not read to its end");
        assert_eq!(code(planner.records.find(&record.replay_id, Some(&here), LogOverlay::default()).await), "unavailable");
        log.apply(0, Vec::new(), Offset(3));
        assert_eq!(planner.records.is_known(&here).await, Ok(false), "history has nothing of the log yet");

        let of = TopicPartition::new(Config::default().topics.log.as_str(), 0);
        let event = in_history::as_step_event(&record.replay_id, Json::from_valid(log_json(&record)), &of, Offset(0));
        let index = in_history::as_index_event(&record).expect("a replay of a saga");
        materialize(&**hot, &of.topic, vec![event, index]).await;
        assert_eq!(planner.records.is_known(&here).await, Ok(true));
        assert_eq!(side.get(&record.replay_id).await, Ok(Some(record.clone())));
        let [another, other] =
            [("\"r-1\"", "\"r-2\""), ("\"x\"", "\"y\"")].map(|(from, to)| String::from_utf8_lossy(BODY).replace(from, to));
        assert_eq!(code(side.submit(other.as_bytes(), None).await), "id_taken", "seen before");
        assert_eq!(code(side.submit(another.as_bytes(), None).await), "already_replayed");
        assert_eq!(side.standing(&"order-1".into()).await, Ok(ReplayStanding::Open));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_record_nobody_understands_is_not_new() {
    let World { side, log, .. } = &world().await;
    log.set_initial_ends([(0, Offset(0))]);
    let record = known(r#""status":"published","published_at":"2026-01-10T10:00:00Z","new_saga_id":"new","mode":"resume""#);
    log.apply(0, vec![(Offset(2), known(r#""status":"accepted""#))], Offset(3));
    log.mark_unreadable(0, &record.replay_id, Offset(3));
    let planner = &side.submit.planner;
    assert!(!log.has_everything(), "history and memory together do not tell");
    assert_eq!(code(planner.records.find(&record.replay_id, Some(&[0]), LogOverlay::default()).await), "corrupt");
    let looked_up = planner.records.dropped(vec![(record.replay_id.clone(), 0, vec![0]), ("another".into(), 0, vec![0])]).await;
    let looked_up: Vec<_> = looked_up.into_iter().map(|(id, _, found)| (id, found.map_err(|error| error.code()))).collect();
    assert_eq!(looked_up, [(record.replay_id.clone(), Err("corrupt"))]);
    assert_eq!(code(side.submit(BODY, None).await), "corrupt");
    log.apply(0, vec![(Offset(4), record.clone())], Offset(5));
    assert!(log.has_everything());
    assert_eq!(side.get(&record.replay_id).await, Ok(Some(record)), "a later one is");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_posts_of_one_id_at_once_the_second_finds_the_first() {
    let World { side, log, .. } = &world().await;
    log.set_initial_ends([(0, Offset(0))]);
    let other = String::from_utf8_lossy(BODY).replace("\"x\"", "\"y\"");
    let (one, two) = tokio::join!(side.submit(BODY, None), side.submit(other.as_bytes(), None));
    let answers = [one, two].map(|answer| answer.map(drop).map_err(|error| error.code().to_owned()));
    assert!(answers.contains(&Ok(())) && answers.contains(&Err("id_taken".to_owned())), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_never_the_real_run_seen_before() {
    for status in ["accepted", "dry_run", "refused"] {
        let World { side, log, .. } = &world().await;
        log.set_initial_ends([(0, Offset(0))]);
        log.apply(
            0,
            vec![(Offset(0), known(&format!(r#""dry_run":true,"request_sha256":"other","status":"{status}","code":"expired""#)))],
            Offset(1),
        );
        let SubmitAnswer::Accepted { replay_id, .. } = side.submit(BODY, None).await.expect(status) else { panic!("dry") };
        let found = side.get(&replay_id).await.expect("answered").expect("found");
        assert!(!found.dry_run, "the record of the real run comes before that of the dry one");
        // And it is known from then on.
        let other = String::from_utf8_lossy(BODY).replace("\"x\"", "\"y\"");
        assert_eq!(code(side.submit(other.as_bytes(), None).await), "id_taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lineage_has_the_replays_of_all_its_sagas_that_were_not_refused_dry_or_forced() {
    let World { side, log, .. } = &world().await;
    log.set_initial_ends([(0, Offset(0))]);
    let record = |id: &str, original: &str, made: &str, members: &str| {
        let text = format!(
            r#"{{"replay_id":"{id}","request_id":"{id}","request_sha256":"x","command":"REPLAY","original_saga_id":"{original}",
            "new_saga_id":"{made}","mode":"resume","requested_by":"ops","reason":"x","accepted_at":"2026-01-10T10:00:00Z",
            "position":{{"topic":"t","partition":0,"offset":1}},{members}}}"#
        );
        decode_log_json(text.as_bytes()).expect("a log record")
    };
    let published = r#""published_at":"2026-01-10T10:00:00Z""#;
    let records = [
        record("r1", "root", "n1", &format!(r#"{published},"status":"failed""#)),
        record("r2", "root", "n2", &format!(r#"{published},"status":"completed","force_failure":"a""#)),
        record("r3", "root", "n3", r#""status":"refused","code":"saga_running""#),
        record("r4", "n1", "n4", &format!(r#"{published},"status":"undone","executed_as":"e4""#)),
        record("r5", "e4", "n5", r#""status":"accepted""#),
        record("r6", "n2", "n6", r#""status":"dry_run","dry_run":true"#),
        record("other", "elsewhere", "n7", &format!(r#"{published},"status":"failed""#)),
    ];
    log.apply(0, records.into_iter().enumerate().map(|(at, record)| (Offset(at as i64), record)).collect(), Offset(7));
    let has = |most, not: &'static str, overlay| {
        let root = SagaId::from("root");
        async move {
            let counts = |record: &LogRecord| record.replay_id != not;
            side.submit.planner.records.lineage_has(&root, most, counts, overlay).await.expect("answered")
        }
    };
    assert!(has(3, "", LogOverlay::default()).await && !has(4, "", LogOverlay::default()).await, "r1, r4, r5");
    assert!(!has(3, "r5", LogOverlay::default()).await, "one that does not count");
    let mut unapplied = UnappliedRecords::default();
    unapplied.insert(Arc::new(record("r7", "n4", "n8", r#""status":"accepted""#)));
    unapplied.insert(Arc::new(record("r5", "e4", "n5", r#""status":"cancelled""#)));
    assert!(has(3, "", LogOverlay::of(&unapplied)).await && !has(4, "", LogOverlay::of(&unapplied)).await, "r1, r4, r7");
}
