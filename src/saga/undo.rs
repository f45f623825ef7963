//! The undo of a replay: what its restored saga is asked to compensate, or why it cannot be (docs/interface/requests.md, Undo). Pure.

use std::collections::HashSet;

use super::entry::Entry;
use super::event::Kind;
use super::fold::Saga;
use super::labels::merge_labels;
use super::lineage::Mode;
use super::log_record::{CommandName, LogRecord, ReplayStatus};
use super::position::SagaId;
use super::request::{Refusal, ReplayRequest};
use super::restored::{CheckpointRef, RestoredSaga};
use super::state::{State, Status};
use super::time::Micros;

/// An undo, and the state that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct UndoPlan {
    /// What goes to the restored saga's consumers.
    pub asked: RestoredSaga,
    pub newest: State,
}

fn refuse(why: &str) -> Refusal {
    Refusal::new("request_invalid", format!("replay_id: {why}"))
}

/// The saga whose history an undo of this replay is about: the restored saga, or the one that carried it out. `named`: the newest
/// record of the replay; `None`: there is none.
pub fn undo_target<'r>(named: Option<&'r LogRecord>, original: Option<&SagaId>) -> Result<&'r SagaId, Refusal> {
    let named = named.filter(|named| named.original_saga_id.as_ref() == original);
    let Some(named) = named else { return Err(refuse("no replay of this saga with this id is known")) };
    if named.command != CommandName::Replay {
        return Err(refuse("it is no replay, but another command"));
    }
    if named.undone_by.is_some() {
        return Err(refuse("the replay was undone before"));
    }
    let why = match named.status {
        ReplayStatus::Published | ReplayStatus::Completed | ReplayStatus::Failed | ReplayStatus::SagaCancelled => None,
        ReplayStatus::Accepted => Some("the replay is not published yet: cancel it"),
        ReplayStatus::Refused | ReplayStatus::DryRun | ReplayStatus::Cancelled => Some("the replay restored no saga"),
        ReplayStatus::Compensated => Some("the restored saga has compensated what it did"),
        ReplayStatus::Undoing | ReplayStatus::Undone | ReplayStatus::UndoFailed => Some("the replay was undone before"),
    };
    match (why, named.executed_as.as_ref().or(named.new_saga_id.as_ref())) {
        (None, Some(saga)) => Ok(saga),
        (Some(why), _) => Err(refuse(why)),
        (None, None) => Err(refuse("the replay restored no saga")),
    }
}

/// Plans an undo. `history`: all entries of its [target](undo_target), oldest first. `replay_id`: of the undo; `asked_at`: when its
/// request was recorded.
pub fn plan_undo(
    request: &ReplayRequest,
    replay_id: &str,
    named: &LogRecord,
    history: &[Entry],
    asked_at: Micros,
) -> Result<UndoPlan, Refusal> {
    let (Some(restored), Some(original)) = (&named.new_saga_id, &named.original_saga_id) else {
        return Err(refuse("the replay restored no saga"));
    };
    let mut saga: Option<Saga> = None;
    Saga::apply_all(&mut saga, history);
    let (Some(newest), Some(last)) = (saga.map(|saga| saga.state), history.last()) else {
        return Err(refuse("the restored saga is not in the history"));
    };
    match newest.status {
        Status::Running | Status::Compensating => {
            return Err(Refusal::new("saga_running", "the restored saga has not ended: it can be undone once it has"));
        }
        Status::Compensated => return Err(refuse("the restored saga has compensated what it did")),
        Status::Completed | Status::Failed | Status::Cancelled => {}
    }
    let completed_steps = own_steps(history, &newest);
    if completed_steps.is_empty() {
        return Err(refuse("there is nothing to undo: the restored saga completed no step itself that is not compensated"));
    }
    let lineage = newest.lineage.as_ref();
    let asked = RestoredSaga {
        saga_id: restored.clone(),
        saga_name: newest.saga_name.clone(),
        saga_version: newest.saga_version.clone(),
        mode: Mode::Compensate,
        resume_step: None,
        resume_step_index: None,
        resume_steps: Vec::new(),
        completed_steps,
        skipped_steps: newest.skipped_steps.clone(),
        compensated_steps: newest.compensated_steps.clone(),
        compensated_since: Vec::new(),
        attempts: newest.attempts.clone(),
        results: newest.results.clone(),
        context: Some(newest.context.clone()),
        force_failure: None,
        original_saga_id: original.clone(),
        root_saga_id: lineage.map_or(original, |lineage| &lineage.root).clone(),
        depth: lineage.map_or(1, |lineage| lineage.depth),
        replay_id: replay_id.to_owned(),
        request_id: request.request_id.clone(),
        batch_id: named.batch_id.clone(),
        checkpoint: CheckpointRef {
            sequence: last.sequence.0,
            effective_time: last.effective_time,
            position: last.position.clone(),
        },
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        restored_at: asked_at,
        tenant: newest.tenant.clone(),
        region: newest.region.clone(),
        labels: merge_labels(&newest.labels, &request.labels),
    };
    Ok(UndoPlan { asked, newest })
}

/// Steps that the saga completed after it was restored, and that are completed and not compensated, the last first.
fn own_steps(history: &[Entry], newest: &State) -> Vec<String> {
    let began = history.iter().position(|entry| entry.event.kind == Kind::SagaRestored).map_or(0, |at| at + 1);
    let own = history[began..].iter().filter(|entry| entry.event.kind == Kind::StepCompleted);
    let own: HashSet<&str> = own.filter_map(|entry| entry.event.step.as_deref()).collect();
    let stands = |step: &&String| own.contains(step.as_str()) && !newest.compensated_steps.contains(step);
    newest.completed_steps.iter().rev().filter(stands).cloned().collect()
}

impl LogRecord {
    /// The record of a replay whose undo was published. What its restored saga's end has not told the log yet it tells now: only
    /// a later end counts from here on.
    pub fn undone(&self, by: &str, newest: &State) -> Self {
        let mut record = self.clone();
        let ended = ReplayStatus::of_end(newest.status);
        record.outcome = record.outcome.or_else(|| Some(ended.as_str().to_owned()));
        record.ended_at = record.ended_at.or(newest.ended_at);
        record.outcome_sequence = record.outcome_sequence.max(Some(newest.entry.sequence.0));
        record.undone_by = Some(by.to_owned());
        record.status = ReplayStatus::Undoing;
        record
    }
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
