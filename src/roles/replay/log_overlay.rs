//! Log records that the view of the log may not have yet.

use std::collections::HashMap;
use std::sync::Arc;

use crate::saga::position::SagaId;
use crate::saga::request::LogRecord;

/// Log records that this process committed or is about to commit and that the view may not have yet: the newest of each
/// replay.
#[derive(Default)]
pub struct UnappliedRecords {
    by_id: HashMap<String, Arc<LogRecord>>,
    /// Replays of a saga, and those that make it.
    by_saga: HashMap<SagaId, Vec<String>>,
}

fn sagas(record: &LogRecord) -> impl Iterator<Item = &SagaId> {
    let made = record.new_saga_id.as_ref().filter(|made| record.original_saga_id.as_ref() != Some(*made));
    record.original_saga_id.iter().chain(made)
}

impl UnappliedRecords {
    pub fn insert(&mut self, record: Arc<LogRecord>) {
        for saga in sagas(&record) {
            let ids = self.by_saga.entry(saga.clone()).or_default();
            if !ids.contains(&record.replay_id) {
                ids.push(record.replay_id.clone());
            }
        }
        self.by_id.insert(record.replay_id.clone(), record);
    }

    pub fn get(&self, replay_id: &str) -> Option<&Arc<LogRecord>> {
        self.by_id.get(replay_id)
    }

    pub fn retain(&mut self, keep: impl Fn(&LogRecord) -> bool) {
        self.by_id.retain(|_, record| keep(record));
        let by_id = &self.by_id;
        self.by_saga.retain(|_, ids| {
            ids.retain(|id| by_id.contains_key(id));
            !ids.is_empty()
        });
    }

    pub fn records(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.by_id.values()
    }

    pub fn into_records(self) -> impl Iterator<Item = Arc<LogRecord>> {
        self.by_id.into_values()
    }

    /// A record can have another saga than the one before it of the same replay had.
    fn of_saga(&self, saga: &SagaId) -> impl Iterator<Item = &Arc<LogRecord>> {
        let ids = self.by_saga.get(saga).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.by_id.get(id)).filter(move |record| sagas(record).any(|of| of == saga))
    }
}

/// What this process knows of the log before the view of the log does.
#[derive(Default)]
pub struct UnappliedLog {
    /// Log records of the transaction that is being committed.
    pub committing: UnappliedRecords,
    /// Committed by this process; the view of the log follows.
    pub committed: UnappliedRecords,
}

impl UnappliedLog {
    /// As a batch that decides more sees it: `decided` is what it has so far.
    pub fn with<'a>(&'a self, decided: &'a UnappliedRecords) -> LogOverlay<'a> {
        LogOverlay([Some(decided), Some(&self.committing), Some(&self.committed)])
    }

    pub fn overlay(&self) -> LogOverlay<'_> {
        LogOverlay([None, Some(&self.committing), Some(&self.committed)])
    }
}

/// What is newer than the view of the log, newest first.
#[derive(Clone, Copy, Default)]
pub struct LogOverlay<'a>([Option<&'a UnappliedRecords>; 3]);

impl<'a> LogOverlay<'a> {
    pub fn of(records: &'a UnappliedRecords) -> Self {
        Self([Some(records), None, None])
    }

    pub fn get(self, replay_id: &str) -> Option<&'a Arc<LogRecord>> {
        self.0.into_iter().flatten().find_map(|records| records.get(replay_id))
    }

    /// The newest of each replay of a saga, or that makes it.
    pub fn of_saga(self, saga: &SagaId) -> impl Iterator<Item = &'a Arc<LogRecord>> {
        let newest = move |at: usize, id: &str| !self.0[..at].iter().flatten().any(|newer| newer.get(id).is_some());
        let all = self.0.into_iter().enumerate().filter_map(|(at, records)| Some((at, records?)));
        let all = all.flat_map(move |(at, records)| records.of_saga(saga).map(move |record| (at, record)));
        all.filter(move |(at, record)| newest(*at, &record.replay_id)).map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::request::ReplayStatus;
    use crate::saga::testing::log_record;

    fn record(id: &str, saga: &str, made: &str, status: ReplayStatus) -> Arc<LogRecord> {
        Arc::new(LogRecord { new_saga_id: Some(made.into()), ..log_record(id, saga, 0, status) })
    }

    fn ids(log_overlay: LogOverlay<'_>, saga: &str) -> Vec<(String, ReplayStatus)> {
        let mut ids: Vec<_> = log_overlay.of_saga(&SagaId::from(saga)).map(|r| (r.replay_id.clone(), r.status)).collect();
        ids.sort_by(|a, b| a.0.cmp(&b.0));
        ids
    }

    #[test]
    fn a_saga_has_the_newest_records_of_its_replays_and_of_the_one_that_made_it() {
        let (mut older, mut newer) = (UnappliedRecords::default(), UnappliedRecords::default());
        older.insert(record("r1", "a", "b", ReplayStatus::Accepted));
        older.insert(record("r2", "b", "c", ReplayStatus::Accepted));
        newer.insert(record("r1", "a", "b", ReplayStatus::Published));
        assert_eq!(
            ids(LogOverlay([Some(&newer), Some(&older), None]), "b"),
            [("r1".into(), ReplayStatus::Published), ("r2".into(), ReplayStatus::Accepted)]
        );
        assert_eq!(ids(LogOverlay([Some(&newer), Some(&older), None]), "a"), [("r1".into(), ReplayStatus::Published)]);
        newer.retain(|record| record.replay_id != "r1");
        assert!(newer.by_id.is_empty() && newer.by_saga.is_empty());
        older.insert(record("r1", "a", "d", ReplayStatus::Accepted));
        assert_eq!(ids(LogOverlay::of(&older), "b"), [("r2".into(), ReplayStatus::Accepted)], "r1 makes another now");
    }
}
