//! The replay plan: from a request and a saga's whole history to the restored saga, or a refusal (docs/interface/requests.md).
//!
//! Pure: the same request, history and facts give the same bytes. Knows nothing of topics, transactions and the log;
//! what those have to say comes in as [`PlanFacts`].

use std::collections::HashSet;

use serde_json::Value;

use super::entry::Entry;
use super::event::Kind;
use super::fold::Saga;
use super::ids;
use super::json::Json;
use super::labels::merge_labels;
use super::lineage::Mode;
use super::patch;
use super::position::SagaId;
use super::request::{ForceFailure, From, IfCompensated, Override, Refusal, ReplayOrder, ReplayRequest};
use super::restored::{CheckpointRef, RestoredSaga};
use super::state::{State, Status};
use super::time::Micros;

/// What a plan depends on besides the request and the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFacts {
    /// When it is executed: compared with `expires_at`.
    pub now: Micros,
    /// The request record's timestamp, or the later of that and `not_before`.
    pub restored_at: Micros,
    pub max_depth: u32,
    /// No `target`, or one of `[topics] restored_allowed`.
    pub target_allowed: bool,
    /// Another replay of this saga, without forced failure, is accepted, published or completed.
    pub already_replayed: bool,
    /// The saga's lineage has this many replays (or more) already, as many as it may have; only where that is asked for.
    pub lineage_full: Option<u32>,
    /// `new_saga_id` is a known saga's.
    pub id_taken: bool,
    /// The saga has events in several partitions, and the history is that of one of them.
    pub split: bool,
    /// Bytes of the restored context and results together.
    pub max_bytes: u64,
    /// Of an order with an expression: the checkpoint's context with all overrides applied.
    pub context: Option<Result<Json, Refusal>>,
}

/// What a replay will publish, and what a dry run tells besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub restored: RestoredSaga,
    /// JSON pointers into the context that the override changed.
    pub changed: Vec<String>,
    /// The checkpoint's context.
    pub before: Json,
    /// Distinct steps that the history has after the checkpoint, in order of their first entry there; none in mode
    /// compensate, which runs no step again.
    pub runs: Vec<String>,
    /// Of a dry run: the refusal that the same request would meet without `dry_run`.
    pub would_refuse: Option<&'static str>,
}

/// Every code of a refusal; of several the first in this order is the answer.
pub const REFUSALS: [&str; 17] = [
    "request_invalid",
    "expired",
    "saga_not_found",
    "saga_erased",
    "legal_hold",
    "not_permitted",
    "saga_running",
    "saga_completed",
    "already_replayed",
    "too_deep",
    "checkpoint_not_found",
    "steps_compensated",
    "override_missing",
    "override_invalid",
    "override_conflict",
    "id_taken",
    "too_large",
];

/// The refusal that comes first so far.
#[derive(Default)]
struct FirstRefusal(Option<Refusal>);

