//! What the replays of a saga have come to, by the log, what history has of it, and the restored sagas themselves.

use std::collections::HashSet;

use async_trait::async_trait;

use super::batches::SagaSelection;
use super::replay_records::ReplayRecords;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::PointInTime;
use crate::history::replay_lookup::ReplayLookup;
use crate::saga::position::SagaId;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::saga::selector::ReplayStanding;
use crate::saga::state::Status;

/// Most sagas of one tree that are looked at.
const MAX_SAGAS: usize = 10_000;

impl ReplayRecords {
    pub async fn standing(&self, saga: &SagaId) -> Result<ReplayStanding> {
        if let Some(standing) = self.log.newest_of(saga, |record| standing_of(record, saga)) {
            return Ok(standing);
        }
        let dropped = self.dropped_of(saga).await?;
        Ok(dropped.iter().find_map(|record| standing_of(record, saga)).unwrap_or(ReplayStanding::None))
    }

    /// Did a saga complete that was restored from this one, or from one that was? `history`: of the sagas.
    pub async fn is_repaired(&self, history: &History, saga: &SagaId) -> Result<bool> {
        let mut seen = HashSet::from([saga.clone()]);
        let mut left = vec![saga.clone()];
        while let Some(saga) = left.pop() {
            let mut records = self.log.of_saga(&saga);
            records.extend(self.dropped_of(&saga).await?);
            for record in records.iter().filter(|record| restored_from(record, &saga)) {
                let runs = record.executed_as.as_ref().or(record.new_saga_id.as_ref());
                let is_completed = match (record.status, runs) {
                    (ReplayStatus::Completed, _) => true,
                    // The log is told of an end a moment after it.
                    (ReplayStatus::Published, Some(runs)) => is_completed(history, runs).await?,
                    _ => false,
                };
                if is_completed {
                    return Ok(true);
                }
                let below = [&record.new_saga_id, &record.executed_as].into_iter().flatten();
                left.extend(below.filter(|saga| seen.insert((*saga).clone())).cloned());
                if seen.len() > MAX_SAGAS {
                    return Err(Error::refused("too_large", format!("a saga has more than {MAX_SAGAS} replays below it")));
                }
            }
        }
        Ok(false)
    }
}

async fn is_completed(history: &History, saga: &SagaId) -> Result<bool> {
    match history.state(saga, PointInTime::Newest).await {
        Ok(found) => Ok(found.state.status == Status::Completed),
        Err(Error::Refused { code: "saga_not_found", .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn restored_from(record: &LogRecord, saga: &SagaId) -> bool {
    let is_replay = record.command == CommandName::Replay && record.published_at.is_some();
    is_replay && record.original_saga_id.as_ref() == Some(saga)
}

/// The replay that made a restored saga is its parent's, not its own.
fn standing_of(record: &LogRecord, saga: &SagaId) -> Option<ReplayStanding> {
    ReplayStanding::of_record(record).filter(|_| record.original_saga_id.as_ref() == Some(saga))
}

#[async_trait]
impl ReplayLookup for SagaSelection {
    async fn standing(&self, saga: &SagaId) -> Result<ReplayStanding> {
        self.records.standing(saga).await
    }

    async fn is_repaired(&self, saga: &SagaId) -> Result<bool> {
        self.records.is_repaired(&self.history, saga).await
    }
}
