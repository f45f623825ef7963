use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::cold::directory::Directory;
use crate::cold::gaps::give_up;
use crate::config::Config;
use crate::saga::event::StepEvent;
use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset, TopicPartition};
use crate::saga::request::LogRecord;
use crate::saga::time::Micros;
use crate::serve::testing::{Faulty, MINUTE, archive, materialize, stores_for, stores_on};
use crate::wire::log::{decode_log_json, log_json};

fn record(id: &str, at: i64, status: &str) -> LogRecord {
    let text = format!(
        r#"{{"replay_id":"{id}","request_id":"r","request_sha256":"","command":"REPLAY","original_saga_id":"order-1",
        "new_saga_id":"new-{id}","requested_by":"ops","reason":"test","status":"{status}","accepted_at":"{}",
        "position":{{"topic":"requests","partition":0,"offset":{at}}}}}"#,
        Micros(at * MINUTE)
    );
    decode_log_json(text.as_bytes()).expect("a log record")
}

fn events(config: &Config, records: &[LogRecord]) -> Vec<StepEvent> {
    let partition = TopicPartition::new(config.topics.log.as_str(), 0);
    let event = |(n, record): (usize, &LogRecord)| {
        let text = Json::from_valid(log_json(record));
        in_history::as_step_event(&record.replay_id, text, &partition, Offset(n as i64))
    };
    records.iter().enumerate().map(event).collect()
}

/// The topic began with nothing, and has dropped all below this offset.
fn view_from(begin: Offset) -> ReplayLog {
    let view = ReplayLog::new(10);
    view.set_initial_ends([(0, begin)]);
    view.apply(0, Vec::new(), begin);
    view.set_topic_start(0, begin);
    view
}

#[tokio::test]
async fn replays_that_the_topic_dropped_are_listed_and_found_by_their_sagas_again() {
    let config = Config::default();
    let (stores, _directory) = stores_for(&config, 1).await;
    let records = [
        record("old", 0, "completed"),
        record("waits", 1, "accepted"),
        record("mid", 2, "refused"),
        record("new", 3, "published"),
    ];
    let events = events(&config, &records);
    // Hot has all of it, and no index of it.
    materialize(&*stores.hot, &config.topics.log, events.clone()).await;
    archive(stores.objects.clone(), &config.topics.log, events).await;

    let metrics = Metrics::new();
    let restore = async |view: &ReplayLog| {
        let restoring = LogRestore {
            view,
            history: &stores.log_history,
            chains: &stores.log_chains,
            objects: &*stores.objects,
            topic: &config.topics.log,
            metrics: &metrics,
            alarm_after: ALARM_AFTER,
        };
        restoring.restore().await
    };
    // The topic still has the newest, and a newer record of it than history.
    let view = ReplayLog::new(10);
    view.set_initial_ends([(0, Offset(5))]);
    view.apply(0, vec![(Offset(4), record("new", 3, "completed"))], Offset(5));
    assert_eq!(restore(&view).await.expect("nothing to do"), 0, "the topic has dropped nothing");

    view.set_topic_start(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 3);
    let found = view.of_saga(&"order-1".into());
    let found: Vec<_> = found.iter().map(|record| (record.replay_id.as_str(), record.status.as_str())).collect();
    assert_eq!(found, [("new", "completed"), ("mid", "refused"), ("waits", "accepted"), ("old", "completed")]);
    let waiting: Vec<_> = view.waiting().iter().map(|record| record.replay_id.clone()).collect();
    assert_eq!((waiting, view.waiting_restored()), (vec!["waits".to_owned()], 1), "it is to be executed");
    assert_eq!(view.unknown_below(0), Offset(4), "what is not here is looked for in history all the same");

    // There is room for one that no longer waits.
    let view = ReplayLog::new(1);
    view.set_initial_ends([(0, Offset(5))]);
    view.apply(0, Vec::new(), Offset(5));
    view.set_topic_start(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 2);
    assert!(
        view.get("new").is_some() && view.get("mid").is_none() && view.get("waits").is_some(),
        "those that wait are all there"
    );

    // An operator gave up what was recorded behind it: it may have been executed.
    let chain = ChainId { topic: config.topics.log.as_str().into(), incarnation: 0, partition: 0 };
    give_up(&*stores.objects, &chain, Offset(2), Offset(2), "{}".into()).await.expect("given up");
    let view = ReplayLog::new(10);
    view.set_initial_ends([(0, Offset(5))]);
    view.apply(0, Vec::new(), Offset(5));
    view.set_topic_start(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 3);
    assert!(view.waiting().is_empty());
    assert_eq!(view.unknown_below(0), Offset(4), "it exists: history is asked for it");
    let alarm = metrics.partition_alarms.with_label_values(&[&config.topics.log, "0", Alarm::WaitingNotKnown.code()]);
    assert_eq!(alarm.get(), 1);
}

