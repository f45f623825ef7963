//! How many bytes of records may be in the hands of a role at once. Knows nothing of Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicU64>,
    limit: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { used: Arc::default(), limit }
    }
    /// Whether another batch may be read. The last one may go over the limit by its own size, so that a batch larger
    /// than the limit still passes.
    pub(super) fn has_room(&self) -> bool {
        self.used.load(Ordering::Acquire) < self.limit
    }
    pub(super) fn hold(&self, bytes: u64) -> Held {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Held { used: Arc::clone(&self.used), bytes }
    }
}

/// The bytes of a batch count until this is dropped: keep it for as long as the records are in memory.
#[derive(Debug)]
pub struct Held {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Held {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_has_room_again_once_a_batch_is_let_go() {
        let budget = Budget::new(10);
        let first = budget.hold(4);
        assert!(budget.has_room());
        let second = budget.hold(100);
        assert!(!budget.has_room());
        drop(second);
        assert!(budget.has_room());
        assert_eq!(first.bytes(), 4);
    }
}
