//! Where one replay is decided: history in, plan or refusal out. Shared by the worker and the HTTP side, so that what is
//! answered at once and what is carried out later follow the same rules.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::log_overlay::LogOverlay;
use super::outbox::RestoredEvent;
use crate::cpu;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::{FullHistory, PointInTime};
use crate::replay_log::homes::Homes;
use crate::replay_log::in_history;
use crate::replay_log::{ReplayLog, place};
use crate::saga::ids;
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
pub enum SagaHistory {
    FullHistory(FullHistory),
    Nothing,
    /// More entries than are read at once.
    TooLong,
}

/// A replay, the partition of its request, and what history has of it.
type ReplayLookup = (String, i32, Result<Option<Arc<LogRecord>>>);

#[derive(Clone)]
pub struct ReplayPlanner {
    pub history: History,
    /// The replay log in history.
    pub log_history: History,
    pub log: Arc<ReplayLog>,
    /// In which partitions of the log the record of a request may be.
    pub homes: watch::Receiver<Homes>,
    pub rules: Rules,
}

/// The place of a request among those of its saga: when it was recorded, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestOrder(Micros, Offset);

impl RequestOrder {
    pub fn of(record: &LogRecord) -> Self {
        Self(record.accepted_at, record.position.offset)
    }
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

fn not_understood((partition, offset): (i32, Offset)) -> Error {
    Error::corrupt(format!(
        "what became of this replay is not known: the record at offset {offset} of partition {partition} of the replay log's topic is \
         not understood"
    ))
}

impl ReplayPlanner {
    /// The newest record of a replay, wherever it is. `homes`: where it may be; `None`: anywhere. `Unavailable`: it is
    /// not in memory, and what else there was is not known yet.
    pub async fn record(
        &self,
        replay_id: &str,
        homes: Option<&[i32]>,
        log_overlay: LogOverlay<'_>,
    ) -> Result<Option<Arc<LogRecord>>> {
        if let Some(record) = log_overlay.get(replay_id).cloned().or_else(|| self.log.get(replay_id)) {
            return Ok(Some(record));
        }
        self.is_understood(replay_id, homes)?;
        // Dropped from memory or from the topic: history keeps it as long as the original.
        let record = match homes {
            Some(homes) => self.in_history(replay_id, &self.unknown_below(homes)?).await?,
            None => self.in_history(replay_id, &self.log.all_unknown_below()).await?,
        };
        Ok(record.map(Arc::new))
    }

    /// `Corrupt`: the topic has a record of this replay that nobody can read, or so many such that it may be among them.
    fn is_understood(&self, replay_id: &str, homes: Option<&[i32]>) -> Result<()> {
        self.log.not_understood(replay_id, homes).map_or(Ok(()), |at| Err(not_understood(at)))
    }

    /// To which offsets history must be known of these partitions before what memory has not is new. `Unavailable`: one of
    /// them is not even read to its end yet.
    fn unknown_below(&self, homes: &[i32]) -> Result<Vec<(i32, Offset)>> {
        if let Some(partition) = homes.iter().find(|home| !self.log.is_read(**home)) {
            return Err(Error::unavailable(format!("partition {partition} of the replay log is not read to its end yet")));
        }
        let ends = homes.iter().map(|home| (*home, self.log.unknown_below(*home)));
        Ok(ends.filter(|(_, end)| *end > Offset(0)).collect())
    }

    /// Each partition is a history of its own: of a replay with records in several, what was carried out counts.
    async fn in_history(&self, replay_id: &str, ends: &[(i32, Offset)]) -> Result<Option<LogRecord>> {
        let read = |end| in_history::newest(&self.log_history, replay_id, std::slice::from_ref(end));
        let found = try_join_all(ends.iter().map(read)).await?;
        let is_done = |record: &LogRecord| (!record.dry_run, record.published_at.is_some());
        Ok(found.into_iter().flatten().max_by_key(is_done))
    }

