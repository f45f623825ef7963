//! Locks by name: work under one name goes one after the other, under different names at once. Keeps only names in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Locks = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

#[derive(Default)]
pub struct KeyedLocks(Locks);

/// Whoever holds it works under the name; dropping it lets the next one in.
pub struct KeyedLockGuard {
    name: String,
    locks: Locks,
    held: Option<OwnedMutexGuard<()>>,
}

impl KeyedLocks {
    pub async fn lock(&self, name: &str) -> KeyedLockGuard {
        // Made before the wait: a caller that gives up while it waits leaves nothing behind.
        let mut guard = KeyedLockGuard { name: name.to_owned(), locks: self.0.clone(), held: None };
        let lock = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone();
        guard.held = Some(lock.lock_owned().await);
        guard
    }
}

impl Drop for KeyedLockGuard {
    fn drop(&mut self) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.held.take());
        // One is the map's own; those who wait have theirs.
        if locks.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_name_is_locked_once_at_a_time_and_is_forgotten_after_the_last() {
        let locks = KeyedLocks::default();
        let first = locks.lock("a").await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, locks.lock("a")).await.is_err(), "it is taken");
        assert!(tokio::time::timeout(soon, locks.lock("b")).await.is_ok(), "another is not");
        drop(first);
        drop(locks.lock("a").await);
        assert!(locks.0.lock().expect("not poisoned").is_empty());
    }
}
