//! How many sagas of each batch are where: each counts once, by its newest replay of that batch. Fed with the records of the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::saga::batch_counts::{BatchCounts, ends_as_asked};
use crate::saga::lineage::Mode;
use crate::saga::position::SagaId;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::saga::time::Micros;

/// Sagas of all batches together, of some 150 bytes each; with more the batch that changed longest ago is forgotten.
const MAX_SAGAS: usize = 2_000_000;

#[derive(Default)]
pub(super) struct BatchTallies {
    of: HashMap<Arc<str>, Tally>,
    sagas: usize,
    changes: u64,
}

#[derive(Default)]
struct Tally {
    newest: HashMap<SagaId, NewestReplay>,
    counts: BatchCounts,
    /// By request id: the replays and undos of that request, by their ids, which are UUIDs.
    seen: HashMap<Box<str>, HashSet<u128>>,
    changed: u64,
}

struct NewestReplay {
    accepted_at: Micros,
    replay_id: Box<str>,
    status: ReplayStatus,
    is_as_asked: bool,
}

impl Tally {
    fn see(&mut self, record: &LogRecord) {
        let Ok(id) = Uuid::try_parse(&record.replay_id) else { return };
        match self.seen.get_mut(record.request_id.as_str()) {
            Some(seen) => drop(seen.insert(id.as_u128())),
            None => drop(self.seen.insert(record.request_id.as_str().into(), HashSet::from([id.as_u128()]))),
        }
    }

    fn put(&mut self, saga: &SagaId, record: &LogRecord) {
        if let Some(known) = self.newest.get(saga) {
            let is_newer = (record.accepted_at, record.replay_id.as_str()) >= (known.accepted_at, &*known.replay_id);
            if !is_newer {
                return;
            }
        }
        let wants_no_success = record.is_forced() || record.mode == Some(Mode::Compensate);
        let newest = NewestReplay {
            accepted_at: record.accepted_at,
            replay_id: record.replay_id.as_str().into(),
            status: record.status,
            is_as_asked: ends_as_asked(record.status, wants_no_success),
        };
        self.count(&newest, true);
        if let Some(before) = self.newest.insert(saga.clone(), newest) {
            self.count(&before, false);
        }
    }

    fn count(&mut self, replay: &NewestReplay, up: bool) {
        let change = |count: &mut u64| *count = if up { *count + 1 } else { count.saturating_sub(1) };
        if let Some(count) = self.counts.of_mut(replay.status) {
            change(count);
        }
        if replay.is_as_asked {
            change(&mut self.counts.ended_as_asked);
        }
    }
}

impl BatchTallies {
    pub fn put(&mut self, record: &LogRecord) {
        let (Some(batch_id), Some(saga)) = (&record.batch_id, &record.original_saga_id) else { return };
        let is_undo = record.command == CommandName::Undo;
        if record.dry_run || !(is_undo || record.command == CommandName::Replay) {
            return;
        }
        self.changes += 1;
        if !self.of.contains_key(batch_id.as_str()) {
            self.of.insert(batch_id.as_str().into(), Tally::default());
        }
        let Some(tally) = self.of.get_mut(batch_id.as_str()) else { return };
        tally.changed = self.changes;
        tally.see(record);
        if is_undo {
            return;
        }
        let before = tally.newest.len();
        tally.put(saga, record);
        self.sagas += tally.newest.len() - before;
        while self.sagas > MAX_SAGAS && self.of.len() > 1 {
            let Some(oldest) = self.of.iter().min_by_key(|(_, tally)| tally.changed).map(|(id, _)| id.clone()) else { break };
            self.sagas -= self.of.remove(&oldest).map_or(0, |tally| tally.newest.len());
        }
    }

    pub fn counts(&self, batch_id: &str) -> BatchCounts {
        self.of.get(batch_id).map(|tally| tally.counts).unwrap_or_default()
    }

    /// Replays, or undos, that the log has of this request.
    pub fn seen(&self, batch_id: &str, request_id: &str) -> u64 {
        self.of.get(batch_id).and_then(|tally| tally.seen.get(request_id)).map_or(0, HashSet::len) as u64
    }

