//! How many bytes of records may be in the hands of a role at once. Knows nothing of Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

#[derive(Debug, Clone)]
pub(super) struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    used: AtomicU64,
    limit: u64,
    /// Unparked when there is room again.
    reader: Thread,
}

impl MemoryBudget {
    /// `reader`: the thread that reads when there is room.
    pub(super) fn new(limit: u64, reader: Thread) -> Self {
        Self { shared: Arc::new(Shared { used: AtomicU64::new(0), limit, reader }) }
    }
    /// Whether another batch may be read. The last one may go over the limit by its own size, so that a batch larger
    /// than the limit still passes.
    pub(super) fn has_room(&self) -> bool {
        self.shared.used.load(Ordering::Acquire) < self.shared.limit
    }
    pub(super) fn hold(&self, bytes: u64) -> MemoryPermit {
        self.shared.used.fetch_add(bytes, Ordering::AcqRel);
        MemoryPermit { shared: Arc::clone(&self.shared), bytes }
    }
    /// Each of these by itself, so that one can be let go of without the others.
    pub(super) fn hold_each<T>(&self, batch: Vec<(T, u64)>) -> Vec<(T, MemoryPermit)> {
        batch.into_iter().map(|(of, bytes)| (of, self.hold(bytes))).collect()
    }
}

/// The bytes of records count until this is dropped: keep it for as long as they are in memory.
#[derive(Debug)]
pub struct MemoryPermit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryPermit {
    #[cfg(feature = "testing")]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of records that a test made itself.
    #[cfg(test)]
    pub fn of_nothing() -> Self {
        MemoryBudget::new(0, std::thread::current()).hold(0)
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        let before = self.shared.used.fetch_sub(self.bytes, Ordering::AcqRel);
        if before >= self.shared.limit && before - self.bytes < self.shared.limit {
            self.shared.reader.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_has_room_again_once_a_batch_is_let_go() {
        let budget = MemoryBudget::new(10, std::thread::current());
        let first = budget.hold(4);
        assert!(budget.has_room());
        let second = budget.hold(100);
        assert!(!budget.has_room());
        drop(second);
        assert!(budget.has_room());
        // Returns at once: this thread was woken. A test that hangs here has failed.
        std::thread::park();
        assert_eq!(first.bytes(), 4);
    }

    #[test]
    fn what_one_partition_holds_is_let_go_of_without_the_rest_of_its_batch() {
        let budget = MemoryBudget::new(10, std::thread::current());
        let mut batch = budget.hold_each(vec![("a", 9), ("b", 3)]);
        assert!(!budget.has_room());
        let (of, held) = batch.remove(0);
        assert_eq!((of, held.bytes()), ("a", 9));
        drop(held);
        assert!(budget.has_room());
        assert_eq!(batch.iter().map(|(of, held)| (*of, held.bytes())).collect::<Vec<_>>(), [("b", 3)]);
    }
}
