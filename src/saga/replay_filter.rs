//! Which replays a listing finds: the filters of `GET /v1/replays`. Pure matching of log records.

use super::position::SagaId;
use super::request::{CommandName, LogRecord, ReplayStatus};
use super::time::Micros;

/// What is `None` or empty lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Any of these.
    pub statuses: Vec<ReplayStatus>,
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
        (self.statuses.is_empty() || self.statuses.contains(&record.status))
            && self.saga_id.as_ref().is_none_or(|id| record.sagas().any(|of| of == id))
            && is(&self.request_id, Some(&record.request_id))
            // Of a batch its replays: undos of them are theirs.
            && is(&self.batch_id, record.batch_id.as_deref().filter(|_| record.command == CommandName::Replay))
            && is(&self.requested_by, Some(&record.requested_by))
            && self.since.is_none_or(|since| record.accepted_at >= since)
            && self.until.is_none_or(|until| record.accepted_at < until)
    }
}
