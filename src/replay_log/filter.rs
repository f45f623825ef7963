//! Which records of the log are asked for, and the order in which they are answered. Pure.

use std::sync::Arc;

use crate::saga::position::SagaId;
use crate::saga::request::{LogRecord, ReplayStatus};
use crate::saga::time::Micros;

/// Filters of `GET /v1/replays`. Empty lists and `None`: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    pub status: Vec<ReplayStatus>,
    /// Matches the original, the restored saga and `executed_as`.
    pub saga_id: Option<SagaId>,
    pub request_id: Option<String>,
    pub batch_id: Option<String>,
    pub requested_by: Option<String>,
    /// since <= accepted_at < until.
    pub since: Option<Micros>,
    pub until: Option<Micros>,
}

impl ReplayFilter {
    pub fn matches(&self, record: &LogRecord) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|wanted| value == Some(wanted));
        (self.status.is_empty() || self.status.contains(&record.status))
            && self.saga_id.as_ref().is_none_or(|id| sagas_of(record).any(|of| of == id))
            && is(&self.request_id, Some(&record.request_id))
            && is(&self.batch_id, record.batch_id.as_deref())
            && is(&self.requested_by, Some(&record.requested_by))
            && self.since.is_none_or(|since| record.accepted_at >= since)
            && self.until.is_none_or(|until| record.accepted_at < until)
    }
}

/// A place in the order of answers: newest `accepted_at` first, then by replay id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub accepted_at: Micros,
    pub replay_id: Arc<str>,
}

pub fn place(record: &LogRecord) -> Place {
    Place { accepted_at: record.accepted_at, replay_id: record.replay_id.as_str().into() }
}

/// The sagas that a record names.
pub(super) fn sagas_of(record: &LogRecord) -> impl Iterator<Item = &SagaId> {
    [&record.original_saga_id, &record.new_saga_id, &record.executed_as].into_iter().flatten()
}
