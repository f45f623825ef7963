//! Brings a client that knows no broker any more back to the configured ones.
//!
//! librdkafka (2.10 to 2.13) drops each broker that an answer about metadata does not name. While every broker is fenced,
//! such as one that was frozen and goes on, answers name none. Its own way back finds the brokers it is still dropping, adds
//! none, and is not tried again: such a client would stay without a broker until its process is restarted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::native::add_brokers;

/// After "all brokers are down": by then those that are dropped are gone.
const SETTLES: Duration = Duration::from_secs(2);
/// Between two times; doubled for as long as it does not help, for librdkafka keeps each list it is given.
const AGAIN: Duration = Duration::from_secs(5);
const LONGEST_AGAIN: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Bootstrap {
    servers: String,
    state: Mutex<BootstrapState>,
}

#[derive(Debug, Default, Clone, Copy)]
struct BootstrapState {
    /// When the client said that no broker is left, since they were last added.
    down: Option<Instant>,
    /// When they were last added, and how long after that they may be again.
    added: Option<(Instant, Duration)>,
}

impl BootstrapState {
    fn is_due(self, now: Instant) -> bool {
        let past = |at: Instant, span| now.saturating_duration_since(at) >= span;
        self.down.is_some_and(|at| past(at, SETTLES)) && self.added.is_none_or(|(at, pause)| past(at, pause))
    }

    fn add(self, now: Instant) -> Self {
        let pause = match self.added {
            Some((at, pause)) if now.saturating_duration_since(at) < pause * 2 => (pause * 2).min(LONGEST_AGAIN),
            _ => AGAIN,
        };
        Self { down: None, added: Some((now, pause)) }
    }
}

impl Bootstrap {
    pub(super) fn new(client: &ClientConfig) -> Self {
        Self { servers: client.get("bootstrap.servers").unwrap_or_default().to_owned(), state: Mutex::default() }
    }

    /// What the client said.
    pub(super) fn on_error(&self, code: Option<RDKafkaErrorCode>) {
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).down.get_or_insert_with(Instant::now);
        }
    }

    /// To be called again and again. Does nothing to brokers that the client has.
    pub(super) fn add_if_lost<C: ClientContext>(&self, client: &Client<C>) {
        let now = Instant::now();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.is_due(now) {
                return;
            }
            *state = state.add(now);
        }
        let added = add_brokers(client, &self.servers);
        tracing::debug!(target: "librdkafka", added, "configured brokers added again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_added_once_they_were_all_down_for_a_while_and_less_and_less_often() {
        let began = Instant::now();
        assert!(!BootstrapState::default().is_due(began));
        let down = |state: BootstrapState, at| BootstrapState { down: Some(at), ..state };
        let first = down(BootstrapState::default(), began);
        assert!(!first.is_due(began) && first.is_due(began + SETTLES));
        let added = first.add(began + SETTLES);
        assert!(!added.is_due(began + LONGEST_AGAIN), "they are not down");
        let (mut state, mut now, mut times) = (added, began + SETTLES, 0);
        while now < began + LONGEST_AGAIN * 10 {
            now += Duration::from_secs(1);
            state = down(state, began);
            if state.is_due(now) {
                (state, times) = (state.add(now), times + 1);
            }
        }
        assert!((12..20).contains(&times), "{times} times in an outage of 50 minutes");
        let later = now + LONGEST_AGAIN * 2;
        assert_eq!(down(state, later).add(later).added, Some((later, AGAIN)), "another outage");
    }
}
