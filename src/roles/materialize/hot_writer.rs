//! Writes to the hot store, one after the other: entries first, then marks by compare-and-set (DESIGN 4).
//!
//! Runs beside the fold: the next batch is folded while the one before is being written.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Result;
use crate::hot::{HotBatch, HotStore, Mark, MarkMove, MarkOutcome};
use crate::roles::retry::until_available;
use crate::saga::position::{Offset, SagaId};
use crate::saga::time::Micros;

/// The move of one mark, and what its owner vouches for itself: the mark may hold more, of an owner before.
#[derive(Debug, Clone)]
pub struct Move {
    pub mark: MarkMove,
    /// Tells this ownership of the partition from an earlier one.
    pub generation: u64,
    /// Everything below was written by this owner, from where it began.
    pub position: Offset,
    /// How far that is complete, if known.
    pub through: Option<Micros>,
}

/// One write: what was folded, how far each partition's mark may move after it, and keys that may expire from then on.
#[derive(Default)]
pub struct HotWork {
    pub batch: HotBatch,
    /// After the entries.
    pub moves: Vec<Move>,
    /// Sagas of which all entries are durable, those of this very write included. Last.
    pub expire: HashSet<SagaId>,
}

impl HotWork {
    pub fn is_empty(&self) -> bool {
        self.expire.is_empty() && self.batch.sagas.is_empty() && self.moves.is_empty()
    }

    /// Members to be written.
    pub fn len(&self) -> usize {
        self.batch.sagas.iter().map(|write| write.members.len()).sum()
    }

    /// Bytes of these.
    pub fn bytes(&self) -> usize {
        self.batch.sagas.iter().flat_map(|write| &write.members).map(|member| member.bytes.len()).sum()
    }

    /// This work, then `next`.
    pub fn append(&mut self, next: Self) {
        for write in &next.batch.sagas {
            self.expire.remove(&write.saga);
        }
        self.batch.sagas.extend(next.batch.sagas);
        self.batch.failures.extend(next.batch.failures);
        self.batch.activity.extend(next.batch.activity);
        self.batch.holds.extend(next.batch.holds);
        self.moves.extend(next.moves);
        self.expire.extend(next.expire);
    }
}

/// What became of one mark.
pub struct Moved {
    pub wanted: Move,
    /// `Some`: another value or none was there, so writes were lost or another owner wrote.
    pub found: Option<Option<Mark>>,
}

/// Carries out the work, waiting for the store as long as it takes.
pub async fn write(hot: Arc<dyn HotStore>, mut work: HotWork) -> Result<Vec<Moved>> {
    begin_marks(&*hot, &mut work.moves).await?;
    if !work.batch.is_empty() {
        until_available("write hot entries", || hot.write(&work.batch)).await?;
    }
    crate::crash::point("materialize.after_hot");
    let marks: Vec<MarkMove> = work.moves.iter().map(|wanted| wanted.mark.clone()).collect();
    let outcomes =
        if marks.is_empty() { Vec::new() } else { until_available("move hot marks", || hot.move_marks(&marks)).await? };
    if !work.expire.is_empty() {
        let sagas: Vec<SagaId> = work.expire.into_iter().collect();
        until_available("let durable hot entries expire", || hot.expire(&sagas)).await?;
    }
    let moved = work.moves.into_iter().zip(outcomes).map(|(wanted, outcome)| {
        let found = match outcome {
            MarkOutcome::Moved => None,
            // The answer to an earlier try was lost: it did move.
            MarkOutcome::Found(Some(mark)) if mark == wanted.mark.new => None,
            MarkOutcome::Found(other) => Some(other),
        };
        Moved { wanted, found }
    });
    Ok(moved.collect())
}

/// Where no mark is known an empty one is set before the entries are written: moving it afterwards then proves that the
/// store was not wiped in between, which "still no mark" would not.
async fn begin_marks(hot: &dyn HotStore, moves: &mut [Move]) -> Result<()> {
    let none: Vec<&mut Move> = moves.iter_mut().filter(|wanted| wanted.mark.expect.is_none()).collect();
    if none.is_empty() {
        return Ok(());
    }
    let empty = |wanted: &Move| {
        let from = wanted.mark.new.from;
        Mark { from, to: from, complete_through: Micros(0) }
    };
    let begin: Vec<MarkMove> = none.iter().map(|wanted| MarkMove { new: empty(wanted), ..wanted.mark.clone() }).collect();
    let outcomes = until_available("begin hot marks", || hot.move_marks(&begin)).await?;
    for (wanted, outcome) in none.into_iter().zip(outcomes) {
        let begun = empty(wanted);
        // Anything else is found again after the entries, and told then.
        if matches!(outcome, MarkOutcome::Moved) || outcome == MarkOutcome::Found(Some(begun)) {
            wanted.mark.expect = Some(begun);
        }
    }
    Ok(())
}

