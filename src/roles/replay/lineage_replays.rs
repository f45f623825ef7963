//! How many replays the lineage of a saga has: what keeps automation that replays its own failures from going round for ever.
//!
//! Walks the tree of replays from its root, as far as it must, by the records of each saga's replays; scans nothing. Requests of two
//! sagas of one tree may be decided at the same moment by two processes, which do not see each other's: this is a brake, not a count
//! that can be relied on to the last one.

use std::collections::HashSet;
use std::sync::Arc;

use super::log_overlay::LogOverlay;
use super::replay_records::ReplayRecords;
use crate::error::{Error, Result};
use crate::saga::position::SagaId;
use crate::saga::request::{CommandName, LogRecord};
use crate::saga::selector::ReplayStanding;

/// Most sagas of one tree that are looked at; a tree with more, of forced failures, counts as full.
const MAX_SAGAS: usize = 10_000;

impl ReplayRecords {
    /// Has the tree below `root` at least `most` replays that count? Those refused, cancelled, dry or with a forced failure do not,
    /// and of the others `counts` says so.
    pub async fn lineage_has(
        &self,
        root: &SagaId,
        most: u32,
        counts: impl Fn(&LogRecord) -> bool,
        log_overlay: LogOverlay<'_>,
    ) -> Result<bool> {
        let mut sagas = HashSet::from([root.clone()]);
        let mut left = vec![root.clone()];
        let mut found = 0;
        while let Some(saga) = left.pop() {
            for record in self.newest_records_of(&saga, log_overlay).await? {
                found += u32::from(ReplayStanding::of_record(&record).is_some() && counts(&record));
                if found >= most || sagas.len() > MAX_SAGAS {
                    return Ok(true);
                }
                let made = [&record.new_saga_id, &record.executed_as].into_iter().flatten();
                let made = made.filter(|_| record.published_at.is_some());
                left.extend(made.filter(|saga| sagas.insert((*saga).clone())).cloned());
            }
        }
        Ok(false)
    }

    /// Of each replay of this saga the newest record.
    async fn newest_records_of(&self, saga: &SagaId, log_overlay: LogOverlay<'_>) -> Result<Vec<Arc<LogRecord>>> {
        let mut records: Vec<Arc<LogRecord>> = log_overlay.of_saga(saga).cloned().collect();
        records.extend(self.log.of_saga(saga));
        match self.dropped_of(saga).await {
            Ok(dropped) => records.extend(dropped),
            // Too many to be read at once: what memory has is counted, and the role goes on.
            Err(Error::Refused { code: "too_large", .. }) => {}
            Err(error) => return Err(error),
        }
        let mut seen = HashSet::new();
        // The first of each is the newest.
        records.retain(|record| seen.insert(record.replay_id.clone()));
        records.retain(|record| record.command == CommandName::Replay && record.original_saga_id.as_ref() == Some(saga));
        Ok(records)
    }
}
