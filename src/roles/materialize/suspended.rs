//! Which partition is folded next, and those that cannot go on: a store, the registry or a leader is away, or too much of what
//! they folded is not durable. They keep no room from the others.

use std::time::Instant;

use super::assign::HISTORY_CORRUPT;
use super::{MAX_NEXT_BYTES, MAX_NEXT_MEMBERS, Materialize, OwnedPartition};
use crate::error::{Error, Result};
use crate::kafka::record::PartitionRecords;
use crate::roles::suspension::Step;
use crate::saga::position::{Offset, TopicPartition};
use crate::schema_registry::lookups::SchemaLookup;
use crate::wire::avro::SchemaRef;

/// What came of a batch.
pub(super) enum Folded {
    All,
    /// This was too much for one fold, or must wait.
    Suspension(PartitionRecords),
    /// Nothing was applied.
    Waits(Waits),
}

/// What a partition waits for that goes on beside the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Of the record at this offset, the next.
    Schema(SchemaRef, Offset),
    /// The states of sagas.
    Load,
}

/// Has a partition room to fold more that holds `own` of `all` bytes that are not durable? A quarter of the limit is divided
/// among the partitions, so that one which cannot make anything durable leaves some to each other.
fn has_room(own: u64, all: u64, partitions: usize, limit: u64) -> bool {
    let divided = limit / 4;
    all < limit - divided || own < divided / partitions.max(1) as u64
}

/// The undurable bytes of all partitions, against their limit.
#[derive(Clone, Copy)]
struct Room {
    all: u64,
    partitions: usize,
    limit: u64,
}

impl Room {
    fn is_for(&self, owned: &OwnedPartition) -> bool {
        has_room(owned.partition.backlog_bytes(), self.all, self.partitions, self.limit)
    }
}

impl OwnedPartition {
    /// What it waits for has nothing to do with the other partitions.
    fn rests(&self, now: Instant) -> bool {
        self.sends.is_full() || now < self.not_before || self.waits.is_some()
    }
}

impl Materialize {
    fn room(&self) -> Room {
        let limit = self.settings.buffer_bytes.saturating_mul(2);
        Room { all: self.backlog_bytes(), partitions: self.owned.len(), limit }
    }

    pub(super) fn may_fold(&self) -> bool {
        let hot_has_room = |next: &super::HotWork| next.len() < MAX_NEXT_MEMBERS && next.bytes() < MAX_NEXT_BYTES;
        self.next.as_ref().is_none_or(hot_has_room) && self.next_to_fold().is_some()
    }

    /// Place of the batch that waits longest among those of partitions that can go on.
    fn next_to_fold(&self) -> Option<usize> {
        let (now, room) = (Instant::now(), self.room());
        let may_go = |owned: &OwnedPartition| !owned.rests(now) && room.is_for(owned);
        self.waiting.iter().position(|(records, _)| self.owned.get(&records.partition).is_none_or(may_go))
    }

    /// Folds that batch.
    pub(super) async fn fold_next(&mut self) -> Result<()> {
        let next = self.next_to_fold().and_then(|at| self.waiting.remove(at));
        let Some((records, held)) = next else { return Ok(()) };
        let partition = records.partition.clone();
        match self.fold(&records).await {
            Ok(Folded::Waits(waits)) => {
                // The same batch again, later, and before the partition's others.
                self.waiting.push_front((records, held));
                self.wait_for(&partition, waits);
            }
            Ok(folded) => {
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.loading.succeeded();
                    owned.rest.went_on();
                }
                if let Folded::Suspension(rest) = folded {
                    self.waiting.push_front((rest, held));
                }
            }
            Err(error) => {
                self.waiting.push_front((records, held));
                self.not_folded(&partition, error)?;
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, partition: &TopicPartition, waits: Waits) {
        if let Waits::Schema(schema, _) = waits {
            self.lookups.ask(schema);
        }
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.waits = Some(waits);
        }
        self.let_rest(Instant::now());
    }

