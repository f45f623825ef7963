//! Records that were read and are not folded yet: which partition's are folded next, and which partitions are not read for now as they
//! cannot go on. A store, the registry or a leader is away, or too much of what they folded is not durable: they keep no room from
//! the others.

use std::collections::VecDeque;
use std::time::Instant;

use super::partitions::{OwnedPartition, Partitions};
use crate::error::Result;
use crate::kafka::intake::{Intake, MemoryPermit};
use crate::kafka::record::PartitionRecords;
use crate::roles::suspension::Step;
use crate::saga::position::{Offset, TopicPartition};

/// Records of one partition, with the memory that the intake counts for them.
pub type QueuedRecords = (PartitionRecords, MemoryPermit);

/// The undurable bytes of all partitions, against their limit.
#[derive(Clone, Copy)]
struct BufferRoom {
    all: u64,
    partitions: usize,
    limit: u64,
}

impl BufferRoom {
    /// May a partition fold more that holds `own` bytes that are not durable? A quarter of the limit is divided among the
    /// partitions, so that one which cannot make anything durable leaves some to each other.
    fn is_for(self, own: u64) -> bool {
        let divided = self.limit / 4;
        self.all < self.limit - divided || own < divided / self.partitions.max(1) as u64
    }
}

pub struct FoldQueue {
    /// The intake bounds their bytes.
    waiting: VecDeque<QueuedRecords>,
    intake: Intake,
    /// Undurable bytes of all partitions.
    max_undurable: u64,
    /// Of the last order to read a partition again.
    last_ticket: u64,
}

impl FoldQueue {
    pub fn new(intake: Intake, max_undurable: u64) -> Self {
        Self { waiting: VecDeque::new(), intake, max_undurable, last_ticket: 0 }
    }

    /// Of a partition that is not read from where it stands they were on their way, and come again.
    pub fn push(&mut self, batch: Vec<QueuedRecords>, partitions: &Partitions) {
        for (records, permit) in batch {
            if partitions.get(&records.partition).is_some_and(|owned| owned.gate.takes_records()) {
                self.waiting.push_back((records, permit));
            }
        }
    }

    /// It could not be folded, or not all of it: before the partition's others.
    pub fn put_back(&mut self, waiting: QueuedRecords) {
        self.waiting.push_front(waiting);
    }

