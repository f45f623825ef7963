//! Partitions whose requests cannot be taken up now: no schema, no leader, a log that is not known or not claimed. What waits of
//! them is dropped after a moment, and read again later, so that they keep no room from the others.

use std::time::Instant;

use super::{PARTITION_RESTS, Replay, ReplayPartition};
use crate::error::{Error, Result};
use crate::roles::suspension::Step;
use crate::saga::position::{Offset, TopicPartition};
use crate::schema_registry::lookups::SchemaLookup;
use crate::wire::avro::SchemaRef;

impl ReplayPartition {
    /// Does a record that comes now follow what came before?
    pub(super) fn follows(&self, offset: Offset) -> bool {
        self.rest.is_active() && (!self.cut_off || offset < self.next)
    }

    /// `claimed`: its log is somebody's.
    fn rests(&self, claimed: bool, now: Instant) -> bool {
        let log_rests = self.log_not_known.as_ref().is_some_and(|not_known| not_known.again > now);
        self.head_rests > now || (!claimed && self.claim_rests > now) || log_rests || self.waits_for.is_some()
    }
}

impl Replay {
    pub(super) fn is_given_up(&self, partition: &TopicPartition, offset: Offset, schema: SchemaRef) -> bool {
        let given_up = self.owned.get(partition).and_then(|owned| owned.given_up);
        given_up == Some(offset) || self.lookups.is_missing(schema)
    }

    pub(super) fn wait_for(&mut self, partition: &TopicPartition, schema: SchemaRef, offset: Offset) {
        self.lookups.ask(schema);
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.waits_for = Some((schema, offset));
        }
    }

    /// Partitions that waited for a schema go on, or the request is given up.
    pub(super) fn looked_up(&mut self, (of, known): SchemaLookup) -> Result<()> {
        let now = Instant::now();
        let again = match &known {
            Ok(_) => {
                self.asking.succeeded();
                now
            }
            Err(Error::Unavailable(reason)) => now + self.asking.failed(reason).max(PARTITION_RESTS),
            Err(other) => return Err(other.clone()),
        };
        for owned in self.owned.values_mut() {
            let Some((_, offset)) = owned.waits_for.take_if(|(schema, _)| *schema == of) else { continue };
            owned.head_rests = again;
            if known == Ok(false) {
                owned.given_up = Some(offset);
            }
        }
        Ok(())
    }

    /// Lets go of what cannot go on for longer than a moment, and reads on what can again.
    pub(super) async fn let_rest(&mut self) {
        // Nobody else looks while nothing is read.
        if self.writable.lacks_any() {
            self.see_leaders().await;
        }
        let (now, log) = (Instant::now(), &self.settings.targets.log);
        for (partition, owned) in &mut self.owned {
            let claimed = self.deps.planner.log.owner(partition.partition).is_some();
            let rests = owned.rests(claimed, now) || self.writable.lacks(log, partition.partition);
            let asked = match owned.rest.step(rests, now) {
                Step::Nothing => continue,
                Step::Suspend => self.intake.let_go(partition.clone()).map(|()| {
                    self.read.retain(|read| read.records.partition != *partition);
                    owned.rest.suspended(now);
                }),
                Step::Resume => {
                    self.tickets += 1;
                    let ticket = self.tickets;
                    self.intake.read_again(partition.clone(), owned.next, ticket).map(|()| owned.rest.resume_asked(ticket))
                }
            };
            if let Err(reason) = asked {
                tracing::debug!(%partition, %reason, "intake not told of a partition that rests, trying again");
            }
        }
    }

    pub(super) fn reads_again(&mut self, partition: &TopicPartition, ticket: u64, outcome: Result<()>) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if !owned.rest.resume_answered(ticket, outcome.is_ok(), Instant::now()) {
            return;
        }
        match outcome {
            Ok(()) => owned.cut_off = false,
            Err(reason) => tracing::warn!(%partition, %reason, "requests not read on, trying again"),
        }
    }
}
