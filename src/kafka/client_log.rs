//! librdkafka's lines on their way to the log. While brokers are down each of a process's clients says so, several times
//! a second: of one kind a few pass, then they are counted. Lines name brokers, topics and errors, never payloads.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Lines of one kind, of all clients together, in one span.
const PASS: u64 = 5;
const SPAN: Duration = Duration::from_secs(30);

/// Counts lines by kind; kinds are librdkafka's, so they are few.
#[derive(Debug, Default)]
struct Gate(HashMap<String, QuietPeriod>);

#[derive(Debug)]
struct QuietPeriod {
    began: Instant,
    lines: u64,
}

impl Gate {
    /// May a line of this kind pass? Then with the number of those that did not since the last span.
    fn passes(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if !self.0.contains_key(kind) {
            self.0.insert(kind.to_owned(), QuietPeriod { began: now, lines: 0 });
        }
        let span = self.0.get_mut(kind)?;
        let mut held_back = 0;
        if now.saturating_duration_since(span.began) >= SPAN {
            held_back = span.lines.saturating_sub(PASS);
            *span = QuietPeriod { began: now, lines: 0 };
        }
        span.lines += 1;
        (span.lines <= PASS).then_some(held_back)
    }
}

fn passes(kind: &str) -> Option<u64> {
    static GATE: LazyLock<Mutex<Gate>> = LazyLock::new(Mutex::default);
    GATE.lock().unwrap_or_else(PoisonError::into_inner).passes(kind, Instant::now())
}

/// A line of librdkafka's own log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as L;
    // `[kafka] properties` go to every kind of client; that a producer has no use for a consumer's is no news.
    if matches!(level, L::Debug) || facility == "CONFWARN" {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        return;
    }
    let Some(held_back) = passes(facility) else { return };
    match level {
        L::Emerg | L::Alert | L::Critical | L::Error => tracing::error!(target: "librdkafka", facility, held_back, "{message}"),
        L::Warning => tracing::warn!(target: "librdkafka", facility, held_back, "{message}"),
        _ => tracing::info!(target: "librdkafka", facility, held_back, "{message}"),
    }
}

/// What a client met, from which it goes on by itself.
pub(super) fn error(code: Option<RDKafkaErrorCode>, reason: &str) {
    match code {
        // Its log has a line on the same, with more in it.
        Some(RDKafkaErrorCode::BrokerTransportFailure) => tracing::debug!(target: "librdkafka", "{reason}"),
        // Its text counts brokers it has not asked yet as up, and others twice: "0/2 brokers are down".
        Some(code @ RDKafkaErrorCode::AllBrokersDown) => {
            if let Some(held_back) = passes("AllBrokersDown") {
                tracing::warn!(target: "librdkafka", %code, held_back, "a client reaches no broker, it goes on trying");
            }
        }
        code => {
            let kind = code.map_or("error".to_owned(), |code| format!("{code:?}"));
            if let Some(held_back) = passes(&kind) {
                tracing::warn!(target: "librdkafka", error = kind, held_back, "{reason}");
            }
        }
    }
}

pub(super) fn error_of(found: &KafkaError, reason: &str) {
    error(found.rdkafka_error_code(), reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_kind_a_few_pass_and_the_rest_are_counted() {
        let (mut gate, began) = (Gate::default(), Instant::now());
        let passed = (0..100).filter(|_| gate.passes("FAIL", began).is_some()).count();
        assert_eq!(passed as u64, PASS);
        assert_eq!(gate.passes("SESSTMOUT", began), Some(0), "another kind is not held back");
        assert_eq!(gate.passes("FAIL", began + SPAN), Some(100 - PASS));
        assert_eq!(gate.passes("FAIL", began + SPAN), Some(0));
    }
}
