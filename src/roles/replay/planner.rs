//! Where one replay is planned: history in, plan or refusal out. Shared by the worker and the HTTP side, so that what is
//! answered at once and what is published later follow the same rules.

use std::ops::ControlFlow;

use futures::stream::{self, StreamExt};

use super::computed_context::computed_context;
use super::log_overlay::LogOverlay;
use super::outbox::RestoredEvent;
use super::replay_records::ReplayRecords;
use crate::cpu;
use crate::error::{Error, Result};
use crate::expression::Evaluator;
use crate::history::History;
use crate::history::answer::{FullHistory, PointInTime};
use crate::saga::ids;
use crate::saga::plan::{Plan, PlanFacts, plan, root_of};
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{LogRecord, Override, Refusal, ReplayOrder, ReplayRequest, ReplayStatus};
use crate::saga::time::Micros;
use crate::saga::undo::{UndoPlan, plan_undo};

/// Histories read in one round trip: as many answers are in memory at once, before they are unpacked.
const READ_TOGETHER: usize = 32;
/// Such reads at the same time.
const READS: usize = 2;

/// More entries than this are folded on a thread of its own.
const LONG_HISTORY: usize = 1_000;

/// What a replay may do.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_depth: u32,
    /// Of one lineage; `None`: unlimited.
    pub max_replays: Option<u32>,
    /// Topics that `target` may name.
    pub restored_allowed: Vec<String>,
    /// Bytes of a restored saga's context and results.
    pub max_restored_bytes: u64,
    /// Bytes of a SAGA_RESTORED record: larger ones would be dead letters.
    pub max_event_bytes: u64,
}

/// What history has of a saga.
pub enum SagaHistory {
    FullHistory(FullHistory),
    Nothing,
    /// More entries than are read at once.
    TooLong,
}

#[derive(Clone)]
pub struct ReplayPlanner {
    pub history: History,
    pub records: ReplayRecords,
    pub rules: Rules,
    pub expressions: Evaluator,
}

/// The place of a request among those of its saga: when it was recorded, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestOrder(Micros, Offset);

impl RequestOrder {
    pub fn of(record: &LogRecord) -> Self {
        Self(record.accepted_at, record.position.offset)
    }
}

/// When a replay is decided, and when its saga counts as restored: see [`PlanFacts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanTimes {
    pub decided_at: Micros,
    pub restored_at: Micros,
}

/// Is it another replay, which does not wait behind this one? Of two that wait the one that was recorded first goes; the other
/// finds it published.
fn is_another_before(record: &LogRecord, replay_id: &str, asked: Option<RequestOrder>) -> bool {
    let goes_first = record.status != ReplayStatus::Accepted || asked.is_none_or(|asked| RequestOrder::of(record) < asked);
    record.replay_id != replay_id && goes_first
}

/// May planning take more than a moment?
fn is_long(order: &ReplayOrder, full_history: &FullHistory) -> bool {
    matches!(order.override_, Some(Override::Patch(_))) || full_history.entries.len() > LONG_HISTORY
}

/// What can be said without the history: of several refusals the first in the order of the contract.
fn refusal_of_too_long(request: &ReplayRequest, order: &ReplayOrder, facts: &PlanFacts) -> Refusal {
    match plan(request, order, &[], facts) {
        Err(refusal) if refusal.code != "saga_not_found" => refusal,
        _ if !facts.target_allowed => Refusal::new("not_permitted", "target: not one of [topics] restored_allowed"),
        _ => Refusal::new("too_large", "the saga has more entries than are read at once"),
    }
}

/// Plans the undo of a replay from the loaded history of its [target](crate::saga::undo::undo_target).
pub fn plan_undo_of(
    request: &ReplayRequest,
    replay_id: &str,
    named: &LogRecord,
    known: &SagaHistory,
    asked_at: Micros,
) -> std::result::Result<UndoPlan, Refusal> {
    match known {
        SagaHistory::FullHistory(whole) if whole.split => Err(Refusal::new(
            "not_permitted",
            "the restored saga has events in more than one partition, so no history of it is whole",
        )),
        SagaHistory::FullHistory(whole) => plan_undo(request, replay_id, named, &whole.entries, asked_at),
        SagaHistory::Nothing => plan_undo(request, replay_id, named, &[], asked_at),
        SagaHistory::TooLong => Err(Refusal::new("too_large", "the restored saga has more entries than are read at once")),
    }
}

impl ReplayPlanner {
    /// What history has of these sagas, in their order.
    pub async fn histories_of(&self, sagas: &[SagaId]) -> Vec<Result<SagaHistory>> {
        let known = |full_history| match full_history {
            Ok(full_history) => Ok(SagaHistory::FullHistory(full_history)),
            Err(Error::Refused { code: "saga_not_found", .. }) => Ok(SagaHistory::Nothing),
            Err(Error::Refused { code: "too_large", .. }) => Ok(SagaHistory::TooLong),
            Err(other) => Err(other),
        };
        let reads: Vec<_> = sagas.chunks(READ_TOGETHER).map(|sagas| self.history.entries_of(sagas)).collect();
        let read: Vec<_> = stream::iter(reads).buffered(READS).collect().await;
        read.into_iter().flatten().map(known).collect()
    }

