//! The requests of the partitions that are ours: what is read, parked, skipped or suspended, and how many may go.
//!
//! Without I/O and without the log: the worker brings records in, asks what is to be decided next, what to tell the intake, and
//! says what was committed. Until then nothing of it changes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::item::{NextOffsets, RequestItem};
use super::parked::Parked;
use super::partition::PartitionQueue;
use super::rate_limiter::RateLimiter;
use super::read_records::{self, ReadRecords};
use super::skipped::SkippedChanges;
use crate::kafka::intake::MemoryPermit;
use crate::kafka::record::{PartitionRecords, Record};
use crate::roles::replay::catch_up::EndOffsets;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::time::Micros;

/// How long a partition lets the others go first after it could not go on.
pub const PARTITION_RESTS: Duration = Duration::from_millis(500);
/// Most sagas that are kept as just restored; with more, ends are asked again.
const MAX_JUST_RESTORED: usize = 10_000;
/// Between two looks at parked requests of which none could go.
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(50);
const MAX_LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at a saga whose history cannot be read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// When to look again, and the pause before that.
#[derive(Debug, Clone, Copy)]
struct NextLook {
    at: Instant,
    pause: Duration,
}

/// Records of one partition that may be decided now, and the ends known for them.
pub struct NextRecords {
    pub partition: TopicPartition,
    pub ends: Option<EndOffsets>,
    pub records: Vec<Record>,
}

pub struct RequestQueue {
    pub(super) partitions: HashMap<TopicPartition, PartitionQueue>,
    /// Records read and not yet done with.
    pub(super) read: VecDeque<ReadRecords>,
    /// Sagas that were restored since the ends were asked that records in `read` know.
    just_restored: HashSet<SagaId>,
    rate: RateLimiter,
    /// At what is parked: nothing of it could go.
    parked_look: NextLook,
    /// Sagas whose history could not be read last time.
    unreadable: HashMap<SagaId, NextLook>,
    /// Of the last order to read a partition again.
    pub(super) last_ticket: u64,
    /// Looks at parked requests so far.
    pub(super) looks: usize,
    /// Of one partition.
    pub(super) max_parked: usize,
}

impl RequestQueue {
    /// `rate`: replays a second; `None`: no limit.
    pub fn new(max_parked: usize, rate: Option<f64>, now: Instant) -> Self {
        Self {
            partitions: HashMap::new(),
            read: VecDeque::new(),
            just_restored: HashSet::new(),
            rate: RateLimiter::new(rate, now),
            parked_look: NextLook { at: now, pause: Duration::ZERO },
            unreadable: HashMap::new(),
            last_ticket: 0,
            looks: 0,
            max_parked,
        }
    }

    // Partitions.

    /// Reads this partition from this offset on.
    pub fn assign(&mut self, partition: TopicPartition, next: Offset, now: Instant) {
        self.partitions.insert(partition, PartitionQueue::new(next, now));
    }

