//! The replay log in memory: every record still waiting, and the newest others up to a limit.
//!
//! A view of the log topic, fed by whoever reads it; knows nothing of Kafka. What it or the topic has dropped is still in
//! history (the log goes through the same hot and cold path as sagas): of each partition the view says up to which offset
//! history must be known before what is not here may be called new.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::batch_tallies::BatchTallies;
use super::order::{Place, place};
use super::owner::LogOwner;
use super::records::Records;
use super::schedule_tallies::ScheduleTallies;
use crate::saga::batch_counts::BatchCounts;
use crate::saga::position::{Offset, SagaId};
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::request::LogRecord;
use crate::saga::schedule::breaker::ScheduleTally;

/// Most replays of which a record that is not understood is remembered.
const MAX_NOT_UNDERSTOOD: usize = 10_000;

/// What became of a replay that still waits by what history has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// It is in the view, and waits.
    Waits,
    /// The topic has more of it, understood or not.
    Newer,
    /// The view has dropped something of its partition since history was asked.
    AskAgain,
}

/// Does a record of a replay tell more than one, in the place `unread`, that is not understood? Of records in two partitions (the
/// topics were given more) what was executed counts.
fn outdates(record: &LogRecord, at: (i32, Offset), unread: (i32, Offset)) -> bool {
    if at.0 == unread.0 { at.1 >= unread.1 } else { !record.dry_run && record.published_at.is_some() }
}

#[derive(Default)]
struct View {
    records: Records,
    tallies: BatchTallies,
    schedule_tallies: ScheduleTallies,
    positions: HashMap<i32, Offset>,
    /// Where each partition of the topic began.
    begins: HashMap<i32, Offset>,
    /// Of each partition the offset behind the last record that was dropped for the limit.
    dropped: HashMap<i32, Offset>,
    waiting_restored: u64,
    /// Replays of which the topic's newest record is not understood, and where such records are; none of them is in `records`.
    not_understood: HashMap<String, Vec<(i32, Offset)>>,
    /// Their newest records that are: what became of them since nobody knows.
    outdated: Records,
    /// Of each partition the last such record of a replay that is not remembered, for there are too many.
    forgotten: HashMap<i32, Offset>,
    /// Whose each partition is: of its newest record that says so.
    owners: HashMap<i32, LogOwner>,
    /// Where each partition that is read ended then.
    first_ends: HashMap<i32, Offset>,
    /// Where each partition must have been read to before the view answers; `None`: not known yet.
    initial_ends: Option<HashMap<i32, Offset>>,
}

/// The view. Cheap to share.
pub struct ReplayLog {
    view: RwLock<View>,
    max_records: usize,
    changed: watch::Sender<u64>,
}

impl ReplayLog {
    /// `max_records`: how many records that no longer wait are kept; those that wait are always kept.
    pub fn new(max_records: usize) -> Self {
        Self { view: RwLock::default(), max_records, changed: watch::Sender::new(0) }
    }

    /// The records of a batch of one partition with their offsets there, and the reader's position after them.
    pub fn apply(&self, partition: i32, records: Vec<(Offset, LogRecord)>, position: Offset) {
        self.write(|view| {
            for (offset, record) in records {
                view.put(record, (partition, offset));
            }
            while view.records.settled() > self.max_records {
                let Some((partition, offset)) = view.records.drop_oldest() else { break };
                let below = view.dropped.entry(partition).or_default();
                *below = (*below).max(offset.next());
            }
            let reached = view.positions.entry(partition).or_default();
            *reached = (*reached).max(position);
        });
        self.changed.send_modify(|version| *version += 1);
    }

    /// Records, in the order of the log, say whose the partition is. Before they are applied.
    pub fn owned_by(&self, partition: i32, owner: LogOwner) {
        if self.owner(partition).is_none_or(|known| known != owner && known.generation <= owner.generation) {
            self.write(|view| view.owners.insert(partition, owner));
        }
    }

    /// `None`: nobody has written to the partition.
    pub fn owner(&self, partition: i32) -> Option<LogOwner> {
        self.read(|view| view.owners.get(&partition).cloned())
    }

