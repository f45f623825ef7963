//! What the intake is to be told: partitions that cannot go on are let go of and read again later, and what was skipped is
//! read once more.

use std::time::Instant;

use super::requests::RequestQueue;
use crate::error::Result;
use crate::roles::suspension::Step;
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::time::Micros;
use crate::wire::avro::SchemaRef;

/// What the intake is to be told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingOrder {
    /// Not to read it for now.
    LetGo,
    /// To read it from this offset on; the answer has this ticket.
    ReadAgain { from: Offset, ticket: u64 },
    /// To give once more what was skipped, from this offset on.
    Rewind { to: Offset },
}

impl RequestQueue {
    /// What was skipped and is to be read again: there is room now, or its time has come.
    pub fn skipped_to_read(&mut self, now: Micros, instant: Instant) -> Vec<(TopicPartition, ReadingOrder)> {
        let mut orders = Vec::new();
        for (partition, queue) in &mut self.partitions {
            // What cannot go on is not read at all.
            if !queue.suspension.is_active() {
                continue;
            }
            let room = self.max_parked.saturating_sub(queue.parked.len());
            if let Some(to) = queue.skipped.look_again(room, now, queue.next, instant) {
                orders.push((partition.clone(), ReadingOrder::Rewind { to }));
            } else if queue.cut_off && !queue.skipped.is_full() && !queue.skipped.is_read_again() {
                // Behind the answer comes what follows: until then it is cut off.
                self.last_ticket += 1;
                orders.push((partition.clone(), ReadingOrder::ReadAgain { from: queue.next, ticket: self.last_ticket }));
            }
        }
        orders
    }

    /// What the intake is to be told of partitions that cannot go on for longer than a moment, or can again. `is_claimed`: its log
    /// has an owner; `lacks_leader`: its log has no leader.
    pub fn suspension_orders(
        &mut self,
        now: Instant,
        is_claimed: impl Fn(i32) -> bool,
        lacks_leader: impl Fn(i32) -> bool,
    ) -> Vec<(TopicPartition, ReadingOrder)> {
        let mut orders = Vec::new();
        for (partition, queue) in &mut self.partitions {
            let number = partition.partition;
            let rests = queue.rests(is_claimed(number), now) || lacks_leader(number);
            let order = match queue.suspension.step(rests, now) {
                Step::Nothing => continue,
                Step::Suspend => ReadingOrder::LetGo,
                Step::Resume => {
                    self.last_ticket += 1;
                    ReadingOrder::ReadAgain { from: queue.next, ticket: self.last_ticket }
                }
            };
            orders.push((partition.clone(), order));
        }
        orders
    }

    /// The intake was told.
    pub fn intake_told(&mut self, partition: &TopicPartition, order: ReadingOrder, now: Instant) {
        let Some(queue) = self.partitions.get_mut(partition) else { return };
        match order {
            ReadingOrder::LetGo => {
                queue.suspension.suspended(now);
                self.read.retain(|read| read.records.partition != *partition);
            }
            ReadingOrder::ReadAgain { ticket, .. } => queue.suspension.resume_asked(ticket),
            ReadingOrder::Rewind { .. } => {}
        }
    }

    /// The intake's answer to [`ReadingOrder::ReadAgain`].
    pub fn reads_again(&mut self, partition: &TopicPartition, ticket: u64, outcome: Result<()>, now: Instant) {
        let Some(queue) = self.partitions.get_mut(partition) else { return };
        if !queue.suspension.resume_answered(ticket, outcome.is_ok(), now) {
            return;
        }
        match outcome {
            Ok(()) => queue.cut_off = false,
            Err(reason) => tracing::warn!(%partition, %reason, "requests not read on, trying again"),
        }
    }

    /// The schema of the record at this offset was looked up, and there is none.
    pub fn has_no_schema(&self, partition: &TopicPartition, offset: Offset) -> bool {
        self.partitions.get(partition).is_some_and(|queue| queue.given_up == Some(offset))
    }

    pub fn wait_for_schema(&mut self, partition: &TopicPartition, schema: SchemaRef, offset: Offset) {
        if let Some(queue) = self.partitions.get_mut(partition) {
            queue.waits_for = Some((schema, offset));
        }
    }

    /// Partitions that waited for a schema go on at `again`, or (`is_missing`) the request is given up.
    pub fn schema_looked_up(&mut self, schema: SchemaRef, is_missing: bool, again: Instant) {
        for queue in self.partitions.values_mut() {
            let Some((_, offset)) = queue.waits_for.take_if(|(waits_for, _)| *waits_for == schema) else { continue };
            queue.head_rests = again;
            if is_missing {
                queue.given_up = Some(offset);
            }
        }
    }

    /// Partitions with something to do whose log may be claimed. `may_be`: it is unclaimed and can be written. Another one first each
    /// time.
    pub fn claimable(&self, now: Micros, instant: Instant, may_be: impl Fn(i32) -> bool) -> Vec<TopicPartition> {
        let is_read = |partition: &TopicPartition| self.read.iter().any(|read| read.records.partition == *partition);
        let with_work = self.partitions.iter().filter(|(partition, queue)| {
            may_be(partition.partition)
                && queue.claim_rests <= instant
                && (queue.parked.is_due(now) || (queue.may_be_read(instant) && is_read(partition)))
        });
        let mut claimable: Vec<TopicPartition> = with_work.map(|(partition, _)| partition.clone()).collect();
        let first = self.looks % claimable.len().max(1);
        claimable.rotate_left(first);
        claimable
    }

    pub fn rest_claims_until(&mut self, partitions: &[TopicPartition], until: Instant) {
        for partition in partitions {
            if let Some(queue) = self.partitions.get_mut(partition) {
                queue.claim_rests = until;
            }
        }
    }
}
