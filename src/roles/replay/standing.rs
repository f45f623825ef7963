//! How the newest replay of a saga stands, by the log and what history has of it.

use super::replay_records::ReplayRecords;
use crate::error::Result;
use crate::saga::position::SagaId;
use crate::saga::request::LogRecord;
use crate::saga::selector::ReplayStanding;

impl ReplayRecords {
    pub async fn standing(&self, saga: &SagaId) -> Result<ReplayStanding> {
        if let Some(standing) = self.log.newest_of(saga, |record| standing_of(record, saga)) {
            return Ok(standing);
        }
        let dropped = self.dropped_of(saga).await?;
        Ok(dropped.iter().find_map(|record| standing_of(record, saga)).unwrap_or(ReplayStanding::None))
    }
}

/// The replay that made a restored saga is its parent's, not its own.
fn standing_of(record: &LogRecord, saga: &SagaId) -> Option<ReplayStanding> {
    ReplayStanding::of_record(record).filter(|_| record.original_saga_id.as_ref() == Some(saga))
}
