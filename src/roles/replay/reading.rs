//! What the intake reads: partitions that cannot go on (no schema, no leader, a log that is not known or not claimed) are let go of
//! after a moment, so that they keep no room from the others, and read again later; what was skipped is read once more.

use std::time::Instant;

use super::intake_events::ReadingEvent;
use super::queue::reading::ReadingOrder;
use super::runner::BatchRunner;
use crate::error::{Error, Result};
use crate::saga::position::TopicPartition;
use crate::schema_registry::lookups::SchemaLookup;

impl BatchRunner {
    /// What only adds to the queue.
    pub fn apply_reading(&mut self, event: ReadingEvent) {
        match event {
            ReadingEvent::Records(batch) => self.queue.add(batch),
            ReadingEvent::ReadsAgain { partition, ticket, outcome } => {
                self.queue.reads_again(&partition, ticket, outcome, (self.instant)());
            }
        }
    }

    /// What is done now and then, whatever else there is to do.
    pub async fn tend(&mut self) -> Result<()> {
        self.park_returned();
        self.suspend_and_resume().await;
        self.reassignment.tell_intake().await;
        self.reread_skipped().await
    }

    /// The log's topic had dropped them, and history has them.
    fn park_returned(&mut self) {
        let returned = self.facts.planner.records.log.waiting_restored();
        if returned != std::mem::replace(&mut self.returned, returned) {
            self.park_waiting();
        }
    }

    /// Lets go of what cannot go on for longer than a moment, and reads on what can again.
    async fn suspend_and_resume(&mut self) {
        // Nobody else looks while nothing is read.
        if self.writable.lacks_any() {
            self.writable.refresh().await;
        }
        let now = (self.instant)();
        let (claims, writable) = (&self.claims, &self.writable);
        let is_claimed = |number| claims.is_claimed(number);
        let orders = self.queue.suspension_orders(now, is_claimed, |number| writable.lacks_log(number));
        for (partition, order) in orders {
            if let Err(reason) = self.tell_intake(&partition, order, now) {
                tracing::debug!(%partition, %reason, "intake not told of a partition that rests, trying again");
            }
        }
    }

    /// Reads again what was skipped, where there is room now or its time has come.
    async fn reread_skipped(&mut self) -> Result<()> {
        let now = (self.instant)();
        for (partition, order) in self.queue.skipped_to_read((self.now)(), now) {
            let ReadingOrder::Rewind { to } = order else {
                // Where the intake cannot be told now it is told later.
                drop(self.tell_intake(&partition, order, now));
                continue;
            };
            match self.intake.seek(partition.clone(), to).await {
                // It goes to another member, which begins where we committed.
                Err(Error::Refused { .. }) | Ok(()) => {}
                Err(Error::Unavailable(reason)) => {
                    tracing::warn!(%partition, reason, "requests that were skipped not read again yet");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    fn tell_intake(&mut self, partition: &TopicPartition, order: ReadingOrder, now: Instant) -> Result<()> {
        match order {
            ReadingOrder::LetGo => self.intake.let_go(partition.clone())?,
            ReadingOrder::ReadAgain { from, ticket } => self.intake.read_again(partition.clone(), from, ticket)?,
            ReadingOrder::Rewind { .. } => {}
        }
        self.queue.intake_told(partition, order, now);
        Ok(())
    }

    /// Partitions that waited for a schema go on, or the request is given up.
    pub fn schema_looked_up(&mut self, answer: SchemaLookup) -> Result<()> {
        let answer = self.schema_waits.answered(answer, (self.instant)())?;
        self.queue.schema_looked_up(answer.schema, answer.is_missing, answer.again);
        Ok(())
    }
}
