//! What becomes of one request, by facts that were loaded before. Pure: no store, no clock, nothing that waits.
//!
//! Repeats come to nothing. Requests of one saga keep their order: none overtakes one that waits for the saga's partition, or
//! for room to wait.

use std::sync::Arc;

use super::catch_up::EndOffsets;
use super::log_record;
use super::outbox::{EventPartitions, RestoredEvent};
use super::queue::item::RequestItem;
use crate::saga::batch::{BatchControl, BatchOrder};
use crate::saga::batch_counts::BatchCounts;
use crate::saga::batch_progress::{BatchProgress, PauseReason};
use crate::saga::json::Json;
use crate::saga::plan::Plan;
use crate::saga::request::{Command, CommandName, LogRecord, Outcome, Refusal, ReplayOrder, ReplayStatus, ScheduleControl};
use crate::saga::restored::RestoredSaga;
use crate::saga::schedule::progress::{ScheduleProgress, StopReason};
use crate::saga::state::Status;
use crate::saga::time::Micros;
use crate::saga::undo::UndoPlan;

/// The moments of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchTimes {
    /// What has a later `not_before` waits.
    pub taken_up_at: Micros,
    /// Once all was loaded, which may have taken a while: what expired until then is refused, and the rest is published at this time.
    pub decided_at: Micros,
}

/// What a decision depends on besides the request.
#[derive(Default)]
pub struct Facts {
    pub times: BatchTimes,
    /// The newest record of the request's own replay.
    pub own: Option<Arc<LogRecord>>,
    /// The newest record of the replay that a cancel or an outcome names, or of the batch or schedule.
    pub named: Option<Arc<LogRecord>>,
    /// Its batch was cancelled.
    pub batch_is_cancelled: bool,
    /// The policy that asked for it is disabled or cancelled.
    pub policy_is_stopped: bool,
    /// Of the batch that is named: where its sagas are, and whether a retry or an undo of it is not done.
    pub batch_counts: BatchCounts,
    pub batch_is_retried: bool,
    pub batch_is_undone: bool,
    /// History has something of it that cannot be read: whether it is new cannot be known.
    pub is_unreadable: bool,
    /// An earlier request of its saga stays in the topic.
    pub follows_skipped: bool,
    /// An earlier request of its saga is parked.
    pub follows_parked: bool,
    /// Another request of its saga waits since this batch.
    pub follows_in_batch: bool,
    /// The replay that it names stays in the topic.
    pub names_skipped: bool,
    /// There is room to park it.
    pub may_park: bool,
    /// How often a topic did not take a record of it for its size.
    pub times_oversized: usize,
    /// The ends to which its saga was looked at.
    pub ends: Option<EndOffsets>,
    pub plan: PlanFact,
    pub undo: UndoFact,
}

impl Default for BatchTimes {
    fn default() -> Self {
        Self { taken_up_at: Micros::MIN, decided_at: Micros::MIN }
    }
}

/// What planning a replay gave.
#[derive(Default)]
pub enum PlanFact {
    /// It was not planned: it may not go yet, the saga's history is not there yet, or the rate lets no more go.
    #[default]
    NotPlanned,
    /// Whether it was replayed, or the new id is free, cannot be known now.
    Unknown,
    Refused(Refusal),
    Planned(Box<PlannedReplay>),
}

/// What planning an undo gave.
#[derive(Default)]
pub enum UndoFact {
    /// It may not go yet, or the restored saga's history is not there yet.
    #[default]
    NotPlanned,
    Refused(Refusal),
    Planned {
        plan: Box<UndoPlan>,
        /// The partition that it goes to has a leader.
        is_writable: bool,
    },
}

pub struct PlannedReplay {
    pub plan: Plan,
    pub event: RestoredEvent,
    /// What it publishes; `None`: nothing, it is a dry run or does not fit.
    pub publishing: Option<Publishing>,
}