#[tokio::test]
async fn a_read_that_fails_once_leaves_no_replay_waiting_for_ever() {
    let config = Config::default();
    let directory = tempfile::tempdir().expect("a directory");
    let objects = Directory::open(directory.path()).expect("a store");
    let records = [record("a", 0, "accepted"), record("b", 1, "refused"), record("c", 2, "accepted")];
    archive(Arc::new(objects.clone()), &config.topics.log, events(&config, &records)).await;
    let metrics = Metrics::new();
    let topic = config.topics.log.as_str();
    let alarm = || metrics.partition_alarms.with_label_values(&[topic, "0", Alarm::WaitingNotKnown.code()]).get();
    let mut failures = 0;
    for good in 0.. {
        for lasts in [false, true] {
            let store = Arc::new(Faulty::new(objects.clone()));
            let stores = stores_on(&config, 1, store.clone()).await;
            let view = view_from(Offset(3));
            store.fail(good, if lasts { i64::MAX } else { 1 });
            let alarm_after = if lasts { Duration::from_millis(100) } else { ALARM_AFTER };
            let restoring = LogRestore {
                view: &view,
                history: &stores.log_history,
                chains: &stores.log_chains,
                objects: &*stores.objects,
                topic,
                metrics: &metrics,
                alarm_after,
            };
            let is_alarm = async {
                while alarm() == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let restore = restoring.restore();
            tokio::pin!(restore);
            let restored = tokio::select! {
                restored = &mut restore => restored,
                () = is_alarm, if lasts => {
                    store.fail(i64::MAX, 0);
                    restore.await
                }
            };
            let mut waiting: Vec<_> = view.waiting().iter().map(|record| record.replay_id.clone()).collect();
            waiting.sort();
            assert_eq!((restored, waiting), (Ok(3), vec!["a".to_owned(), "c".to_owned()]), "read {good} fails");
            assert_eq!(alarm(), 0, "all is told");
            if store.failed.load(Ordering::SeqCst) == 0 && !lasts {
                assert!(failures > 3, "single replays are read too: {failures}");
                return;
            }
            failures += 1;
        }
    }
}

#[tokio::test]
async fn what_waited_before_a_record_that_is_not_understood_is_left_alone_with_an_alarm() {
    let config = Config::default();
    let (stores, _directory) = stores_for(&config, 1).await;
    let metrics = Metrics::new();
    let topic = config.topics.log.as_str();
    let restoring = |view| LogRestore {
        view,
        history: &stores.log_history,
        chains: &stores.log_chains,
        objects: &*stores.objects,
        topic,
        metrics: &metrics,
        alarm_after: ALARM_AFTER,
    };
    let alarm = || metrics.partition_alarms.with_label_values(&[topic, "0", Alarm::WaitingNotKnown.code()]).get();
    archive(stores.objects.clone(), topic, events(&config, &[record("r", 0, "accepted")])).await;

    // History has the older one.
    let view = view_from(Offset(1));
    view.mark_unreadable(0, "r", Offset(500));
    assert_eq!((restoring(&view).restore().await, view.waiting().len(), alarm()), (Ok(0), 0, 1));
    metrics.partition_alarms.reset();
    // The topic has it.
    let view = view_from(Offset(0));
    view.apply(0, vec![(Offset(10), record("r", 0, "accepted"))], Offset(501));
    view.mark_unreadable(0, "r", Offset(500));
    assert_eq!((restoring(&view).restore().await, view.waiting().len(), alarm()), (Ok(0), 0, 1));
}
