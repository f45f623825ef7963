//! Loads what a decision about one request depends on: what the log has of its replay, who of its saga waits, and, if it may
//! go, its plan. Asks stores; decides nothing.

use std::sync::Arc;
use std::time::Instant;

use super::batches::BatchJobs;
use super::catch_up::CatchUpBarrier;
use super::decide::{BatchTimes, Facts, PlanFact, PlannedReplay, Publishing, UndoFact};
use super::draft::BatchDraft;
use super::histories::{LoadedHistories, report_unreadable};
use super::history_alarms::HistoryAlarms;
use super::history_lookup::HistoryLookup;
use super::log_overlay::UnappliedLog;
use super::outbox::EventPartitions;
use super::oversized::OversizedRecords;
use super::planner::{PlanTimes, ReplayPlanner, RequestOrder, SagaHistory, plan_undo_of};
use super::queue::RequestQueue;
use super::queue::item::RequestItem;
use super::writable::WritablePartitions;
use crate::error::{Error, Result};
use crate::partitioning::Partitioning;
use crate::saga::position::SagaId;
use crate::saga::request::{Command, CommandName, ReplayOrder};
use crate::saga::restored::RestoredSaga;
use crate::saga::time::Micros;
use crate::saga::undo::undo_target;
use crate::telemetry::Metrics;

/// What was loaded for all requests of a batch together.
pub struct LoadedBatch {
    pub times: BatchTimes,
    pub histories: LoadedHistories,
    pub replays: HistoryLookup,
}

/// What the requests of a batch meet.
pub struct Surroundings<'a> {
    pub loaded: &'a LoadedBatch,
    pub draft: &'a BatchDraft,
    pub unapplied: &'a UnappliedLog,
    pub oversized: &'a OversizedRecords,
    pub writable: &'a WritablePartitions,
    pub batches: &'a BatchJobs,
    /// Of which one replay may be taken from the rate, and in which sagas wait that cannot be read.
    pub queue: &'a mut RequestQueue,
}

/// Who of its saga waits before a request, and whether it may wait itself.
fn load_order(item: &RequestItem, saga: &SagaId, around: &Surroundings<'_>, facts: &mut Facts) {
    let (draft, queue, now) = (around.draft, &*around.queue, facts.times.taken_up_at);
    facts.follows_skipped = queue.follows_skipped(item, saga, now, &draft.changes);
    facts.follows_parked = queue.blocks(&item.partition, saga, now);
    facts.follows_in_batch = draft.holds(saga);
    // Those of other partitions do not count, which is only asked where it could matter.
    let may_park = |also| queue.may_park(&item.partition, &item.record.replay_id, also);
    facts.may_park = may_park(draft.parked.len()) || may_park(draft.parks_of(&item.partition));
}

pub struct FactLoader {
    pub planner: ReplayPlanner,
    pub catch_up: CatchUpBarrier,
    pub partitioning: Arc<Partitioning>,
    pub metrics: Arc<Metrics>,
    pub alarms: HistoryAlarms,
    pub instant: fn() -> Instant,
}

impl FactLoader {
    pub async fn facts_of(&mut self, item: &RequestItem, around: &mut Surroundings<'_>) -> Result<Facts> {
        let (loaded, draft) = (around.loaded, around.draft);
        let mut facts = Facts {
            times: loaded.times,
            is_unreadable: loaded.replays.is_unreadable(item),
            times_oversized: around.oversized.times(&item.record.replay_id),
            ..Facts::default()
        };
        if facts.is_unreadable {
            return Ok(facts);
        }
        let log_overlay = around.unapplied.with(&draft.outbox.log);
        let records = &self.planner.records;
        let record = |replay_id| loaded.replays.record(replay_id, &item.record, records, log_overlay);
        match &item.request.command {
            Command::Replay(order) => {
                facts.own = record(&item.record.replay_id).await?;
                self.load_replay(item, order, around, &mut facts).await?;
            }
            Command::Cancel { replay_id, .. } => {
                facts.own = record(&item.record.replay_id).await?;
                if !facts.is_repeat() && facts.times_oversized == 0 {
                    facts.named = record(replay_id).await?;
                    facts.names_skipped = around.queue.is_skipped(&item.partition, replay_id) || draft.skips(replay_id);
                }
            }
            Command::Undo { saga_id, replay_id, .. } => {
                facts.own = record(&item.record.replay_id).await?;
                facts.named = record(replay_id).await?;
                self.load_undo(item, saga_id, around, &mut facts);
            }
            Command::Outcome(outcome) => facts.named = record(&outcome.replay_id).await?,
            Command::BatchControl { batch_id, .. } => {
                facts.own = record(&item.record.replay_id).await?;
                facts.named = record(batch_id).await?;
                facts.batch_counts = self.planner.records.log.batch_counts(batch_id);
                let goes_on = |of| around.batches.has(of, batch_id) || draft.begins(of, batch_id);
                facts.batch_is_retried = goes_on(CommandName::BatchRetryFailed);
                facts.batch_is_undone = goes_on(CommandName::BatchUndo);
            }
            Command::ScheduleControl { schedule_id, .. } => {
                facts.own = record(&item.record.replay_id).await?;
                facts.named = record(schedule_id).await?;
            }
            Command::Batch(_) | Command::Schedule(_) | Command::Invalid { .. } => {
                facts.own = record(&item.record.replay_id).await?
            }
        }
        Ok(facts)
    }

