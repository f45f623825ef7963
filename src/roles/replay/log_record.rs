//! The records of the replay log: what a request is there from the start, and what became of it. Pure.

use crate::saga::batch::BatchControl;
use crate::saga::ids;
use crate::saga::plan::Plan;
use crate::saga::position::{Position, SagaId};
use crate::saga::request::{
    Command, CommandName, ForceFailure, From, LogRecord, Refusal, ReplayOrder, ReplayRequest, ReplayStatus, ScheduleControl,
};
use crate::saga::time::Micros;

/// Bytes of a text in a log record that was cut.
const CUT_TEXT: usize = 256;

/// A log record with what every command's has; the rest is filled in by what became of it.
pub fn record_of(request: &ReplayRequest, position: Position, accepted_at: Micros) -> LogRecord {
    let (command, saga, named) = match &request.command {
        Command::Replay(order) => (CommandName::Replay, Some(order.saga_id.clone()), None),
        Command::Cancel { saga_id, replay_id } => (CommandName::Cancel, Some(saga_id.clone()), Some(replay_id.as_str())),
        Command::Undo { saga_id, replay_id, .. } => (CommandName::Undo, Some(saga_id.clone()), Some(replay_id.as_str())),
        Command::Invalid { command, saga_id, replay_id, .. } => (*command, saga_id.clone(), replay_id.as_deref()),
        Command::Batch(_) => (CommandName::Batch, None, None),
        Command::BatchControl { control, .. } => (name_of(control), None, None),
        Command::Schedule(_) => (CommandName::Schedule, None, None),
        Command::ScheduleControl { control, .. } => (name_of_schedule(*control), None, None),
        Command::Outcome(outcome) => (CommandName::Outcome, Some(outcome.original_saga_id.clone()), None),
    };
    let replay_id = match (command, named, &saga) {
        (CommandName::Undo | CommandName::Cancel, Some(named), _) => ids::command_replay_id(&request.request_id, named),
        (_, _, Some(saga)) => ids::replay_id(&request.request_id, saga),
        (_, _, None) => ids::request_uuid(&request.request_id),
    };
    let replay_id = replay_id.to_string();
    let mut record = LogRecord {
        replay_id,
        request_id: request.request_id.clone(),
        request_sha256: request.sha256.clone(),
        batch_id: None,
        schedule_id: None,
        command,
        original_saga_id: saga,
        new_saga_id: None,
        from: None,
        override_sha256: None,
        force_failure: None,
        mode: None,
        dry_run: false,
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        checkpoint: None,
        resume_step: None,
        compensated_since: Vec::new(),
        changed: Vec::new(),
        executed_as: None,
        status: ReplayStatus::Published,
        code: None,
        message: None,
        accepted_at,
        published_at: None,
        ended_at: None,
        outcome: None,
        outcome_sequence: None,
        undone_by: None,
        position,
        request: None,
        batch_progress: None,
        schedule_progress: None,
    };
    match &request.command {
        Command::Batch(order) => record.schedule_id = order.schedule.as_ref().map(|member| member.schedule_id.clone()),
        Command::Replay(order) => of_order(&mut record, order),
        Command::Undo { batch_id, .. } => record.batch_id.clone_from(batch_id),
        _ => {}
    }
    record
}

fn name_of(control: &BatchControl) -> CommandName {
    match control {
        BatchControl::Pause => CommandName::BatchPause,
        BatchControl::Resume => CommandName::BatchResume,
        BatchControl::Cancel => CommandName::BatchCancel,
        BatchControl::RetryFailed(_) => CommandName::BatchRetryFailed,
        BatchControl::Undo => CommandName::BatchUndo,
    }
}

fn name_of_schedule(control: ScheduleControl) -> CommandName {
    match control {
        ScheduleControl::Enable => CommandName::ScheduleEnable,
        ScheduleControl::Disable => CommandName::ScheduleDisable,
        ScheduleControl::Cancel => CommandName::ScheduleCancel,
    }
}

fn of_order(record: &mut LogRecord, order: &ReplayOrder) {
    record.schedule_id = order.schedule.as_ref().map(|member| member.schedule_id.clone());
    record.new_saga_id = Some(new_saga_id(&record.request_id, order));
    record.from = Some(order.from_text.clone());
    record.override_sha256.clone_from(&order.override_sha256);
    if let Some(member) = &order.member {
        record.batch_id = Some(member.batch_id.clone());
        record.override_sha256 = member.own_override_sha256.clone().or(record.override_sha256.take());
    }
    record.force_failure = match (&order.force_failure, &order.from) {
        (Some(ForceFailure::Step(step)), _) | (Some(ForceFailure::ResumeStep), From::Step { step, .. }) => Some(step.clone()),
        // Which step that is shows once it is planned.
        (Some(ForceFailure::ResumeStep), _) | (None, _) => None,
    };
    record.mode = Some(order.mode);
    record.dry_run = order.dry_run;
}

