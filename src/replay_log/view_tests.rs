use super::*;
use crate::saga::request::ReplayStatus;
use crate::saga::testing::log_record as record;
use crate::saga::time::Micros;

/// Records as the topic has them, one after the other from offset 0.
fn at(records: impl IntoIterator<Item = LogRecord>) -> Vec<(Offset, LogRecord)> {
    records.into_iter().enumerate().map(|(offset, record)| (Offset(offset as i64), record)).collect()
}

fn ids(found: &[Arc<LogRecord>]) -> Vec<&str> {
    found.iter().map(|r| r.replay_id.as_str()).collect()
}

#[test]
fn a_newer_record_of_a_replay_replaces_the_older() {
    let log = ReplayLog::new(10);
    log.apply(0, at([record("a", "s", 1, ReplayStatus::Accepted)]), Offset(1));
    log.apply(0, at([record("a", "s", 1, ReplayStatus::Published)]), Offset(2));
    assert_eq!(log.get("a").map(|r| r.status), Some(ReplayStatus::Published));
    assert!(log.waiting().is_empty());
    assert_eq!(ids(&log.of_saga(&"s".into())), ["a"]);
    assert_eq!(ids(&log.of_saga(&"new of a".into())), ["a"]);
}

#[test]
fn answers_are_newest_first_and_paged() {
    let log = ReplayLog::new(10);
    let records = (0..5).map(|i| record(&format!("r{i}"), "s", i, ReplayStatus::Refused));
    log.apply(0, at(records), Offset(5));
    let first = log.find(&ReplayFilter::default(), None, 2);
    assert_eq!(ids(&first), ["r4", "r3"]);
    let rest = log.find(&ReplayFilter::default(), Some(&place(&first[1])), 10);
    assert_eq!(ids(&rest), ["r2", "r1", "r0"]);
    let window = ReplayFilter { since: Some(Micros(1)), until: Some(Micros(3)), ..ReplayFilter::default() };
    assert_eq!(ids(&log.find(&window, None, 10)), ["r2", "r1"]);
}

#[test]
fn over_the_limit_the_oldest_go_but_never_those_that_wait() {
    let log = ReplayLog::new(2);
    log.apply(0, at([record("waits", "s", 0, ReplayStatus::Accepted)]), Offset(1));
    assert!(log.all_unknown_below().is_empty(), "all that there ever was is here");
    log.apply(0, at((1..6).map(|i| record(&format!("r{i}"), "s", i, ReplayStatus::Completed))), Offset(6));
    assert_eq!(ids(&log.find(&ReplayFilter::default(), None, 10)), ["r5", "r4", "waits"]);
    assert_eq!(ids(&log.waiting()), ["waits"]);
}

#[test]
fn what_was_dropped_says_how_far_history_must_be_known_before_a_replay_is_new() {
    let log = ReplayLog::new(2);
    // The oldest by time is not the first in the log: a record that came late keeps its request's time.
    log.apply(3, vec![(Offset(7), record("b", "s", 2, ReplayStatus::Completed))], Offset(8));
    log.apply(3, vec![(Offset(9), record("a", "s", 1, ReplayStatus::Completed))], Offset(10));
    log.apply(1, vec![(Offset(0), record("c", "s", 3, ReplayStatus::Completed))], Offset(1));
    assert_eq!(log.all_unknown_below(), [(3, Offset(10))], "behind the record that was dropped, and no further");
    log.apply(1, vec![(Offset(2), record("d", "s", 4, ReplayStatus::Completed))], Offset(3));
    assert_eq!((log.unknown_below(3), log.unknown_below(1)), (Offset(10), Offset(0)));
}

