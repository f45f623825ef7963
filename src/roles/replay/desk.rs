//! Where one replay is decided: history in, plan or refusal out. Shared by the worker and the HTTP side, so that what is
//! answered at once and what is carried out later follow the same rules.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::draft::RestoredEvent;
use super::unseen::Unseen;
use crate::cpu;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::{When, Whole};
use crate::roles::log_saga;
use crate::roles::replay_log::{ReplayLog, place};
use crate::saga::ids;
use crate::saga::partitioner;
use crate::saga::plan::{Plan, PlanFacts, plan};
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{LogRecord, Override, Refusal, ReplayOrder, ReplayRequest, ReplayStatus};
use crate::saga::time::Micros;

/// Histories read in one round trip: as many answers are in memory at once, before they are unpacked.
const READ_TOGETHER: usize = 32;
/// Such reads at the same time.
const READS: usize = 2;
/// Replays looked up in history at the same time.
const LOOK_UPS: usize = 16;

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

/// A replay, the partition of its request, and what history has of it.
type LookedUp = (String, i32, Result<Option<Arc<LogRecord>>>);

#[derive(Clone)]
pub struct Desk {
    pub history: History,
    /// The replay log in history.
    pub log_history: History,
    pub log: Arc<ReplayLog>,
    /// Partitions of the requests topic, and of the log.
    pub partitions: watch::Receiver<i32>,
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
    /// The newest record of a replay, wherever it is. `partition`: of its request; `None`: not known. `Unavailable`: it is
    /// not in memory, and what else there was is not known yet.
    pub async fn record(&self, replay_id: &str, partition: Option<i32>, unseen: Unseen<'_>) -> Result<Option<Arc<LogRecord>>> {
        if let Some(record) = unseen.get(replay_id).cloned().or_else(|| self.log.get(replay_id)) {
            return Ok(Some(record));
        }
        // Dropped from memory or from the topic: history keeps it as long as the original.
        let mut ends = self.log.all_unknown_below();
        ends.retain(|(of, _)| partition.is_none_or(|partition| partition == *of));
        if ends.is_empty() {
            return Ok(None);
        }
        let record = log_saga::newest(&self.log_history, replay_id, &ends).await?;
        Ok(record.map(Arc::new))
    }

    /// What history has of those of these replays that memory dropped; each with the partition of its request.
    pub async fn dropped(&self, replays: Vec<(String, i32)>) -> Vec<LookedUp> {
        let below: HashMap<i32, Offset> = self.log.all_unknown_below().into_iter().collect();
        let asked = replays.into_iter().filter(|(id, _)| self.log.get(id).is_none());
        let asked: Vec<(String, (i32, Offset))> =
            asked.filter_map(|(id, partition)| Some((id, (partition, *below.get(&partition)?)))).collect();
        let reads = asked.into_iter().map(|(id, end): (String, (i32, Offset))| async move {
            let record = log_saga::newest(&self.log_history, &id, &[end]).await;
            (id, end.0, record.map(|record| record.map(Arc::new)))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(LOOK_UPS).collect().await
    }

    /// The newest records of the replays of a saga that memory dropped, newest first; some of those it has may be among
    /// them.
    pub async fn dropped_of(&self, original: &SagaId) -> Result<Vec<Arc<LogRecord>>> {
        let partition = self.home(original);
        let end = self.log.unknown_below(partition);
        if end == Offset(0) {
            return Ok(Vec::new());
        }
        let replays = log_saga::replays_of(&self.log_history, original, &[(partition, end)]).await?;
        let looked_up = self.dropped(replays.iter().map(|id| (id.clone(), partition)).collect()).await;
        // Memory may have them again.
        let mut records: Vec<_> = replays.iter().filter_map(|id| self.log.get(id)).collect();
        for (_, _, record) in looked_up {
            records.extend(record?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(place(record)));
        Ok(records)
    }

    /// The partition of the requests topic, and of the log, where requests for this saga are.
    pub fn home(&self, saga: &SagaId) -> i32 {
        partitioner::partition(saga.as_str().as_bytes(), *self.partitions.borrow())
    }

    /// Can every replay of this partition be told from a new one? Where memory has them all, that is so.
    pub async fn is_known(&self, partition: i32) -> Result<bool> {
        match self.log.unknown_below(partition) {
            Offset(0) => Ok(true),
            end => self.log_history.is_known_to(&[(partition, end)]).await,
        }
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
            Some(id) => *id == order.saga_id || self.is_taken(id, &replay_id, unseen).await?,
            None => false,
        };
        let facts = PlanFacts {
            now,
            restored_at,
            max_depth: self.rules.max_depth,
            target_allowed: order.target.as_ref().is_none_or(|target| self.rules.restored_allowed.contains(target)),
            // Where it makes no difference the stores are not asked.
            already_replayed: !order.allow_repeat
                && order.force_failure.is_none()
                && self.already_replayed(&order.saga_id, &replay_id, asked, unseen).await?,
            id_taken,
            split: matches!(known, Known::Whole(whole) if whole.split),
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

    async fn is_taken(&self, saga: &SagaId, replay_id: &str, unseen: Unseen<'_>) -> Result<bool> {
        let by_others = |record: &LogRecord| {
            record.replay_id != replay_id
                && record.new_saga_id.as_ref() == Some(saga)
                && !matches!(record.status, ReplayStatus::Refused | ReplayStatus::DryRun | ReplayStatus::Cancelled)
        };
        if self.log.newest_of(saga, |record| by_others(record).then_some(())).is_some()
            || unseen.of_saga(saga).any(|record| by_others(record))
        {
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

    async fn already_replayed(&self, saga: &SagaId, replay_id: &str, asked: Option<Asked>, unseen: Unseen<'_>) -> Result<bool> {
        // Of two that wait the one that was recorded first goes; the other finds it published.
        let goes_first =
            |record: &LogRecord| record.status != ReplayStatus::Accepted || asked.is_none_or(|asked| Asked::of(record) < asked);
        let counts = |record: &LogRecord| record.replay_id != replay_id && goes_first(record);
        let in_view = self.log.standing_of(saga, |record| {
            if unseen.get(&record.replay_id).is_none() && counts(record) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let of_saga = |record: &LogRecord| record.original_saga_id.as_ref() == Some(saga) && record.stands();
        if in_view.is_some() || unseen.of_saga(saga).any(|record| of_saga(record) && counts(record)) {
            return Ok(true);
        }
        let dropped = match self.dropped_of(saga).await {
            // So many that they are not read at once: who wants one more can say so, and the role goes on.
            Err(Error::Refused { code: "too_large", .. }) => return Ok(true),
            other => other?,
        };
        Ok(dropped.iter().any(|record| unseen.get(&record.replay_id).is_none() && of_saga(record) && counts(record)))
    }
}