    /// The partition is read from now on, to this end at least, before what it has is known.
    pub fn start_reading(&self, partition: i32, end: Offset) {
        self.write(|view| view.first_ends.insert(partition, end));
    }

    /// Was it read to the end that it had when its reading began?
    pub fn is_read(&self, partition: i32) -> bool {
        self.read(|view| view.is_read(partition))
    }

    /// Everything that there ever was is here: whoever is not is new.
    pub fn has_everything(&self) -> bool {
        self.read(|view| {
            let read = |partition: &i32| view.is_read(*partition) && view.unknown_below(*partition) == Offset(0);
            let all_understood = view.not_understood.is_empty() && view.forgotten.is_empty();
            view.initial_ends.is_some() && all_understood && view.first_ends.keys().all(read)
        })
    }

    /// Of every partition that is somebody's.
    pub fn owners(&self) -> HashMap<i32, LogOwner> {
        self.read(|view| view.owners.clone())
    }

    /// The topic has a record of this replay that nobody understands: what became of it is not known, unless a newer one tells.
    pub fn mark_unreadable(&self, partition: i32, replay_id: &str, offset: Offset) {
        self.write(|view| {
            let at = (partition, offset);
            if view.records.kept(replay_id).is_some_and(|kept| outdates(&kept.record, kept.at, at)) {
                return;
            }
            if let Some(kept) = view.records.remove(replay_id).filter(|_| view.outdated.len() < MAX_NOT_UNDERSTOOD) {
                view.outdated.put(kept.record, kept.at);
            }
            let is_full = view.not_understood.len() >= MAX_NOT_UNDERSTOOD;
            match view.not_understood.get_mut(replay_id) {
                Some(unread) => match unread.iter_mut().find(|(of, _)| *of == partition) {
                    Some((_, last)) => *last = offset.max(*last),
                    None => unread.push(at),
                },
                None if is_full => drop(view.forgotten.insert(partition, offset)),
                None => drop(view.not_understood.insert(replay_id.to_owned(), vec![at])),
            }
        });
    }

    /// Where such a record of this replay is, or may be: too many are not remembered. `homes`: where its records may be; `None`:
    /// anywhere. `None`: there is none, or the view has a newer one.
    pub fn not_understood(&self, replay_id: &str, homes: Option<&[i32]>) -> Option<(i32, Offset)> {
        self.read(|view| view.not_understood(replay_id, homes))
    }

    /// Where one is that is not remembered, in these partitions.
    pub fn forgotten(&self, homes: &[i32]) -> Option<(i32, Offset)> {
        self.read(|view| view.forgotten(Some(homes)))
    }

    /// Replays that waited by their newest record that is understood: whether they still do nobody knows.
    pub fn may_wait(&self) -> Vec<Arc<LogRecord>> {
        self.read(|view| view.outdated.waiting().cloned().collect())
    }

    /// Below this offset the topic has dropped records (retention, DeleteRecords): they may still exist in history.
    pub fn set_topic_start(&self, partition: i32, earliest: Offset) {
        self.write(|view| view.begins.insert(partition, earliest));
    }

    /// A record that the topic has dropped, from history; whatever the topic gave is newer, understood or not. `false`: the view is
    /// full.
    pub fn restore(&self, record: LogRecord) -> bool {
        self.write(|view| {
            if view.records.settled() >= self.max_records {
                return false;
            }
            if !view.has_of(&record.replay_id) {
                let partition = record.position.partition;
                let below = view.begins.get(&partition).copied().unwrap_or_default();
                view.schedule_tallies.put(&record);
                view.tallies.put(&record);
                view.records.put(record, (partition, Offset((below.0 - 1).max(0))));
            }
            true
        })
    }

    /// One that still waits, by all that history has below `end`.
    pub fn restore_waiting(&self, record: LogRecord, end: Offset) -> RestoreOutcome {
        let restored = self.write(|view| {
            let partition = record.position.partition;
            if view.has_of(&record.replay_id) {
                return RestoreOutcome::Newer;
            }
            if view.unknown_below(partition) != end {
                return RestoreOutcome::AskAgain;
            }
            view.schedule_tallies.put(&record);
            view.tallies.put(&record);
            view.records.put(record, (partition, Offset((end.0 - 1).max(0))));
            view.waiting_restored += 1;
            RestoreOutcome::Waits
        });
        if restored == RestoreOutcome::Waits {
            self.changed.send_modify(|version| *version += 1);
        }
        restored
    }

