//! The intake's events, in their order, also while partitions are being assigned: then one is looked for that ends it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::error::Result;
use crate::kafka::intake::{IntakeEvent, MemoryPermit};
use crate::kafka::record::PartitionRecords;
use crate::saga::position::TopicPartition;

/// Most events that are kept while partitions are assigned; the bytes of records are bounded besides.
const MAX_WAITING_EVENTS: usize = 1_024;

fn ends_an_assignment(event: &IntakeEvent) -> bool {
    matches!(event, IntakeEvent::Revoked { .. } | IntakeEvent::Failed(_))
}

pub struct IntakeEvents {
    receiver: mpsc::Receiver<IntakeEvent>,
    /// Received already, and next.
    waiting: VecDeque<IntakeEvent>,
}

/// An event that only adds to what is read.
pub enum ReadingEvent {
    Records(Vec<(PartitionRecords, MemoryPermit)>),
    ReadsAgain { partition: TopicPartition, ticket: u64, outcome: Result<()> },
}

impl IntakeEvents {
    pub fn new(receiver: mpsc::Receiver<IntakeEvent>) -> Self {
        Self { receiver, waiting: VecDeque::new() }
    }

    /// Does nothing wait that is to be looked at?
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next event; `None`: the intake has ended.
    pub async fn next(&mut self) -> Option<IntakeEvent> {
        match self.waiting.pop_front() {
            Some(event) => Some(event),
            None => self.receiver.recv().await,
        }
    }

    /// What the intake read meanwhile, up to an event of another kind that is to be looked at.
    pub fn try_reading(&mut self) -> Option<ReadingEvent> {
        while self.waiting.is_empty()
            && let Ok(event) = self.receiver.try_recv()
        {
            match event {
                IntakeEvent::Records { batch } => return Some(ReadingEvent::Records(batch)),
                IntakeEvent::ReadsAgain { partition, ticket, outcome } => {
                    return Some(ReadingEvent::ReadsAgain { partition, ticket, outcome });
                }
                IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
                other => self.waiting.push_back(other),
            }
        }
        None
    }

    /// Ends when partitions are taken away, an event that waits then, behind those before it; at once, where one waits already.
    pub async fn revoked(&mut self) {
        if self.waiting.iter().any(ends_an_assignment) {
            return;
        }
        while self.waiting.len() < MAX_WAITING_EVENTS
            && let Some(event) = self.receiver.recv().await
        {
            let is_urgent = ends_an_assignment(&event);
            self.waiting.push_back(event);
            if is_urgent {
                return;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Error;
    use crate::saga::position::Offset;

    #[test]
    fn what_came_before_an_assignment_ends_it_as_what_comes_meanwhile() {
        let partition = TopicPartition::new("requests", 0);
        let revocation =
            || IntakeEvent::Revoked { partitions: vec![partition.clone()], lost: false, reply: oneshot::channel().0 };
        let calm = || IntakeEvent::ReachedEnd { partition: partition.clone(), position: Offset(0) };
        for urgent in [revocation(), IntakeEvent::Failed(Error::unavailable("gone"))] {
            let mut events = IntakeEvents { waiting: [calm(), urgent].into(), ..IntakeEvents::new(mpsc::channel(4).1) };
            assert_eq!(events.revoked().now_or_never(), Some(()), "it came before");
            assert_eq!(events.waiting.len(), 2, "and is looked at in its turn");
        }
        let (sender, receiver) = mpsc::channel(4);
        let mut events = IntakeEvents { waiting: [calm()].into(), ..IntakeEvents::new(receiver) };
        assert_eq!(events.revoked().now_or_never(), None);
        sender.try_send(calm()).expect("room");
        sender.try_send(revocation()).expect("room");
        assert_eq!(events.revoked().now_or_never(), Some(()));
        assert_eq!(events.waiting.len(), 3);
    }
}
