//! States of the sagas in flight, of one partition: bounded, except that a saga with entries that are not yet durable
//! is pinned, so that a miss only ever needs what the chain has. The others wait for their next event packed, in half of
//! the memory.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use lru::LruCache;

use crate::saga::fold::Saga;
use crate::saga::position::{EntrySequence, Offset, SagaId};

use super::packed::Packed;

/// Why a saga must stay in memory, and what hot has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Its newest entry, which is not yet durable.
    pub newest: Offset,
    /// The newest entry that hot has with the whole saga, or the first of all. `None`: hot may have lost it.
    pub whole_at: Option<EntrySequence>,
}

/// A saga of which nothing happens for now.
enum Resting {
    /// About to be folded on.
    Loaded(Box<Saga>),
    Packed(Packed),
}

impl Resting {
    fn pack(saga: &Saga) -> Self {
        Self::Packed(Packed::new(saga))
    }

    fn unpack(self) -> Box<Saga> {
        match self {
            Self::Loaded(saga) => saga,
            Self::Packed(packed) => Box::new(packed.unpack()),
        }
    }
}

pub struct Cache {
    /// With entries above the chain's end.
    pinned: HashMap<SagaId, (Box<Saga>, Pin), RandomState>,
    /// Everything durable. Grows over `capacity` until [`Cache::trim`]: what a batch found here or loaded must stay
    /// until the batch is folded, or a saga would begin anew at entry 1.
    durable: LruCache<SagaId, Resting>,
    capacity: usize,
}

impl Cache {
    /// `capacity`: how many durable sagas are kept between batches.
    pub fn new(capacity: usize) -> Self {
        Self { pinned: HashMap::default(), durable: LruCache::unbounded(), capacity }
    }

    pub fn contains(&self, id: &SagaId) -> bool {
        self.pinned.contains_key(id) || self.durable.contains(id)
    }

    /// Takes a saga out to fold on it; put it back with [`Cache::pin`] or [`Cache::rest`].
    pub fn take(&mut self, id: &SagaId) -> Option<(Box<Saga>, Option<Pin>)> {
        match self.pinned.remove(id) {
            Some((saga, pin)) => Some((saga, Some(pin))),
            None => self.durable.pop(id).map(|saga| (saga.unpack(), None)),
        }
    }

    /// A saga whose newest entry is not yet durable.
    pub fn pin(&mut self, saga: Box<Saga>, pin: Pin) {
        self.pinned.insert(saga.state.saga_id.clone(), (saga, pin));
    }

    /// Hot lost writes: the next entry of every saga brings the whole saga along.
    pub fn hot_lost_writes(&mut self) {
        self.pinned.values_mut().for_each(|(_, pin)| pin.whole_at = None);
    }

    /// A saga whose entries are all durable, and that nothing happened to.
    pub fn rest(&mut self, saga: &Saga) {
        self.durable.put(saga.state.saga_id.clone(), Resting::pack(saga));
    }

    /// A saga whose entries are all durable, and that is needed next.
    pub fn keep(&mut self, saga: Box<Saga>) {
        self.durable.put(saga.state.saga_id.clone(), Resting::Loaded(saga));
    }

    /// Everything up to `end` (inclusive) is durable now; gives the sagas that have nothing newer. Those that have ended
    /// are forgotten: hardly any gets another event, and that one can be loaded.
    pub fn unpin_through(&mut self, end: Offset) -> Vec<SagaId> {
        let done: Vec<SagaId> = self.pinned.iter().filter(|(_, (_, pin))| pin.newest <= end).map(|(id, _)| id.clone()).collect();
        for id in &done {
            if let Some((saga, _)) = self.pinned.remove(id)
                && !saga.state.status.is_end()
            {
                self.durable.put(id.clone(), Resting::pack(&saga));
            }
        }
        done
    }

    /// Forgets the durable sagas that were not used for longest. Only between batches.
    pub fn trim(&mut self) {
        while self.durable.len() > self.capacity {
            self.durable.pop_lru();
        }
    }

    pub fn clear(&mut self) {
        self.pinned.clear();
        self.durable.clear();
    }

    pub fn len(&self) -> usize {
        self.pinned.len() + self.durable.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing;

    proptest! {
        #[test]
        fn a_saga_comes_out_as_it_went_in(saga in testing::saga()) {
            let mut cache = Cache::new(10);
            let id = saga.state.saga_id.clone();
            let pin = Pin { newest: Offset(7), whole_at: None };
            cache.pin(Box::new(saga.clone()), pin);
            prop_assert_eq!(cache.take(&id), Some((Box::new(saga.clone()), Some(pin))));
            cache.pin(Box::new(saga.clone()), pin);
            prop_assert_eq!(cache.unpin_through(Offset(7)), std::slice::from_ref(&id));
            let kept = if saga.state.status.is_end() { None } else { Some((Box::new(saga), None)) };
            prop_assert_eq!(cache.take(&id), kept);
        }
    }
}