/// Where a restored saga goes.
#[derive(Debug, Clone, Copy)]
pub struct Publishing {
    pub events: EventPartitions,
    /// The partitions that it goes to have leaders.
    pub is_writable: bool,
}

#[derive(Debug, PartialEq)]
pub enum Decision {
    /// The restored saga of [`Facts::plan`] is published; of a dry run its log record only.
    Restore,
    /// A log record with this refusal.
    Refuse(Refusal),
    /// It waits: new ones in the log, with the request inside. `holds_saga`: its time has come, so later requests of its saga wait too.
    Park { holds_saga: bool },
    /// There is no room to park it: it stays in the topic.
    Skip { holds_saga: bool },
    /// It cancels one that stays in the topic: it stays behind that one, which is read again at once.
    SkipBehind { replay_id: String },
    /// Seen before.
    Duplicate,
    /// It was parked and waits no longer: it was cancelled, replaced by the real run, or committed by a transaction whose outcome
    /// was not known.
    Unpark,
    /// These records: the waiting replay is cancelled, and this request is done.
    Cancel { cancelled: Box<LogRecord>, done: Box<LogRecord> },
    /// What is asked of the restored saga is published; these records: the replay as undone, and this request as done.
    Undo { asked: Box<RestoredSaga>, undone: Box<LogRecord>, done: Box<LogRecord> },
    /// A replay of a batch that was cancelled, or of a policy that stopped: its record.
    CancelMember(Box<LogRecord>),
    /// A batch, a retry of one, or a schedule begins: its record.
    Begin(Box<LogRecord>),
    /// These records: the batch or schedule as it is from now on, and this request is done.
    Control { changed: Box<LogRecord>, done: Box<LogRecord> },
    /// The end of a restored saga, as the record of its replay.
    Outcome(Box<LogRecord>),
    /// An outcome that changes nothing. `is_unknown`: of a replay that the log does not know.
    NoChange { is_unknown: bool },
}

pub fn decide(facts: &Facts, item: &RequestItem) -> Decision {
    if facts.is_unreadable {
        return Decision::Skip { holds_saga: false };
    }
    match &item.request.command {
        Command::Replay(order) => decide_replay(facts, item, order),
        Command::Cancel { replay_id, .. } => decide_cancel(facts, item, replay_id),
        Command::Outcome(outcome) => decide_outcome(facts, item, outcome),
        Command::Undo { .. } => decide_undo(facts, item),
        Command::Batch(order) => decide_batch(facts, item, order),
        Command::BatchControl { control, .. } => decide_batch_control(facts, item, control),
        Command::Schedule(_) => decide_schedule(facts, item),
        Command::ScheduleControl { control, .. } => decide_schedule_control(facts, item, *control),
        Command::Invalid { .. } if facts.is_repeat() => Decision::Duplicate,
        Command::Invalid { message, .. } => Decision::Refuse(Refusal::new("request_invalid", message.clone())),
    }
}

impl Facts {
    /// Seen before, other than as a dry run, whatever became of that.
    pub fn is_repeat(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.dry_run)
    }

    /// Is one that was parked still to be replayed?
    fn still_waits(&self, record: &LogRecord) -> bool {
        self.own.as_ref().is_some_and(|own| own.status == ReplayStatus::Accepted && own.dry_run == record.dry_run)
    }

    /// May the replay or undo go, as far as the other requests and its time have a say? Only then is it planned. `due`: its time.
    pub fn may_go(&self, item: &RequestItem, due: Micros) -> bool {
        let is_parked = item.parked.is_some();
        let is_open = if is_parked { self.still_waits(&item.record) } else { !self.is_repeat() };
        let overtakes = !is_parked && (self.follows_skipped || self.follows_parked);
        !self.is_unreadable && is_open && due <= self.times.taken_up_at && !overtakes && !self.follows_in_batch
    }

    fn is_oversized(&self) -> bool {
        self.times_oversized > 0
    }
}

