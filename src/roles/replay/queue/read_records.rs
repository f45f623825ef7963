//! What was read of the requests topic and is not done with. Of each partition in the order of the topic, each record once:
//! what was skipped is read again, and so is what comes behind it. Data only.

use std::collections::VecDeque;
use std::sync::Arc;

use super::item::NextOffsets;
use crate::kafka::intake::MemoryPermit;
use crate::kafka::record::{PartitionRecords, Record};
use crate::roles::replay::catch_up::EndOffsets;
use crate::saga::position::{Offset, TopicPartition};

/// Records of one partition, and the ends of the events topics at a moment after they were read. `H`: what counts them as held.
pub(super) struct ReadRecords<H = MemoryPermit> {
    pub records: PartitionRecords,
    /// `None`: not asked yet.
    pub ends: Option<EndOffsets>,
    _held: Vec<Arc<H>>,
}

impl<H> ReadRecords<H> {
    /// Records at or behind these next offsets.
    pub fn behind(&self, offsets: &NextOffsets) -> impl Iterator<Item = &Record> {
        let next = offsets.get(&self.records.partition).copied().unwrap_or(Offset(0));
        self.records.records.iter().filter(move |record| record.offset >= next)
    }

    fn is_of(&self, partition: &TopicPartition) -> bool {
        self.records.partition == *partition
    }
}

/// Behind what is there; among it, where they overlap.
pub(super) fn put<H>(queue: &mut VecDeque<ReadRecords<H>>, records: PartitionRecords, held: Arc<H>) {
    let Some(first) = records.records.first().map(|record| record.offset) else { return };
    let partition = records.partition.clone();
    let last = |read: &ReadRecords<H>| read.records.records.last().map(|record| record.offset);
    let is_behind = queue.iter().filter(|read| read.is_of(&partition)).all(|read| last(read) < Some(first));
    let mut new = ReadRecords { records, ends: None, _held: vec![held] };
    if !is_behind {
        // Their ends are asked again: of two moments the later one does for all.
        queue.retain_mut(|read| {
            let other = !read.is_of(&partition);
            if !other {
                new.records.records.append(&mut read.records.records);
                new._held.append(&mut read._held);
            }
            other
        });
        new.records.records.sort_by_key(|record| record.offset);
        new.records.records.dedup_by_key(|record| record.offset);
    }
    queue.push_back(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::broker_clock::Stamp;
    use crate::saga::time::Micros;

    fn records(partition: i32, offsets: &[i64]) -> PartitionRecords {
        let record = |offset: &i64| Record {
            offset: Offset(*offset),
            timestamp: Micros(0),
            by_broker: true,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        PartitionRecords {
            partition: TopicPartition::new("requests", partition),
            records: offsets.iter().map(record).collect(),
            position: Offset(offsets.last().map_or(0, |last| last + 1)),
            leader_epoch: None,
            stamp: Stamp::Producer,
        }
    }

    #[test]
    fn what_is_read_again_comes_in_its_place_and_nothing_comes_twice() {
        let (mut queue, held) = (VecDeque::new(), Arc::new(()));
        for (partition, offsets) in
            [(0, &[7, 8][..]), (1, &[3]), (0, &[10, 11]), (0, &[2, 5, 7, 8, 10, 11, 12]), (1, &[4]), (0, &[])]
        {
            put(&mut queue, records(partition, offsets), held.clone());
        }
        let order: Vec<(i32, Vec<i64>)> = queue
            .iter()
            .map(|read| (read.records.partition.partition, read.records.records.iter().map(|record| record.offset.0).collect()))
            .collect();
        assert_eq!(order, [(1, vec![3]), (0, vec![2, 5, 7, 8, 10, 11, 12]), (1, vec![4])]);
        assert_eq!(Arc::strong_count(&held), 1 + 5, "all that was held still is");
        let second = queue.get(1).expect("merged");
        assert_eq!(second.behind(&[(second.records.partition.clone(), Offset(8))].into()).count(), 4);
    }
}
