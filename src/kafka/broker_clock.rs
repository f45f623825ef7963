//! What time it is at the brokers, as far as they told: the newest time stamp of theirs that was read, and the time that
//! has passed here since by a clock that nobody sets.
//!
//! Never ahead of the brokers, whatever this machine takes for the time. `complete_through` speaks of their stamps, so
//! only their clock can say how far it is. Knows no topic; several brokers' clocks count as one.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use crate::saga::time::Micros;

/// Who stamped a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// The broker, when it appended it (LogAppendTime).
    Broker(Micros),
    /// Its producer (CreateTime), or nobody.
    Producer,
}

/// One for a process, shared by its roles.
#[derive(Debug)]
pub struct BrokerClock {
    begun: Instant,
    /// The brokers' time less the time since `begun`, in microseconds: the greatest heard.
    lead: AtomicI64,
    /// Of the events topics.
    broker_stamps: AtomicBool,
    producer_stamps: AtomicBool,
}

impl BrokerClock {
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            lead: AtomicI64::new(i64::MIN),
            broker_stamps: AtomicBool::default(),
            producer_stamps: AtomicBool::default(),
        }
    }

    /// A record of an events topic was read at `at` or before.
    pub fn read(&self, stamp: Stamp, at: Instant) {
        match stamp {
            Stamp::Broker(time) => {
                self.broker_stamps.store(true, Ordering::Relaxed);
                self.reached(time, at);
            }
            Stamp::Producer => self.producer_stamps.store(true, Ordering::Relaxed),
        }
    }

    /// Some process was complete through `time`, as it is found at `at`; `wall`: the time here, beyond which none is believed.
    pub fn carried(&self, time: Micros, at: Instant, wall: Micros) {
        if time <= wall {
            self.reached(time, at);
        }
    }

    fn reached(&self, time: Micros, at: Instant) {
        self.lead.fetch_max(time.0.saturating_sub(self.since(at)), Ordering::Relaxed);
    }

    /// A time that is past at the brokers at `at`; `wall`: what this machine takes for the time. `None`: nothing tells. Where
    /// producers stamp the records there is no broker's time, and this machine's counts.
    pub fn at(&self, at: Instant, wall: Micros) -> Option<Micros> {
        let by_producers = self.producer_stamps.load(Ordering::Relaxed) && !self.broker_stamps.load(Ordering::Relaxed);
        let lead = self.lead.load(Ordering::Relaxed);
        let time = match lead {
            _ if by_producers => wall,
            i64::MIN => return None,
            lead => wall.min(Micros(lead.saturating_add(self.since(at)))),
        };
        // Stamps are in milliseconds: a record of the same millisecond may still come.
        Some(Micros(time.0.div_euclid(1_000).saturating_mul(1_000)))
    }

    /// A time that neither the brokers nor this machine have passed at `at`, as far as is known here.
    pub fn latest(&self, at: Instant, wall: Micros) -> Micros {
        let lead = self.lead.load(Ordering::Relaxed);
        if lead == i64::MIN { wall } else { wall.max(Micros(lead.saturating_add(self.since(at)))) }
    }

    fn since(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;
    /// The brokers' time at the start of each test.
    const NOW: Micros = Micros(1_800_000_000 * SECOND);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_clock_that_is_ahead_adds_nothing_to_what_a_broker_said() {
        let begun = Instant::now();
        let clock = BrokerClock::new(begun);
        clock.read(Stamp::Broker(NOW), begun + seconds(1));
        let ahead = NOW.saturating_add(40 * DAY);
        assert_eq!(clock.at(begun + seconds(1), ahead), Some(NOW));
        assert_eq!(clock.at(begun + seconds(76), ahead), Some(NOW.saturating_add(75 * SECOND)), "time passes without records");
        let behind = NOW.saturating_add(-DAY);
        assert_eq!(clock.at(begun + seconds(76), behind), Some(behind));
    }

    #[test]
    fn old_records_do_not_take_the_time_back() {
        let begun = Instant::now();
        let clock = BrokerClock::new(begun);
        clock.read(Stamp::Broker(NOW), begun);
        clock.read(Stamp::Broker(NOW.saturating_add(-DAY)), begun + seconds(1));
        assert_eq!(clock.at(begun + seconds(2), Micros::MAX), Some(NOW.saturating_add(2 * SECOND)));
    }

    #[test]
    fn nothing_is_known_before_a_broker_spoke() {
        let begun = Instant::now();
        let clock = BrokerClock::new(begun);
        assert_eq!(clock.at(begun, NOW), None);
        clock.carried(NOW.saturating_add(1), begun, NOW);
        assert_eq!(clock.at(begun, NOW), None, "what is ahead of now is not carried over");
        clock.carried(NOW.saturating_add(-SECOND), begun, NOW);
        assert_eq!(clock.at(begun + seconds(5), Micros::MAX), Some(NOW.saturating_add(4 * SECOND)));
    }

    #[test]
    fn where_only_producers_stamp_the_time_here_counts() {
        let begun = Instant::now();
        let clock = BrokerClock::new(begun);
        clock.read(Stamp::Producer, begun);
        assert_eq!(clock.at(begun, NOW), Some(NOW));
        clock.read(Stamp::Broker(NOW.saturating_add(-SECOND)), begun);
        assert_eq!(clock.at(begun, NOW), Some(NOW.saturating_add(-SECOND)), "one topic with brokers' stamps is enough");
    }

    #[test]
    fn a_record_of_the_same_millisecond_may_still_come() {
        let begun = Instant::now();
        let clock = BrokerClock::new(begun);
        clock.read(Stamp::Broker(NOW), begun);
        assert_eq!(clock.at(begun + Duration::from_micros(1_999), Micros::MAX), Some(NOW.saturating_add(1_000)));
    }
}
