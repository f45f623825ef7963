//! States of the sagas in flight, of one partition: bounded, except that a saga with entries that are not yet durable
//! is pinned, so that a miss only ever needs what the chain has. The others wait for their next event packed, in half of
//! the memory.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use lru::LruCache;

use crate::hot::DurableSaga;
use crate::saga::fold::Saga;
use crate::saga::position::{EntrySequence, Offset, SagaId};

use super::packed_saga::PackedSaga;

/// Why a saga must stay in memory, and what hot has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Its newest entry, which is not yet durable.
    pub newest: Offset,
    /// The newest entry that hot has with the whole saga, or the first of all. `None`: hot may have lost it.
    pub whole_at: Option<EntrySequence>,
    /// Bytes of the saga's records since then.
    pub since: u64,
}

/// A saga of which nothing happens for now.
enum CachedSaga {
    /// About to be folded on.
    Unpacked(Box<Saga>),
    Packed(PackedSaga),
}

impl CachedSaga {
    fn pack(saga: &Saga) -> Self {
        Self::Packed(PackedSaga::new(saga))
    }

    fn unpack(self) -> Box<Saga> {
        match self {
            Self::Unpacked(saga) => saga,
            Self::Packed(packed) => Box::new(packed.unpack()),
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Unpacked(saga) => weight(saga),
            Self::Packed(packed) => packed.held(),
        }
    }
}

/// Bytes of a saga in memory, about.
fn weight(saga: &Saga) -> u64 {
    saga.state.size() as u64 + SAGA
}

/// What a saga costs besides the texts of its state, about.
const SAGA: u64 = 1_024;
/// Pinned sagas below this are accounted for with their rows.
const LARGE: u64 = 16 << 10;

pub struct SagaCache {
    /// With entries above the chain's end; and what each weighs.
    pinned: HashMap<SagaId, (Box<Saga>, Pin, u64), RandomState>,
    /// Bytes of the large ones among them.
    pinned_bytes: u64,
    /// Everything durable. Grows over its limits until [`SagaCache::trim`]: what a batch found here or loaded must stay
    /// until the batch is folded, or a saga would begin again at entry 1.
    durable: LruCache<SagaId, CachedSaga>,
    durable_bytes: u64,
    limits: CacheLimits,
}

/// What is kept of durable sagas between batches.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    pub sagas: usize,
    pub bytes: u64,
}

impl SagaCache {
    pub fn new(limits: CacheLimits) -> Self {
        Self { pinned: HashMap::default(), pinned_bytes: 0, durable: LruCache::unbounded(), durable_bytes: 0, limits }
    }

    /// For the next [`SagaCache::trim`].
    pub fn set_limits(&mut self, limits: CacheLimits) {
        self.limits = limits;
    }

    pub fn contains(&self, id: &SagaId) -> bool {
        self.pinned.contains_key(id) || self.durable.contains(id)
    }

    /// Bytes of the saga's context.
    pub fn context_bytes(&self, id: &SagaId) -> Option<usize> {
        let resting = || match self.durable.peek(id)? {
            CachedSaga::Unpacked(saga) => Some(saga.state.context.len()),
            CachedSaga::Packed(packed) => Some(packed.context().len()),
        };
        self.pinned.get(id).map(|(saga, ..)| saga.state.context.len()).or_else(resting)
    }

    /// Takes a saga out to fold on it; put it back with [`SagaCache::pin`] or [`SagaCache::rest`].
    pub fn take(&mut self, id: &SagaId) -> Option<(Box<Saga>, Option<Pin>)> {
        if let Some((saga, pin, weight)) = self.pinned.remove(id) {
            self.pinned_bytes -= weight;
            return Some((saga, Some(pin)));
        }
        let saga = self.durable.pop(id)?;
        self.durable_bytes -= saga.weight();
        Some((saga.unpack(), None))
    }

    /// A saga whose newest entry is not yet durable.
    pub fn pin(&mut self, saga: Box<Saga>, pin: Pin) {
        let weight = Some(weight(&saga)).filter(|weight| *weight >= LARGE).unwrap_or(0);
        self.pinned_bytes += weight;
        if let Some((_, _, before)) = self.pinned.insert(saga.state.saga_id.clone(), (saga, pin, weight)) {
            self.pinned_bytes -= before;
        }
    }

    /// Bytes of large sagas that must stay.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Hot lost writes: the next entry of every saga brings the whole saga along.
    pub fn hot_lost_writes(&mut self) {
        self.pinned.values_mut().for_each(|(_, pin, _)| pin.whole_at = None);
    }

    /// A saga whose entries are all durable, and that nothing happened to.
    pub fn rest(&mut self, saga: &Saga) {
        self.put(saga.state.saga_id.clone(), CachedSaga::pack(saga));
    }

    /// A saga whose entries are all durable, and that is needed next.
    pub fn keep(&mut self, saga: Box<Saga>) {
        self.put(saga.state.saga_id.clone(), CachedSaga::Unpacked(saga));
    }