impl FirstRefusal {
    fn refuse_if(&mut self, when: bool, code: &'static str, message: &str) {
        if when {
            self.refuse(Refusal::new(code, message));
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let rank = |refusal: &Refusal| REFUSALS.iter().position(|code| *code == refusal.code);
        if self.0.as_ref().is_none_or(|first| rank(&refusal) < rank(first)) {
            self.0 = Some(refusal);
        }
    }

    /// The first of those so far and this one.
    fn or(mut self, refusal: Refusal) -> Refusal {
        self.refuse(refusal.clone());
        self.0.unwrap_or(refusal)
    }
}

/// Plans one replay. `history`: all of the saga's entries, oldest first; empty: the saga is not known.
pub fn plan(request: &ReplayRequest, order: &ReplayOrder, history: &[Entry], facts: &PlanFacts) -> Result<Plan, Refusal> {
    let mut verdict = FirstRefusal::default();
    if let Some(refusal) = order.member.as_ref().and_then(|member| member.refusal.clone()) {
        return Err(refusal);
    }
    judge_request(&mut verdict, order, facts);
    let at = checkpoint(history, &order.from);
    let (point, newest) = fold(history, at);
    let Some(newest) = newest else {
        return Err(verdict.or(Refusal::new("saga_not_found", "saga_id: no saga with this id is in the history")));
    };
    judge_saga(&mut verdict, order, &newest, facts);
    let (Some(at), Some(point)) = (at, &point) else {
        return Err(verdict.or(Refusal::new("checkpoint_not_found", "from: the saga's history has no such point")));
    };
    let after = &history[at + 1..];

    let mut resume = resume(order, point, after);
    let compensated_since = compensated_since(point, &newest, &resume.steps);
    if order.mode == Mode::Resume && !compensated_since.is_empty() {
        match order.if_compensated {
            IfCompensated::Refuse => verdict.refuse(Refusal::new(
                "steps_compensated",
                format!("compensated since the checkpoint: {}", compensated_since.join(", ")),
            )),
            IfCompensated::Keep => {}
            IfCompensated::Rerun => resume.run_first(&compensated_since),
        }
    }
    let force_failure = match &order.force_failure {
        Some(ForceFailure::ResumeStep) => {
            verdict.refuse_if(resume.step.is_none(), "request_invalid", "force_failure: true, but there is no resume step");
            resume.step.clone()
        }
        Some(ForceFailure::Step(step)) => Some(step.clone()),
        None => None,
    };
    let mut context = point.context.clone();
    match &facts.context {
        Some(Ok(computed)) => context = computed.clone(),
        Some(Err(refusal)) => verdict.refuse(refusal.clone()),
        None => {
            for change in overrides(order) {
                match patch::apply_override(&context, change) {
                    Ok(changed) => context = changed,
                    Err(refusal) => verdict.refuse(refusal),
                }
            }
        }
    }

    let replay_id = ids::replay_id(&request.request_id, &order.saga_id);
    let entry = &history[at];
    let restored = RestoredSaga {
        saga_id: order.new_saga_id.clone().unwrap_or_else(|| ids::new_saga_id(replay_id, &order.saga_id)),
        saga_name: point.saga_name.clone(),
        saga_version: order.saga_version.clone().or_else(|| point.saga_version.clone()),
        mode: order.mode,
        resume_step_index: resume.step.as_deref().and_then(|step| newest_index(history, step)),
        completed_steps: completed_steps(order.mode, point, &newest, &resume.steps),
        skipped_steps: without(&point.skipped_steps, &resume.steps),
        compensated_steps: point.compensated_steps.clone(),
        compensated_since,
        attempts: point.attempts.clone(),
        results: point.results.iter().filter(|(step, _)| !resume.steps.contains(step)).cloned().collect(),
        resume_step: resume.step,
        resume_steps: resume.steps,
        context: Some(context.clone()),
        force_failure,
        original_saga_id: order.saga_id.clone(),
        root_saga_id: newest.lineage.as_ref().map_or(&order.saga_id, |lineage| &lineage.root).clone(),
        depth: depth_after(&newest),
        replay_id: replay_id.to_string(),
        request_id: request.request_id.clone(),
        batch_id: order.member.as_ref().map(|member| member.batch_id.clone()),
        checkpoint: CheckpointRef {
            sequence: entry.sequence.0,
            effective_time: entry.effective_time,
            position: entry.position.clone(),
        },
        requested_by: request.requested_by.clone(),
        reason: request.reason.clone(),
        restored_at: facts.restored_at,
        tenant: point.tenant.clone(),
        region: point.region.clone(),
        labels: merge_labels(&point.labels, &request.labels),
    };
    let bytes = context.len() + restored.results.iter().map(|(step, result)| step.len() + result.len()).sum::<usize>();
    verdict.refuse_if(bytes as u64 > facts.max_bytes, "too_large", "the restored saga's context and results are too large");
    if let Some(refusal) = verdict.0 {
        return Err(refusal);
    }
    Ok(Plan {
        changed: patch::changed_pointers(&point.context, &context),
        runs: if order.mode == Mode::Compensate { Vec::new() } else { runs(after) },
        would_refuse: spared(order, &newest, facts).filter(|_| order.dry_run).map(|refusal| refusal.code),
        before: point.context.clone(),
        restored,
    })
}

impl Plan {
    /// RFC 6902: from the checkpoint's context to the restored one.
    pub fn diff(&self) -> Value {
        let changed = self.restored.context.as_ref().filter(|context| **context != self.before);
        changed.map_or_else(|| Value::Array(Vec::new()), |context| patch::diff(&self.before, context))
    }
}

fn judge_request(verdict: &mut FirstRefusal, order: &ReplayOrder, facts: &PlanFacts) {
    if let Some(id) = &order.new_saga_id {
        let chars = id.as_str().chars().count();
        verdict.refuse_if(
            chars == 0 || chars > SagaId::MAX_CHARS,
            "request_invalid",
            "new_saga_id: 1 to 256 characters are allowed",
        );
        verdict.refuse_if(*id == order.saga_id || facts.id_taken, "id_taken", "new_saga_id: a saga with this id is known");
    }
    verdict.refuse_if(
        order.mode == Mode::Compensate && order.force_failure == Some(ForceFailure::ResumeStep),
        "request_invalid",
        "force_failure: true, but mode compensate has no resume step",
    );
    // As every window here: the moment itself is outside.
    verdict.refuse_if(order.expires_at.is_some_and(|at| facts.now >= at), "expired", "expires_at has passed");
    verdict.refuse_if(!facts.target_allowed, "not_permitted", "target: not one of [topics] restored_allowed");
    verdict.refuse_if(
        facts.split,
        "not_permitted",
        "saga_id: the saga has events in more than one partition, so no history of it is whole (anomaly partition_conflict); let \
         all producers use one partitioner",
    );
}

fn judge_saga(verdict: &mut FirstRefusal, order: &ReplayOrder, newest: &State, facts: &PlanFacts) {
    verdict.refuse_if(
        !newest.status.is_end() && !order.allow_running,
        "saga_running",
        "the saga has not ended; set allow_running to replay it all the same",
    );
    if let Some(refusal) = spared(order, newest, facts).filter(|_| !order.dry_run) {
        verdict.refuse(refusal);
    }
    verdict.refuse_if(
        depth_after(newest) > facts.max_depth,
        "too_deep",
        "the restored saga would be too many replays away from the first",
    );
}

/// What keeps an effect from happening twice, and what a dry run, having none, is spared.
fn spared(order: &ReplayOrder, newest: &State, facts: &PlanFacts) -> Option<Refusal> {
    if order.force_failure.is_some() {
        return None;
    }
    if let Some(most) = facts.lineage_full.filter(|_| !order.allow_repeat) {
        return Some(Refusal::new(
            "not_permitted",
            format!(
                "the saga's lineage has {most} replays or more, and [replay] max_replays allows {most}: look at it before you set \
                 allow_repeat for one more"
            ),
        ));
    }
    if newest.status == Status::Completed && !order.allow_completed && order.mode != Mode::Compensate {
        return Some(Refusal::new(
            "saga_completed",
            "the saga has completed: its steps would run once more; set allow_completed to replay it all the same",
        ));
    }
    let repeats = facts.already_replayed && !order.allow_repeat;
    repeats.then(|| {
        Refusal::new(
            "already_replayed",
            "another replay of this saga is accepted, published or completed; set allow_repeat for one more",
        )
    })
}

/// In the order in which they are applied.
pub fn overrides(order: &ReplayOrder) -> impl Iterator<Item = &Override> {
    let own = order.member.as_ref().and_then(|member| member.own_override.as_ref());
    order.override_.iter().chain(own)
}

/// The state at the checkpoint; `None`: there is no such point.
pub fn state_at_checkpoint(history: &[Entry], from: &From) -> Option<State> {
    let at = checkpoint(history, from)?;
    fold(history.get(..=at)?, Some(at)).0
}

/// The states at one of the entries, and at the last.
fn fold(entries: &[Entry], at: Option<usize>) -> (Option<State>, Option<State>) {
    let mut saga: Option<Saga> = None;
    let (until, after) = entries.split_at(at.map_or(0, |at| at + 1));
    Saga::apply_all(&mut saga, until);
    let point = saga.as_ref().map(|saga| saga.state.clone());
    Saga::apply_all(&mut saga, after);
    (point, saga.map(|saga| saga.state))
}

fn depth_after(newest: &State) -> u32 {
    newest.lineage.as_ref().map_or(0, |lineage| lineage.depth).saturating_add(1)
}

/// The root that a whole history names, as its fold has it; `None`: it names none, so the saga is the root of its tree.
pub fn root_of(history: &[Entry]) -> Option<&SagaId> {
    history.iter().rev().find_map(|entry| match (entry.event.kind, &entry.event.lineage, &entry.event.restored) {
        (Kind::SagaStarted, Some(lineage), _) => Some(&lineage.root),
        (Kind::SagaRestored, _, Some(restored)) => Some(&restored.root_saga_id),
        _ => None,
    })
}

/// Where in the history the entry stands whose state `from` names; `None`: there is no such point.
pub fn checkpoint(history: &[Entry], from: &From) -> Option<usize> {
    let last = |kinds: &[Kind], step: &str| {
        history.iter().rposition(|e| kinds.contains(&e.event.kind) && e.event.step.as_deref() == Some(step))
    };
    match from {
        From::Step { step, attempt: Some(attempt) } => last_attempt(history, step, *attempt),
        From::Step { step, attempt: None } => match last(&[Kind::StepStarted], step) {
            Some(at) => Some(at),
            None => last(&[Kind::StepCompleted, Kind::StepFailed], step)?.checked_sub(1),
        },
        From::AfterStep(step) => last(&[Kind::StepCompleted], step),
        // Effective times never go back.
        From::At(time) => history.partition_point(|e| e.effective_time <= *time).checked_sub(1),
        From::Sequence(sequence) => history.iter().position(|e| e.sequence.0 == *sequence),
        From::Checkpoint(name) => last(&[Kind::Checkpoint], name),
        From::Start => history.iter().position(|e| matches!(e.event.kind, Kind::SagaStarted | Kind::SagaRestored)),
        From::Latest => history.len().checked_sub(1),
    }
}

/// The last STEP_STARTED of `step` after which `attempts[step]` is `attempt`.
fn last_attempt(history: &[Entry], step: &str, attempt: i64) -> Option<usize> {
    let mut saga: Option<Saga> = None;
    let mut found = None;
    for (at, entry) in history.iter().enumerate() {
        Saga::apply_facts(&mut saga, entry);
        let is_attempt = entry.event.kind == Kind::StepStarted && entry.event.step.as_deref() == Some(step);
        let counts = |saga: &Saga| saga.state.attempts.iter().any(|(name, count)| name == step && *count == attempt);
        if is_attempt && saga.as_ref().is_some_and(counts) {
            found = Some(at);
        }
    }
    found
}

struct Resume {
    step: Option<String>,
    steps: Vec<String>,
}

impl Resume {
    fn run_first(&mut self, steps: &[String]) {
        self.steps.splice(0..0, steps.iter().cloned());
        self.step = self.steps.first().cloned();
    }
}

fn resume(order: &ReplayOrder, point: &State, after: &[Entry]) -> Resume {
    if order.mode == Mode::Compensate {
        return Resume { step: None, steps: Vec::new() };
    }
    let running = point.running_steps.iter().map(|(step, _)| step.clone());
    if let From::Step { step, .. } = &order.from {
        let mut steps = vec![step.clone()];
        steps.extend(running.filter(|other| other != step));
        return Resume { step: Some(step.clone()), steps };
    }
    let mut steps: Vec<String> = running.collect();
    if steps.is_empty() {
        steps = point.failed_steps.iter().map(|(step, _)| step.clone()).collect();
    }
    if steps.is_empty() {
        let runs = [Kind::StepStarted, Kind::StepCompleted, Kind::StepFailed, Kind::StepSkipped];
        steps.extend(after.iter().find(|e| runs.contains(&e.event.kind)).and_then(|e| e.event.step.clone()));
    }
    Resume { step: steps.last().cloned(), steps }
}

/// Steps that count as completed at the checkpoint, but whose effects are gone by now.
fn compensated_since(point: &State, newest: &State, resume_steps: &[String]) -> Vec<String> {
    let compensated: HashSet<&String> = newest.compensated_steps.iter().collect();
    let gone = |step: &&String| compensated.contains(step) && !resume_steps.contains(step);
    point.completed_steps.iter().filter(gone).cloned().collect()
}

fn completed_steps(mode: Mode, point: &State, newest: &State, resume_steps: &[String]) -> Vec<String> {
    match mode {
        Mode::Resume => without(&point.completed_steps, resume_steps),
        Mode::Compensate => {
            let mut steps = without(&without(&point.completed_steps, &point.compensated_steps), &newest.compensated_steps);
            steps.reverse();
            steps
        }
    }
}

fn without(steps: &[String], left_out: &[String]) -> Vec<String> {
    let left_out: HashSet<&String> = left_out.iter().collect();
    steps.iter().filter(|step| !left_out.contains(step)).cloned().collect()
}

/// The `step_index` of the step's newest entry that has one; in CHECKPOINTs `step` is another kind of name.
fn newest_index(history: &[Entry], step: &str) -> Option<i64> {
    let of_step = |e: &&Entry| e.event.kind != Kind::Checkpoint && e.event.step.as_deref() == Some(step);
    history.iter().rev().filter(of_step).find_map(|e| e.event.step_index)
}

fn runs(after: &[Entry]) -> Vec<String> {
    let mut known: HashSet<&String> = HashSet::new();
    let steps = after.iter().filter(|e| e.event.kind != Kind::Checkpoint).filter_map(|e| e.event.step.as_ref());
    steps.filter(|step| known.insert(step)).cloned().collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
