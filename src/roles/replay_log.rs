//! The replay log in memory: every record still waiting, and the newest others up to a limit.
//!
//! A view of the log topic, fed by whoever reads it; knows nothing of Kafka. What it or the topic has dropped is still in
//! history (the log goes through the same hot and cold path as sagas).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{LogRecord, ReplayStatus};
use crate::saga::time::Micros;

/// Filters of `GET /v1/replays`. Empty lists and `None`: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    pub status: Vec<ReplayStatus>,
    /// Matches the original, the restored saga and `executed_as`.
    pub saga_id: Option<SagaId>,
    pub request_id: Option<String>,
    pub batch_id: Option<String>,
    pub requested_by: Option<String>,
    /// since <= accepted_at < until.
    pub since: Option<Micros>,
    pub until: Option<Micros>,
}

impl ReplayFilter {
    pub fn matches(&self, record: &LogRecord) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|wanted| value == Some(wanted));
        (self.status.is_empty() || self.status.contains(&record.status))
            && self.saga_id.as_ref().is_none_or(|id| sagas_of(record).any(|of| of == id))
            && is(&self.request_id, Some(&record.request_id))
            && is(&self.batch_id, record.batch_id.as_deref())
            && is(&self.requested_by, Some(&record.requested_by))
            && self.since.is_none_or(|since| record.accepted_at >= since)
            && self.until.is_none_or(|until| record.accepted_at < until)
    }
}

/// A place in the order of answers: newest `accepted_at` first, then by replay id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub accepted_at: Micros,
    pub replay_id: String,
}

#[derive(Default)]
struct Records {
    by_id: HashMap<String, Arc<LogRecord>>,
    by_saga: HashMap<SagaId, Vec<String>>,
    by_time: BTreeMap<Place, ()>,
    waiting: usize,
    /// Some record was dropped for the limit: what is not here may still exist.
    dropped: bool,
    /// The same, because the topic dropped it and history was not asked for all yet.
    topic_dropped: bool,
    positions: HashMap<i32, Offset>,
    /// Where each partition must have been read to before the view answers; `None`: not known yet.
    whole_from: Option<HashMap<i32, Offset>>,
}

/// The view. Cheap to share.
pub struct ReplayLog {
    records: RwLock<Records>,
    max_records: usize,
    changed: watch::Sender<u64>,
}

impl ReplayLog {
    /// `max_records`: how many records that no longer wait are kept; those that wait are always kept.
    pub fn new(max_records: usize) -> Self {
        Self { records: RwLock::default(), max_records, changed: watch::Sender::new(0) }
    }

    /// The records of a batch of one partition, and the reader's position after them.
    pub fn apply(&self, partition: i32, records: Vec<LogRecord>, position: Offset) {
        let mut inner = self.records.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            inner.put(record);
        }
        while inner.by_id.len() > self.max_records.saturating_add(inner.waiting) {
            if !inner.drop_oldest() {
                break;
            }
        }
        let reached = inner.positions.entry(partition).or_default();
        *reached = (*reached).max(position);
        drop(inner);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The topic has dropped records from its beginning (retention, DeleteRecords): what is not here may still exist.
    pub fn topic_has_dropped(&self) {
        self.records.write().unwrap_or_else(PoisonError::into_inner).topic_dropped = true;
    }

    /// All that the topic had dropped is here again.
    pub fn all_restored(&self) {
        self.records.write().unwrap_or_else(PoisonError::into_inner).topic_dropped = false;
    }

    /// A record that the topic has dropped, from history; whatever the topic gave is newer. `false`: the view is full.
    pub fn restore(&self, record: LogRecord) -> bool {
        let mut inner = self.records.write().unwrap_or_else(PoisonError::into_inner);
        if inner.by_id.len() >= self.max_records.saturating_add(inner.waiting) {
            return false;
        }
        if !inner.by_id.contains_key(&record.replay_id) {
            inner.put(record);
        }
        true
    }

    /// The ends of the topic's partitions when reading began.
    pub fn whole_from(&self, ends: impl IntoIterator<Item = (i32, Offset)>) {
        let mut inner = self.records.write().unwrap_or_else(PoisonError::into_inner);
        inner.whole_from = Some(ends.into_iter().collect());
    }

