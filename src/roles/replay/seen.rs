//! Whether a request was seen before, and what became of it: memory first, then history (DESIGN 6.1). What history has and
//! nobody can read leaves that one request in the topic, or its saga's replays waiting, with an alarm, and stops nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Replay;
use super::decide::LoadedHistories;
use super::log_overlay::LogOverlay;
use super::outbox::TransactionOutbox;
use super::take_up::Item;
use crate::error::{Error, Result};
use crate::saga::position::{Position, Shown, TopicPartition};
use crate::saga::request::{Command, LogRecord, ReplayStatus};

/// Alarm of a partition of the log.
pub(super) const UNREADABLE: &str = "log_unreadable";

/// A store may fail now and then; longer is an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(10);

/// What history has of replays that memory has not.
#[derive(Default)]
pub(super) struct HistoryLookup {
    found: HashMap<String, Option<Arc<LogRecord>>>,
    /// It has something that cannot be read: whether they are new nobody can tell.
    unreadable: HashSet<String>,
}

impl HistoryLookup {
    /// Can what the request is about be told?
    pub fn is_unreadable(&self, item: &Item) -> bool {
        !self.unreadable.is_empty() && about(item).any(|replay_id| self.unreadable.contains(replay_id))
    }
}

/// The replays that must be known before the request is decided.
fn about(item: &Item) -> impl Iterator<Item = &String> {
    let (own, other) = match &item.request.command {
        Command::Outcome(outcome) => (None, Some(&outcome.replay_id)),
        Command::Cancel { replay_id, .. } => (Some(&item.record.replay_id), Some(replay_id)),
        Command::Replay(_) | Command::Invalid { .. } => (Some(&item.record.replay_id), None),
    };
    own.into_iter().chain(other)
}

/// Those for whom something in history cannot be read: replay ids or saga ids.
#[derive(Default)]
pub(super) struct UnreadableHistory(HashMap<String, Trouble>);

struct Trouble {
    /// Of the log, where the requests are.
    partition: i32,
    since: Instant,
    alarmed: bool,
}

impl UnreadableHistory {
    /// It could not be read. `Some(true)`: from now on that is an alarm; `Some(false)`: it is one; `None`: not yet.
    fn failed(&mut self, whose: &str, partition: i32, corrupt: bool, now: Instant) -> Option<bool> {
        let trouble = self.0.entry(whose.to_owned()).or_insert(Trouble { partition, since: now, alarmed: false });
        let is_alarm = corrupt || trouble.alarmed || now.duration_since(trouble.since) >= ALARM_AFTER;
        let is_new = is_alarm && !trouble.alarmed;
        trouble.alarmed = is_alarm;
        is_alarm.then_some(is_new)
    }

    /// It was read. Gives the partition whose alarm ends with that.
    fn read(&mut self, whose: &str) -> Option<i32> {
        if self.0.is_empty() {
            return None;
        }
        let Trouble { partition, alarmed, .. } = self.0.remove(whose)?;
        let others = self.0.values().any(|other| other.alarmed && other.partition == partition);
        (alarmed && !others).then_some(partition)
    }

    pub fn forget(&mut self, partition: i32) {
        self.0.retain(|_, trouble| trouble.partition != partition);
    }
}

impl Replay {
    /// The newest record of a replay whose requests are in that partition. What this batch says of it comes first.
    pub(super) async fn known(
        &self,
        replay_id: &str,
        of: &LogRecord,
        loaded: &LoadedHistories,
        draft: &TransactionOutbox,
    ) -> Result<Option<Arc<LogRecord>>> {
        let newer = [&draft.log, &self.publishing, &self.pending];
        let log_overlay = LogOverlay(&newer);
        match loaded.dropped.found.get(replay_id) {
            Some(dropped) if log_overlay.get(replay_id).is_none() && self.deps.planner.log.get(replay_id).is_none() => {
                Ok(dropped.clone())
            }
            _ => self.deps.planner.record(replay_id, Some(&self.deps.planner.homes_of_request(of)), log_overlay).await,
        }
    }