    async fn load_replay(
        &mut self,
        item: &RequestItem,
        order: &ReplayOrder,
        around: &mut Surroundings<'_>,
        facts: &mut Facts,
    ) -> Result<()> {
        let saga = &order.saga_id;
        if let Some(member) = &order.member {
            let log_overlay = around.unapplied.with(&around.draft.outbox.log);
            let view = &self.planner.records.log;
            let batch = log_overlay.get(&member.batch_id).cloned().or_else(|| view.get(&member.batch_id));
            let progress = batch.as_ref().and_then(|batch| batch.batch_progress.as_ref());
            facts.batch_is_cancelled = progress.is_some_and(|progress| progress.is_cancelled);
        }
        if let Some(member) = &order.schedule {
            let log_overlay = around.unapplied.with(&around.draft.outbox.log);
            let view = &self.planner.records.log;
            let schedule = log_overlay.get(&member.schedule_id).cloned().or_else(|| view.get(&member.schedule_id));
            facts.policy_is_stopped = schedule.is_some_and(|schedule| schedule.is_stopped_policy());
        }
        load_order(item, saga, around, facts);
        facts.ends = around.loaded.histories.ends_of(saga).cloned();
        if !facts.policy_is_stopped
            && facts.may_go(item, order.not_before.unwrap_or(Micros::MIN))
            && let Some(history) = around.loaded.histories.of(saga)
            && self.takes_rate(around.queue)
        {
            facts.plan = self.plan(item, order, history, around, facts).await?;
        }
        Ok(())
    }

    fn load_undo(&self, item: &RequestItem, original: &SagaId, around: &mut Surroundings<'_>, facts: &mut Facts) {
        load_order(item, original, around, facts);
        if !facts.may_go(item, Micros::MIN) {
            return;
        }
        let target = match undo_target(facts.named.as_deref(), Some(original)) {
            Ok(target) => target.clone(),
            Err(refusal) => {
                facts.undo = UndoFact::Refused(refusal);
                return;
            }
        };
        facts.ends = around.loaded.histories.ends_of(&target).cloned();
        let (Some(named), Some(history)) = (&facts.named, around.loaded.histories.of(&target)) else { return };
        let accepted_at = item.record.accepted_at;
        facts.undo = match plan_undo_of(&item.request, &item.record.replay_id, named, history, accepted_at) {
            Err(refusal) => UndoFact::Refused(refusal),
            Ok(plan) => {
                let is_writable = around.writable.takes_undo(&plan.asked);
                UndoFact::Planned { plan: Box::new(plan), is_writable }
            }
        };
    }

    fn takes_rate(&self, queue: &mut RequestQueue) -> bool {
        let may = queue.take_rate((self.instant)());
        if !may {
            self.metrics.replay_throttled.inc();
        }
        may
    }

    async fn plan(
        &mut self,
        item: &RequestItem,
        order: &ReplayOrder,
        history: &SagaHistory,
        around: &mut Surroundings<'_>,
        facts: &Facts,
    ) -> Result<PlanFact> {
        let saga = &order.saga_id;
        let times = PlanTimes {
            decided_at: facts.times.decided_at,
            restored_at: item.record.accepted_at.max(order.not_before.unwrap_or(Micros::MIN)),
        };
        let log_overlay = around.unapplied.with(&around.draft.outbox.log);
        let asked = Some(RequestOrder::of(&item.record));
        let planned = match self.planner.plan(&item.request, order, history, log_overlay, asked, times).await {
            // This one waits, the others are replayed.
            Err(error @ (Error::Unavailable(_) | Error::Corrupt(_))) => {
                let now = (self.instant)();
                self.alarms.failed(saga.as_str(), &item.record.position, &error, now);
                report_unreadable(saga, &error, around.queue, now);
                return Ok(PlanFact::Unknown);
            }
            other => other?,
        };
        around.queue.saga_is_readable(saga);
        self.alarms.read(saga.as_str());
        let (plan, event) = match planned {
            Ok(planned) => planned,
            Err(refusal) => return Ok(PlanFact::Refused(refusal)),
        };
        let publishing = if order.dry_run || facts.times_oversized > 0 {
            None
        } else {
            let events = self.event_partitions(&plan.restored)?;
            let is_writable = around.writable.takes(&plan.restored, order.target.as_deref(), events);
            Some(Publishing { events, is_writable })
        };
        Ok(PlanFact::Planned(Box::new(PlannedReplay { plan, event, publishing })))
    }

    /// Where SAGA_RESTORED goes: how keys of step events are spread over how many partitions.
    fn event_partitions(&self, saga: &RestoredSaga) -> Result<EventPartitions> {
        let position = &saga.checkpoint.position;
        let count =
            self.catch_up.chains.partitions_of(&position.topic).ok_or_else(|| {
                Error::unavailable(format!("the saga's topic {} is not one of [topics] events", position.topic))
            })?;
        let original = saga.original_saga_id.as_str().as_bytes();
        self.partitioning.see(std::iter::once(original), position.partition, count);
        let partitioner = self.partitioning.partitioner().ok_or_else(|| {
            Error::unavailable("no known partitioner explains where the step events' keys are: set [topics] partitioner")
        })?;
        Ok(EventPartitions { partitioner, count })
    }
}
