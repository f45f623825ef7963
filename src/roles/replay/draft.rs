//! A batch as it is decided: what its transaction will write, and what memory learns once that is committed. Data only.

use std::collections::HashSet;
use std::time::Instant;

use super::batch_metrics::BatchMetrics;
use super::decide::{Decision, Facts, PlanFact, PlannedReplay};
use super::log_record;
use super::outbox::{ReplayTargets, TransactionOutbox};
use super::oversized::{OversizedSource, RecordSource};
use super::queue::RequestQueue;
use super::queue::item::{NextOffsets, RequestItem};
use super::queue::parked::{Parked, waits};
use super::queue::skipped::{SkippedChanges, SkippedRequest};
use crate::error::{Error, Result};
use crate::kafka::intake::GroupMetadata;
use crate::saga::position::{Offset, SagaId, Shown, TopicPartition};
use crate::saga::request::{Command, CommandName, LogRecord, Refusal, ReplayOrder, ReplayStatus};
use crate::saga::time::Micros;

#[derive(Default)]
pub struct BatchDraft {
    pub outbox: TransactionOutbox,
    pub offsets: NextOffsets,
    pub changes: SkippedChanges,
    /// Parked in this batch: they wait once it is committed.
    pub parked: Vec<Parked>,
    pub metrics: BatchMetrics,
    /// Sagas of which a request waits whose time has come.
    held: HashSet<SagaId>,
}

/// A batch that is decided and not published.
pub struct DecidedBatch {
    pub draft: BatchDraft,
    /// The one partition that it is of, whose log it claims.
    pub claims: Option<TopicPartition>,
    pub replay_ids: Vec<String>,
    /// Requests that were parked before, and records.
    pub parked: usize,
    pub records: usize,
    pub decided: Instant,
}

/// A batch for a transaction.
pub struct PreparedBatch {
    pub batch: DecidedBatch,
    /// The membership under which it was taken up.
    pub group: GroupMetadata,
}

impl DecidedBatch {
    pub fn requests(&self) -> usize {
        self.parked + self.records
    }

    /// The one thing in it that its transaction is about; `None`: there are several.
    pub fn source(&self) -> Option<OversizedSource> {
        let (partition, next) = self.draft.offsets.iter().next().filter(|_| self.requests() == 1)?;
        let source = match self.replay_ids.first() {
            Some(one) => RecordSource::Request(one.clone()),
            None => RecordSource::Record(Offset(next.0 - 1)),
        };
        Some(OversizedSource { partition: partition.clone(), source })
    }
}

fn order_of(item: &RequestItem) -> Option<&ReplayOrder> {
    if let Command::Replay(order) = &item.request.command { Some(order) } else { None }
}

impl BatchDraft {
    /// Is there nothing to write?
    pub fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Does a request of the saga wait since this batch?
    pub fn holds(&self, saga: &SagaId) -> bool {
        self.held.contains(saga)
    }

    /// Does this batch leave the replay in the topic?
    pub fn skips(&self, replay_id: &str) -> bool {
        self.changes.skipped.iter().any(|(_, skipped)| skipped.replay_id == replay_id)
    }

    /// Does this batch begin a retry or an undo of a batch of replays?
    pub fn begins(&self, command: CommandName, batch_id: &str) -> bool {
        let of_batch = |record: &LogRecord| record.batch_progress.as_ref().is_some_and(|progress| progress.batch_id == batch_id);
        self.outbox.log.records().any(|record| record.command == command && of_batch(record))
    }

    /// How many requests of this partition it parks.
    pub fn parks_of(&self, partition: &TopicPartition) -> usize {
        self.parked.iter().filter(|parked| parked.record.position.partition == partition.partition).count()
    }

    /// What was cancelled or replaced in this very batch does not wait.
    pub fn forget_done(&mut self) {
        let log = &self.outbox.log;
        self.parked.retain(|parked| {
            let last = log.get(&parked.record.replay_id);
            last.is_some_and(|last| last.status == ReplayStatus::Accepted && last.dry_run == parked.record.dry_run)
        });
    }

