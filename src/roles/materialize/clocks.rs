//! What time it is: at the brokers, as far as records and stored times tell, and on this machine, whose clock can be wrong.

use std::sync::Arc;
use std::time::Instant;

use crate::kafka::broker_clock::{BrokerClock, Stamp};
use crate::kafka::record::PartitionRecords;
use crate::saga::position::Topic;
use crate::saga::time::Micros;

#[derive(Clone)]
pub struct Clocks {
    broker: Arc<BrokerClock>,
    now: fn() -> Micros,
}

impl Clocks {
    pub fn new(broker: Arc<BrokerClock>, now: fn() -> Micros) -> Self {
        Self { broker, now }
    }

    /// What this machine takes for the time now.
    pub fn now(&self) -> Micros {
        (self.now)()
    }

    /// A time that is past at the brokers; `None`: nothing tells.
    pub fn past(&self) -> Option<Micros> {
        self.broker.at(Instant::now(), self.now())
    }

    /// A time that may not be reached at the brokers yet.
    pub fn latest(&self) -> Micros {
        self.broker.latest(Instant::now(), self.now())
    }

    /// Learns from records that were read just now. Who stamps the events matters; the replay log's records are our own.
    pub fn note_records<'a>(&self, batch: impl Iterator<Item = &'a PartitionRecords>, replay_log: &Topic) {
        let now = Instant::now();
        for records in batch {
            if matches!(records.stamp, Stamp::Broker(_)) || records.partition.topic != *replay_log {
                self.broker.read(records.stamp, now);
            }
        }
    }

    /// Learns from times that owners before stored.
    pub fn note_stored(&self, times: impl Iterator<Item = Micros>) {
        let (at, now) = (Instant::now(), self.now());
        times.for_each(|time| self.broker.carried(time, at, now));
    }
}
