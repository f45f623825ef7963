//! Before a request is said to be new, all that its partition of the replay log ever had must be known: by memory, else by
//! history. Where neither has it yet (the log's materializer stands still), the partition's requests wait, unread: a
//! request must not be parked under an id that may be done with, and none may be carried out twice (DESIGN 6.1).

use std::time::{Duration, Instant};

use super::Replay;
use crate::error::{Error, Result};
use crate::saga::position::TopicPartition;

/// Alarm of a partition of the log.
pub(super) const NOT_KNOWN: &str = "log_not_known";
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// After a look-up that failed.
const REST: Duration = Duration::from_secs(2);
/// The materializer is a moment behind now and then; longer is an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(10);

/// A partition's log is not known far enough.
pub(super) struct LogNotKnown {
    since: Instant,
    pub again: Instant,
    alarmed: bool,
}

impl Replay {
    /// Is there something read that can be looked at now?
    pub(super) fn may_take_up(&self) -> bool {
        let now = Instant::now();
        let rests = |partition: &TopicPartition| {
            let not_known = self.owned.get(partition).and_then(|owned| owned.log_not_known.as_ref());
            not_known.is_some_and(|not_known| not_known.again > now)
        };
        self.read.iter().any(|read| !rests(&read.records.partition))
    }

    /// Looks, for each partition with something read, whether its requests can be told from those seen before.
    pub(super) async fn look_at_logs(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut partitions: Vec<TopicPartition> = self.read.iter().map(|read| read.records.partition.clone()).collect();
        partitions.sort();
        partitions.dedup();
        for partition in partitions {
            let Some(owned) = self.owned.get(&partition) else { continue };
            if owned.log_not_known.as_ref().is_some_and(|not_known| not_known.again > now) {
                continue;
            }
            let planner = &self.deps.planner;
            let known = match planner.is_known(&planner.homes_of_partition(partition.partition)).await {
                Err(Error::Unavailable(reason) | Error::Corrupt(reason)) => {
                    tracing::debug!(%partition, reason, "replay log not looked up in history");
                    false
                }
                other => other?,
            };
            if known {
                self.log_is_known(&partition);
            } else {
                self.log_is_not_known(&partition, now);
            }
        }
        Ok(())
    }

    /// A replay of this partition could not be looked up in history: the others go on without it for a while.
    pub(super) fn rest(&mut self, partition: i32) {
        let now = Instant::now();
        for (_, owned) in self.owned.iter_mut().filter(|(of, _)| of.partition == partition) {
            let not_known = owned.log_not_known.get_or_insert(LogNotKnown { since: now, again: now, alarmed: false });
            not_known.again = now + REST;
        }
    }

    fn log_is_not_known(&mut self, partition: &TopicPartition, now: Instant) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        let not_known = owned.log_not_known.get_or_insert(LogNotKnown { since: now, again: now, alarmed: false });
        not_known.again = now + LOOK_AGAIN;
        if !not_known.alarmed && now.duration_since(not_known.since) >= ALARM_AFTER {
            not_known.alarmed = true;
            self.alarm(partition, NOT_KNOWN);
            tracing::error!(
                %partition, log = self.settings.targets.log,
                "replay requests wait: what the log had before is neither in memory nor, yet, in history; see that role materialize reads it"
            );
        }
    }

    fn log_is_known(&mut self, partition: &TopicPartition) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        let Some(not_known) = owned.log_not_known.take() else { return };
        if not_known.alarmed {
            self.clear_alarm(partition, NOT_KNOWN);
        }
    }

    /// Of a partition of the log.
    pub(super) fn alarm(&self, partition: &TopicPartition, code: &str) {
        let labels = [self.settings.targets.log.as_str(), &partition.partition.to_string(), code];
        self.deps.metrics.partition_alarms.with_label_values(&labels).set(1);
    }

    pub(super) fn clear_alarm(&self, partition: &TopicPartition, code: &str) {
        let labels = [self.settings.targets.log.as_str(), &partition.partition.to_string(), code];
        // It is an error that there is none, and nothing else.
        let _ = self.deps.metrics.partition_alarms.remove_label_values(&labels);
    }
}