    /// Of the replays of these requests that memory does not have, what history has of them. Where that is not known yet the
    /// partition rests, and the batch is taken up again without it.
    pub(super) async fn look_up(&mut self, items: &[Item]) -> Result<HistoryLookup> {
        let mut looked_up = HistoryLookup::default();
        if self.deps.planner.log.has_everything() {
            return Ok(looked_up);
        }
        let newer = [&self.publishing, &self.pending];
        let mut asked: Vec<(String, i32, Vec<i32>)> = Vec::with_capacity(items.len());
        for item in items {
            for replay_id in about(item).filter(|id| LogOverlay(&newer).get(id).is_none()) {
                let homes = self.deps.planner.homes_of_request(&item.record);
                asked.push((replay_id.clone(), item.record.position.partition, homes));
            }
        }
        let found = self.deps.planner.dropped(asked).await;
        let mut failure = None;
        for (replay_id, partition, record) in found {
            match record {
                Ok(record) => {
                    self.was_read(&replay_id);
                    looked_up.found.insert(replay_id, record);
                }
                Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => {
                    let asks = items.iter().find(|item| about(item).any(|id| *id == replay_id));
                    if asks.is_some_and(|item| self.was_not_read(&replay_id, &item.record.position, &error)) {
                        looked_up.unreadable.insert(replay_id);
                    } else {
                        self.rest(partition);
                        failure = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(looked_up), Err)
    }

    /// Seen before, other than as a dry run, whatever became of that.
    pub(super) async fn is_repeat(
        &self,
        record: &LogRecord,
        loaded: &LoadedHistories,
        draft: &TransactionOutbox,
    ) -> Result<bool> {
        let known = self.known(&record.replay_id, record, loaded, draft).await?;
        Ok(known.is_some_and(|known| !known.dry_run))
    }

    /// Is a request that was parked still to be carried out? Not if it was cancelled, if the real run replaced it, or if
    /// it was committed by a transaction whose outcome was not known.
    pub(super) async fn still_waits(
        &self,
        record: &LogRecord,
        loaded: &LoadedHistories,
        draft: &TransactionOutbox,
    ) -> Result<bool> {
        let known = self.known(&record.replay_id, record, loaded, draft).await?;
        Ok(known.is_some_and(|known| known.status == ReplayStatus::Accepted && known.dry_run == record.dry_run))
    }

    /// What history has of the replay, or of the saga's replays, could not be read. `true`: no longer for a moment only, and an
    /// operator is told. `request`: who asked.
    pub(super) fn was_not_read(&mut self, whose: &str, request: &Position, error: &Error) -> bool {
        let corrupt = matches!(error, Error::Corrupt(_));
        let Some(is_new) = self.unread.failed(whose, request.partition, corrupt, Instant::now()) else { return false };
        if is_new {
            let partition = self.log_partition(request.partition);
            self.alarm(&partition, UNREADABLE);
            tracing::error!(
                topic = %partition.topic, partition = partition.partition, request_offset = request.offset.0, whose = %Shown(whose), %error,
                "what history has of a replay cannot be read: its request, or its saga's replays, wait; put the object that the error \
                 names back from a copy of the archive, or delete what Redis has under this id"
            );
        }
        true
    }

    pub(super) fn was_read(&mut self, whose: &str) {
        if let Some(partition) = self.unread.read(whose) {
            self.clear_alarm(&self.log_partition(partition), UNREADABLE);
        }
    }

    fn log_partition(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.settings.targets.log.as_str(), partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_of_a_partition_ends_with_the_last_of_it_that_can_be_read_again() {
        let (mut unread, start) = (UnreadableHistory::default(), Instant::now());
        let soon = start + Duration::from_secs(1);
        assert_eq!(unread.failed("r1", 3, false, start), None, "a store may fail now and then");
        assert_eq!(unread.failed("r1", 3, false, soon), None);
        assert_eq!(unread.read("r1"), None, "there was no alarm");
        assert_eq!(unread.failed("r1", 3, false, soon), None);
        assert_eq!(unread.failed("r1", 3, false, soon + ALARM_AFTER), Some(true));
        assert_eq!(unread.failed("r1", 3, false, soon + ALARM_AFTER), Some(false), "told once");
        assert_eq!(unread.failed("order-1", 3, true, soon), Some(true), "what is corrupt does not pass");
        assert_eq!(unread.failed("order-2", 3, false, soon), None);
        assert_eq!((unread.read("r1"), unread.read("r1")), (None, None), "another of it is an alarm still");
        assert_eq!(unread.read("order-1"), Some(3));
        unread.failed("r2", 4, true, soon);
        unread.forget(4);
        assert_eq!(unread.read("r2"), None);
    }
}
