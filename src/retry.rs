//! The one place for retries: adapters try once with a time-out, roles wait here and try again.

use std::future::Future;
use std::time::Duration;

use crate::error::{Error, Result};

/// First and longest pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The pauses between the tries of one action, and what the log says about them.
pub struct Backoff {
    /// An action for the log: "write hot entries".
    action: &'static str,
    pause: Duration,
    failures: u64,
}

impl Backoff {
    pub fn new(action: &'static str) -> Self {
        Self { action, pause: FIRST_PAUSE, failures: 0 }
    }

    /// Says why a try failed and waits before the next.
    pub async fn pause(&mut self, reason: &str) {
        let pause = self.failed(reason);
        tokio::time::sleep(pause).await;
    }

    /// As [`Backoff::pause`], for a caller that has more to do meanwhile: gives how long to wait.
    pub fn failed(&mut self, reason: &str) -> Duration {
        self.failures += 1;
        // Once at the first failure, then ever more rarely: an outage must not flood the log.
        if self.failures.is_power_of_two() {
            tracing::warn!(action = self.action, failures = self.failures, reason, "dependency unavailable, trying again");
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        pause
    }

    pub fn succeeded(&mut self) {
        if self.failures > 0 {
            tracing::info!(action = self.action, failures = self.failures, "dependency available again");
        }
        self.failures = 0;
        self.pause = FIRST_PAUSE;
    }
}

/// Tries until it is done or fails with anything but `Unavailable`. The caller bounds the whole wait, by a time-out or
/// by dropping the future.
pub async fn until_available<T, F, Fut>(action: &'static str, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut backoff = Backoff::new(action);
    loop {
        match attempt().await {
            Err(Error::Unavailable(reason)) => backoff.pause(&reason).await,
            other => {
                if other.is_ok() {
                    backoff.succeeded();
                }
                return other;
            }
        }
    }
}
