//! The intake's events, in their order, also while partitions are being assigned: then one is looked for that ends it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::kafka::intake::IntakeEvent;

/// Most events that are kept while partitions are assigned; the bytes of records are bounded besides.
const MAX_WAITING_EVENTS: usize = 1_024;

/// Ends when partitions are taken away, which `came` holds then, behind what was told before.
pub(super) async fn revoked(events: &mut mpsc::Receiver<IntakeEvent>, came: &mut VecDeque<IntakeEvent>) {
    while came.len() < MAX_WAITING_EVENTS
        && let Some(event) = events.recv().await
    {
        let is_urgent = matches!(event, IntakeEvent::Revoked { .. } | IntakeEvent::Failed(_));
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