    /// Sagas whose newest replay was refused or ended as a failure, by their ids, with that replay.
    pub fn failed(&self, batch_id: &str) -> Vec<(SagaId, String)> {
        self.those(batch_id, |newest| match newest.status {
            ReplayStatus::Refused | ReplayStatus::Failed => true,
            ReplayStatus::Compensated | ReplayStatus::SagaCancelled => !newest.is_as_asked,
            _ => false,
        })
    }

    /// Sagas whose newest replay can be undone.
    pub fn published(&self, batch_id: &str) -> Vec<(SagaId, String)> {
        let may_be_undone = |status| {
            matches!(
                status,
                ReplayStatus::Published | ReplayStatus::Completed | ReplayStatus::Failed | ReplayStatus::SagaCancelled
            )
        };
        self.those(batch_id, |newest| may_be_undone(newest.status))
    }

    fn those(&self, batch_id: &str, is_one: impl Fn(&NewestReplay) -> bool) -> Vec<(SagaId, String)> {
        let sagas = self.of.get(batch_id).into_iter().flat_map(|tally| &tally.newest);
        let mut those: Vec<(SagaId, String)> =
            sagas.filter(|(_, newest)| is_one(newest)).map(|(id, newest)| (id.clone(), newest.replay_id.to_string())).collect();
        those.sort_unstable();
        those
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::testing::log_record;

    /// A UUID for a short name.
    fn id(name: &str) -> String {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    fn record(name: &str, request: &str, saga: &str, at: i64, status: ReplayStatus) -> LogRecord {
        LogRecord { batch_id: Some("b".into()), request_id: request.into(), ..log_record(&id(name), saga, at, status) }
    }

    #[test]
    fn each_saga_counts_once_by_its_newest_replay() {
        let mut tallies = BatchTallies::default();
        tallies.put(&record("r1", "batch", "a", 1, ReplayStatus::Accepted));
        tallies.put(&record("r1", "batch", "a", 1, ReplayStatus::Published));
        tallies.put(&record("r2", "batch", "b", 1, ReplayStatus::Refused));
        tallies.put(&record("r1", "batch", "a", 1, ReplayStatus::Failed));
        let counts = tallies.counts("b");
        assert_eq!((counts.failed, counts.refused, counts.sum(), counts.failures()), (1, 1, 2, 2));
        assert_eq!(tallies.failed("b"), [("a".into(), id("r1")), ("b".into(), id("r2"))]);
        tallies.put(&record("r3", "retry", "a", 5, ReplayStatus::Completed));
        // Late news of a replay that another one followed.
        tallies.put(&record("r1", "batch", "a", 1, ReplayStatus::Compensated));
        let counts = tallies.counts("b");
        assert_eq!((counts.completed, counts.refused, counts.sum()), (1, 1, 2));
        assert_eq!(
            (tallies.seen("b", "batch"), tallies.seen("b", "retry"), tallies.sagas),
            (2, 1, 2),
            "also what was retried since"
        );
        assert_eq!(tallies.failed("b"), [("b".into(), id("r2"))]);
        assert_eq!(tallies.published("b"), [("a".into(), id("r3"))]);
        assert_eq!(tallies.counts("other"), BatchCounts::default());
    }

    #[test]
    fn what_was_asked_for_is_no_failure() {
        let mut tallies = BatchTallies::default();
        let forced = LogRecord { force_failure: Some("pay".into()), ..record("r1", "batch", "a", 1, ReplayStatus::Compensated) };
        tallies.put(&forced);
        tallies.put(&LogRecord { mode: Some(Mode::Compensate), ..record("r2", "batch", "b", 1, ReplayStatus::Compensated) });
        tallies.put(&record("r3", "batch", "c", 1, ReplayStatus::Compensated));
        tallies.put(&LogRecord { command: CommandName::Undo, ..record("u", "batch", "d", 1, ReplayStatus::Published) });
        let counts = tallies.counts("b");
        assert_eq!((counts.compensated, counts.ended_as_asked, counts.failures(), counts.sum()), (3, 2, 1, 3));
        assert_eq!(tallies.failed("b"), [("c".into(), id("r3"))]);
        assert_eq!(tallies.seen("b", "batch"), 4, "an undo is seen, and counts as no replay");
    }
}