pub fn is_for_later(order: &ReplayOrder, now: Micros) -> bool {
    order.not_before.is_some_and(|at| at > now)
}

fn too_large(what: &str) -> Decision {
    Decision::Refuse(Refusal::new("too_large", what))
}

const REQUEST_TOO_LARGE: &str = "the request is larger than the replay log's topic takes";

fn decide_replay(facts: &Facts, item: &RequestItem, order: &ReplayOrder) -> Decision {
    let is_new = item.parked.is_none();
    if is_new && facts.is_repeat() {
        return Decision::Duplicate;
    }
    if !is_new && !facts.still_waits(&item.record) {
        return Decision::Unpark;
    }
    if facts.batch_is_cancelled {
        let record = LogRecord { status: ReplayStatus::Cancelled, request: None, ..item.record.clone() };
        return Decision::CancelMember(Box::new(record));
    }
    if facts.policy_is_stopped {
        let message = "the policy that asked for it was stopped before its time";
        let record = log_record::cancelled_by_policy(item.record.clone(), message);
        return Decision::CancelMember(Box::new(record));
    }
    let holds_saga = !is_for_later(order, facts.times.taken_up_at);
    let park = if is_new && !facts.may_park { Decision::Skip { holds_saga } } else { Decision::Park { holds_saga } };
    match &facts.plan {
        PlanFact::NotPlanned if is_new && facts.is_oversized() => too_large(REQUEST_TOO_LARGE),
        PlanFact::NotPlanned if is_new && facts.follows_skipped => Decision::Skip { holds_saga },
        PlanFact::NotPlanned | PlanFact::Unknown => park,
        PlanFact::Refused(refusal) => Decision::Refuse(refusal.clone()),
        PlanFact::Planned(_) if facts.is_oversized() => too_large("the restored saga is larger than its topic takes"),
        PlanFact::Planned(planned) if planned.publishing.is_some_and(|publishing| !publishing.is_writable) => park,
        PlanFact::Planned(_) => Decision::Restore,
    }
}

fn decide_cancel(facts: &Facts, item: &RequestItem, replay_id: &str) -> Decision {
    if facts.is_repeat() {
        return Decision::Duplicate;
    }
    if facts.is_oversized() {
        return too_large(REQUEST_TOO_LARGE);
    }
    let waiting = facts.named.as_ref().filter(|named| named.status == ReplayStatus::Accepted);
    if facts.names_skipped && waiting.is_none() {
        return Decision::SkipBehind { replay_id: replay_id.to_owned() };
    }
    let Some(waiting) = waiting.filter(|waiting| waiting.original_saga_id == item.record.original_saga_id) else {
        return Decision::Refuse(Refusal::new("request_invalid", "replay_id: no replay of this saga with this id is waiting"));
    };
    let mut cancelled = (**waiting).clone();
    cancelled.status = ReplayStatus::Cancelled;
    cancelled.request = None;
    let done = LogRecord { published_at: Some(facts.times.decided_at), ..item.record.clone() };
    Decision::Cancel { cancelled: Box::new(cancelled), done: Box::new(done) }
}

fn decide_undo(facts: &Facts, item: &RequestItem) -> Decision {
    let is_new = item.parked.is_none();
    if is_new && facts.is_repeat() {
        return Decision::Duplicate;
    }
    if !is_new && !facts.still_waits(&item.record) {
        return Decision::Unpark;
    }
    let holds_saga = true;
    let park = if is_new && !facts.may_park { Decision::Skip { holds_saga } } else { Decision::Park { holds_saga } };
    match &facts.undo {
        UndoFact::NotPlanned if is_new && facts.is_oversized() => too_large(REQUEST_TOO_LARGE),
        UndoFact::NotPlanned if is_new && facts.follows_skipped => Decision::Skip { holds_saga },
        UndoFact::NotPlanned | UndoFact::Planned { is_writable: false, .. } => park,
        UndoFact::Refused(refusal) => Decision::Refuse(refusal.clone()),
        UndoFact::Planned { .. } if facts.is_oversized() => {
            too_large("what is asked of the restored saga is larger than its topic takes")
        }
        UndoFact::Planned { plan, .. } => undo(facts, item, plan),
    }
}

