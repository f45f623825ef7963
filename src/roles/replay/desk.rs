//! Where one replay is decided: history in, plan or refusal out. Shared by the worker and the HTTP side, so that what is
//! answered at once and what is carried out later follow the same rules.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use super::draft::RestoredEvent;
use super::unseen::Unseen;
use crate::cpu;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::{When, Whole};
use crate::roles::log_saga;
use crate::roles::replay_log::ReplayLog;
use crate::saga::ids;
use crate::saga::plan::{Plan, PlanFacts, plan};
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{CommandName, LogRecord, Override, Refusal, ReplayOrder, ReplayRequest, ReplayStatus};
use crate::saga::time::Micros;

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
    /// Topics that `target` may name.
    pub restored_allowed: Vec<String>,
    /// Bytes of a restored saga's context and results.
    pub max_restored_bytes: u64,
    /// Bytes of a SAGA_RESTORED record: larger ones would be dead letters.
    pub max_event_bytes: u64,
}

/// What history has of a saga.
pub enum Known {
    Whole(Whole),
    Nothing,
    /// More entries than are read at once.
    TooLong,
}

#[derive(Clone)]
pub struct Desk {
    pub history: History,
    /// The replay log in history.
    pub log_history: History,
    pub log: Arc<ReplayLog>,
    pub rules: Rules,
}

/// The place of a request among those of its saga: when it was recorded, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked(Micros, Offset);

impl Asked {
    pub fn of(record: &LogRecord) -> Self {
        Self(record.accepted_at, record.position.offset)
    }
}

/// May planning take more than a moment?
fn is_long(order: &ReplayOrder, whole: &Whole) -> bool {
    matches!(order.override_, Some(Override::Patch(_))) || whole.entries.len() > LONG_HISTORY
}

/// What can be said without the history: of several refusals the first in the order of the contract.
fn refusal_of_too_long(request: &ReplayRequest, order: &ReplayOrder, facts: &PlanFacts) -> Refusal {
    match plan(request, order, &[], facts) {
        Err(refusal) if refusal.code != "saga_not_found" => refusal,
        _ if !facts.target_allowed => Refusal::new("not_permitted", "target: not one of [topics] restored_allowed"),
        _ => Refusal::new("too_large", "the saga has more entries than are read at once"),
    }
}

impl Desk {
    /// The newest record of a replay, wherever it is.
    pub async fn record(&self, replay_id: &str, unseen: Unseen<'_>) -> Result<Option<Arc<LogRecord>>> {
        if let Some(record) = unseen.get(replay_id).cloned().or_else(|| self.log.get(replay_id)) {
            return Ok(Some(record));
        }
        if !self.log.has_dropped() {
            return Ok(None);
        }
        // Dropped from memory or from the topic: history keeps it as long as the original.
        let record = log_saga::newest(&self.log_history, &log_saga::saga_id(replay_id)).await?;
        Ok(record.map(Arc::new))
    }

    /// What history has of these sagas, in their order.
    pub async fn load(&self, sagas: &[SagaId]) -> Vec<Result<Known>> {
        let known = |whole| match whole {
            Ok(whole) => Ok(Known::Whole(whole)),
            Err(Error::Refused { code: "saga_not_found", .. }) => Ok(Known::Nothing),
            Err(Error::Refused { code: "too_large", .. }) => Ok(Known::TooLong),
            Err(other) => Err(other),
        };
        let reads: Vec<_> = sagas.chunks(READ_TOGETHER).map(|sagas| self.history.entries_of(sagas)).collect();
        let read: Vec<_> = stream::iter(reads).buffered(READS).collect().await;
        read.into_iter().flatten().map(known).collect()
    }

    /// Plans a replay from loaded history, with the SAGA_RESTORED that it makes. `asked`: the request's place; `None`: it is
    /// not recorded yet, so it comes after all that are. `restored_at` and `now`: see [`PlanFacts`].
    pub async fn decide(
        &self,
        request: &ReplayRequest,
        order: &ReplayOrder,
        known: &Known,
        unseen: Unseen<'_>,
        asked: Option<Asked>,
        (restored_at, now): (Micros, Micros),
    ) -> Result<std::result::Result<(Plan, RestoredEvent), Refusal>> {
        let replay_id = ids::replay_id(&request.request_id, &order.saga_id).to_string();
        let id_taken = match &order.new_saga_id {
            Some(id) => *id == order.saga_id || self.is_known(id, &replay_id, unseen).await?,
            None => false,
        };
        let facts = PlanFacts {
            now,
            restored_at,
            max_depth: self.rules.max_depth,
            target_allowed: order.target.as_ref().is_none_or(|target| self.rules.restored_allowed.contains(target)),
            already_replayed: self.already_replayed(&order.saga_id, &replay_id, asked, unseen),
            id_taken,
            max_bytes: self.rules.max_restored_bytes,
            batch_id: None,
        };
        let planned = match known {
            Known::Whole(whole) if is_long(order, whole) => cpu::long(|| plan(request, order, &whole.entries, &facts)).await,
            Known::Whole(whole) => plan(request, order, &whole.entries, &facts),
            Known::Nothing => plan(request, order, &[], &facts),
            Known::TooLong => Err(refusal_of_too_long(request, order, &facts)),
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

    async fn is_known(&self, saga: &SagaId, replay_id: &str, unseen: Unseen<'_>) -> Result<bool> {
        let by_others = |record: &LogRecord| {
            record.replay_id != replay_id
                && record.new_saga_id.as_ref() == Some(saga)
                && !matches!(record.status, ReplayStatus::Refused | ReplayStatus::DryRun | ReplayStatus::Cancelled)
        };
        if self.log.of_saga(saga).iter().any(|record| by_others(record)) || unseen.of_saga(saga).any(|record| by_others(record)) {
            return Ok(true);
        }
        match self.history.state(saga, When::Newest).await {
            // The saga that this very replay made is no other's.
            Ok(found) => Ok(found.state.lineage.as_ref().is_none_or(|lineage| lineage.replay_id != replay_id)),
            Err(Error::Refused { code: "saga_not_found", .. }) => Ok(false),
            Err(Error::Refused { .. }) => Ok(true),
            Err(other) => Err(other),
        }
    }

    fn already_replayed(&self, saga: &SagaId, replay_id: &str, asked: Option<Asked>, unseen: Unseen<'_>) -> bool {
        let stands = |record: &LogRecord| match record.status {
            ReplayStatus::Published | ReplayStatus::Completed => true,
            // Of two that wait the one that was recorded first goes; the other finds it published.
            ReplayStatus::Accepted => asked.is_none_or(|asked| Asked::of(record) < asked),
            _ => false,
        };
        let counts = |record: &LogRecord| {
            record.original_saga_id.as_ref() == Some(saga)
                && record.replay_id != replay_id
                && record.command == CommandName::Replay
                && !record.dry_run
                && stands(record)
                && !record.is_forced()
        };
        let seen = self.log.of_saga(saga);
        let still_newest = |record: &&Arc<LogRecord>| unseen.get(&record.replay_id).is_none();
        seen.iter().filter(still_newest).any(|record| counts(record)) || unseen.of_saga(saga).any(|record| counts(record))
    }
}
