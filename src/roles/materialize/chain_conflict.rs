//! The chain of a partition is not what was folded here, as another owner stored something else. The chain counts: what is not
//! durable is forgotten, in hot too, and the partition is assigned to this process once more.

use std::collections::HashMap;

use super::ownership::Ownership;
use super::partitions::Partitions;
use crate::kafka::intake::Intake;
use crate::saga::position::{ChainId, EntrySequence, Offset, TopicPartition};
use crate::telemetry::Metrics;

/// Times that a partition is folded again from the same offset: what was read from the chain itself contradicts it then.
const MAX_AT_ONE_OFFSET: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainConflict {
    /// A segment is stored in place of ours. `agrees`: see [`Appended`](crate::cold::chain::Appended).
    ForeignSegment { agrees: Option<bool> },
    /// The chain has this entry of a saga already, folded from more than was known here.
    EntryExists(EntrySequence),
}

impl ChainConflict {
    /// `durable`: the chain's end.
    pub fn report(self, chain: &ChainId, durable: Offset, metrics: &Metrics) {
        metrics.partitions_refolded.inc();
        tracing::warn!(%chain, durable = durable.0, conflict = ?self, "partition is folded again from what is durable");
        if self != (Self::ForeignSegment { agrees: None }) {
            metrics.integrity_failures.with_label_values(&["cold"]).inc();
            tracing::error!(
                %chain, durable = durable.0,
                "the stored segment has other entries for the same offsets: another version, other settings, or a schema registry \
                 that answered otherwise"
            );
        }
    }
}

/// Partitions that are folded again from what is durable.
#[derive(Default)]
pub struct Restarts {
    /// Where each was last folded again from, and how often from there.
    attempts: HashMap<TopicPartition, (Offset, u32)>,
    /// To be assigned again: the intake was not asked yet.
    pending: Vec<Ownership>,
}

impl Restarts {
    /// `false`: it was often enough here. `durable`: the chain's end.
    pub fn may_restart(&mut self, partition: &TopicPartition, durable: Offset) -> bool {
        let (at, times) = self.attempts.entry(partition.clone()).or_insert((durable, 0));
        *times = if *at == durable { *times + 1 } else { 1 };
        *at = durable;
        *times <= MAX_AT_ONE_OFFSET
    }

    /// Of a partition that is another's.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.attempts.remove(partition);
    }

    /// Hot vouches for nothing of these any more: they are to be assigned again.
    pub fn add(&mut self, partitions: Vec<Ownership>) {
        self.pending.extend(partitions);
    }

    /// Asks the intake to assign them again; those it cannot be asked for now stay.
    pub fn reassign(&mut self, partitions: &Partitions, intake: &Intake) {
        self.pending.retain(|of| partitions.is_current(of) && intake.reassign(of.partition.clone()).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_is_restarted_again_and_again_at_one_offset_is_corrupt() {
        let (mut restarts, [one, other]) = (Restarts::default(), [0, 1].map(|number| TopicPartition::new("t", number)));
        let allowed: Vec<bool> = (0..4).map(|_| restarts.may_restart(&one, Offset(5))).collect();
        assert_eq!(allowed, [true, true, true, false]);
        assert!(restarts.may_restart(&other, Offset(5)) && restarts.may_restart(&one, Offset(6)));
        assert!((0..2).all(|_| restarts.may_restart(&one, Offset(6))) && !restarts.may_restart(&one, Offset(6)));
        restarts.forget(&one);
        assert!(restarts.may_restart(&one, Offset(6)));
    }
}