fn undo(facts: &Facts, item: &RequestItem, plan: &UndoPlan) -> Decision {
    let Some(named) = &facts.named else { return Decision::NoChange { is_unknown: true } };
    let asked = &plan.asked;
    let done = LogRecord {
        status: ReplayStatus::Published,
        new_saga_id: Some(asked.saga_id.clone()),
        mode: Some(asked.mode),
        checkpoint: Some(asked.checkpoint.clone()),
        published_at: Some(facts.times.decided_at),
        request: None,
        ..item.record.clone()
    };
    let undone = named.undone(&item.record.replay_id, &plan.newest);
    Decision::Undo { asked: Box::new(asked.clone()), undone: Box::new(undone), done: Box::new(done) }
}

fn decide_batch(facts: &Facts, item: &RequestItem, order: &BatchOrder) -> Decision {
    if facts.is_repeat() {
        return Decision::Duplicate;
    }
    if facts.is_oversized() {
        return too_large(REQUEST_TOO_LARGE);
    }
    let progress = BatchProgress::new(&item.record.replay_id, order.name.clone(), order.limits);
    Decision::Begin(Box::new(batch_record(item, progress)))
}

fn batch_record(item: &RequestItem, progress: BatchProgress) -> LogRecord {
    let record = log_record::accepted(item.record.clone(), &item.request);
    LogRecord { batch_progress: Some(Box::new(progress)), ..record }
}

fn decide_batch_control(facts: &Facts, item: &RequestItem, control: &BatchControl) -> Decision {
    if facts.is_repeat() {
        return Decision::Duplicate;
    }
    if facts.is_oversized() {
        return too_large(REQUEST_TOO_LARGE);
    }
    let refuse = |why: &str| Decision::Refuse(Refusal::new("request_invalid", why));
    let known = facts.named.as_ref().filter(|named| named.command == CommandName::Batch);
    let Some((known, progress)) = known.and_then(|known| Some((known, known.batch_progress.as_ref()?))) else {
        return refuse("batch_id: no batch with this id is known");
    };
    if matches!(control, BatchControl::Undo) {
        if facts.batch_is_undone {
            return refuse("batch_id: an undo of the batch is not done");
        }
        let undo = BatchProgress::new(&progress.batch_id, progress.name.clone(), progress.limits);
        return Decision::Begin(Box::new(batch_record(item, undo)));
    }
    if progress.is_cancelled {
        return refuse("batch_id: the batch is cancelled");
    }
    let mut batch = (**known).clone();
    let mut changed = (**progress).clone();
    match control {
        BatchControl::Pause if progress.paused.is_some() => return refuse("batch_id: the batch is paused already"),
        BatchControl::Pause => changed.paused = Some(PauseReason::Requested),
        BatchControl::Resume if progress.paused.is_none() => return refuse("batch_id: the batch is not paused"),
        BatchControl::Resume => {
            (changed.paused, changed.failures_before) = (None, facts.batch_counts.failures());
        }
        BatchControl::Cancel => {
            let waits = known.status == ReplayStatus::Accepted || facts.batch_counts.accepted > 0 || facts.batch_is_retried;
            if !waits {
                return refuse("batch_id: no replay of the batch waits: undo those that were published");
            }
            changed.is_cancelled = true;
            if known.status == ReplayStatus::Accepted {
                (batch.status, batch.request) = (ReplayStatus::Cancelled, None);
            }
        }
        BatchControl::RetryFailed(_) if facts.batch_is_retried => return refuse("batch_id: a retry of the batch is not done"),
        BatchControl::RetryFailed(_) => {
            let retry = BatchProgress::new(&progress.batch_id, progress.name.clone(), progress.limits);
            return Decision::Begin(Box::new(batch_record(item, retry)));
        }
        BatchControl::Undo => {}
    }
    batch.batch_progress = Some(Box::new(changed));
    let done = LogRecord { published_at: Some(facts.times.decided_at), ..item.record.clone() };
    Decision::Control { changed: Box::new(batch), done: Box::new(done) }
}

