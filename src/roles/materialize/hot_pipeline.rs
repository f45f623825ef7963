//! What goes to the hot store: what was folded last, and the marks over it; one write at a time.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::background::joined;
use super::clocks::Clocks;
use super::completeness::CompleteThrough;
use super::hot_writer::{self, HotWork, HotWriteResult, MarkRequest, MarkResult, UndurableRange};
use super::index_sweep::{self, IndexRetention};
use super::ownership::Ownership;
use super::partitions::{OwnedPartition, Partitions};
use crate::error::Result;
use crate::hot::{HotStore, Mark, MarkMove, Tokens};
use crate::saga::position::SagaId;
use crate::telemetry::Metrics;

/// Members in the write that waits while another runs; with more of them nothing is folded.
const MAX_NEXT_MEMBERS: usize = 10_000;
/// Bytes of them.
const MAX_NEXT_BYTES: usize = 64 << 20;
/// Sagas in the write that waits whose keys may expire; with more of them the rest is read from cold later.
const MAX_NEXT_EXPIRING: usize = 100_000;

pub struct HotPipeline {
    store: Arc<dyn HotStore>,
    metrics: Arc<Metrics>,
    clocks: Clocks,
    retention: IndexRetention,
    tokens: Arc<Tokens>,
    /// One at most.
    writes: JoinSet<Result<HotWriteResult>>,
    /// Folded while the write before it runs.
    next: Option<HotWork>,
}

impl HotPipeline {
    pub fn new(store: Arc<dyn HotStore>, metrics: Arc<Metrics>, clocks: Clocks, retention: IndexRetention) -> Self {
        Self { store, metrics, clocks, retention, tokens: Arc::default(), writes: JoinSet::new(), next: None }
    }

    /// Nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// May more be folded?
    pub fn has_room(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.len() < MAX_NEXT_MEMBERS && next.bytes() < MAX_NEXT_BYTES)
    }

    /// May more keys be let expire?
    pub fn has_room_to_expire(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.settle.len() < MAX_NEXT_EXPIRING)
    }

    /// `None`: nothing is being written. May be dropped while it waits.
    pub async fn next_result(&mut self) -> Option<Result<HotWriteResult>> {
        self.writes.join_next().await.map(|done| joined(done).flatten())
    }

    pub fn enqueue(&mut self, work: HotWork, partitions: &mut Partitions) {
        self.queue(work);
        self.start(partitions);
    }

    fn queue(&mut self, work: HotWork) {
        match &mut self.next {
            Some(next) => next.append(work),
            None => self.next = Some(work),
        }
    }

    /// Starts the next write if none runs: what was folded last, or marks that are due.
    pub fn start(&mut self, partitions: &mut Partitions) {
        if !self.writes.is_empty() {
            return;
        }
        let mut work = self.next.take().unwrap_or_default();
        let now = self.clocks.now();
        for owned in partitions.values_mut().filter(|owned| owned.partition.marks_are_due()) {
            work.marks.extend(owned.partition.mark_requests(owned.generation, now));
        }
        if !work.is_empty() {
            self.spawn(work);
        }
    }

    fn spawn(&mut self, work: HotWork) {
        self.writes.spawn(hot_writer::write(self.store.clone(), self.tokens.clone(), work));
    }

    /// A write ended: repairs marks, and starts the next write. Gives the partitions that are to be assigned again.
    pub fn written(&mut self, done: HotWriteResult, partitions: &mut Partitions) -> Vec<Ownership> {
        self.metrics.hot_marks_lost.inc_by(done.rewritten);
        let held_before = self.retention.held_before();
        let mut repairs = HotWork::default();
        for MarkResult { wanted, found } in done.marks {
            let of =
                |owned: &&mut OwnedPartition| owned.generation == wanted.generation && owned.partition.chain == wanted.mark.chain;
            let Some(owned) = partitions.values_mut().find(of) else { continue };
            let Some(known) = owned.partition.marks.get_mut(usize::from(wanted.mark.bucket)) else { continue };
            owned.partition.written = owned.partition.written.max(wanted.position);
            match found {
                None => *known = Some(wanted.mark.new),
                // It vouched for what is not believed any more; somebody moved it, and will see to it: left alone from now on.
                Some(_) if owned.partition.disowned => *known = None,
                Some(found) => {
                    *known = found;
                    repairs.append(self.repair(owned, wanted, found, held_before));
                }
            }
        }
        self.forget_again(done.unforgotten, partitions);
        if !repairs.is_empty() {
            // Before anything newer, so that marks only ever cover what was written.
            self.spawn(repairs);
        }
        self.start(partitions);
        done.restarts
    }

    /// Another mark or none was there: what is not durable is written again, as far as the store lost it.
    fn repair(&self, owned: &mut OwnedPartition, wanted: MarkRequest, found: Option<Mark>, held_before: i64) -> HotWork {
        let MarkRequest { mark, position, complete_through, .. } = wanted;
        self.metrics.hot_marks_lost.inc();
        tracing::info!(chain = %mark.chain, bucket = mark.bucket, "hot store lost writes, writing them again");
        let partition = &mut owned.partition;
        partition.cache.hot_lost_writes();
        // It lost what had let keys expire, too.
        partition.settled = found.map_or(partition.settled, |found| found.settled.min(partition.settled));
        let repair = hot_writer::repair(found, UndurableRange { from: partition.durable, to: position });
        let mut batch = partition.undurable_from(repair.write_from);
        let hot = &self.store;
        batch.retain(|saga| hot.bucket(saga), |bucket| bucket == mark.bucket);
        index_sweep::hold_old(&mut batch, held_before, &mark.chain, partition.position, &**hot);
        let stored = found.filter(|found| repair.from == found.from).map(|found| found.complete_through);
        let through = CompleteThrough { stored, reached: complete_through };
        let new = Mark {
            from: repair.from,
            to: repair.to,
            complete_through: through.at(self.clocks.now()),
            settled: partition.settled,
        };
        let mark = MarkMove { expect: found, new, ..mark };
        let marks = vec![MarkRequest { mark, generation: owned.generation, position, complete_through }];
        HotWork { batch, marks, ..HotWork::default() }
    }

    /// As long as it is ours: behind marks that say so.
    fn forget_again(&mut self, forget: HashSet<SagaId>, partitions: &mut Partitions) {
        let mut disowned = partitions.values_mut().filter(|owned| owned.partition.disowned).peekable();
        if forget.is_empty() || disowned.peek().is_none() {
            return;
        }
        disowned.for_each(|owned| owned.partition.check_marks_soon());
        self.queue(HotWork { forget, ..HotWork::default() });
    }
}