    /// Plans a replay from loaded history, with the SAGA_RESTORED that it makes. `asked`: the request's place; `None`: it is
    /// not recorded yet, so it comes after all that are.
    pub async fn plan(
        &self,
        request: &ReplayRequest,
        order: &ReplayOrder,
        known: &SagaHistory,
        log_overlay: LogOverlay<'_>,
        asked: Option<RequestOrder>,
        times: PlanTimes,
    ) -> Result<std::result::Result<(Plan, RestoredEvent), Refusal>> {
        let replay_id = ids::replay_id(&request.request_id, &order.saga_id).to_string();
        let id_taken = match &order.new_saga_id {
            Some(id) => *id == order.saga_id || self.is_taken(id, &replay_id, log_overlay).await?,
            None => false,
        };
        let lineage_full = match (self.rules.max_replays, known) {
            (Some(most), SagaHistory::FullHistory(whole)) if !order.allow_repeat && order.force_failure.is_none() => {
                let root = root_of(&whole.entries).unwrap_or(&order.saga_id);
                let counts = |record: &LogRecord| is_another_before(record, &replay_id, asked);
                self.records.lineage_has(root, most, counts, log_overlay).await?.then_some(most)
            }
            _ => None,
        };
        let context = match known {
            SagaHistory::FullHistory(full_history) => computed_context(&self.expressions, order, &full_history.entries).await?,
            SagaHistory::Nothing | SagaHistory::TooLong => None,
        };
        let facts = PlanFacts {
            now: times.decided_at,
            restored_at: times.restored_at,
            max_depth: self.rules.max_depth,
            target_allowed: order.target.as_ref().is_none_or(|target| self.rules.restored_allowed.contains(target)),
            // Where it makes no difference the stores are not asked.
            already_replayed: !order.allow_repeat
                && order.force_failure.is_none()
                && self.already_replayed(&order.saga_id, &replay_id, asked, log_overlay).await?,
            lineage_full,
            id_taken,
            split: matches!(known, SagaHistory::FullHistory(full_history) if full_history.split),
            max_bytes: self.rules.max_restored_bytes,
            context,
        };
        let planned = match known {
            SagaHistory::FullHistory(full_history) if is_long(order, full_history) => {
                cpu::long(|| plan(request, order, &full_history.entries, &facts)).await
            }
            SagaHistory::FullHistory(full_history) => plan(request, order, &full_history.entries, &facts),
            SagaHistory::Nothing => plan(request, order, &[], &facts),
            SagaHistory::TooLong => Err(refusal_of_too_long(request, order, &facts)),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Comes last of all refusals, so what was planned is refused for nothing else.
        let event = RestoredEvent::of(&plan.restored)?;
        if event.record_bytes() > self.rules.max_event_bytes {
            return Ok(Err(Refusal::new("too_large", "the restored saga is too large for a step event")));
        }
        Ok(Ok((plan, event)))
    }

    async fn is_taken(&self, saga: &SagaId, replay_id: &str, log_overlay: LogOverlay<'_>) -> Result<bool> {
        let by_others = |record: &LogRecord| {
            record.replay_id != replay_id
                && record.new_saga_id.as_ref() == Some(saga)
                && !matches!(record.status, ReplayStatus::Refused | ReplayStatus::DryRun | ReplayStatus::Cancelled)
        };
        if self.records.log.newest_of(saga, |record| by_others(record).then_some(())).is_some()
            || log_overlay.of_saga(saga).any(|record| by_others(record))
        {
            return Ok(true);
        }
        match self.history.state(saga, PointInTime::Newest).await {
            // The saga that this very replay made is no other's.
            Ok(found) => Ok(found.state.lineage.as_ref().is_none_or(|lineage| lineage.replay_id != replay_id)),
            Err(Error::Refused { code: "saga_not_found", .. }) => Ok(false),
            Err(Error::Refused { .. }) => Ok(true),
            Err(other) => Err(other),
        }
    }

    async fn already_replayed(
        &self,
        saga: &SagaId,
        replay_id: &str,
        asked: Option<RequestOrder>,
        log_overlay: LogOverlay<'_>,
    ) -> Result<bool> {
        let counts = |record: &LogRecord| is_another_before(record, replay_id, asked);
        let in_view = self.records.log.standing_of(saga, |record| {
            if log_overlay.get(&record.replay_id).is_none() && counts(record) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let of_saga = |record: &LogRecord| record.original_saga_id.as_ref() == Some(saga) && record.stands();
        if in_view.is_some() || log_overlay.of_saga(saga).any(|record| of_saga(record) && counts(record)) {
            return Ok(true);
        }
        let dropped = match self.records.dropped_of(saga).await {
            // So many that they are not read at once: who wants one more can say so, and the role goes on.
            Err(Error::Refused { code: "too_large", .. }) => return Ok(true),
            other => other?,
        };
        Ok(dropped.iter().any(|record| log_overlay.get(&record.replay_id).is_none() && of_saga(record) && counts(record)))
    }
}
