//! What became of the replays that each schedule asked for. Fed with the records of the log.

use std::collections::HashMap;

use uuid::Uuid;

use crate::saga::log_record::{CommandName, LogRecord, ReplayStatus};
use crate::saga::schedule::breaker::ScheduleTally;
use crate::saga::time::Micros;

/// Replays of all schedules together, of some 100 bytes each; more are not counted.
const MAX_REPLAYS: usize = 2_000_000;

#[derive(Default)]
pub(super) struct ScheduleTallies {
    of: HashMap<Box<str>, HashMap<u128, CountedReplay>>,
    replays: usize,
}

struct CountedReplay {
    status: ReplayStatus,
    /// When its restored saga ended, and whether it completed.
    end: Option<(Micros, bool)>,
}

impl ScheduleTallies {
    pub fn put(&mut self, record: &LogRecord) {
        let Some(schedule_id) = &record.schedule_id else { return };
        let Ok(id) = Uuid::try_parse(&record.replay_id) else { return };
        if record.command != CommandName::Replay || record.dry_run {
            return;
        }
        let ended = record.ended_at.zip(record.outcome.as_deref());
        let end = ended.map(|(at, outcome)| (at, outcome == ReplayStatus::Completed.as_str()));
        let is_full = self.replays >= MAX_REPLAYS;
        let of_schedule = self.of.entry(schedule_id.as_str().into()).or_default();
        if is_full && !of_schedule.contains_key(&id.as_u128()) {
            return;
        }
        if of_schedule.insert(id.as_u128(), CountedReplay { status: record.status, end }).is_none() {
            self.replays += 1;
        }
    }

    pub fn of(&self, schedule_id: &str) -> ScheduleTally {
        let mut tally = ScheduleTally::default();
        for replay in self.of.get(schedule_id).into_iter().flat_map(HashMap::values) {
            if let Some(count) = tally.counts.of_mut(replay.status) {
                *count += 1;
            }
            tally.ends.extend(replay.end);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::testing::log_record;

    #[test]
    fn each_replay_of_a_schedule_counts_once_as_it_stands_now() {
        let id = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string();
        let record = |name, status| LogRecord { schedule_id: Some("s".into()), ..log_record(&id(name), "a", 1, status) };
        let mut tallies = ScheduleTallies::default();
        tallies.put(&record("r1", ReplayStatus::Accepted));
        tallies.put(&record("r1", ReplayStatus::Published));
        let failed =
            |name, status| LogRecord { outcome: Some("failed".into()), ended_at: Some(Micros(9)), ..record(name, status) };
        tallies.put(&failed("r2", ReplayStatus::Failed));
        tallies.put(&failed("r3", ReplayStatus::Undone));
        tallies.put(&LogRecord { schedule_id: None, ..record("r4", ReplayStatus::Published) });
        let tally = tallies.of("s");
        assert_eq!((tally.counts.published, tally.counts.failed, tally.counts.undone, tally.counts.sum()), (1, 1, 1, 3));
        assert_eq!(tally.ends, [(Micros(9), false); 2], "what was undone ended before as it did");
        assert_eq!(tallies.of("other"), ScheduleTally::default());
    }
}
