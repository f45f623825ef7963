//! What history has and cannot be read leaves that one request in the topic, or its saga's replays waiting, with an alarm,
//! and stops no other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::log_alarms::LogAlarms;
use crate::error::Error;
use crate::saga::position::{Position, Shown};
use crate::telemetry::Alarm;

/// A store may fail now and then; longer is an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(10);

/// Those for whom something in history cannot be read: replay ids or saga ids.
#[derive(Default)]
struct UnreadableHistory(HashMap<String, FailedRead>);

struct FailedRead {
    /// Of the log, where the requests are.
    partition: i32,
    since: Instant,
    alarmed: bool,
}

impl UnreadableHistory {
    /// It could not be read. `Some(true)`: from now on that is an alarm; `Some(false)`: it is one; `None`: not yet.
    fn failed(&mut self, whose: &str, partition: i32, corrupt: bool, now: Instant) -> Option<bool> {
        let failed_read = self.0.entry(whose.to_owned()).or_insert(FailedRead { partition, since: now, alarmed: false });
        let is_alarm = corrupt || failed_read.alarmed || now.duration_since(failed_read.since) >= ALARM_AFTER;
        let is_new = is_alarm && !failed_read.alarmed;
        failed_read.alarmed = is_alarm;
        is_alarm.then_some(is_new)
    }

    /// It was read. Gives the partition whose alarm ends with that.
    fn read(&mut self, whose: &str) -> Option<i32> {
        if self.0.is_empty() {
            return None;
        }
        let FailedRead { partition, alarmed, .. } = self.0.remove(whose)?;
        let others = self.0.values().any(|other| other.alarmed && other.partition == partition);
        (alarmed && !others).then_some(partition)
    }

    fn forget(&mut self, partition: i32) {
        self.0.retain(|_, failed_read| failed_read.partition != partition);
    }
}

/// [`UnreadableHistory`] with the alarms that it raises.
pub struct HistoryAlarms {
    unreadable: UnreadableHistory,
    alarms: LogAlarms,
}

impl HistoryAlarms {
    pub fn new(alarms: LogAlarms) -> Self {
        Self { unreadable: UnreadableHistory::default(), alarms }
    }

    /// What history has of the replay, or of the saga's replays, could not be read. `true`: no longer for a moment only, and an
    /// operator is told. `request`: who asked.
    pub fn failed(&mut self, whose: &str, request: &Position, error: &Error, now: Instant) -> bool {
        let corrupt = matches!(error, Error::Corrupt(_));
        let Some(is_new) = self.unreadable.failed(whose, request.partition, corrupt, now) else { return false };
        if is_new {
            self.alarms.raise(request.partition, Alarm::LogUnreadable);
            tracing::error!(
                topic = self.alarms.log(), partition = request.partition, request_offset = request.offset.0, whose = %Shown(whose), %error,
                "what history has of a replay cannot be read: its request, or its saga's replays, wait; put the object that the error \
                 names back from a copy of the archive, or delete what the hot store has under this id"
            );
        }
        true
    }

    pub fn read(&mut self, whose: &str) {
        if let Some(partition) = self.unreadable.read(whose) {
            self.alarms.clear(partition, Alarm::LogUnreadable);
        }
    }

    pub fn forget(&mut self, partition: i32) {
        self.unreadable.forget(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_of_a_partition_ends_with_the_last_of_it_that_can_be_read_again() {
        let (mut unread, start) = (UnreadableHistory::default(), Instant::now());
        let soon = start + Duration::from_secs(1);
        assert_eq!(unread.failed("r1", 3, false, start), None, "a store may fail now and then");
        assert_eq!(unread.failed("r1", 3, false, soon), None);
        assert_eq!(unread.read("r1"), None, "there was no alarm");
        assert_eq!(unread.failed("r1", 3, false, soon), None);
        assert_eq!(unread.failed("r1", 3, false, soon + ALARM_AFTER), Some(true));
        assert_eq!(unread.failed("r1", 3, false, soon + ALARM_AFTER), Some(false), "told once");
        assert_eq!(unread.failed("order-1", 3, true, soon), Some(true), "what is corrupt does not pass");
        assert_eq!(unread.failed("order-2", 3, false, soon), None);
        assert_eq!((unread.read("r1"), unread.read("r1")), (None, None), "another of it is an alarm still");
        assert_eq!(unread.read("order-1"), Some(3));
        unread.failed("r2", 4, true, soon);
        unread.forget(4);
        assert_eq!(unread.read("r2"), None);
    }
}
