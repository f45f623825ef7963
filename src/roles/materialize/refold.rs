//! Beginning anew with a partition: what is durable is not what was folded here, as another owner stored something else. The chain
//! counts: what is not durable is forgotten, in hot too, and the partition is assigned to this process once more.

use std::collections::HashMap;

use super::Materialize;
use super::hot_writer::HotWork;
use crate::error::Result;
use crate::saga::position::{EntrySequence, Offset, TopicPartition};

/// Times that a partition begins anew at the same offset: what was read from the chain itself contradicts it then.
const MAX_AT_ONE_OFFSET: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// In place of ours. `agrees`: see [`Appended`](crate::cold::chain::Appended).
    Stored { agrees: Option<bool> },
    /// The chain has this entry of a saga already, folded from more than was known here.
    Already(EntrySequence),
}

/// Where partitions of this process last began anew, and how often there.
#[derive(Default)]
pub(super) struct Refusals(HashMap<TopicPartition, (Offset, u32)>);

impl Refusals {
    /// `false`: it was often enough here.
    fn may_refold(&mut self, partition: &TopicPartition, durable: Offset) -> bool {
        let (at, times) = self.0.entry(partition.clone()).or_insert((durable, 0));
        *times = if *at == durable { *times + 1 } else { 1 };
        *at = durable;
        *times <= MAX_AT_ONE_OFFSET
    }

    pub fn forget(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }
}

impl Materialize {
    /// `durable`: the chain's end.
    pub(super) fn refold(&mut self, partition: &TopicPartition, durable: Offset, why: Why) -> Result<()> {
        if let Why::Already(sequence) = why
            && !self.refusals.may_refold(partition, durable)
        {
            let sequence = sequence.0;
            let reason = format!(
                "append at {durable}: the chain has entry {sequence} of a saga already, folded otherwise; and again, anew"
            );
            return self.flush_refused(partition, &reason);
        }
        let Some(owned) = self.owned.get_mut(partition) else { return Ok(()) };
        tracing::warn!(chain = %owned.partition.chain, durable = durable.0, ?why, "partition is folded anew from what is durable");
        if why != (Why::Stored { agrees: None }) {
            self.deps.metrics.integrity_failures.with_label_values(&["cold"]).inc();
            tracing::error!(
                chain = %owned.partition.chain, durable = durable.0,
                "the stored segment has other entries for the same offsets: another version, other settings, or a schema registry \
                 that answered otherwise"
            );
        }
        self.deps.metrics.partitions_refolded.inc();
        owned.partition.durable = durable;
        owned.writer = None;
        self.stop_reading(partition);
        let Some(owned) = self.owned.get_mut(partition) else { return Ok(()) };
        let generation = owned.generation;
        let forget = owned.partition.disown();
        owned.mark_is_to_be_checked();
        let refolds = vec![(partition.clone(), generation)];
        self.queue_hot(HotWork { forget, refolds, ..HotWork::default() });
        Ok(())
    }

    /// Hot vouches for nothing of theirs any more.
    pub(super) fn reassign(&mut self, partitions: Vec<(TopicPartition, u64)>) {
        self.anew.extend(partitions);
        let (owned, intake) = (&self.owned, &self.intake);
        self.anew.retain(|(partition, generation)| {
            let is_ours = owned.get(partition).is_some_and(|owned| owned.generation == *generation);
            is_ours && intake.reassign(partition.clone()).is_err()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_begins_anew_again_and_again_at_one_offset_is_corrupt() {
        let (mut refusals, [one, other]) = (Refusals::default(), [0, 1].map(|number| TopicPartition::new("t", number)));
        let begun: Vec<bool> = (0..4).map(|_| refusals.may_refold(&one, Offset(5))).collect();
        assert_eq!(begun, [true, true, true, false]);
        assert!(refusals.may_refold(&other, Offset(5)) && refusals.may_refold(&one, Offset(6)));
        assert!((0..2).all(|_| refusals.may_refold(&one, Offset(6))) && !refusals.may_refold(&one, Offset(6)));
        refusals.forget(&one);
        assert!(refusals.may_refold(&one, Offset(6)));
    }
}