    /// How many that wait came back from history so far.
    pub fn waiting_restored(&self) -> u64 {
        self.read(|view| view.waiting_restored)
    }

    /// Of the partition: the offset to which history must be known before a replay that is not here is said to be new.
    /// 0: all that there ever was is here.
    pub fn unknown_below(&self, partition: i32) -> Offset {
        self.read(|view| view.unknown_below(partition))
    }

    /// The same of every partition that has such an offset.
    pub fn all_unknown_below(&self) -> Vec<(i32, Offset)> {
        self.read(|view| {
            let mut partitions: Vec<i32> = view.begins.keys().chain(view.dropped.keys()).copied().collect();
            partitions.sort_unstable();
            partitions.dedup();
            let ends = partitions.into_iter().map(|partition| (partition, view.unknown_below(partition)));
            ends.filter(|(_, below)| below.0 > 0).collect()
        })
    }

    /// The ends of the topic's partitions when reading began.
    pub fn set_initial_ends(&self, ends: impl IntoIterator<Item = (i32, Offset)>) {
        let ends: HashMap<i32, Offset> = ends.into_iter().collect();
        self.write(|view| {
            view.first_ends.extend(&ends);
            view.initial_ends = Some(ends);
        });
    }

    /// Was the topic read to the ends that it had when reading began? Before that, what is not here may be in the topic.
    pub fn is_caught_up(&self) -> bool {
        self.read(|view| {
            let ends = view.initial_ends.as_ref();
            ends.is_some_and(|ends| ends.iter().all(|(partition, end)| view.position(*partition) >= *end))
        })
    }

    /// Waits until the view [`is_caught_up`](Self::is_caught_up).
    pub async fn whole(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_caught_up() && changed.changed().await.is_ok() {}
    }

    /// Waits until the reader's position in the partition is at least `end`.
    pub async fn reached(&self, partition: i32, end: Offset) {
        let mut changed = self.changed.subscribe();
        while self.position(partition) < end && changed.changed().await.is_ok() {}
    }

