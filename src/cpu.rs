//! Long work on threads of its own: what costs more than a moment of CPU must not hold up the threads that answer
//! everything else (`/livez` among it), and no more of it runs at once than there are places.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Pieces of long work at the same time; the next ones wait.
const PLACES: usize = 4;

static FREE: Semaphore = Semaphore::const_new(PLACES);

/// Does the work where others need not wait for it. What it does must be bounded: it cannot be stopped.
pub async fn long<T>(work: impl FnOnce() -> T) -> T {
    let _place = FREE.acquire().await;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        // One thread for all, as in tests: there is no other.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn long_work_keeps_nobody_waiting_and_has_a_limit() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let (release, waits) = std::sync::mpsc::sync_channel::<()>(PLACES * 2);
        let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
        let works: Vec<_> = (0..PLACES * 2)
            .map(|_| {
                let waits = waits.clone();
                tokio::spawn(long(move || {
                    MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    waits.lock().expect("not poisoned").recv().expect("released");
                    RUNNING.fetch_sub(1, Ordering::SeqCst);
                }))
            })
            .collect();
        // The one thread of the runtime still has time for others.
        tokio::time::timeout(Duration::from_secs(30), tokio::spawn(async {})).await.expect("not held up").expect("no panic");
        for _ in &works {
            release.send(()).expect("somebody waits");
        }
        for work in works {
            work.await.expect("no panic");
        }
        assert!(MOST.load(Ordering::SeqCst) <= PLACES);
    }
}
