use super::*;
use crate::roles::replay::log_record::record_of;
use crate::roles::replay::queue::parked::{Parked, waits};
use crate::saga::batch_progress::BatchLimits;
use crate::saga::event::Kind;
use crate::saga::json::Json;
use crate::saga::lineage::Mode;
use crate::saga::partitioner::Partitioner;
use crate::saga::position::{Position, TopicPartition};
use crate::saga::schedule::progress::ScheduleProgress;
use crate::saga::testing::{Log, event, log_record, restored};
use crate::wire::request::decode_json;

const NOW: Micros = Micros(1_780_000_000_000_000);

/// Something that tells a case from one where all is well.
type Adjust = fn(&mut Facts);

/// What it is about, a request, its facts, and what is expected.
type Case<T> = (&'static str, fn() -> RequestItem, Adjust, T);

/// Facts of a batch with room for everything.
fn facts(change: Adjust) -> Facts {
    let mut facts =
        Facts { times: BatchTimes { taken_up_at: NOW, decided_at: Micros(NOW.0 + 1) }, may_park: true, ..Facts::default() };
    change(&mut facts);
    facts
}

fn item(command: &str, members: &str) -> RequestItem {
    let text =
        format!(r#"{{"request_id":"r","command":"{command}","saga_id":"order-1","requested_by":"ops","reason":"x"{members}}}"#);
    let request = decode_json(text.as_bytes()).expect("a request");
    let record = record_of(&request, Position::new("requests", 0, 7), NOW);
    RequestItem {
        request,
        partition: TopicPartition::new("requests", 0),
        record,
        trace: None,
        ends: None,
        undoes: None,
        parked: None,
    }
}

fn new_replay() -> RequestItem {
    item("REPLAY", r#","from":{"start":true}"#)
}

fn later() -> RequestItem {
    item("REPLAY", r#","from":{"start":true},"not_before":"2100-01-01T00:00:00Z""#)
}

fn dry_run() -> RequestItem {
    item("REPLAY", r#","from":{"start":true},"dry_run":true"#)
}

fn parked() -> RequestItem {
    let item = new_replay();
    RequestItem { parked: Parked::of(item.request.clone(), item.record.clone(), None, None), ..item }
}

fn cancel() -> RequestItem {
    item("CANCEL", r#","replay_id":"other""#)
}

fn invalid() -> RequestItem {
    item("REPLAY", "")
}

fn known(status: ReplayStatus) -> Option<Arc<LogRecord>> {
    Some(Arc::new(log_record("other", "order-1", 1, status)))
}

fn known_dry_run() -> Option<Arc<LogRecord>> {
    Some(Arc::new(LogRecord { dry_run: true, ..log_record("other", "order-1", 1, ReplayStatus::DryRun) }))
}

/// A plan; `is_writable`: of what it publishes, if it does.
fn planned(is_writable: Option<bool>) -> PlanFact {
    let restored = restored("r", Mode::Resume);
    let event = RestoredEvent::of(&restored).expect("an event");
    let plan = Plan { restored, changed: Vec::new(), before: Json::from_valid("{}"), runs: Vec::new(), would_refuse: None };
    let events = EventPartitions { partitioner: Partitioner::Murmur2, count: 3 };
    let publishing = is_writable.map(|is_writable| Publishing { events, is_writable });
    PlanFact::Planned(Box::new(PlannedReplay { plan, event, publishing }))
}

fn refusal() -> Refusal {
    Refusal::new("saga_running", "it runs")
}

/// A decision in short.
fn short(decision: &Decision) -> String {
    match decision {
        Decision::Restore => "restore".into(),
        Decision::Refuse(refusal) => format!("refuse {}", refusal.code),
        Decision::Park { holds_saga: true } => "park".into(),
        Decision::Park { holds_saga: false } => "park for later".into(),
        Decision::Skip { holds_saga: true } => "skip".into(),
        Decision::Skip { holds_saga: false } => "skip, others go".into(),
        Decision::SkipBehind { replay_id } => format!("skip behind {replay_id}"),
        Decision::Duplicate => "duplicate".into(),
        Decision::Unpark => "unpark".into(),
        Decision::Cancel { .. } => "cancel".into(),
        Decision::Undo { undone, done, .. } => format!("undo {} {}", undone.status.as_str(), done.status.as_str()),
        Decision::CancelMember(record) => format!("member {}", record.status.as_str()),
        Decision::Begin(record) => format!("start {}", record.command.as_str()),
        Decision::Control { changed, .. } if changed.schedule_progress.is_some() => {
            let progress = changed.schedule_progress.as_ref().expect("a schedule");
            let stopped = progress.stopped_because.map_or("goes on", StopReason::as_str);
            format!("schedule {} {stopped} since {}", changed.status.as_str(), progress.since.0)
        }
        Decision::Control { changed: batch, .. } => {
            let progress = batch.batch_progress.as_ref().expect("a batch");
            let paused = progress.paused.map_or("goes on", PauseReason::as_str);
            format!("batch {} {}", batch.status.as_str(), if progress.is_cancelled { "cancelled" } else { paused })
        }
        Decision::Outcome(record) => format!("outcome {}", record.status.as_str()),
        Decision::NoChange { is_unknown: true } => "unknown".into(),
        Decision::NoChange { is_unknown: false } => "no change".into(),
    }
}

fn check(cases: &[Case<&str>]) {
    for (what, item, change, expected) in cases {
        assert_eq!(short(&decide(&facts(*change), &item())), *expected, "{what}");
    }
}

#[test]
fn a_new_replay_is_restored_refused_parked_or_skipped() {
    check(&[
        ("planned and writable", new_replay, |f| f.plan = planned(Some(true)), "restore"),
        ("a dry run publishes nothing", dry_run, |f| f.plan = planned(None), "restore"),
        ("refused by its plan", new_replay, |f| f.plan = PlanFact::Refused(refusal()), "refuse saga_running"),
        ("no leader where it goes", new_replay, |f| f.plan = planned(Some(false)), "park"),
        ("a store does not answer", new_replay, |f| f.plan = PlanFact::Unknown, "park"),
        ("its saga is behind, or the rate lets no more go", new_replay, |_| (), "park"),
        ("its time has not come: it holds nobody up", later, |_| (), "park for later"),
        ("no room", new_replay, |f| f.may_park = false, "skip"),
        ("no room, not its time", later, |f| f.may_park = false, "skip, others go"),
        ("no room, no leader", new_replay, |f| (f.may_park, f.plan) = (false, planned(Some(false))), "skip"),
        ("behind one that was skipped", new_replay, |f| f.follows_skipped = true, "skip"),
        ("behind one that was skipped, not its time", later, |f| f.follows_skipped = true, "skip, others go"),
        ("behind one that is parked", new_replay, |f| f.follows_parked = true, "park"),
        ("whether it is new cannot be known", new_replay, |f| f.is_unreadable = true, "skip, others go"),
    ]);
}

#[test]
fn a_request_that_was_seen_comes_to_nothing() {
    check(&[
        ("accepted before", new_replay, |f| f.own = known(ReplayStatus::Accepted), "duplicate"),
        ("refused before", new_replay, |f| f.own = known(ReplayStatus::Refused), "duplicate"),
        (
            "even where it could go",
            new_replay,
            |f| (f.own, f.plan) = (known(ReplayStatus::Published), planned(Some(true))),
            "duplicate",
        ),
        ("a dry run is not the real run", new_replay, |f| (f.own, f.plan) = (known_dry_run(), planned(Some(true))), "restore"),
        ("a cancel", cancel, |f| (f.own, f.named) = (known(ReplayStatus::Published), known(ReplayStatus::Accepted)), "duplicate"),
        ("one that is wrong", invalid, |f| f.own = known(ReplayStatus::Refused), "duplicate"),
        ("the same for the first time", invalid, |_| (), "refuse request_invalid"),
    ]);
}

#[test]
fn a_parked_replay_goes_if_it_still_waits() {
    check(&[
        ("it waits", parked, |f| (f.own, f.plan) = (known(ReplayStatus::Accepted), planned(Some(true))), "restore"),
        ("and goes on waiting, room or not", parked, |f| (f.own, f.may_park) = (known(ReplayStatus::Accepted), false), "park"),
        ("it was cancelled", parked, |f| f.own = known(ReplayStatus::Cancelled), "unpark"),
        ("it was committed after all", parked, |f| f.own = known(ReplayStatus::Published), "unpark"),
        ("the log does not know it", parked, |_| (), "unpark"),
        ("what was skipped came later", parked, |f| (f.own, f.follows_skipped) = (known(ReplayStatus::Accepted), true), "park"),
    ]);
}

#[test]
fn what_a_topic_did_not_take_is_refused() {
    check(&[
        ("its log record", new_replay, |f| f.times_oversized = 1, "refuse too_large"),
        ("its restored saga", new_replay, |f| (f.times_oversized, f.plan) = (1, planned(None)), "refuse too_large"),
        (
            "by its plan's refusal, if there is one",
            new_replay,
            |f| (f.times_oversized, f.plan) = (1, PlanFact::Refused(refusal())),
            "refuse saga_running",
        ),
        ("its record is there: it waits", parked, |f| (f.own, f.times_oversized) = (known(ReplayStatus::Accepted), 1), "park"),
        ("a cancel", cancel, |f| (f.times_oversized, f.named) = (1, known(ReplayStatus::Accepted)), "refuse too_large"),
    ]);
}

#[test]
fn a_cancel_reaches_what_waits() {
    let of_another = |f: &mut Facts| f.named = Some(Arc::new(log_record("other", "order-2", 1, ReplayStatus::Accepted)));
    assert_eq!(short(&decide(&facts(of_another), &cancel())), "refuse request_invalid", "of another saga");
    check(&[
        ("it waits", cancel, |f| f.named = known(ReplayStatus::Accepted), "cancel"),
        ("it was published", cancel, |f| f.named = known(ReplayStatus::Published), "refuse request_invalid"),
        ("the log does not know it", cancel, |_| (), "refuse request_invalid"),
        ("it stays in the topic", cancel, |f| f.names_skipped = true, "skip behind other"),
        (
            "it stayed in the topic and is parked now",
            cancel,
            |f| (f.names_skipped, f.named) = (true, known(ReplayStatus::Accepted)),
            "cancel",
        ),
    ]);
    let decided = decide(&facts(|f| f.named = known(ReplayStatus::Accepted)), &cancel());
    let Decision::Cancel { cancelled, done } = decided else { panic!("{decided:?}") };
    assert_eq!((cancelled.replay_id.as_str(), cancelled.status), ("other", ReplayStatus::Cancelled));
    assert_eq!(done.published_at, Some(Micros(NOW.0 + 1)), "when it was decided");
}

#[test]
fn an_outcome_counts_once_and_only_forward() {
    let outcome = |status, sequence| Outcome {
        replay_id: "other".into(),
        original_saga_id: "order-1".into(),
        ended_saga_id: "new of other".into(),
        status,
        sequence,
        ended_at: Micros(NOW.0 + 9),
    };
    let of = |known: Option<LogRecord>, outcome: Outcome| {
        let mut item = new_replay();
        item.request.command = Command::Outcome(outcome);
        decide(&Facts { named: known.map(Arc::new), ..facts(|_| ()) }, &item)
    };
    let published = || LogRecord { published_at: Some(NOW), ..log_record("other", "order-1", 1, ReplayStatus::Published) };
    let ended = LogRecord { outcome_sequence: Some(4), ..published() };
    for (what, known, outcome, expected) in [
        ("the log does not know it", None, outcome(Status::Completed, 5), "unknown"),
        (
            "it was not published",
            Some(LogRecord { published_at: None, ..published() }),
            outcome(Status::Completed, 5),
            "no change",
        ),
        ("an earlier end", Some(ended.clone()), outcome(Status::Failed, 3), "no change"),
        ("the same end", Some(ended.clone()), outcome(Status::Failed, 4), "no change"),
        ("a later end", Some(ended), outcome(Status::Compensated, 5), "outcome compensated"),
        ("cancelled as a saga", Some(published()), outcome(Status::Cancelled, 5), "outcome saga_cancelled"),
        ("completed", Some(published()), outcome(Status::Completed, 5), "outcome completed"),
    ] {
        assert_eq!(short(&of(known, outcome)), expected, "{what}");
    }
    let by_another = Outcome { ended_saga_id: "another".into(), ..outcome(Status::Completed, 5) };
    for (outcome, executed_as) in [(outcome(Status::Completed, 5), None), (by_another, Some("another"))] {
        let Decision::Outcome(record) = of(Some(published()), outcome) else { panic!("an end") };
        assert_eq!(
            record.executed_as.as_ref().map(|id| id.as_str()),
            executed_as,
            "the saga that ran, if it is not the restored one"
        );
        assert_eq!((record.ended_at, record.outcome_sequence), (Some(Micros(NOW.0 + 9)), Some(5)));
    }
}

fn new_undo() -> RequestItem {
    item("UNDO", r#","replay_id":"other""#)
}

fn parked_undo() -> RequestItem {
    let item = new_undo();
    RequestItem { parked: Parked::of(item.request.clone(), item.record.clone(), None, None), ..item }
}

fn planned_undo(facts: &mut Facts, is_writable: bool) {
    let asked = restored("undo", Mode::Compensate);
    let newest = Log::of([event(Kind::SagaStarted), event(Kind::SagaCompleted)]).state().clone();
    facts.named = known(ReplayStatus::Completed);
    facts.undo = UndoFact::Planned { plan: Box::new(UndoPlan { asked, newest }), is_writable };
}

#[test]
fn an_undo_is_published_once_refused_or_waits() {
    check(&[
        ("planned", new_undo, |f| planned_undo(f, true), "undo undoing published"),
        ("no leader where it goes", new_undo, |f| planned_undo(f, false), "park"),
        ("the restored saga's history is behind", new_undo, |_| (), "park"),
        ("no room", new_undo, |f| f.may_park = false, "skip"),
        ("behind one that was skipped", new_undo, |f| f.follows_skipped = true, "skip"),
        ("refused", new_undo, |f| f.undo = UndoFact::Refused(refusal()), "refuse saga_running"),
        ("seen before", new_undo, |f| (planned_undo(f, true), f.own = known(ReplayStatus::Published)).1, "duplicate"),
        ("too large", new_undo, |f| (planned_undo(f, true), f.times_oversized = 1).1, "refuse too_large"),
        ("parked", parked_undo, |f| (planned_undo(f, true), f.own = known(ReplayStatus::Accepted)).1, "undo undoing published"),
        ("parked, and committed before", parked_undo, |f| f.own = known(ReplayStatus::Published), "unpark"),
    ]);
}

#[test]
fn the_end_of_an_undone_saga_says_whether_it_was_undone() {
    let record = |status| LogRecord {
        undone_by: Some("u".into()),
        outcome: Some("completed".into()),
        ended_at: Some(Micros(3)),
        published_at: Some(NOW),
        outcome_sequence: Some(4),
        ..log_record("other", "order-1", 1, status)
    };
    for (status, sequence, expected) in [
        (Status::Compensated, 9, Some(ReplayStatus::Undone)),
        (Status::Failed, 9, Some(ReplayStatus::UndoFailed)),
        (Status::Completed, 9, Some(ReplayStatus::UndoFailed)),
        (Status::Compensated, 4, None),
    ] {
        let mut item = new_replay();
        item.request.command = Command::Outcome(Outcome {
            replay_id: "other".into(),
            original_saga_id: "order-1".into(),
            ended_saga_id: "new of other".into(),
            status,
            sequence,
            ended_at: NOW,
        });
        let facts = Facts { named: Some(Arc::new(record(ReplayStatus::Undoing))), ..facts(|_| ()) };
        let found = match decide(&facts, &item) {
            Decision::Outcome(record) => {
                assert_eq!((record.outcome.as_deref(), record.ended_at), (Some("completed"), Some(Micros(3))), "it stays");
                Some(record.status)
            }
            _ => None,
        };
        assert_eq!(found, expected);
    }
}

fn batch_command(name: &str, members: &str) -> RequestItem {
    let text = format!(r#"{{"request_id":"r","command":"{name}","requested_by":"ops","reason":"x"{members}}}"#);
    let request = decode_json(text.as_bytes()).expect("a request");
    let record = record_of(&request, Position::new("requests", 0, 7), NOW);
    RequestItem { request, record, ..new_replay() }
}

fn new_batch() -> RequestItem {
    batch_command("BATCH", r#","batch":{"saga_ids":["a"],"from":{"start":true}}"#)
}

fn pause() -> RequestItem {
    batch_command("BATCH_PAUSE", r#","batch_id":"b""#)
}

fn resume() -> RequestItem {
    batch_command("BATCH_RESUME", r#","batch_id":"b""#)
}

fn cancel_batch() -> RequestItem {
    batch_command("BATCH_CANCEL", r#","batch_id":"b""#)
}

fn retry() -> RequestItem {
    batch_command("BATCH_RETRY_FAILED", r#","batch_id":"b""#)
}

fn undo_batch() -> RequestItem {
    batch_command("BATCH_UNDO", r#","batch_id":"b""#)
}

fn known_batch(facts: &mut Facts, status: ReplayStatus, change: fn(&mut BatchProgress)) {
    let mut progress = BatchProgress::new("b", None, BatchLimits::default());
    change(&mut progress);
    let record = LogRecord { command: CommandName::Batch, ..log_record("b", "order-1", 1, status) };
    facts.named = Some(Arc::new(LogRecord { batch_progress: Some(Box::new(progress)), ..record }));
}

fn running(facts: &mut Facts) {
    known_batch(facts, ReplayStatus::Accepted, |_| ());
}

fn expanded(facts: &mut Facts) {
    known_batch(facts, ReplayStatus::Published, |_| ());
}

fn paused_batch(facts: &mut Facts) {
    known_batch(facts, ReplayStatus::Accepted, |progress| progress.paused = Some(PauseReason::MaxFailures));
}

fn cancelled_batch(facts: &mut Facts) {
    known_batch(facts, ReplayStatus::Cancelled, |progress| progress.is_cancelled = true);
}

#[test]
fn what_is_asked_of_a_batch_is_done_where_it_makes_sense() {
    check(&[
        ("a new batch", new_batch, |_| (), "start BATCH"),
        ("the same again", new_batch, |f| f.own = known(ReplayStatus::Accepted), "duplicate"),
        ("too large for the log", new_batch, |f| f.times_oversized = 1, "refuse too_large"),
        ("no such batch", pause, |_| (), "refuse request_invalid"),
        ("a replay is no batch", pause, |f| f.named = known(ReplayStatus::Published), "refuse request_invalid"),
        ("pause", pause, running, "batch accepted requested"),
        ("pause twice", pause, paused_batch, "refuse request_invalid"),
        ("resume", resume, paused_batch, "batch accepted goes on"),
        ("resume what goes on", resume, running, "refuse request_invalid"),
        ("cancel", cancel_batch, running, "batch cancelled cancelled"),
        ("cancel what is published", cancel_batch, expanded, "refuse request_invalid"),
        (
            "cancel where some still wait",
            cancel_batch,
            |f| (expanded(f), f.batch_counts.accepted = 1).1,
            "batch published cancelled",
        ),
        ("cancel twice", cancel_batch, cancelled_batch, "refuse request_invalid"),
        ("retry", retry, expanded, "start BATCH_RETRY_FAILED"),
        ("retry of a cancelled one", retry, cancelled_batch, "refuse request_invalid"),
        ("retry during a retry", retry, |f| (expanded(f), f.batch_is_retried = true).1, "refuse request_invalid"),
        ("undo", undo_batch, expanded, "start BATCH_UNDO"),
        ("undo of a cancelled one", undo_batch, cancelled_batch, "start BATCH_UNDO"),
        ("undo during an undo", undo_batch, |f| (expanded(f), f.batch_is_undone = true).1, "refuse request_invalid"),
        ("a command seen before", pause, |f| (running(f), f.own = known(ReplayStatus::Published)).1, "duplicate"),
    ]);
}

#[test]
fn failures_before_a_resume_do_not_pause_again() {
    let mut facts = facts(paused_batch);
    facts.batch_counts.failed = 7;
    let Decision::Control { changed, done } = decide(&facts, &resume()) else { panic!("resumed") };
    assert_eq!(changed.batch_progress.expect("progress").failures_before, 7);
    assert_eq!(
        (done.command, done.status, done.published_at),
        (CommandName::BatchResume, ReplayStatus::Published, Some(Micros(NOW.0 + 1)))
    );
}

#[test]
fn a_replay_of_a_cancelled_batch_is_cancelled_wherever_it_waits() {
    check(&[
        ("read", new_replay, |f| f.batch_is_cancelled = true, "member cancelled"),
        ("parked", parked, |f| (f.own, f.batch_is_cancelled) = (known(ReplayStatus::Accepted), true), "member cancelled"),
        ("done before", new_replay, |f| (f.own, f.batch_is_cancelled) = (known(ReplayStatus::Published), true), "duplicate"),
    ]);
}

fn known_schedule(facts: &mut Facts, status: ReplayStatus, change: impl FnOnce(&mut ScheduleProgress)) {
    let mut progress = ScheduleProgress::new(Json::from_valid(r#"{"policy":{"on":{}}}"#), Micros(5));
    change(&mut progress);
    let (command, schedule_progress) = (CommandName::Schedule, Some(Box::new(progress)));
    facts.named = Some(Arc::new(LogRecord { command, schedule_progress, ..log_record("s", "none", 1, status) }));
}

fn disabled(facts: &mut Facts) {
    known_schedule(facts, ReplayStatus::Accepted, |progress| *progress = progress.stopped(StopReason::StopRatio));
}

#[test]
fn what_is_asked_of_a_schedule_is_done_where_it_makes_sense() {
    let schedule: fn() -> RequestItem = || item("SCHEDULE", r#","schedule":{"policy":{"on":{}}}"#);
    let enable: fn() -> RequestItem = || item("SCHEDULE_ENABLE", r#","schedule_id":"s""#);
    let disable: fn() -> RequestItem = || item("SCHEDULE_DISABLE", r#","schedule_id":"s""#);
    let end: fn() -> RequestItem = || item("SCHEDULE_CANCEL", r#","schedule_id":"s""#);
    let since = format!("schedule accepted goes on since {}", enable().record.accepted_at.0.max(5));
    let enabled: Adjust = |f| known_schedule(f, ReplayStatus::Accepted, |_| ());
    check(&[
        ("a new one", schedule, |_| (), "start SCHEDULE"),
        ("the same again", schedule, |f| f.own = known(ReplayStatus::Accepted), "duplicate"),
        ("too large for the log", schedule, |f| f.times_oversized = 1, "refuse too_large"),
        ("enable", enable, disabled, &since),
        ("disable", disable, enabled, "schedule accepted disabled since 5"),
        ("end", end, disabled, "schedule cancelled cancelled since 5"),
        ("no such schedule", disable, |_| (), "refuse request_invalid"),
        ("a replay is no schedule", disable, |f| f.named = known(ReplayStatus::Accepted), "refuse request_invalid"),
        ("enable twice", enable, enabled, "refuse request_invalid"),
        ("disable twice", disable, disabled, "refuse request_invalid"),
        ("what is over", end, |f| known_schedule(f, ReplayStatus::Published, |_| ()), "refuse request_invalid"),
        ("a command seen before", disable, |f| (disabled(f), f.own = known(ReplayStatus::Published)).1, "duplicate"),
        ("a replay that waits for a stopped policy", later, |f| f.policy_is_stopped = true, "member cancelled"),
    ]);
}

#[test]
fn only_what_overtakes_nobody_is_planned() {
    let cases: [Case<bool>; 11] = [
        ("a new one", new_replay, |_| (), true),
        ("one seen before", new_replay, |f| f.own = known(ReplayStatus::Refused), false),
        ("a dry run was seen before", new_replay, |f| f.own = known_dry_run(), true),
        ("before its time", later, |_| (), false),
        ("behind one that was skipped", new_replay, |f| f.follows_skipped = true, false),
        ("behind one that is parked", new_replay, |f| f.follows_parked = true, false),
        ("behind one of this batch", new_replay, |f| f.follows_in_batch = true, false),
        ("one that may be an old one", new_replay, |f| f.is_unreadable = true, false),
        ("parked, in its order", parked, |f| (f.own, f.follows_parked) = (known(ReplayStatus::Accepted), true), true),
        (
            "parked, behind one of this batch",
            parked,
            |f| (f.own, f.follows_in_batch) = (known(ReplayStatus::Accepted), true),
            false,
        ),
        ("parked, and cancelled", parked, |f| f.own = known(ReplayStatus::Cancelled), false),
    ];
    for (what, item, change, expected) in cases {
        let item = item();
        let (_, due) = waits(&item.request.command).expect("a replay");
        assert_eq!(facts(change).may_go(&item, due), expected, "{what}");
    }
}