    pub fn remove(&mut self, partitions: &[TopicPartition]) {
        self.waiting.retain(|(records, _)| !partitions.contains(&records.partition));
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// A position that was reached behind records which still wait counts once they are folded. `false`: nothing of the partition
    /// waits.
    pub fn move_position(&mut self, partition: &TopicPartition, position: Offset) -> bool {
        move_waiting_position(&mut self.waiting, partition, position)
    }

    pub fn has_next(&self, partitions: &Partitions) -> bool {
        self.next_place(partitions).is_some()
    }

    /// The batch that waits longest among those of partitions that can go on.
    pub fn take_next(&mut self, partitions: &Partitions) -> Option<QueuedRecords> {
        self.next_place(partitions).and_then(|at| self.waiting.remove(at))
    }

    fn next_place(&self, partitions: &Partitions) -> Option<usize> {
        let (now, room) = (Instant::now(), self.room(partitions));
        let may_go = |owned: &OwnedPartition| !owned.is_waiting(now) && room.is_for(owned.partition.backlog_bytes());
        self.waiting.iter().position(|(records, _)| partitions.get(&records.partition).is_none_or(may_go))
    }

    fn room(&self, partitions: &Partitions) -> BufferRoom {
        BufferRoom { all: partitions.backlog_bytes(), partitions: partitions.len(), limit: self.max_undurable }
    }

    /// Reads partitions no further that cannot go on for longer than a moment, and reads on those that can again.
    pub fn suspend_and_resume(&mut self, partitions: &mut Partitions, now: Instant) {
        let room = self.room(partitions);
        // Where nobody has room nobody is kept from it.
        let some_have_room = partitions.values().any(|owned| room.is_for(owned.partition.backlog_bytes()));
        for (partition, owned) in partitions.iter_mut().filter(|(_, owned)| !owned.gate.is_stopped()) {
            let lacks_room = some_have_room && !room.is_for(owned.partition.backlog_bytes());
            let cannot_go_on = owned.is_waiting(now) || lacks_room;
            let suspension = &mut owned.gate.suspension;
            let asked = match suspension.step(cannot_go_on, now) {
                Step::Nothing => continue,
                Step::Suspend => self.intake.let_go(partition.clone()).map(|()| {
                    self.waiting.retain(|(records, _)| records.partition != *partition);
                    suspension.suspended(now);
                }),
                Step::Resume => {
                    self.last_ticket += 1;
                    let (from, ticket) = (owned.partition.position, self.last_ticket);
                    self.intake.read_again(partition.clone(), from, ticket).map(|()| suspension.resume_asked(ticket))
                }
            };
            if let Err(reason) = asked {
                tracing::debug!(%partition, %reason, "intake cannot be asked to suspend or resume a partition, trying again");
            }
        }
    }

    /// The intake reads a partition again, or could not.
    pub fn resumed(owned: &mut OwnedPartition, partition: &TopicPartition, ticket: u64, outcome: Result<()>) {
        if owned.gate.suspension.resume_answered(ticket, outcome.is_ok(), Instant::now())
            && let Err(reason) = outcome
        {
            tracing::warn!(%partition, %reason, "partition not read on, trying again");
        }
    }
}

/// The intake says it only once, and it passes control records that no record follows.
fn move_waiting_position<P>(waiting: &mut VecDeque<(PartitionRecords, P)>, partition: &TopicPartition, position: Offset) -> bool {
    let last = waiting.iter_mut().rev().map(|(records, _)| records).find(|records| records.partition == *partition);
    if let Some(records) = last {
        records.position = records.position.max(position);
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::broker_clock::Stamp;

    fn is_room(own: u64, all: u64, partitions: usize, limit: u64) -> bool {
        BufferRoom { all, partitions, limit }.is_for(own)
    }

    fn records(partition: i32, position: i64) -> (PartitionRecords, ()) {
        let partition = TopicPartition::new("events", partition);
        (
            PartitionRecords {
                partition,
                records: Vec::new(),
                position: Offset(position),
                leader_epoch: None,
                stamp: Stamp::Producer,
            },
            (),
        )
    }

    #[test]
    fn an_end_reached_behind_records_that_wait_is_not_forgotten() {
        let mut waiting: VecDeque<_> = [records(0, 5), records(1, 7), records(0, 9)].into();
        assert!(move_waiting_position(&mut waiting, &TopicPartition::new("events", 0), Offset(10)));
        let positions: Vec<i64> = waiting.iter().map(|(records, ())| records.position.0).collect();
        assert_eq!(positions, [5, 7, 10], "the last batch of the partition ends behind the control record");
        assert!(!move_waiting_position(&mut waiting, &TopicPartition::new("events", 2), Offset(3)));
    }

    #[test]
    fn a_partition_that_makes_nothing_durable_leaves_room_to_each_other() {
        assert!(is_room(899, 899, 3, 1_200), "alone it may have most");
        assert!(!is_room(900, 900, 3, 1_200));
        // The others go on with their shares.
        assert!(is_room(99, 1_098, 3, 1_200) && !is_room(100, 1_099, 3, 1_200));
    }

    proptest::proptest! {
        #[test]
        fn all_together_stay_below_the_limit(steps in proptest::collection::vec((0_usize..5, 1_u64..50), 0..500)) {
            let (mut held, limit) = ([0_u64; 5], 1_000);
            for (partition, bytes) in steps {
                if is_room(held[partition], held.iter().sum(), held.len(), limit) {
                    held[partition] += bytes;
                }
            }
            // One batch of each may go over.
            proptest::prop_assert!(held.iter().sum::<u64>() < limit + 5 * 50);
        }
    }
}
