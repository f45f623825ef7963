//! One time of owning a partition. What was begun under an earlier one is dropped when it ends.

use crate::saga::position::TopicPartition;

/// Counts the partitions that this process took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation(u64);

impl Generation {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A partition as it was owned when some work on it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    pub partition: TopicPartition,
    pub generation: Generation,
}