    /// Waits until there is an answer.
    pub async fn shown<T>(&self, look: impl Fn() -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(answer) = look() {
                return answer;
            }
            if changed.changed().await.is_err() {
                // The view itself is what changes: it outlives this wait.
                std::future::pending::<()>().await;
            }
        }
    }

    pub fn position(&self, partition: i32) -> Offset {
        self.read(|view| view.position(partition))
    }

    pub fn get(&self, replay_id: &str) -> Option<Arc<LogRecord>> {
        self.read(|view| view.records.get(replay_id).cloned())
    }

    /// Records that name the saga as original, restored saga or `executed_as`, newest first; behind them, of replays whose newest
    /// record is not understood, the ones before.
    pub fn of_saga(&self, saga: &SagaId) -> Vec<Arc<LogRecord>> {
        self.read(|view| view.of_saga(saga).cloned().collect())
    }

    /// The first answer that these records give, newest first: as many are looked at as it takes.
    pub fn newest_of<T>(&self, saga: &SagaId, look: impl FnMut(&Arc<LogRecord>) -> Option<T>) -> Option<T> {
        self.read(|view| view.of_saga(saga).find_map(look))
    }

    /// The first answer that the replays of this saga which [stand](LogRecord::stands) give, oldest first; behind them those that
    /// stood before a record that is not understood.
    pub fn standing_of<T>(&self, saga: &SagaId, look: impl FnMut(&Arc<LogRecord>) -> ControlFlow<T>) -> Option<T> {
        self.read(|view| {
            let mut standing = view.records.standing_of(saga).chain(view.outdated.standing_of(saga));
            standing.try_for_each(look).break_value()
        })
    }

    /// At most `limit` records that match, newest first, after `after`.
    pub fn find(&self, filter: &ReplayFilter, after: Option<&Place>, limit: usize) -> Vec<Arc<LogRecord>> {
        self.read(|view| {
            let records: Box<dyn Iterator<Item = &Arc<LogRecord>>> = match &filter.saga_id {
                Some(saga) => Box::new(view.records.of_saga(saga).filter(|r| after.is_none_or(|after| place(r) < *after))),
                None => Box::new(view.records.newest_first(after)),
            };
            records.filter(|record| filter.matches(record)).take(limit).cloned().collect()
        })
    }

    /// How many sagas of a batch are where, by the records that were seen.
    pub fn batch_counts(&self, batch_id: &str) -> BatchCounts {
        self.read(|view| view.tallies.counts(batch_id))
    }

    /// Replays, or undos, of the batch that the log has of this request.
    pub fn batch_seen(&self, batch_id: &str, request_id: &str) -> u64 {
        self.read(|view| view.tallies.seen(batch_id, request_id))
    }

    /// Sagas of the batch whose newest replay failed, with that replay.
    pub fn batch_failed(&self, batch_id: &str) -> Vec<(SagaId, String)> {
        self.read(|view| view.tallies.failed(batch_id))
    }

    /// The same of those whose newest replay was published and not undone.
    pub fn batch_published(&self, batch_id: &str) -> Vec<(SagaId, String)> {
        self.read(|view| view.tallies.published(batch_id))
    }

    /// The records of batches, newest first, after `after`.
    pub fn batches(&self, after: Option<&Place>) -> Vec<Arc<LogRecord>> {
        self.read(|view| view.records.batches(after).cloned().collect())
    }

    /// The records of schedules, newest first.
    pub fn schedules(&self) -> Vec<Arc<LogRecord>> {
        self.read(|view| view.records.schedules().cloned().collect())
    }

    /// What became of a schedule's requests, by the records that were seen.
    pub fn schedule_tally(&self, schedule_id: &str) -> ScheduleTally {
        self.read(|view| view.schedule_tallies.of(schedule_id))
    }

    /// Every record still waiting.
    pub fn waiting(&self) -> Vec<Arc<LogRecord>> {
        self.read(|view| view.records.waiting().cloned().collect())
    }

    fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl View {
    fn put(&mut self, record: LogRecord, at: (i32, Offset)) {
        self.schedule_tallies.put(&record);
        self.tallies.put(&record);
        if let Some(unread) = self.not_understood.get_mut(&record.replay_id) {
            unread.retain(|unread| !outdates(&record, at, *unread));
            if !unread.is_empty() {
                self.outdated.put(record, at);
                return;
            }
            self.not_understood.remove(&record.replay_id);
            self.outdated.remove(&record.replay_id);
        }
        self.records.put(record, at);
    }

    fn not_understood(&self, replay_id: &str, homes: Option<&[i32]>) -> Option<(i32, Offset)> {
        let unread = self.not_understood.get(replay_id).and_then(|unread| unread.first().copied());
        unread.or_else(|| self.forgotten(homes).filter(|_| self.records.get(replay_id).is_none()))
    }

    fn forgotten(&self, homes: Option<&[i32]>) -> Option<(i32, Offset)> {
        let is_home = |of: &i32| homes.is_none_or(|homes| homes.contains(of));
        self.forgotten.iter().find(|(of, _)| is_home(of)).map(|(of, offset)| (*of, *offset))
    }

    /// Has the topic given something of this replay, as far as that can be told?
    fn has_of(&self, replay_id: &str) -> bool {
        self.records.get(replay_id).is_some() || self.not_understood(replay_id, None).is_some()
    }

    fn of_saga(&self, saga: &SagaId) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.records.of_saga(saga).chain(self.outdated.of_saga(saga))
    }

    fn position(&self, partition: i32) -> Offset {
        self.positions.get(&partition).copied().unwrap_or_default()
    }

    fn is_read(&self, partition: i32) -> bool {
        self.first_ends.get(&partition).is_some_and(|end| self.position(partition) >= *end)
    }

    fn unknown_below(&self, partition: i32) -> Offset {
        let of = |ends: &HashMap<i32, Offset>| ends.get(&partition).copied().unwrap_or_default();
        of(&self.begins).max(of(&self.dropped))
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
