//! The partitions that this process owns, each with what runs for it.

use std::collections::HashMap;
use std::time::Instant;

use super::fold_gate::FoldGate;
use super::outbound::UnacknowledgedSends;
use super::ownership::{Generation, Ownership};
use super::partition::Partition;
use super::partition_chain::PartitionChain;
use super::saga_cache::CacheLimits;
use crate::saga::position::TopicPartition;

/// Fewest sagas that a partition's cache keeps.
const MIN_CACHED_SAGAS: usize = 256;
/// Bytes that the caches of all partitions keep.
const MAX_CACHED_BYTES: u64 = 512 << 20;
/// Fewest bytes that a partition's cache keeps.
const MIN_CACHED_BYTES: u64 = 8 << 20;

/// What each partition's cache keeps, however many there are.
pub const MIN_CACHE: CacheLimits = CacheLimits { sagas: MIN_CACHED_SAGAS, bytes: MIN_CACHED_BYTES };

pub struct OwnedPartition {
    pub generation: Generation,
    pub partition: Partition,
    pub partition_chain: PartitionChain,
    /// Dead letters and outcomes on their way.
    pub sends: UnacknowledgedSends,
    pub gate: FoldGate,
    /// No reading of sagas whose keys may expire before this: the chain could not be read.
    pub expiry_not_before: Instant,
}

impl OwnedPartition {
    /// What it waits for has nothing to do with the other partitions.
    pub fn is_waiting(&self, now: Instant) -> bool {
        self.sends.is_full() || self.gate.is_waiting(now)
    }
}

#[derive(Default)]
pub struct Partitions(HashMap<TopicPartition, OwnedPartition>);

impl Partitions {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, partition: &TopicPartition) -> Option<&OwnedPartition> {
        self.0.get(partition)
    }

    pub fn get_mut(&mut self, partition: &TopicPartition) -> Option<&mut OwnedPartition> {
        self.0.get_mut(partition)
    }

    pub fn is_current(&self, of: &Ownership) -> bool {
        self.get(&of.partition).is_some_and(|owned| owned.generation == of.generation)
    }

    /// Unless it was given up, and perhaps taken over again, meanwhile.
    pub fn current_mut(&mut self, of: &Ownership) -> Option<&mut OwnedPartition> {
        self.get_mut(&of.partition).filter(|owned| owned.generation == of.generation)
    }

    pub fn insert(&mut self, partition: TopicPartition, owned: OwnedPartition) {
        self.0.insert(partition, owned);
    }

    pub fn remove(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }

    pub fn names(&self) -> impl Iterator<Item = &TopicPartition> {
        self.0.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &OwnedPartition)> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TopicPartition, &mut OwnedPartition)> {
        self.0.iter_mut()
    }

    pub fn values(&self) -> impl Iterator<Item = &OwnedPartition> {
        self.0.values()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut OwnedPartition> {
        self.0.values_mut()
    }

    /// Bytes in memory of what is not yet durable.
    pub fn backlog_bytes(&self) -> u64 {
        self.values().map(|owned| owned.partition.backlog_bytes()).sum()
    }

    /// Gives each partition its share of the cache.
    pub fn share_cache(&mut self, max_cached_sagas: usize) {
        let count = self.len().max(1);
        let share = CacheLimits {
            sagas: (max_cached_sagas / count).max(MIN_CACHED_SAGAS),
            bytes: (MAX_CACHED_BYTES / count as u64).max(MIN_CACHED_BYTES),
        };
        self.values_mut().for_each(|owned| owned.partition.cache.set_limits(share));
    }
}