#[test]
fn what_the_topic_dropped_is_taken_from_history_but_never_over_what_the_topic_gave() {
    let log = ReplayLog::new(2);
    log.topic_begins(0, Offset(8));
    log.topic_begins(1, Offset(0));
    assert_eq!(log.all_unknown_below(), [(0, Offset(8))]);
    log.apply(0, vec![(Offset(8), record("a", "s", 5, ReplayStatus::Completed))], Offset(9));
    assert!(log.restore(record("a", "s", 5, ReplayStatus::Published)));
    assert_eq!(log.get("a").map(|r| r.status), Some(ReplayStatus::Completed));
    assert!(log.restore(record("b", "s", 4, ReplayStatus::Completed)));
    assert!(!log.restore(record("c", "s", 3, ReplayStatus::Completed)), "full: the newest stay");
    assert_eq!(ids(&log.of_saga(&"s".into())), ["a", "b"]);
    log.apply(0, vec![(Offset(9), record("d", "s", 6, ReplayStatus::Completed))], Offset(10));
    assert_eq!(log.unknown_below(0), Offset(8), "what came from history is there again when it is dropped");
}

#[test]
fn a_record_that_is_not_understood_outdates_older_ones_and_no_newer_one() {
    let log = ReplayLog::new(10);
    let waits = |id: &str| record(id, "s", 1, ReplayStatus::Accepted);
    log.apply(0, vec![(Offset(10), waits("r"))], Offset(11));
    log.is_not_understood(0, "r", Offset(500));
    assert!(log.get("r").is_none() && log.waiting().is_empty(), "it may have been carried out");
    assert_eq!(log.not_understood("r", Some(&[0])), Some((0, Offset(500))));
    assert_eq!(ids(&log.may_wait()), ["r"]);
    assert!(log.standing_of(&"s".into(), |_| ControlFlow::Break(())).is_some(), "another replay of its saga is a repeat");
    assert!(log.newest_of(&"new of r".into(), |_| Some(())).is_some(), "the saga's id is not free");
    // In the other order too: the reader tells of what is not understood before the rest of a batch.
    log.is_not_understood(0, "q", Offset(500));
    log.apply(0, vec![(Offset(499), waits("q"))], Offset(501));
    assert!(log.get("q").is_none() && log.waiting().is_empty());
    // The topic has dropped what is older, and history has it.
    log.topic_begins(0, Offset(50));
    assert_eq!(log.restore_waiting(waits("r"), Offset(50)), Restored::Newer);
    assert!(log.restore(record("r", "s", 1, ReplayStatus::Refused)), "there is room");
    assert!(log.get("r").is_none() && log.waiting().is_empty() && !log.has_everything());

    log.apply(0, vec![(Offset(501), record("r", "s", 1, ReplayStatus::Completed))], Offset(502));
    assert_eq!((log.get("r").map(|r| r.status), log.not_understood("r", None)), (Some(ReplayStatus::Completed), None));
    log.is_not_understood(0, "r", Offset(500));
    assert_eq!((log.get("r").map(|r| r.status), log.not_understood("r", None)), (Some(ReplayStatus::Completed), None));
    assert_eq!(ids(&log.may_wait()), ["q"]);
}

#[test]
fn of_records_in_two_partitions_what_was_carried_out_counts() {
    let log = ReplayLog::new(10);
    log.is_not_understood(0, "r", Offset(5));
    log.apply(1, vec![(Offset(9), record("r", "s", 1, ReplayStatus::Accepted))], Offset(10));
    assert!(log.get("r").is_none(), "it may have been carried out from the other");
    let published = LogRecord { published_at: Some(Micros(7)), ..record("r", "s", 1, ReplayStatus::Published) };
    log.apply(1, vec![(Offset(10), published)], Offset(11));
    assert_eq!((log.get("r").map(|r| r.status), log.not_understood("r", None)), (Some(ReplayStatus::Published), None));
}