    /// What history has of those of these replays that memory dropped; each with the partition of its request, and those
    /// where its record may be.
    pub async fn dropped(&self, replays: Vec<(String, i32, Vec<i32>)>) -> Vec<ReplayLookup> {
        let asked = replays.into_iter().filter(|(id, ..)| self.log.get(id).is_none());
        let asked = asked.map(|(id, partition, homes)| {
            let ends = self.is_understood(&id, Some(&homes)).and_then(|()| self.unknown_below(&homes));
            (id, partition, ends)
        });
        let asked = asked.filter(|(.., ends)| ends.as_ref().map_or(true, |ends| !ends.is_empty()));
        let reads = asked.map(|(id, partition, ends)| async move {
            let record = match ends {
                Ok(ends) => self.in_history(&id, &ends).await,
                Err(error) => Err(error),
            };
            (id, partition, record.map(|record| record.map(Arc::new)))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(LOOK_UPS).collect().await
    }

    /// The newest records of the replays of a saga that memory dropped, newest first; some of those it has may be among
    /// them.
    pub async fn dropped_of(&self, original: &SagaId) -> Result<Vec<Arc<LogRecord>>> {
        let homes = self.homes_of(original);
        if let Some(at) = self.log.forgotten(&homes) {
            return Err(not_understood(at));
        }
        let (mut replays, mut asked) = (Vec::new(), Vec::new());
        // Each partition has an index of its own.
        for end in self.unknown_below(&homes)? {
            for id in in_history::replays_of(&self.log_history, original, std::slice::from_ref(&end)).await? {
                if !replays.contains(&id) {
                    asked.push((id.clone(), end.0, homes.clone()));
                    replays.push(id);
                }
            }
        }
        let looked_up = self.dropped(asked).await;
        // Memory may have them again.
        let mut records: Vec<_> = replays.iter().filter_map(|id| self.log.get(id)).collect();
        for (_, _, record) in looked_up {
            records.extend(record?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(place(record)));
        Ok(records)
    }

    /// The partitions of the log where replays of this saga may be.
    pub fn homes_of(&self, saga: &SagaId) -> Vec<i32> {
        let (homes, key) = (self.homes.borrow(), saga.as_str().as_bytes());
        homes.of_key(key, homes.home(key))
    }

    /// The same of a request that was found in this partition.
    pub fn homes_of_request(&self, record: &LogRecord) -> Vec<i32> {
        let (homes, found) = (self.homes.borrow(), record.position.partition);
        match &record.original_saga_id {
            Some(saga) => homes.of_key(saga.as_str().as_bytes(), found),
            None => homes.of_partition(found),
        }
    }

    /// The same of all requests of this partition.
    pub fn homes_of_partition(&self, partition: i32) -> Vec<i32> {
        self.homes.borrow().of_partition(partition)
    }

    /// Can every replay with its record in these partitions be told from a new one? Where memory has them all, that is so.
    pub async fn is_known(&self, homes: &[i32]) -> Result<bool> {
        match self.unknown_below(homes) {
            Ok(ends) if ends.is_empty() => Ok(true),
            Ok(ends) => self.log_history.is_known_to(&ends).await,
            Err(_) => Ok(false),
        }
    }

    /// What history has of these sagas, in their order.
    pub async fn load(&self, sagas: &[SagaId]) -> Vec<Result<SagaHistory>> {
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
    /// not recorded yet, so it comes after all that are. `restored_at` and `now`: see [`PlanFacts`].
    pub async fn decide(
        &self,
        request: &ReplayRequest,
        order: &ReplayOrder,
        known: &SagaHistory,
        log_overlay: LogOverlay<'_>,
        asked: Option<RequestOrder>,
        (restored_at, now): (Micros, Micros),
    ) -> Result<std::result::Result<(Plan, RestoredEvent), Refusal>> {
        let replay_id = ids::replay_id(&request.request_id, &order.saga_id).to_string();
        let id_taken = match &order.new_saga_id {
            Some(id) => *id == order.saga_id || self.is_taken(id, &replay_id, log_overlay).await?,
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
                && self.already_replayed(&order.saga_id, &replay_id, asked, log_overlay).await?,
            id_taken,
            split: matches!(known, SagaHistory::FullHistory(full_history) if full_history.split),
            max_bytes: self.rules.max_restored_bytes,
            batch_id: None,
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
        if self.log.newest_of(saga, |record| by_others(record).then_some(())).is_some()
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
        // Of two that wait the one that was recorded first goes; the other finds it published.
        let goes_first = |record: &LogRecord| {
            record.status != ReplayStatus::Accepted || asked.is_none_or(|asked| RequestOrder::of(record) < asked)
        };
        let counts = |record: &LogRecord| record.replay_id != replay_id && goes_first(record);
        let in_view = self.log.standing_of(saga, |record| {
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
        let dropped = match self.dropped_of(saga).await {
            // So many that they are not read at once: who wants one more can say so, and the role goes on.
            Err(Error::Refused { code: "too_large", .. }) => return Ok(true),
            other => other?,
        };
        Ok(dropped.iter().any(|record| log_overlay.get(&record.replay_id).is_none() && of_saga(record) && counts(record)))
    }
}
