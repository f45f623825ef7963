//! What a topic holds, and which history its sagas are in.

use crate::history::History;

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    StepEvents,
    /// The replay log: kept like sagas, but in no index of sagas.
    ReplayLog,
}

/// The history of each kind of topic.
#[derive(Clone)]
pub struct Histories {
    pub step_events: History,
    pub replay_log: History,
}

impl Histories {
    pub fn of(&self, content: Content) -> &History {
        match content {
            Content::StepEvents => &self.step_events,
            Content::ReplayLog => &self.replay_log,
        }
    }
}