    /// Writes down what was decided of a request. In the queue nothing changes but what is parked there already.
    pub fn apply(
        &mut self,
        decision: Decision,
        item: RequestItem,
        facts: Facts,
        queue: &mut RequestQueue,
        targets: &ReplayTargets,
    ) -> Result<()> {
        match decision {
            Decision::Duplicate => self.metrics.duplicates += 1,
            Decision::Unpark => queue.remove_parked(&item.partition, &item.record.replay_id),
            Decision::Refuse(refusal) => self.refuse(item, &refusal, facts.times_oversized, targets)?,
            Decision::Skip { holds_saga } => {
                self.hold(&item, holds_saga);
                self.skip(item);
            }
            Decision::SkipBehind { replay_id } => {
                self.changes.wanted.push((item.partition.clone(), replay_id));
                self.changes.skipped.push((item.partition, skipped(item.record, None)));
            }
            Decision::Park { holds_saga } => {
                self.hold(&item, holds_saga);
                let ends = facts.ends.filter(|_| holds_saga);
                match &item.parked {
                    // In the log already. The first take-up's ends stay.
                    Some(parked) => {
                        if let Some(ends) = ends {
                            queue.keep_ends(&item.partition, &parked.record.replay_id, &ends);
                        }
                    }
                    None => self.park(Parked { ends, ..parked(item)? }, targets)?,
                }
            }
            Decision::Restore => {
                let PlanFact::Planned(planned) = facts.plan else {
                    return Err(Error::bug("restore a saga that was not planned"));
                };
                self.restore(item, *planned, facts.times.decided_at, targets)?;
            }
            Decision::Cancel { cancelled, done } => {
                self.outbox.log(targets, *cancelled, None)?;
                self.outbox.log(targets, *done, item.trace.as_deref())?;
            }
            Decision::Undo { asked, undone, done } => {
                self.outbox.undo(targets, &asked, item.trace.as_deref())?;
                self.outbox.log(targets, *undone, None)?;
                self.outbox.log(targets, *done, item.trace.as_deref())?;
                self.metrics.result(&asked.saga_name, "undo");
            }
            Decision::CancelMember(record) => self.outbox.log(targets, *record, item.trace.as_deref())?,
            Decision::Begin(record) => self.outbox.log(targets, *record, item.trace.as_deref())?,
            Decision::Control { changed, done } => {
                self.outbox.log(targets, *changed, None)?;
                self.outbox.log(targets, *done, item.trace.as_deref())?;
            }
            Decision::Outcome(record) => {
                if let (Some(ended), Some(published)) = (record.ended_at, record.published_at) {
                    self.metrics.ended_after.push(ended.0 - published.0);
                }
                self.outbox.log(targets, *record, None)?;
            }
            Decision::NoChange { is_unknown: true } => {
                if let Command::Outcome(outcome) = &item.request.command {
                    tracing::warn!(replay_id = %Shown(&outcome.replay_id), "outcome of a replay that the log does not know");
                }
            }
            Decision::NoChange { is_unknown: false } => {}
        }
        Ok(())
    }

    fn hold(&mut self, item: &RequestItem, holds_saga: bool) {
        if let Some((saga, _)) = waits(&item.request.command).filter(|_| holds_saga) {
            self.held.insert(saga.clone());
        }
    }

    /// Leaves a request in the topic, to be read again: there is no room to let it wait, and it keeps no other.
    fn skip(&mut self, item: RequestItem) {
        let order = waits(&item.request.command).map(|(saga, due)| (saga.clone(), due));
        self.changes.skipped.push((item.partition, skipped(item.record, order)));
    }

    fn park(&mut self, parked: Parked, targets: &ReplayTargets) -> Result<()> {
        self.metrics.result("", "parked");
        let (record, trace) = (parked.record.clone(), parked.trace.clone());
        self.parked.push(parked);
        self.outbox.log(targets, record, trace.as_deref())
    }

    fn refuse(&mut self, item: RequestItem, refusal: &Refusal, times_oversized: usize, targets: &ReplayTargets) -> Result<()> {
        self.metrics.result("", refusal.code);
        let record = log_record::refused(item.record, refusal);
        let record = if times_oversized > 1 { log_record::cut(record, &item.request) } else { record };
        self.outbox.log(targets, record, item.trace.as_deref())
    }

    fn restore(&mut self, item: RequestItem, planned: PlannedReplay, decided_at: Micros, targets: &ReplayTargets) -> Result<()> {
        let Some(order) = order_of(&item) else { return Err(Error::bug("restore a saga for another command than a replay")) };
        let PlannedReplay { plan, event, publishing } = planned;
        if let Some(publishing) = publishing {
            let restored = (&plan.restored, event);
            self.outbox.restored(targets, restored, order.target.as_deref(), publishing.events, item.trace.as_deref())?;
            self.metrics.requested_at.push(plan.restored.restored_at);
        }
        self.metrics.result(&plan.restored.saga_name, if order.dry_run { "dry_run" } else { "published" });
        let record = log_record::planned(item.record, &plan, decided_at);
        self.outbox.log(targets, record, item.trace.as_deref())
    }
}

fn skipped(record: LogRecord, order: Option<(SagaId, Micros)>) -> SkippedRequest {
    SkippedRequest { offset: record.position.offset, replay_id: record.replay_id, order }
}

/// A new request that is parked.
fn parked(item: RequestItem) -> Result<Parked> {
    let record = log_record::accepted(item.record, &item.request);
    Parked::of(item.request, record, item.trace, None).ok_or_else(|| Error::bug("park a command that does not wait"))
}