#[test]
fn beyond_those_that_are_remembered_every_replay_that_is_not_here_may_be_one() {
    let log = ReplayLog::new(10);
    log.whole_from([(0, Offset(0)), (1, Offset(0))]);
    for number in 0..MAX_NOT_UNDERSTOOD {
        log.is_not_understood(0, &format!("r{number}"), Offset(number as i64));
    }
    assert_eq!(log.not_understood("another", None), None);
    log.apply(1, vec![(Offset(1), record("last", "s", 1, ReplayStatus::Accepted))], Offset(2));
    log.is_not_understood(1, "last", Offset(7));
    assert!(log.waiting().is_empty() && log.get("last").is_none());
    assert_eq!(log.not_understood("last", Some(&[1])), Some((1, Offset(7))));
    assert_eq!(log.not_understood("another", Some(&[0, 1])), Some((1, Offset(7))), "nobody can tell them apart");
    assert_eq!((log.not_understood("another", Some(&[0])), log.forgotten(&[0])), (None, None), "but the other partition's");
    assert_eq!(log.restore_waiting(record("another", "s", 1, ReplayStatus::Accepted), Offset(0)), Restored::Newer);
    log.apply(1, vec![(Offset(8), record("last", "s", 1, ReplayStatus::Completed))], Offset(9));
    assert_eq!((log.not_understood("last", None), log.has_everything()), (None, false), "a newer record tells");
}

#[test]
fn of_a_sagas_replays_those_that_stand_are_told_apart() {
    let log = ReplayLog::new(10);
    let dry = LogRecord { dry_run: true, ..record("dry", "s", 1, ReplayStatus::DryRun) };
    let forced = LogRecord { force_failure: Some("pay".into()), ..record("forced", "s", 2, ReplayStatus::Published) };
    let others = [
        record("refused", "s", 3, ReplayStatus::Refused),
        record("second", "s", 5, ReplayStatus::Completed),
        record("first", "s", 4, ReplayStatus::Accepted),
    ];
    log.apply(0, at([dry, forced].into_iter().chain(others)), Offset(5));
    let mut seen = Vec::new();
    log.standing_of(&"s".into(), |record| {
        seen.push(record.replay_id.clone());
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(seen, ["first", "second"], "oldest first");
    log.apply(0, at([record("first", "s", 4, ReplayStatus::Cancelled)]), Offset(6));
    assert_eq!(log.standing_of(&"s".into(), |r| ControlFlow::Break(r.replay_id.clone())), Some("second".into()));
}

/// Ten thousand replays of one saga, each told to the view three times: quadratic work would take minutes.
#[test]
fn the_replays_of_one_saga_may_be_many() {
    let log = ReplayLog::new(5_000);
    let began = std::time::Instant::now();
    for status in [ReplayStatus::Accepted, ReplayStatus::Published, ReplayStatus::Failed] {
        for number in 0..10_000_i64 {
            log.apply(0, vec![(Offset(number), record(&format!("r{number}"), "s", number, status))], Offset(number + 1));
            log.standing_of(&"s".into(), |_| ControlFlow::Break(()));
            log.newest_of(&"s".into(), |_| Some(()));
        }
    }
    assert_eq!(log.of_saga(&"s".into()).len(), 5_000);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn the_view_is_whole_once_every_partition_is_read_to_where_it_ended() {
    let log = ReplayLog::new(2);
    assert!(!log.is_whole(), "nothing is known yet");
    log.whole_from([(0, Offset(0)), (1, Offset(3))]);
    assert!(!log.is_whole());
    log.apply(1, Vec::new(), Offset(2));
    assert!(!log.is_whole());
    log.apply(1, Vec::new(), Offset(3));
    assert!(log.is_whole());
}

#[tokio::test]
async fn waiting_for_a_position_ends_when_it_is_reached() {
    let log = Arc::new(ReplayLog::new(2));
    let waiter = tokio::spawn({
        let log = log.clone();
        async move { log.reached(3, Offset(7)).await }
    });
    log.apply(3, Vec::new(), Offset(7));
    waiter.await.expect("reached");
}
