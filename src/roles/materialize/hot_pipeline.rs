//! What goes to the hot store: what was folded last, and the marks over it; one write at a time.

use super::hot_writer::{self, Done, HotWork, Move, Moved};
use super::partition::Partition;
use super::{HEARTBEAT, Materialize, OwnedPartition, completeness, sweep};
use crate::error::Result;
use crate::hot::{Mark, MarkMove};
use crate::saga::position::{SagaId, TopicPartition};
use crate::saga::time::Micros;
use std::collections::HashSet;
use std::time::Instant;

impl Materialize {
    /// Starts the next hot write if none runs: what was folded last, or marks that are due.
    pub(super) fn start_hot(&mut self) {
        if !self.hot.is_empty() {
            return;
        }
        let mut work = self.next.take().unwrap_or_default();
        let now = (self.deps.now)();
        let due: Vec<TopicPartition> =
            self.owned.iter().filter(|(_, owned)| owned.mark_is_due()).map(|(partition, _)| partition.clone()).collect();
        for partition in due {
            if let Some(owned) = self.owned.get_mut(&partition) {
                work.moves.extend(owned.mark_moves(now));
            }
        }
        if !work.is_empty() {
            self.spawn_hot(work);
        }
    }

    fn spawn_hot(&mut self, work: HotWork) {
        self.hot.spawn(hot_writer::write(self.deps.hot.clone(), self.tokens.clone(), work));
    }

    pub(super) fn hot_written(&mut self, done: Done) -> Result<()> {
        self.deps.metrics.hot_marks_lost.inc_by(done.rewritten);
        let mut healing = HotWork::default();
        let (now, held_before) = ((self.deps.now)(), self.held_before());
        for Moved { wanted: Move { mark, generation, position, through }, found } in done.moved {
            let of = |owned: &&mut OwnedPartition| owned.generation == generation && owned.partition.chain == mark.chain;
            let Some(owned) = self.owned.values_mut().find(of) else { continue };
            let Some(known) = owned.partition.marks.get_mut(usize::from(mark.bucket)) else { continue };
            owned.partition.written = owned.partition.written.max(position);
            match found {
                None => *known = Some(mark.new),
                // It vouched for what is not believed any more; somebody moved it, and will see to it: left alone from now on.
                Some(_) if owned.partition.disowned => *known = None,
                Some(found) => {
                    *known = found;
                    self.deps.metrics.hot_marks_lost.inc();
                    tracing::info!(chain = %mark.chain, bucket = mark.bucket, "hot store lost writes, writing them again");
                    owned.partition.cache.hot_lost_writes();
                    // It lost what had let keys expire, too.
                    let settled = found.map_or(owned.partition.settled, |found| found.settled.min(owned.partition.settled));
                    owned.partition.settled = settled;
                    let heal = hot_writer::heal(found, owned.partition.durable, position);
                    let mut batch = owned.partition.undurable_from(heal.write_from);
                    let hot = &self.deps.hot;
                    batch.retain(|saga| hot.bucket(saga), |bucket| bucket == mark.bucket);
                    sweep::hold_old(&mut batch, held_before, &mark.chain, owned.partition.position, &**hot);
                    let kept = found.filter(|found| heal.begin == found.from).map(|found| found.complete_through);
                    let complete_through = completeness::carried(kept, through, now);
                    let new = Mark { from: heal.begin, to: heal.to, complete_through, settled };
                    let mark = MarkMove { expect: found, new, ..mark };
                    let moves = vec![Move { mark, generation, position, through }];
                    healing.append(HotWork { batch, moves, ..HotWork::default() });
                }
            }
        }
        self.forget_again(done.unforgotten);
        self.reassign(done.refolds);
        if !healing.is_empty() {
            // Before anything newer, so that marks only ever cover what was written.
            self.spawn_hot(healing);
        }
        self.start_hot();
        Ok(())
    }

    /// As long as it is ours: behind marks that say so.
    fn forget_again(&mut self, forget: HashSet<SagaId>) {
        let mut disowned = self.owned.values_mut().filter(|owned| owned.partition.disowned).peekable();
        if forget.is_empty() || disowned.peek().is_none() {
            return;
        }
        disowned.for_each(OwnedPartition::mark_is_to_be_checked);
        self.write_next(HotWork { forget, ..HotWork::default() });
    }

    pub(super) fn queue_hot(&mut self, work: HotWork) {
        self.write_next(work);
        self.start_hot();
    }

    fn write_next(&mut self, work: HotWork) {
        match &mut self.next {
            Some(next) => next.append(work),
            None => self.next = Some(work),
        }
    }
}

impl OwnedPartition {
    /// With the next write.
    pub(super) fn mark_is_to_be_checked(&mut self) {
        self.checked = self.checked.checked_sub(HEARTBEAT).unwrap_or(self.checked);
    }

    /// Did the position move, was more let go of, or is it time to look whether the mark is still there?
    fn mark_is_due(&self) -> bool {
        let partition = &self.partition;
        // One that is disowned gives its marks back at once, in the write that forgets what they vouched for.
        let moves = |mark: &Mark| match partition.disowned {
            true => mark.to > partition.durable,
            false => mark.settled < partition.settled,
        };
        self.checked.elapsed() >= HEARTBEAT
            || partition.position > partition.written
            || partition.marks.iter().flatten().any(moves)
    }

    /// Moves every bucket's mark to the position. Only called when everything folded so far is in the same write.
    fn mark_moves(&mut self, now: Micros) -> Vec<Move> {
        self.checked = Instant::now();
        let (generation, partition) = (self.generation, &mut self.partition);
        let (position, through) = (partition.position, partition.through.at(partition.position));
        if partition.disowned {
            return partition.marks_back(generation);
        }
        let moves = partition.marks.iter().enumerate().map(|(bucket, known)| {
            // A mark that stops below the chain's end vouches for what this owner never saw: begin anew.
            let kept = known.filter(|mark| mark.to >= partition.base);
            let new = Mark {
                from: kept.map_or(partition.base, |mark| mark.from),
                to: kept.map_or(position, |mark| mark.to.max(position)),
                complete_through: completeness::carried(kept.map(|mark| mark.complete_through), through, now),
                settled: partition.settled,
            };
            let mark = MarkMove { chain: partition.chain.clone(), bucket: bucket as u16, expect: *known, new };
            Move { mark, generation, position, through }
        });
        moves.collect()
    }
}

impl Partition {
    /// Marks that vouch for nothing but what is durable, and for no time: cold tells it.
    fn marks_back(&self, generation: u64) -> Vec<Move> {
        let known = self.marks.iter().enumerate().filter_map(|(bucket, known)| Some((bucket, (*known)?)));
        let moves = known.map(|(bucket, known)| {
            let (from, to) = (known.from.min(self.durable), known.to.min(self.durable));
            let new = Mark { from, to, complete_through: Micros::MIN, settled: known.settled.min(self.durable) };
            let mark = MarkMove { chain: self.chain.clone(), bucket: bucket as u16, expect: Some(known), new };
            Move { mark, generation, position: self.durable, through: None }
        });
        moves.collect()
    }
}