fn decide_schedule(facts: &Facts, item: &RequestItem) -> Decision {
    if facts.is_repeat() {
        return Decision::Duplicate;
    }
    if facts.is_oversized() {
        return too_large(REQUEST_TOO_LARGE);
    }
    let definition = item.request.json.to_value().get("schedule").map(Json::from_value);
    let Some(definition) = definition else { return Decision::Refuse(Refusal::new("request_invalid", "schedule: is missing")) };
    let progress = ScheduleProgress::new(definition, item.record.accepted_at);
    let record = log_record::accepted(item.record.clone(), &item.request);
    Decision::Begin(Box::new(LogRecord { schedule_progress: Some(Box::new(progress)), ..record }))
}

fn decide_schedule_control(facts: &Facts, item: &RequestItem, control: ScheduleControl) -> Decision {
    if facts.is_repeat() {
        return Decision::Duplicate;
    }
    let refuse = |why: &str| Decision::Refuse(Refusal::new("request_invalid", why));
    let known = facts.named.as_ref().filter(|named| named.command == CommandName::Schedule);
    let Some((known, progress)) = known.and_then(|known| Some((known, known.schedule_progress.as_ref()?))) else {
        return refuse("schedule_id: no schedule with this id is known");
    };
    if known.status != ReplayStatus::Accepted {
        return refuse("schedule_id: the schedule is over");
    }
    let mut schedule = (**known).clone();
    let changed = match control {
        ScheduleControl::Enable if progress.enabled => return refuse("schedule_id: the schedule is enabled already"),
        ScheduleControl::Enable => progress.enabled_at(item.record.accepted_at),
        ScheduleControl::Disable if !progress.enabled => return refuse("schedule_id: the schedule is disabled already"),
        ScheduleControl::Disable => progress.stopped(StopReason::Disabled),
        ScheduleControl::Cancel => {
            (schedule.status, schedule.request) = (ReplayStatus::Cancelled, None);
            progress.stopped(StopReason::Cancelled)
        }
    };
    schedule.schedule_progress = Some(Box::new(changed));
    let done = LogRecord { published_at: Some(facts.times.decided_at), ..item.record.clone() };
    Decision::Control { changed: Box::new(schedule), done: Box::new(done) }
}

/// A restored saga ended; an earlier end than the one recorded changes nothing.
fn decide_outcome(facts: &Facts, item: &RequestItem, outcome: &Outcome) -> Decision {
    let Some(known) = &facts.named else { return Decision::NoChange { is_unknown: true } };
    let is_news = known.published_at.is_some() && known.outcome_sequence.is_none_or(|before| outcome.sequence > before);
    if !is_news {
        return Decision::NoChange { is_unknown: false };
    }
    let mut record = (**known).clone();
    record.outcome_sequence = Some(outcome.sequence);
    if record.undone_by.is_some() {
        // What the replay came to before stays its outcome.
        let is_undone = outcome.status == Status::Compensated;
        record.status = if is_undone { ReplayStatus::Undone } else { ReplayStatus::UndoFailed };
    } else {
        record.status = ReplayStatus::of_end(outcome.status);
        record.outcome = Some(record.status.as_str().to_owned());
        record.ended_at = Some(outcome.ended_at);
    }
    if record.new_saga_id.as_ref() != Some(&outcome.ended_saga_id) {
        record.executed_as = Some(outcome.ended_saga_id.clone());
    }
    if facts.is_oversized() {
        record = log_record::cut(record, &item.request);
    }
    Decision::Outcome(Box::new(record))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
