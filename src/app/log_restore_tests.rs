use super::super::testing::{MINUTE, materialize, stores_for};
use super::*;
use crate::config::Config;
use crate::saga::json::Json;
use crate::saga::position::{Offset, TopicPartition};
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
    materialize(&*stores.hot, &config.topics.log, records.iter().enumerate().map(event).collect()).await;

    // The topic still has the newest, and a newer record of it than history.
    let view = ReplayLog::new(10);
    view.whole_from([(0, Offset(5))]);
    view.apply(0, vec![(Offset(4), record("new", 3, "completed"))], Offset(5));
    assert_eq!(restore(&view, &stores.log_history).await.expect("nothing to do"), 0, "the topic has dropped nothing");

    view.topic_begins(0, Offset(4));
    assert_eq!(restore(&view, &stores.log_history).await.expect("restored"), 2);
    let found = view.of_saga(&"order-1".into());
    let found: Vec<_> = found.iter().map(|record| (record.replay_id.as_str(), record.status.as_str())).collect();
    assert_eq!(found, [("new", "completed"), ("mid", "refused"), ("old", "completed")]);
    assert!(view.waiting().is_empty(), "what seems to wait in history is not carried out by it");
    assert_eq!(view.unknown_below(0), Offset(4), "but it exists: history is asked for it");

    let view = ReplayLog::new(10);
    view.apply(0, vec![(Offset(4), record("waits", 1, "accepted"))], Offset(5));
    view.topic_begins(0, Offset(4));
    assert_eq!(restore(&view, &stores.log_history).await.expect("restored"), 3);
    assert!(view.all_unknown_below().is_empty(), "all that there is, is here");
}
