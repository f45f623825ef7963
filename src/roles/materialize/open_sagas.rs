//! The sagas of one partition that have not ended: when each moved last, by its hash. Those that were folded here from some offset on
//! are known at once, those that moved last before that once history was asked. Pure; knows no clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::saga::position::{Offset, SagaId};
use crate::saga::state::Status;
use crate::saga::stuck::StuckLimits;
use crate::saga::time::Micros;

/// Open sagas of one partition that are followed, some 50 bytes each; what is beyond is not counted.
const MAX_OPEN: usize = 500_000;
/// Saga names of one partition that are told apart, besides those with a limit of their own.
const MAX_NAMES: usize = 256;
/// Stands for all others.
pub const OTHER: &str = "other";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// The partition is not read to its end: nothing is followed, so that a backlog costs nothing.
    #[default]
    Behind,
    /// What is folded from here on is followed; of what was before nothing is known.
    From(Offset),
    Complete,
}

/// When a saga moved last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedAt {
    pub effective: Micros,
    pub recorded: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    at: MovedAt,
    /// Place in `names`.
    name: u16,
}

#[derive(Debug, Default)]
pub struct OpenSagas {
    stage: Stage,
    limits: Arc<StuckLimits>,
    open: HashMap<u64, Open, RandomState>,
    /// Ended since the offset: history may have been asked before it knew.
    ended: HashSet<u64, RandomState>,
    /// The first is [`OTHER`].
    names: Vec<Box<str>>,
    is_full: bool,
}

impl OpenSagas {
    /// Everything below `position` was folded; from there on sagas are followed. Nothing, if they are already.
    pub fn follow_from(&mut self, position: Offset, limits: &Arc<StuckLimits>) {
        if self.stage == Stage::Behind {
            self.stage = Stage::From(position);
            self.limits = limits.clone();
            self.names.push(OTHER.into());
        }
    }

