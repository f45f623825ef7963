//! Which sagas a search finds, one fact of `GET /v1/sagas` a test.

use crate::saga::event::{Kind, StepEvent};
use crate::saga::failure::SagaFailure;
use crate::saga::labels::parse_label;
use crate::saga::lineage::Mode;
use crate::saga::selector::{FoundSaga, ReplayStanding, SagaFilter};
use crate::saga::state::Status;
use crate::saga::testing::{Log, SECOND, error, event, restored, step};
use crate::saga::time::Micros;

fn failed(kind: Kind, name: &str, code: &str) -> StepEvent {
    StepEvent { error: Some(error(code)), ..step(kind, name) }
}

/// Entries at 1 s, 2 s ...: pay failed twice, ship once, a compensation failed, the end at 6 s.
fn log() -> Log {
    Log::of([
        StepEvent { tenant: Some("t1".into()), labels: Some(vec![("k".into(), "a:b".into())]), ..event(Kind::SagaStarted) },
        failed(Kind::StepFailed, "pay", "timeout"),
        failed(Kind::StepFailed, "pay", "declined"),
        failed(Kind::StepFailed, "ship", "timeout"),
        failed(Kind::CompensationFailed, "pay", "locked"),
        event(Kind::SagaFailed),
    ])
}

fn find(log: &Log, filter: &SagaFilter) -> Option<FoundSaga> {
    let failures: Vec<SagaFailure> = log.entries.iter().filter_map(SagaFailure::of).collect();
    filter.find(log.state(), &failures, || ReplayStanding::Open)
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

#[test]
fn without_failure_filters_the_last_entry_counts_and_the_state_is_shown() {
    let found = find(&log(), &SagaFilter::default()).expect("found");
    assert_eq!((found.failed_step.as_deref(), found.failed_at), (Some("ship"), Some(Micros(4 * SECOND))));
    assert_eq!((found.status, found.depth, found.at), (Status::Failed, 0, Micros(6 * SECOND)));
    let window = |since, until| SagaFilter {
        since: Some(Micros(since * SECOND)),
        until: Some(Micros(until * SECOND)),
        ..SagaFilter::default()
    };
    assert!(find(&log(), &window(6, 7)).is_some());
    assert!(find(&log(), &window(5, 6)).is_none(), "until is exclusive");
}

#[test]
fn one_failure_must_fit_all_failure_filters_and_is_the_one_shown() {
    let filter = SagaFilter { failed_step: some("pay"), error_code: some("timeout"), ..SagaFilter::default() };
    let found = find(&log(), &filter).expect("found");
    assert_eq!((found.failed_at, found.at), (Some(Micros(2 * SECOND)), Micros(2 * SECOND)));
    assert_eq!((found.failed_step.as_deref(), found.error), (Some("pay"), Some(*error("timeout"))));
    let newest = find(&log(), &SagaFilter { failed_step: some("pay"), ..SagaFilter::default() }).expect("found");
    assert_eq!(newest.failed_at, Some(Micros(3 * SECOND)), "of several the newest");
    assert!(
        find(&log(), &SagaFilter { failed_step: some("ship"), error_code: some("declined"), ..SagaFilter::default() }).is_none()
    );
    assert!(find(&log(), &SagaFilter { since: Some(Micros(3 * SECOND)), ..filter }).is_none(), "the window bounds its time");
}

#[test]
fn failures_of_compensations_are_found_by_their_own_filter_only() {
    let by = |step: Option<String>, code: &str| {
        let filter = SagaFilter { compensation_failed_step: step, error_code: some(code), ..SagaFilter::default() };
        find(&log(), &filter).and_then(|found| found.failed_at)
    };
    assert_eq!(by(some("pay"), "locked"), Some(Micros(5 * SECOND)));
    assert_eq!(by(some("pay"), "declined"), None);
    assert_eq!(by(None, "locked"), None);
}

#[test]
fn a_failed_saga_is_a_failure_if_it_names_a_step_or_an_error() {
    let failure = |event: StepEvent| Log::of([event]).entries.first().and_then(SagaFailure::of);
    assert!(failure(event(Kind::SagaFailed)).is_none());
    assert!(failure(step(Kind::SagaFailed, "pay")).is_some());
    assert_eq!(failure(StepEvent { error: Some(error("e")), ..event(Kind::SagaFailed) }).expect("a failure").step, None);
    assert!(failure(step(Kind::StepCompleted, "pay")).is_none());
}

#[test]
fn every_filter_of_the_state_can_leave_a_saga_out() {
    let fits = |filter: SagaFilter| find(&log(), &filter).is_some();
    let none = SagaFilter::default;
    assert!(fits(SagaFilter { statuses: vec![Status::Running, Status::Failed], ..none() }));
    assert!(!fits(SagaFilter { statuses: vec![Status::Running], ..none() }));
    assert!(fits(SagaFilter { tenant: some("t1"), depth: Some(0), ..none() }));
    assert!(!fits(SagaFilter { tenant: some("t2"), ..none() }));
    assert!(!fits(SagaFilter { region: some("eu"), ..none() }));
    assert!(!fits(SagaFilter { depth: Some(1), ..none() }));
    assert!(!fits(SagaFilter { saga_name: some("other"), ..none() }));
    assert!(!fits(SagaFilter { saga_id: Some("order-2".into()), ..none() }));
    assert!(fits(SagaFilter { labels: vec![parse_label("k:a:b").expect("a label")], ..none() }));
    assert!(!fits(SagaFilter { labels: vec![("k".into(), "x".into())], ..none() }));
    assert!(fits(SagaFilter { replay: Some(ReplayStanding::Open), ..none() }));
    assert!(!fits(SagaFilter { replay: Some(ReplayStanding::None), ..none() }));
    assert_eq!((parse_label("k"), parse_label(":v")), (None, None));
}

#[test]
fn sagas_restored_with_a_forced_failure_are_found_only_when_asked_for() {
    let mut member = restored("r1", Mode::Resume);
    member.force_failure = some("pay");
    let log = Log::of([StepEvent { restored: Some(Box::new(member)), ..event(Kind::SagaRestored) }]);
    assert!(find(&log, &SagaFilter::default()).is_none());
    assert!(find(&log, &SagaFilter { forced: true, ..SagaFilter::default() }).is_some());
}