pub fn new_saga_id(request_id: &str, order: &ReplayOrder) -> SagaId {
    let replay_id = ids::replay_id(request_id, &order.saga_id);
    order.new_saga_id.clone().unwrap_or_else(|| ids::new_saga_id(replay_id, &order.saga_id))
}

/// The record of a replay that was planned: published, or a dry run.
pub fn planned(mut record: LogRecord, plan: &Plan, published_at: Micros) -> LogRecord {
    let saga = &plan.restored;
    record.new_saga_id = Some(saga.saga_id.clone());
    record.force_failure.clone_from(&saga.force_failure);
    record.checkpoint = Some(saga.checkpoint.clone());
    record.resume_step.clone_from(&saga.resume_step);
    record.compensated_since.clone_from(&saga.compensated_since);
    record.changed.clone_from(&plan.changed);
    record.request = None;
    if record.dry_run {
        record.status = ReplayStatus::DryRun;
    } else {
        record.status = ReplayStatus::Published;
        record.published_at = Some(published_at);
    }
    record
}

/// The record of what is refused.
pub fn refused(mut record: LogRecord, refusal: &Refusal) -> LogRecord {
    record.status = ReplayStatus::Refused;
    record.code = Some(refusal.code.to_owned());
    record.message = Some(refusal.message.clone());
    record.request = None;
    record
}

/// The record of a replay that waited when its policy stopped.
pub fn cancelled_by_policy(mut record: LogRecord, message: &str) -> LogRecord {
    record.status = ReplayStatus::Cancelled;
    record.code = Some("policy_stopped".to_owned());
    record.message = Some(message.to_owned());
    record.request = None;
    record
}

/// The record in little more than a kilobyte, of a request whose own does not fit the log: it says where the request is, and
/// how large.
pub fn cut(mut record: LogRecord, request: &ReplayRequest) -> LogRecord {
    let has_id = |id: &SagaId| id.as_str().chars().count() <= SagaId::MAX_CHARS;
    for text in [&mut record.request_id, &mut record.requested_by, &mut record.reason] {
        shorten(text);
    }
    for text in [&mut record.force_failure, &mut record.resume_step].into_iter().flatten() {
        shorten(text);
    }
    record.original_saga_id = record.original_saga_id.filter(has_id);
    record.new_saga_id = record.new_saga_id.filter(has_id);
    record.executed_as = record.executed_as.filter(has_id);
    record.from = record.from.filter(|from| from.as_str().len() <= CUT_TEXT);
    record.changed.clear();
    record.compensated_since.clear();
    let size = request.json.as_str().len();
    let why = record.message.take().unwrap_or_default();
    let why: String = why.chars().take(CUT_TEXT / 4).collect();
    let at = format!("{}[{}]@{}", record.position.topic, record.position.partition, record.position.offset);
    record.message =
        Some(format!("{why} (this record is cut: the request at {at} has {size} bytes, sha256 {})", record.request_sha256));
    record
}

fn shorten(text: &mut String) {
    if text.len() > CUT_TEXT {
        *text = text.chars().take(CUT_TEXT / 4).chain(std::iter::once('…')).collect();
    }
}

/// The record of a request that waits, with the whole request inside.
pub fn accepted(mut record: LogRecord, request: &ReplayRequest) -> LogRecord {
    record.status = ReplayStatus::Accepted;
    record.request = Some(request.json.clone());
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::log::encode_log;
    use crate::wire::request::decode_json;

    #[test]
    fn a_cut_record_is_small_whatever_the_request_holds_and_says_where_it_is() {
        let long = "ö".repeat(300_000);
        let text = format!(
            r#"{{"request_id":"{long}","command":"REPLAY","saga_id":"{long}","from":{{"step":"{long}"}},"force_failure":"{long}",
                "new_saga_id":"{long}","requested_by":"{long}","reason":"{long}"}}"#
        );
        let request = decode_json(text.as_bytes()).expect("a request");
        let record = record_of(&request, Position::new("requests", 3, 41), Micros(1));
        let record = cut(refused(record, &Refusal::new("too_large", long)), &request);
        let size = encode_log(&record, None).expect("encoded").len();
        assert!(size < 4_096, "{size}");
        let message = record.message.unwrap_or_default();
        let said = format!("requests[3]@41 has {} bytes, sha256 {}", text.len(), request.sha256);
        assert!(message.contains(&said), "{message}");
        assert_eq!((record.code.as_deref(), record.status), (Some("too_large"), ReplayStatus::Refused));
    }
}