/// How a mark that was not what it was left at is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heal {
    /// What this owner has from here on is written again.
    pub write_from: Offset,
    /// The new mark.
    pub begin: Offset,
    pub to: Offset,
}

/// What to do when `found` was there instead. `durable`: the chain's next start; `position`: up to where this owner wrote
/// itself, for a mark must not vouch for what only an owner before it wrote and the store then lost.
pub fn heal(found: Option<Mark>, durable: Offset, position: Offset) -> Heal {
    match found {
        // What it vouches for reaches the chain's end or beyond: only what is above is missing.
        Some(mark) if mark.to >= durable => Heal { write_from: mark.to, begin: mark.from, to: mark.to.max(position) },
        // It stops below what cold has: everything undurable, and the mark begins at the chain's end.
        _ => Heal { write_from: durable, begin: durable, to: durable.max(position) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::memory::MemoryHot;
    use crate::saga::position::ChainId;

    fn mark(from: i64, to: i64) -> Mark {
        Mark { from: Offset(from), to: Offset(to), complete_through: Micros(0) }
    }

    fn healed(write_from: i64, begin: i64, to: i64) -> Heal {
        Heal { write_from: Offset(write_from), begin: Offset(begin), to: Offset(to) }
    }

    fn chain() -> ChainId {
        ChainId { topic: "events".into(), incarnation: 0, partition: 0 }
    }

    fn first_move() -> Move {
        let mark = MarkMove { chain: chain(), bucket: 0, expect: None, new: mark(10, 25) };
        Move { mark, generation: 1, position: Offset(25), through: None }
    }

    #[tokio::test]
    async fn a_store_that_is_wiped_during_its_very_first_write_is_noticed() {
        let hot = MemoryHot::new(std::time::Duration::from_secs(60), Box::new(std::time::Duration::default));
        let mut moves = [first_move()];
        begin_marks(&hot, &mut moves).await.expect("memory store");
        assert_eq!(moves[0].mark.expect, Some(mark(10, 10)), "an empty mark stands for the writes to come");
        // Wiped: the same store, new.
        let hot = MemoryHot::new(std::time::Duration::from_secs(60), Box::new(std::time::Duration::default));
        let [wanted] = moves;
        let outcome = hot.move_marks(&[wanted.mark]).await.expect("memory store");
        assert_eq!(outcome, [MarkOutcome::Found(None)]);
    }

    #[tokio::test]
    async fn a_first_mark_moves_and_says_so() {
        let hot: Arc<dyn HotStore> =
            Arc::new(MemoryHot::new(std::time::Duration::from_secs(60), Box::new(std::time::Duration::default)));
        let work = HotWork { moves: vec![first_move()], ..HotWork::default() };
        let moved = write(hot.clone(), work).await.expect("memory store");
        assert_eq!(moved[0].found, None);
        assert_eq!(hot.marks(0).await.expect("memory store"), [(chain(), mark(10, 25))]);
    }

    #[test]
    fn a_saga_that_is_written_again_does_not_expire() {
        let saga = SagaId::from("a");
        let mut work = HotWork { expire: [saga.clone(), "b".into()].into(), ..HotWork::default() };
        let mut next = HotWork::default();
        next.batch.sagas.push(crate::hot::SagaWrite { saga, members: Vec::new(), persist: true });
        work.append(next);
        assert_eq!(work.expire, ["b".into()].into());
    }

    #[test]
    fn a_wiped_store_gets_everything_that_is_not_durable() {
        assert_eq!(heal(None, Offset(10), Offset(25)), healed(10, 10, 25));
    }

    #[test]
    fn a_wiped_store_is_not_said_to_have_what_an_owner_before_wrote() {
        // That one wrote up to 25; this one began at 10 and is at 12.
        assert_eq!(heal(None, Offset(10), Offset(12)), healed(10, 10, 12));
    }

    #[test]
    fn a_store_that_lost_less_than_cold_has_keeps_its_head() {
        assert_eq!(heal(Some(mark(3, 12)), Offset(10), Offset(25)), healed(12, 3, 25));
    }

    #[test]
    fn a_store_that_lost_more_than_cold_covers_begins_again_at_the_chain_end() {
        assert_eq!(heal(Some(mark(3, 9)), Offset(10), Offset(25)), healed(10, 10, 25));
        assert_eq!(heal(None, Offset(30), Offset(25)), healed(30, 30, 30));
    }
}