    /// Was the topic read to the ends that it had when reading began? Before that, what is not here may be in the topic.
    pub fn is_whole(&self) -> bool {
        let position = |inner: &Records, partition: i32| inner.positions.get(&partition).copied().unwrap_or_default();
        self.read(|inner| {
            let ends = inner.whole_from.as_ref();
            ends.is_some_and(|ends| ends.iter().all(|(partition, end)| position(inner, *partition) >= *end))
        })
    }

    /// Waits until the view [`is_whole`](Self::is_whole).
    pub async fn whole(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_whole() && changed.changed().await.is_ok() {}
    }

    /// Waits until the reader's position in the partition is at least `end`.
    pub async fn reached(&self, partition: i32, end: Offset) {
        let mut changed = self.changed.subscribe();
        loop {
            if self.position(partition) >= end || changed.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn position(&self, partition: i32) -> Offset {
        self.read(|inner| inner.positions.get(&partition).copied().unwrap_or_default())
    }

    pub fn get(&self, replay_id: &str) -> Option<Arc<LogRecord>> {
        self.read(|inner| inner.by_id.get(replay_id).cloned())
    }

    /// May a record that is not here exist all the same?
    pub fn has_dropped(&self) -> bool {
        self.read(|inner| inner.dropped || inner.topic_dropped)
    }

    /// Records that name the saga as original, restored saga or `executed_as`, newest first.
    pub fn of_saga(&self, saga: &SagaId) -> Vec<Arc<LogRecord>> {
        let mut found = self.read(|inner| {
            let ids = inner.by_saga.get(saga).map(Vec::as_slice).unwrap_or_default();
            ids.iter().filter_map(|id| inner.by_id.get(id).cloned()).collect::<Vec<_>>()
        });
        found.sort_by_key(|record| std::cmp::Reverse(place(record)));
        found
    }

    /// At most `limit` records that match, newest first, after `after`.
    pub fn find(&self, filter: &ReplayFilter, after: Option<&Place>, limit: usize) -> Vec<Arc<LogRecord>> {
        if let Some(saga) = &filter.saga_id {
            let of_saga = self.of_saga(saga).into_iter();
            return of_saga.filter(|r| filter.matches(r) && after.is_none_or(|after| place(r) < *after)).take(limit).collect();
        }
        self.read(|inner| {
            let places: Box<dyn Iterator<Item = &Place>> = match after {
                Some(after) => Box::new(inner.by_time.range(..after.clone()).rev().map(|(place, ())| place)),
                None => Box::new(inner.by_time.keys().rev()),
            };
            places
                .filter_map(|place| inner.by_id.get(&place.replay_id))
                .filter(|record| filter.matches(record))
                .take(limit)
                .cloned()
                .collect()
        })
    }

    /// Every record still waiting.
    pub fn waiting(&self) -> Vec<Arc<LogRecord>> {
        self.read(|inner| inner.by_id.values().filter(|r| r.status == ReplayStatus::Accepted).cloned().collect())
    }

    fn read<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.records.read().unwrap_or_else(PoisonError::into_inner))
    }
}

pub fn place(record: &LogRecord) -> Place {
    Place { accepted_at: record.accepted_at, replay_id: record.replay_id.clone() }
}

fn sagas_of(record: &LogRecord) -> impl Iterator<Item = &SagaId> {
    [&record.original_saga_id, &record.new_saga_id, &record.executed_as].into_iter().flatten()
}

impl Records {
    fn put(&mut self, record: LogRecord) {
        if let Some(old) = self.by_id.get(&record.replay_id).cloned() {
            self.remove(&old);
        }
        for saga in sagas_of(&record) {
            let ids = self.by_saga.entry(saga.clone()).or_default();
            if !ids.contains(&record.replay_id) {
                ids.push(record.replay_id.clone());
            }
        }
        self.waiting += usize::from(record.status == ReplayStatus::Accepted);
        self.by_time.insert(place(&record), ());
        self.by_id.insert(record.replay_id.clone(), Arc::new(record));
    }

    fn remove(&mut self, record: &LogRecord) {
        self.by_id.remove(&record.replay_id);
        self.by_time.remove(&place(record));
        self.waiting -= usize::from(record.status == ReplayStatus::Accepted);
        for saga in sagas_of(record) {
            if let Some(ids) = self.by_saga.get_mut(saga) {
                ids.retain(|id| *id != record.replay_id);
                if ids.is_empty() {
                    self.by_saga.remove(saga);
                }
            }
        }
    }