    fn put(&mut self, id: SagaId, saga: CachedSaga) {
        self.durable_bytes += saga.weight();
        if let Some(before) = self.durable.put(id, saga) {
            self.durable_bytes -= before.weight();
        }
    }

    /// Everything up to `end` (inclusive) is durable now; gives the sagas that have nothing newer, with
    /// their newest entry. Those that have ended are forgotten: hardly any gets another event, and that one can be loaded.
    pub fn unpin_through(&mut self, end: Offset) -> Vec<DurableSaga> {
        let done: Vec<SagaId> =
            self.pinned.iter().filter(|(_, (_, pin, _))| pin.newest <= end).map(|(id, _)| id.clone()).collect();
        let mut at_rest = Vec::with_capacity(done.len());
        for id in done {
            let Some((saga, _, weight)) = self.pinned.remove(&id) else { continue };
            self.pinned_bytes -= weight;
            let sequence = saga.state.entry.sequence;
            if !saga.state.status.is_end() {
                self.rest(&saga);
            }
            at_rest.push(DurableSaga { saga: id, sequence });
        }
        at_rest
    }

    /// Forgets the durable sagas that were not used for longest. Only between batches.
    pub fn trim(&mut self) {
        while self.durable.len() > self.limits.sagas || self.durable_bytes > self.limits.bytes {
            let Some((_, saga)) = self.durable.pop_lru() else { break };
            self.durable_bytes -= saga.weight();
        }
    }

    pub fn clear(&mut self) {
        self.pinned.clear();
        self.durable.clear();
        (self.pinned_bytes, self.durable_bytes) = (0, 0);
    }

    pub fn len(&self) -> usize {
        self.pinned.len() + self.durable.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;
    use crate::saga::event::{Kind, StepEvent};
    use crate::saga::fold::RecordMeta;
    use crate::saga::json::Json;
    use crate::saga::position::Position;
    use crate::saga::testing::{event, settings};
    use crate::saga::time::Micros;
    use crate::wire::testing;

    #[test]
    fn a_smaller_share_holds_from_the_next_trim_on() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let limits = |sagas| CacheLimits { sagas, bytes: u64::MAX };
        let mut cache = SagaCache::new(limits(10));
        for n in 0..10 {
            let mut saga = testing::saga().new_tree(&mut runner).expect("a saga").current();
            saga.state.saga_id = SagaId::new(n.to_string());
            cache.rest(&saga);
        }
        cache.set_limits(limits(4));
        cache.trim();
        assert_eq!(cache.len(), 4);
        cache.set_limits(limits(10));
        cache.trim();
        assert_eq!(cache.len(), 4);
    }

    proptest! {
        #[test]
        fn a_saga_comes_out_as_it_went_in(saga in testing::saga()) {
            let mut cache = SagaCache::new(CacheLimits { sagas: 10, bytes: 1 << 20 });
            let id = saga.state.saga_id.clone();
            let pin = Pin { newest: Offset(7), whole_at: None, since: 0 };
            cache.pin(Box::new(saga.clone()), pin);
            prop_assert_eq!(cache.take(&id), Some((Box::new(saga.clone()), Some(pin))));
            cache.pin(Box::new(saga.clone()), pin);
            let sequence = saga.state.entry.sequence;
            prop_assert_eq!(cache.unpin_through(Offset(7)), [DurableSaga { saga: id.clone(), sequence }]);
            let kept = if saga.state.status.is_end() { None } else { Some((Box::new(saga), None)) };
            prop_assert_eq!(cache.take(&id), kept);
        }
    }

    #[test]
    fn what_rests_is_bounded_in_bytes_and_what_is_pinned_is_told() {
        let mut cache = SagaCache::new(CacheLimits { sagas: 10, bytes: 100_000 });
        let large = |number: i64| {
            let mut saga = saga_of(&format!("saga-{number}"));
            saga.state.context = Json::from_valid(format!(r#"{{"x":"{}"}}"#, "x".repeat(40_000)));
            saga
        };
        for number in 0..5 {
            cache.pin(Box::new(large(number)), Pin { newest: Offset(number), whole_at: None, since: 0 });
        }
        assert!((200_000..220_000).contains(&cache.pinned_bytes()), "{}", cache.pinned_bytes());
        cache.unpin_through(Offset(9));
        cache.trim();
        assert_eq!((cache.pinned_bytes(), cache.len()), (0, 2));
        for number in 0..5 {
            cache.take(&format!("saga-{number}").as_str().into());
        }
        assert_eq!((cache.durable_bytes, cache.len()), (0, 0));
    }

    fn saga_of(id: &str) -> Saga {
        let event = StepEvent { event_id: id.to_owned(), saga_id: id.into(), ..event(Kind::SagaStarted) };
        let meta = RecordMeta { position: Position::new("t", 0, 0), timestamp: Micros(0) };
        let mut slot: Option<Saga> = None;
        Saga::admit(&mut slot, event, &meta, false, &settings());
        slot.expect("a saga")
    }
}
