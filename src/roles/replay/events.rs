//! The intake's events, in their order, also while partitions are being assigned: then one is looked for that ends it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::kafka::intake::IntakeEvent;

/// Most events that are kept while partitions are assigned; the bytes of records are bounded besides.
const MAX_WAITING_EVENTS: usize = 1_024;

fn ends_an_assignment(event: &IntakeEvent) -> bool {
    matches!(event, IntakeEvent::Revoked { .. } | IntakeEvent::Failed(_))
}

/// Ends when partitions are taken away, which `came` holds then, behind what was told before; at once, where it does already.
pub(super) async fn revoked(events: &mut mpsc::Receiver<IntakeEvent>, came: &mut VecDeque<IntakeEvent>) {
    if came.iter().any(ends_an_assignment) {
        return;
    }
    while came.len() < MAX_WAITING_EVENTS
        && let Some(event) = events.recv().await
    {
        let is_urgent = ends_an_assignment(&event);
        came.push_back(event);
        if is_urgent {
            return;
        }
    }
    std::future::pending().await
}

pub(super) async fn next(came: &mut VecDeque<IntakeEvent>, events: &mut mpsc::Receiver<IntakeEvent>) -> Option<IntakeEvent> {
    match came.pop_front() {
        Some(event) => Some(event),
        None => events.recv().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Error;
    use crate::saga::position::{Offset, TopicPartition};

    #[test]
    fn what_came_before_an_assignment_ends_it_as_what_comes_meanwhile() {
        let partition = TopicPartition::new("requests", 0);
        let revocation =
            || IntakeEvent::Revoked { partitions: vec![partition.clone()], lost: false, reply: oneshot::channel().0 };
        let calm = || IntakeEvent::ReachedEnd { partition: partition.clone(), position: Offset(0) };
        let (sender, mut events) = mpsc::channel(4);
        for urgent in [revocation(), IntakeEvent::Failed(Error::unavailable("gone"))] {
            let mut came = VecDeque::from([calm(), urgent]);
            assert_eq!(revoked(&mut events, &mut came).now_or_never(), Some(()), "it came before");
            assert_eq!(came.len(), 2, "and is looked at in its turn");
        }
        let mut came = VecDeque::from([calm()]);
        assert_eq!(revoked(&mut events, &mut came).now_or_never(), None);
        sender.try_send(calm()).expect("room");
        sender.try_send(revocation()).expect("room");
        assert_eq!(revoked(&mut events, &mut came).now_or_never(), Some(()));
        assert_eq!(came.len(), 3);
    }
}
