//! Log records under the keys that they are asked for by. Whatever the number of replays of one saga, putting and
//! dropping one costs a few steps in ordered sets.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::order::{Place, place};
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};

#[derive(Default)]
pub(super) struct Records {
    by_id: HashMap<Arc<str>, Kept>,
    by_time: BTreeSet<Place>,
    /// Those that no longer wait.
    settled: BTreeSet<Place>,
    /// Of each saga that a record names.
    by_saga: HashMap<SagaId, BTreeSet<Place>>,
    /// Of each original the replays that stand.
    standing: HashMap<SagaId, BTreeSet<Place>>,
    batches: BTreeSet<Place>,
    schedules: BTreeSet<Place>,
}

pub(super) struct Kept {
    pub record: Arc<LogRecord>,
    /// In the log: partition and offset.
    pub at: (i32, Offset),
}

fn add(places: &mut HashMap<SagaId, BTreeSet<Place>>, saga: &SagaId, place: &Place) {
    match places.get_mut(saga) {
        Some(places) => {
            places.insert(place.clone());
        }
        None => drop(places.insert(saga.clone(), BTreeSet::from([place.clone()]))),
    }
}

fn take(places: &mut HashMap<SagaId, BTreeSet<Place>>, saga: &SagaId, place: &Place) {
    if let Some(of_saga) = places.get_mut(saga) {
        of_saga.remove(place);
        if of_saga.is_empty() {
            places.remove(saga);
        }
    }
}

impl Records {
    /// The newest record of its replay, whatever was there before.
    pub fn put(&mut self, record: impl Into<Arc<LogRecord>>, at: (i32, Offset)) {
        let record = record.into();
        self.remove(&record.replay_id);
        let place = place(&record);
        for saga in record.sagas() {
            add(&mut self.by_saga, saga, &place);
        }
        if let Some(original) = record.original_saga_id.as_ref().filter(|_| record.stands()) {
            add(&mut self.standing, original, &place);
        }
        if record.status != ReplayStatus::Accepted {
            self.settled.insert(place.clone());
        }
        if record.command == CommandName::Batch {
            self.batches.insert(place.clone());
        }
        if record.schedule_progress.is_some() {
            self.schedules.insert(place.clone());
        }
        self.by_id.insert(place.replay_id.clone(), Kept { record, at });
        self.by_time.insert(place);
    }

    pub fn remove(&mut self, replay_id: &str) -> Option<Kept> {
        let kept = self.by_id.remove(replay_id)?;
        let record = &kept.record;
        let place = place(record);
        self.by_time.remove(&place);
        self.settled.remove(&place);
        self.batches.remove(&place);
        self.schedules.remove(&place);
        for saga in record.sagas() {
            take(&mut self.by_saga, saga, &place);
        }
        if let Some(original) = &record.original_saga_id {
            take(&mut self.standing, original, &place);
        }
        Some(kept)
    }

    /// Drops the oldest record that does not wait; gives where it was in the log.
    pub fn drop_oldest(&mut self) -> Option<(i32, Offset)> {
        let oldest = self.settled.first()?.replay_id.clone();
        self.remove(&oldest).map(|kept| kept.at)
    }

    pub fn kept(&self, replay_id: &str) -> Option<&Kept> {
        self.by_id.get(replay_id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many no longer wait.
    pub fn settled(&self) -> usize {
        self.settled.len()
    }

    pub fn get(&self, replay_id: &str) -> Option<&Arc<LogRecord>> {
        self.by_id.get(replay_id).map(|kept| &kept.record)
    }

    fn at(&self, place: &Place) -> Option<&Arc<LogRecord>> {
        self.get(&place.replay_id)
    }

    /// Newest first.
    pub fn of_saga(&self, saga: &SagaId) -> impl Iterator<Item = &Arc<LogRecord>> {
        let places = self.by_saga.get(saga).into_iter().flat_map(|places| places.iter().rev());
        places.filter_map(|place| self.at(place))
    }

    /// Oldest first.
    pub fn standing_of(&self, saga: &SagaId) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.standing.get(saga).into_iter().flatten().filter_map(|place| self.at(place))
    }

    pub fn newest_first(&self, after: Option<&Place>) -> impl Iterator<Item = &Arc<LogRecord>> {
        let end = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        self.by_time.range((Bound::Unbounded, end)).rev().filter_map(|place| self.at(place))
    }

    /// Those of batches, newest first.
    pub fn batches(&self, after: Option<&Place>) -> impl Iterator<Item = &Arc<LogRecord>> {
        let end = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        self.batches.range((Bound::Unbounded, end)).rev().filter_map(|place| self.at(place))
    }

    /// Those of schedules, newest first.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.schedules.iter().rev().filter_map(|place| self.at(place))
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.by_id.values().map(|kept| &kept.record).filter(|record| record.status == ReplayStatus::Accepted)
    }
}