    /// Drops the oldest record that does not wait.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.by_time.keys().filter_map(|place| self.by_id.get(&place.replay_id));
        let Some(oldest) = oldest.into_iter().find(|r| r.status != ReplayStatus::Accepted).cloned() else { return false };
        self.remove(&oldest);
        self.dropped = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::testing::log_record as record;

    fn ids(found: &[Arc<LogRecord>]) -> Vec<&str> {
        found.iter().map(|r| r.replay_id.as_str()).collect()
    }

    #[test]
    fn a_newer_record_of_a_replay_replaces_the_older() {
        let log = ReplayLog::new(10);
        log.apply(0, vec![record("a", "s", 1, ReplayStatus::Accepted)], Offset(1));
        log.apply(0, vec![record("a", "s", 1, ReplayStatus::Published)], Offset(2));
        assert_eq!(log.get("a").map(|r| r.status), Some(ReplayStatus::Published));
        assert!(log.waiting().is_empty());
        assert_eq!(ids(&log.of_saga(&"s".into())), ["a"]);
        assert_eq!(ids(&log.of_saga(&"new of a".into())), ["a"]);
    }

    #[test]
    fn answers_are_newest_first_and_paged() {
        let log = ReplayLog::new(10);
        let records = (0..5).map(|i| record(&format!("r{i}"), "s", i, ReplayStatus::Refused)).collect();
        log.apply(0, records, Offset(5));
        let first = log.find(&ReplayFilter::default(), None, 2);
        assert_eq!(ids(&first), ["r4", "r3"]);
        let rest = log.find(&ReplayFilter::default(), Some(&place(&first[1])), 10);
        assert_eq!(ids(&rest), ["r2", "r1", "r0"]);
        let window = ReplayFilter { since: Some(Micros(1)), until: Some(Micros(3)), ..ReplayFilter::default() };
        assert_eq!(ids(&log.find(&window, None, 10)), ["r2", "r1"]);
    }

    #[test]
    fn over_the_limit_the_oldest_go_but_never_those_that_wait() {
        let log = ReplayLog::new(2);
        log.apply(0, vec![record("waits", "s", 0, ReplayStatus::Accepted)], Offset(1));
        log.apply(0, (1..6).map(|i| record(&format!("r{i}"), "s", i, ReplayStatus::Completed)).collect(), Offset(6));
        assert!(log.has_dropped());
        assert_eq!(ids(&log.find(&ReplayFilter::default(), None, 10)), ["r5", "r4", "waits"]);
        assert_eq!(ids(&log.waiting()), ["waits"]);
    }

    #[test]
    fn what_the_topic_dropped_is_taken_from_history_but_never_over_what_the_topic_gave() {
        let log = ReplayLog::new(2);
        assert!(!log.has_dropped());
        log.topic_has_dropped();
        assert!(log.has_dropped());
        log.apply(0, vec![record("a", "s", 5, ReplayStatus::Completed)], Offset(9));
        assert!(log.restore(record("a", "s", 5, ReplayStatus::Published)));
        assert_eq!(log.get("a").map(|r| r.status), Some(ReplayStatus::Completed));
        assert!(log.restore(record("b", "s", 4, ReplayStatus::Completed)));
        assert!(!log.restore(record("c", "s", 3, ReplayStatus::Completed)), "full: the newest stay");
        assert_eq!(ids(&log.of_saga(&"s".into())), ["a", "b"]);
        assert!(log.has_dropped());
        log.all_restored();
        assert!(!log.has_dropped());
    }

    #[test]
    fn the_view_is_whole_once_every_partition_is_read_to_where_it_ended() {
        let log = ReplayLog::new(2);
        assert!(!log.is_whole(), "nothing is known yet");
        log.whole_from([(0, Offset(0)), (1, Offset(3))]);
        assert!(!log.is_whole());
        log.apply(1, Vec::new(), Offset(2));
        assert!(!log.is_whole());
        log.apply(1, Vec::new(), Offset(3));
        assert!(log.is_whole());
    }

    #[tokio::test]
    async fn waiting_for_a_position_ends_when_it_is_reached() {
        let log = Arc::new(ReplayLog::new(2));
        let waiter = tokio::spawn({
            let log = log.clone();
            async move { log.reached(3, Offset(7)).await }
        });
        log.apply(3, Vec::new(), Offset(7));
        waiter.await.expect("reached");
    }
}