    /// Below which offset history must be asked; `None`: it need not, or not yet.
    pub fn unknown_below(&self) -> Option<Offset> {
        match self.stage {
            Stage::From(offset) => Some(offset),
            Stage::Behind | Stage::Complete => None,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// A saga has a new entry.
    pub fn moved(&mut self, saga: &SagaId, saga_name: &str, status: Status, at: MovedAt) {
        if self.stage == Stage::Behind {
            return;
        }
        let saga = saga.hash64();
        if status.is_end() {
            self.open.remove(&saga);
            if self.stage != Stage::Complete {
                self.ended.insert(saga);
            }
        } else {
            self.put(saga, saga_name, at);
            self.ended.remove(&saga);
        }
    }

    /// What history has of an open saga; what was folded here is newer.
    pub fn learn(&mut self, saga: &SagaId, saga_name: &str, at: MovedAt) {
        let saga = saga.hash64();
        if !self.open.contains_key(&saga) && !self.ended.contains(&saga) {
            self.put(saga, saga_name, at);
        }
    }

    /// History was asked for all of them.
    pub fn complete(&mut self) {
        if matches!(self.stage, Stage::From(_)) {
            self.stage = Stage::Complete;
            self.ended = HashSet::default();
        }
    }

    fn put(&mut self, saga: u64, saga_name: &str, at: MovedAt) {
        if let Some(known) = self.open.get_mut(&saga) {
            known.at = at;
        } else if self.open.len() < MAX_OPEN {
            let name = self.place_of(saga_name);
            self.open.insert(saga, Open { at, name });
        } else if !self.is_full {
            self.is_full = true;
            tracing::warn!("more than {MAX_OPEN} sagas of a partition run: resaga_stuck_sagas leaves the others out");
        }
    }

    fn place_of(&mut self, saga_name: &str) -> u16 {
        if let Some(place) = self.names.iter().position(|name| **name == *saga_name) {
            return u16::try_from(place).unwrap_or(0);
        }
        if self.names.len() > MAX_NAMES && !self.limits.has_own(saga_name) {
            return 0;
        }
        let Ok(place) = u16::try_from(self.names.len()) else { return 0 };
        self.names.push(saga_name.into());
        place
    }

    /// Forgets those that moved last before `kept_from` (effective time); gives how many of each name are stuck.
    pub fn stuck(&mut self, read_through: Micros, kept_from: Micros) -> impl Iterator<Item = (&str, i64)> {
        self.open.retain(|_, open| open.at.effective >= kept_from);
        let after: Vec<i64> = self.names.iter().map(|name| self.limits.of(name)).collect();
        let mut stuck = vec![0_i64; self.names.len()];
        for open in self.open.values() {
            let place = usize::from(open.name);
            stuck[place] += i64::from(StuckLimits::rests_longer(after[place], open.at.recorded, read_through));
        }
        self.names.iter().map(|name| &**name).zip(stuck).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn followed(by_name: &[(&str, i64)]) -> OpenSagas {
        let by_name = by_name.iter().map(|(name, seconds)| ((*name).to_owned(), seconds * SECOND)).collect();
        let mut sagas = OpenSagas::default();
        sagas.follow_from(Offset(5), &Arc::new(StuckLimits { after_micros: 60 * SECOND, by_name }));
        sagas
    }

    fn at(second: i64) -> MovedAt {
        MovedAt { effective: Micros((second - 5) * SECOND), recorded: Micros(second * SECOND) }
    }

    fn moved(sagas: &mut OpenSagas, saga: &str, name: &str, status: Status, second: i64) {
        sagas.moved(&saga.into(), name, status, at(second));
    }

    fn stuck(sagas: &mut OpenSagas, second: i64) -> Vec<(String, i64)> {
        sagas.stuck(Micros(second * SECOND), Micros::MIN).map(|(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn those_are_stuck_that_rest_longer_than_their_name_allows_until_they_move_or_end() {
        let mut sagas = followed(&[("slow", 90)]);
        for (saga, name) in [("a", "order"), ("b", "order"), ("c", "slow")] {
            moved(&mut sagas, saga, name, Status::Running, 0);
        }
        assert_eq!(stuck(&mut sagas, 60), []);
        assert_eq!(stuck(&mut sagas, 61), [("order".to_owned(), 2)]);
        moved(&mut sagas, "a", "order", Status::Compensating, 50);
        assert_eq!(stuck(&mut sagas, 91), [("order".to_owned(), 1), ("slow".to_owned(), 1)]);
        moved(&mut sagas, "b", "order", Status::Failed, 91);
        moved(&mut sagas, "c", "slow", Status::Completed, 91);
        assert_eq!(stuck(&mut sagas, 92), []);
        assert_eq!(stuck(&mut sagas, 111), [("order".to_owned(), 1)]);
        assert_eq!(sagas.stuck(Micros(111 * SECOND), Micros(46 * SECOND)).count(), 0, "it moved last too long ago");
    }

    #[test]
    fn what_was_folded_here_is_newer_than_what_history_had() {
        let mut sagas = OpenSagas::default();
        moved(&mut sagas, "backlog", "order", Status::Running, 0);
        sagas = OpenSagas { open: sagas.open, ..followed(&[]) };
        assert_eq!(sagas.unknown_below(), Some(Offset(5)));
        moved(&mut sagas, "ended", "order", Status::Completed, 100);
        moved(&mut sagas, "moved", "order", Status::Running, 100);
        moved(&mut sagas, "again", "order", Status::Failed, 100);
        moved(&mut sagas, "again", "order", Status::Running, 100);
        for saga in ["ended", "moved", "again", "old"] {
            sagas.learn(&saga.into(), "order", at(0));
        }
        sagas.complete();
        assert!(sagas.is_complete() && sagas.unknown_below().is_none());
        assert_eq!(stuck(&mut sagas, 100), [("order".to_owned(), 1)], "the old one alone");
        assert_eq!(stuck(&mut sagas, 161), [("order".to_owned(), 3)]);
    }

    #[test]
    fn a_name_for_each_saga_makes_no_series_for_each_and_one_with_a_limit_keeps_it() {
        let mut sagas = followed(&[("slow", 1_000)]);
        for n in 0..1_000 {
            moved(&mut sagas, &format!("s-{n}"), &format!("order-{n}"), Status::Running, 0);
        }
        moved(&mut sagas, "slow", "slow", Status::Running, 0);
        let counts = stuck(&mut sagas, 61);
        assert_eq!(counts.len(), MAX_NAMES + 1);
        assert_eq!(counts[0], (OTHER.to_owned(), 1_000 - MAX_NAMES as i64));
        assert!(stuck(&mut sagas, 1_001).contains(&("slow".to_owned(), 1)));
    }
}