    /// Nothing was applied: what waits of the partition is tried again later.
    pub(super) fn not_folded(&mut self, partition: &TopicPartition, error: Error) -> Result<()> {
        match error {
            Error::Unavailable(reason) => {
                if let Some(owned) = self.owned.get_mut(partition) {
                    owned.not_before = Instant::now() + owned.loading.failed(&reason);
                }
                self.let_rest(Instant::now());
            }
            // What is stored cannot be read: this partition would be folded wrongly, the others need not wait for it.
            Error::Corrupt(reason) => self.give_up(partition, HISTORY_CORRUPT, &reason),
            other => return Err(other),
        }
        Ok(())
    }

    /// Partitions that waited for a schema go on, or its records are given up.
    pub(super) fn looked_up(&mut self, (of, known): SchemaLookup) -> Result<()> {
        let waits_for_it = |owned: &OwnedPartition| matches!(owned.waits, Some(Waits::Schema(schema, _)) if schema == of);
        let partitions: Vec<TopicPartition> =
            self.owned.iter().filter(|(_, owned)| waits_for_it(owned)).map(|(partition, _)| partition.clone()).collect();
        for partition in partitions {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            let waits = owned.waits.take();
            match (&known, waits) {
                (Ok(false), Some(Waits::Schema(_, offset))) => owned.given_up = Some(offset),
                (Ok(_), _) => {}
                (Err(error), _) => self.not_folded(&partition, error.clone())?,
            }
        }
        Ok(())
    }

    /// Lets go of what cannot go on for longer than a moment, and reads on what can again.
    pub(super) fn let_rest(&mut self, now: Instant) {
        let room = self.room();
        // Where nobody has room nobody is kept from it.
        let some_have_room = self.owned.values().any(|owned| room.is_for(owned));
        for (partition, owned) in self.owned.iter_mut().filter(|(_, owned)| !owned.stopped) {
            let rests = owned.rests(now) || (some_have_room && !room.is_for(owned));
            let asked = match owned.rest.step(rests, now) {
                Step::Nothing => continue,
                Step::LetGo => self.intake.let_go(partition.clone()).map(|()| {
                    self.waiting.retain(|(records, _)| records.partition != *partition);
                    owned.rest.let_go(now);
                }),
                Step::ReadAgain => {
                    self.tickets += 1;
                    let ticket = self.tickets;
                    let from = owned.partition.position;
                    self.intake.read_again(partition.clone(), from, ticket).map(|()| owned.rest.asked(ticket))
                }
            };
            if let Err(reason) = asked {
                tracing::debug!(%partition, %reason, "intake not told of a partition that rests, trying again");
            }
        }
    }

    pub(super) fn reads_again(&mut self, partition: &TopicPartition, ticket: u64, outcome: Result<()>) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if owned.rest.answered(ticket, outcome.is_ok(), Instant::now())
            && let Err(reason) = outcome
        {
            tracing::warn!(%partition, %reason, "partition not read on, trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_makes_nothing_durable_leaves_room_to_each_other() {
        let (limit, partitions) = (1_200, 3);
        assert!(has_room(899, 899, partitions, limit), "alone it may have most");
        assert!(!has_room(900, 900, partitions, limit));
        // The others go on with their shares.
        assert!(has_room(99, 1_098, partitions, limit) && !has_room(100, 1_099, partitions, limit));
    }

    proptest::proptest! {
        #[test]
        fn all_together_stay_below_the_limit(steps in proptest::collection::vec((0_usize..5, 1_u64..50), 0..500)) {
            let (mut held, limit) = ([0_u64; 5], 1_000);
            for (partition, bytes) in steps {
                if has_room(held[partition], held.iter().sum(), held.len(), limit) {
                    held[partition] += bytes;
                }
            }
            // One batch of each may go over.
            proptest::prop_assert!(held.iter().sum::<u64>() < limit + 5 * 50);
        }
    }
}