    /// Forgets these partitions and all that was read of them.
    pub fn remove(&mut self, partitions: &[TopicPartition]) {
        self.read.retain(|read| !partitions.contains(&read.records.partition));
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    pub fn has_partition(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    pub fn next_offset(&self, partition: &TopicPartition) -> Offset {
        self.partitions.get(partition).map(|queue| queue.next).unwrap_or_default()
    }

    /// All that waits here, for the metrics: parked and skipped requests, and batches of records.
    pub fn waiting(&self) -> usize {
        self.partitions.values().map(|queue| queue.parked.len() + queue.skipped.len()).sum::<usize>() + self.read.len()
    }

    // What was read.

    pub fn add(&mut self, batch: Vec<(PartitionRecords, MemoryPermit)>) {
        for (mut records, permit) in batch {
            // Of a partition that was given back, or is not read from where it stands, something may still be on its way, from
            // before where it will begin again.
            let Some(queue) = self.partitions.get(&records.partition) else { continue };
            records.records.retain(|record| queue.follows(record.offset));
            if !records.records.is_empty() {
                read_records::put(&mut self.read, records, Arc::new(permit));
            }
        }
    }

    pub fn has_read(&self) -> bool {
        !self.read.is_empty()
    }

    /// Is there something read that can be decided now?
    pub fn may_take_up(&self, now: Instant) -> bool {
        self.read.iter().any(|read| self.partitions.get(&read.records.partition).is_none_or(|queue| !queue.log_rests(now)))
    }

    /// The partitions with something read of which the log may be looked at now.
    pub fn partitions_to_look_up(&self, now: Instant) -> Vec<TopicPartition> {
        let may_be = |of: &TopicPartition| self.partitions.get(of).is_some_and(|queue| !queue.log_rests(now));
        let read = self.read.iter().map(|read| &read.records.partition);
        let mut partitions: Vec<TopicPartition> = read.filter(|of| may_be(of)).cloned().collect();
        partitions.sort();
        partitions.dedup();
        partitions
    }

    /// `true`: an alarm ends with that.
    pub fn log_is_known(&mut self, partition: &TopicPartition) -> bool {
        self.partitions.get_mut(partition).is_some_and(PartitionQueue::log_is_known)
    }

    /// `true`: from now on that is an alarm.
    pub fn log_is_not_known(&mut self, partition: &TopicPartition, now: Instant) -> bool {
        self.partitions.get_mut(partition).is_some_and(|queue| queue.log_is_not_known(now))
    }

    /// A replay of these partitions could not be looked up in the log: the others go on without them for a while.
    pub fn log_look_up_failed(&mut self, numbers: &[i32], now: Instant) {
        let failed = self.partitions.iter_mut().filter(|(of, _)| numbers.contains(&of.partition));
        failed.for_each(|(_, queue)| queue.log_look_up_failed(now));
    }

    /// Records that may be decided, at most `limit`, without removing them: they go when the transaction is committed. `behind`:
    /// the next offsets of a batch that is being committed; then only those whose ends are known: those of now take in what it writes.
    /// `may_be`: of which partitions.
    pub fn next_records(
        &self,
        limit: usize,
        behind: Option<&NextOffsets>,
        now: Instant,
        may_be: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<NextRecords> {
        let mut left = limit;
        let mut chosen = Vec::new();
        for ReadRecords { records, ends, .. } in &self.read {
            if behind.is_some() && ends.is_none() {
                break;
            }
            let queue = self.partitions.get(&records.partition).filter(|queue| queue.may_be_read(now));
            let Some(queue) = queue.filter(|_| may_be(&records.partition)) else { continue };
            let next = behind.and_then(|offsets| offsets.get(&records.partition)).copied();
            let wanted = |record: &&Record| match next {
                Some(next) => record.offset >= next,
                None => queue.wants(record.offset),
            };
            let some: Vec<Record> = records.records.iter().filter(wanted).take(left).cloned().collect();
            left -= some.len();
            if !some.is_empty() {
                chosen.push(NextRecords { partition: records.partition.clone(), ends: ends.clone(), records: some });
            }
            if left == 0 {
                break;
            }
        }
        chosen
    }

    /// The next records of these partitions cannot be decided now: the next batches have room for others.
    pub fn rest_heads(&mut self, partitions: &[TopicPartition], now: Instant) {
        for partition in partitions {
            if let Some(queue) = self.partitions.get_mut(partition) {
                queue.head_rests = now + PARTITION_RESTS;
            }
        }
    }

    /// Records that were looked at are done with.
    pub fn drop_done(&mut self) {
        let partitions = &mut self.partitions;
        self.read.retain_mut(|read| match partitions.get_mut(&read.records.partition) {
            Some(queue) => {
                let is_new = |record: &Record| record.offset >= queue.next;
                queue.cut_off |= queue.skipped.is_full() && read.records.records.iter().any(is_new);
                read.records.records.retain(|record| queue.wants(record.offset));
                !read.records.records.is_empty()
            }
            None => false,
        });
        if self.read.is_empty() || self.just_restored.len() > MAX_JUST_RESTORED {
            self.forget_ends();
        }
    }

    // Ends of the events topics.

    /// Was something read behind these offsets for which no ends were asked yet?
    pub fn needs_ends(&self, behind: &NextOffsets) -> bool {
        self.read.iter().any(|read| read.ends.is_none() && read.behind(behind).next().is_some())
    }

    /// What was read so far was recorded before these ends were asked: its batches need not ask again, and need not wait for
    /// what the batches before them write.
    pub fn know_ends(&mut self, ends: &EndOffsets) {
        for read in &mut self.read {
            read.ends.get_or_insert_with(|| ends.clone());
        }
    }

    /// Ends are asked again for all that is read.
    pub fn forget_ends(&mut self) {
        self.just_restored.clear();
        self.read.iter_mut().for_each(|read| read.ends = None);
    }

    /// Sagas whose histories begin with a transaction that is being committed.
    pub fn restored(&mut self, sagas: impl Iterator<Item = SagaId>) {
        self.just_restored.extend(sagas);
    }

    pub fn just_restored(&self) -> &HashSet<SagaId> {
        &self.just_restored
    }

    // What is parked.

    pub fn is_anything_due(&self, now: Micros) -> bool {
        self.partitions.values().any(|queue| queue.parked.is_due(now))
    }

    /// Is it time to look at parked requests, and may one go?
    pub fn may_look_at_parked(&mut self, now: Instant) -> bool {
        now >= self.parked_look.at && self.rate.allows(now) > 0
    }

    /// Parked requests whose time has come, with the next offsets of their partitions. `may_be`: of which partitions.
    pub fn take_due(
        &mut self,
        now: Micros,
        limit: usize,
        instant: Instant,
        may_be: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(RequestItem, Offset)> {
        let share = (limit / self.partitions.len().max(1)).max(1);
        let unreadable = &self.unreadable;
        let rests = |saga: &SagaId| unreadable.get(saga).is_some_and(|look| look.at > instant);
        // Another one first each time, should there be more partitions than room.
        let mut partitions: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        partitions.sort_unstable();
        let first = self.looks % partitions.len().max(1);
        partitions.rotate_left(first);
        self.looks = self.looks.wrapping_add(1);
        let mut taken = Vec::new();
        for partition in partitions.iter().filter(|of| may_be(of)) {
            let Some(queue) = self.partitions.get_mut(partition) else { continue };
            let due = queue.parked.due(now, share.min(limit.saturating_sub(taken.len())));
            for parked in due.into_iter().filter(|parked| !rests(&parked.saga_id)) {
                let item = RequestItem {
                    request: parked.request.clone(),
                    partition: partition.clone(),
                    record: parked.record.clone(),
                    trace: parked.trace.clone(),
                    ends: parked.ends.clone(),
                    undoes: None,
                    parked: Some(parked),
                };
                taken.push((item, queue.next));
            }
        }
        taken
    }

    /// Where nothing of what is parked could go, the next look is later each time: it asks both stores.
    pub fn looked_at_parked(&mut self, some_went: bool, now: Instant) {
        let look = &mut self.parked_look;
        if some_went {
            look.pause = Duration::ZERO;
        } else {
            look.pause = (look.pause * 2).clamp(FIRST_LOOK_PAUSE, MAX_LOOK_PAUSE);
            look.at = now + look.pause;
        }
    }

    /// Those that may go first next time are the same that came first now.
    pub fn look_from_the_first(&mut self) {
        self.partitions.values_mut().for_each(|queue| queue.parked.look_from_the_first());
    }

    pub fn is_parked(&self, number: i32, replay_id: &str) -> bool {
        self.of_number(number).is_some_and(|queue| queue.parked.contains(replay_id))
    }

    pub fn has_number(&self, number: i32) -> bool {
        self.of_number(number).is_some()
    }

    pub fn partition_of_number(&self, number: i32) -> Option<TopicPartition> {
        self.partitions.keys().find(|partition| partition.partition == number).cloned()
    }

    fn of_number(&self, number: i32) -> Option<&PartitionQueue> {
        self.partitions.iter().find(|(partition, _)| partition.partition == number).map(|(_, queue)| queue)
    }

    pub(super) fn of_number_mut(&mut self, number: i32) -> Option<&mut PartitionQueue> {
        self.partitions.iter_mut().find(|(partition, _)| partition.partition == number).map(|(_, queue)| queue)
    }

    /// Parks a request in the partition where it was recorded.
    pub fn park(&mut self, parked: Parked) {
        if let Some(queue) = self.of_number_mut(parked.record.position.partition) {
            queue.parked.insert(parked);
        }
    }

    pub fn remove_parked(&mut self, partition: &TopicPartition, replay_id: &str) {
        if let Some(queue) = self.partitions.get_mut(partition) {
            queue.parked.remove(replay_id);
        }
    }

    /// What waits for this schedule is looked at now.
    pub fn hasten(&mut self, schedule_id: &str) {
        let hastened = self.partitions.values_mut().map(|queue| queue.parked.hasten(schedule_id)).sum::<usize>();
        if hastened > 0 {
            self.parked_look.at = Instant::now();
        }
    }

    /// Keeps the ends of a take-up, so that later events do not make it wait longer.
    pub fn keep_ends(&mut self, partition: &TopicPartition, replay_id: &str, ends: &EndOffsets) {
        if let Some(queue) = self.partitions.get_mut(partition) {
            queue.parked.keep_ends(replay_id, ends);
        }
    }

    /// Does a parked request of the saga wait whose time has come?
    pub fn blocks(&self, partition: &TopicPartition, saga: &SagaId, now: Micros) -> bool {
        self.partitions.get(partition).is_some_and(|queue| queue.parked.blocks(saga, now))
    }

    /// May this request be parked, where the batch already parks `also` others of its partition?
    pub fn may_park(&self, partition: &TopicPartition, replay_id: &str, also: usize) -> bool {
        let queue = self.partitions.get(partition);
        queue.is_some_and(|queue| queue.parked.len() + also < self.max_parked || queue.skipped.is_wanted(replay_id))
    }

    // How many may go.

    pub fn is_limited(&self) -> bool {
        self.rate.is_limited()
    }

    /// Replays that may go now.
    pub fn rate_allows(&mut self, now: Instant) -> usize {
        self.rate.allows(now)
    }

    /// One goes, if one may.
    pub fn take_rate(&mut self, now: Instant) -> bool {
        self.rate.take(now)
    }

    /// The saga's history could not be read: its replays wait, longer each time. `true`: for the first time.
    pub fn saga_is_unreadable(&mut self, saga: &SagaId, now: Instant) -> bool {
        let before = self.unreadable.get(saga);
        let pause = before.map_or(FIRST_PAUSE, |look| (look.pause * 2).min(MAX_PAUSE));
        self.unreadable.insert(saga.clone(), NextLook { at: now + pause, pause }).is_none()
    }

    pub fn saga_is_readable(&mut self, saga: &SagaId) {
        self.unreadable.remove(saga);
    }

    pub fn forget_unreadable(&mut self) {
        self.unreadable.clear();
    }

    // What is skipped.

    /// Was an earlier request of the saga skipped whose time has come, that is not looked at again in this batch?
    pub fn follows_skipped(&self, item: &RequestItem, saga: &SagaId, now: Micros, changes: &SkippedChanges) -> bool {
        let none = HashSet::new();
        let done = changes.looked_again.get(&item.partition).unwrap_or(&none);
        let queue = self.partitions.get(&item.partition);
        queue.is_some_and(|queue| queue.skipped.precedes(saga, item.record.position.offset, now, done))
    }

    pub fn is_skipped(&self, partition: &TopicPartition, replay_id: &str) -> bool {
        self.partitions.get(partition).is_some_and(|queue| queue.skipped.has(replay_id))
    }

    // The batch behind one that is being committed, and the commit.

    /// Does nothing wait whose order a batch behind another would have to keep?
    pub fn nothing_waits(&self, now: Micros) -> bool {
        self.partitions.values().all(|queue| queue.skipped.is_empty()) && !self.is_anything_due(now)
    }

    /// Are there as many records behind these offsets whose ends are known?
    pub fn has_behind(&self, offsets: &NextOffsets, enough: usize) -> bool {
        let known = self.read.iter().filter(|read| read.ends.is_some()).flat_map(|read| read.behind(offsets));
        known.take(enough).count() == enough
    }
}
