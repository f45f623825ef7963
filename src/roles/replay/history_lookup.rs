//! Whether a request was seen before, and what became of it: memory first, then history.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::history_alarms::HistoryAlarms;
use super::log_overlay::LogOverlay;
use super::queue::item::RequestItem;
use super::replay_records::ReplayRecords;
use crate::error::{Error, Result};
use crate::saga::request::{Command, LogRecord};

/// What history has of replays that memory has not.
#[derive(Default)]
pub struct HistoryLookup {
    found: HashMap<String, Option<Arc<LogRecord>>>,
    /// It has something that cannot be read: whether they are new cannot be known.
    unreadable: HashSet<String>,
    /// It could not be asked for requests of these partitions: the batch is taken up again without them.
    pub failed: Option<FailedLookup>,
}

pub struct FailedLookup {
    pub partitions: Vec<i32>,
    pub error: Error,
}

impl HistoryLookup {
    /// Of the replays of these requests that memory does not have, what history has of them.
    pub async fn of(
        items: &[RequestItem],
        replay_records: &ReplayRecords,
        log_overlay: LogOverlay<'_>,
        alarms: &mut HistoryAlarms,
        instant: fn() -> Instant,
    ) -> Result<Self> {
        let mut looked_up = Self::default();
        if replay_records.log.has_everything() {
            return Ok(looked_up);
        }
        let mut asked: Vec<(String, i32, Vec<i32>)> = Vec::with_capacity(items.len());
        for item in items {
            for replay_id in about(item).filter(|id| log_overlay.get(id).is_none()) {
                let homes = replay_records.homes_of_request(&item.record);
                asked.push((replay_id.clone(), item.record.position.partition, homes));
            }
        }
        for (replay_id, partition, record) in replay_records.dropped(asked).await {
            match record {
                Ok(record) => {
                    alarms.read(&replay_id);
                    looked_up.found.insert(replay_id, record);
                }
                Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => {
                    let asks = items.iter().find(|item| about(item).any(|id| *id == replay_id));
                    if asks.is_some_and(|item| alarms.failed(&replay_id, &item.record.position, &error, instant())) {
                        looked_up.unreadable.insert(replay_id);
                    } else {
                        let mut partitions = looked_up.failed.map(|before| before.partitions).unwrap_or_default();
                        partitions.push(partition);
                        looked_up.failed = Some(FailedLookup { partitions, error });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(looked_up)
    }

    /// Is there something about the request that cannot be read?
    pub fn is_unreadable(&self, item: &RequestItem) -> bool {
        !self.unreadable.is_empty() && about(item).any(|replay_id| self.unreadable.contains(replay_id))
    }

    /// The newest record of a replay whose requests are in the partition of `of`. What the overlay says of it comes first.
    pub async fn record(
        &self,
        replay_id: &str,
        of: &LogRecord,
        replay_records: &ReplayRecords,
        log_overlay: LogOverlay<'_>,
    ) -> Result<Option<Arc<LogRecord>>> {
        match self.found.get(replay_id) {
            Some(dropped) if log_overlay.get(replay_id).is_none() && replay_records.log.get(replay_id).is_none() => {
                Ok(dropped.clone())
            }
            _ => replay_records.find(replay_id, Some(&replay_records.homes_of_request(of)), log_overlay).await,
        }
    }
}

/// The replays that must be known before the request is decided.
fn about(item: &RequestItem) -> impl Iterator<Item = &String> {
    let (own, other) = match &item.request.command {
        Command::Outcome(outcome) => (None, Some(&outcome.replay_id)),
        Command::Cancel { replay_id, .. } | Command::Undo { replay_id, .. } => (Some(&item.record.replay_id), Some(replay_id)),
        Command::BatchControl { batch_id, .. } => (Some(&item.record.replay_id), Some(batch_id)),
        Command::ScheduleControl { schedule_id, .. } => (Some(&item.record.replay_id), Some(schedule_id)),
        Command::Replay(_) | Command::Batch(_) | Command::Schedule(_) | Command::Invalid { .. } => {
            (Some(&item.record.replay_id), None)
        }
    };
    own.into_iter().chain(other)
}
