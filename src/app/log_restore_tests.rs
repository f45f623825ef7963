use super::super::testing::{MINUTE, archive, materialize, stores_for};
use super::*;
use crate::cold::gaps::give_up;
use crate::config::Config;
use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset, TopicPartition};
use crate::saga::request::LogRecord;
use crate::saga::time::Micros;
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
    let partition = TopicPartition::new(config.topics.log.as_str(), 0);
    let event = |(n, record): (usize, &LogRecord)| {
        let text = Json::from_valid(log_json(record));
        log_saga::as_step_event(&record.replay_id, text, &partition, Offset(n as i64))
    };
    let events: Vec<_> = records.iter().enumerate().map(event).collect();
    // Hot has all of it, and no index of it.
    materialize(&*stores.hot, &config.topics.log, events.clone()).await;
    archive(stores.objects.clone(), &config.topics.log, events).await;

    let metrics = Metrics::new();
    let restore = async |view: &ReplayLog| {
        let restoring = Restoring { view, stores: &stores, topic: &config.topics.log, metrics: &metrics };
        restoring.restore().await
    };
    // The topic still has the newest, and a newer record of it than history.
    let view = ReplayLog::new(10);
    view.whole_from([(0, Offset(5))]);
    view.apply(0, vec![(Offset(4), record("new", 3, "completed"))], Offset(5));
    assert_eq!(restore(&view).await.expect("nothing to do"), 0, "the topic has dropped nothing");

    view.topic_begins(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 3);
    let found = view.of_saga(&"order-1".into());
    let found: Vec<_> = found.iter().map(|record| (record.replay_id.as_str(), record.status.as_str())).collect();
    assert_eq!(found, [("new", "completed"), ("mid", "refused"), ("waits", "accepted"), ("old", "completed")]);
    let waiting: Vec<_> = view.waiting().iter().map(|record| record.replay_id.clone()).collect();
    assert_eq!((waiting, view.waiting_restored()), (vec!["waits".to_owned()], 1), "it is to be carried out");
    assert_eq!(view.unknown_below(0), Offset(4), "what is not here is looked for in history all the same");

    // There is room for one that no longer waits.
    let view = ReplayLog::new(1);
    view.whole_from([(0, Offset(5))]);
    view.apply(0, Vec::new(), Offset(5));
    view.topic_begins(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 2);
    assert!(
        view.get("new").is_some() && view.get("mid").is_none() && view.get("waits").is_some(),
        "those that wait are all there"
    );

    // An operator gave up what was recorded behind it: it may have been carried out.
    let chain = ChainId { topic: config.topics.log.as_str().into(), incarnation: 0, partition: 0 };
    give_up(&*stores.objects, &chain, Offset(2), Offset(2), "{}".into()).await.expect("given up");
    let view = ReplayLog::new(10);
    view.whole_from([(0, Offset(5))]);
    view.apply(0, Vec::new(), Offset(5));
    view.topic_begins(0, Offset(4));
    assert_eq!(restore(&view).await.expect("restored"), 3);
    assert!(view.waiting().is_empty());
    assert_eq!(view.unknown_below(0), Offset(4), "it exists: history is asked for it");
    let alarm = metrics.partition_alarms.with_label_values(&[&config.topics.log, "0", WAITING_NOT_KNOWN]);
    assert_eq!(alarm.get(), 1);
}
