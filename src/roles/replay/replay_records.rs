//! The records of replays, wherever they are: in the view of the log, else in history, which keeps what memory and the topic have
//! dropped. Says for certain whether there is one, or that it is not known yet. Decides nothing.

use std::sync::Arc;

use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::log_overlay::LogOverlay;
use crate::error::{Error, Result};
use crate::history::History;
use crate::replay_log::homes::Homes;
use crate::replay_log::in_history;
use crate::replay_log::{ReplayLog, place};
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::LogRecord;

/// Replays looked up in history at the same time.
const LOOK_UPS: usize = 16;

/// A replay, the partition of its request, and what history has of it.
type ReplayLookup = (String, i32, Result<Option<Arc<LogRecord>>>);

#[derive(Clone)]
pub struct ReplayRecords {
    pub log: Arc<ReplayLog>,
    /// The replay log in history.
    pub log_history: History,
    /// In which partitions of the log the record of a request may be.
    pub homes: watch::Receiver<Homes>,
}

fn not_understood((partition, offset): (i32, Offset)) -> Error {
    Error::corrupt(format!(
        "what became of this replay is not known: the record at offset {offset} of partition {partition} of the replay log's topic is \
         not understood"
    ))
}

impl ReplayRecords {
    /// The newest record of a replay, wherever it is. `homes`: where it may be; `None`: anywhere. `Unavailable`: it is
    /// not in memory, and what else there was is not known yet.
    pub async fn find(
        &self,
        replay_id: &str,
        homes: Option<&[i32]>,
        log_overlay: LogOverlay<'_>,
    ) -> Result<Option<Arc<LogRecord>>> {
        if let Some(record) = log_overlay.get(replay_id).cloned().or_else(|| self.log.get(replay_id)) {
            return Ok(Some(record));
        }
        self.is_understood(replay_id, homes)?;
        // Dropped from memory or from the topic: history keeps it as long as the original.
        let record = match homes {
            Some(homes) => self.in_history(replay_id, &self.unknown_below(homes)?).await?,
            None => self.in_history(replay_id, &self.log.all_unknown_below()).await?,
        };
        Ok(record.map(Arc::new))
    }

    /// `Corrupt`: the topic has a record of this replay that nobody can read, or so many such that it may be among them.
    fn is_understood(&self, replay_id: &str, homes: Option<&[i32]>) -> Result<()> {
        self.log.not_understood(replay_id, homes).map_or(Ok(()), |at| Err(not_understood(at)))
    }

    /// To which offsets history must be known of these partitions before what memory has not is new. `Unavailable`: one of
    /// them is not even read to its end yet.
    fn unknown_below(&self, homes: &[i32]) -> Result<Vec<(i32, Offset)>> {
        if let Some(partition) = homes.iter().find(|home| !self.log.is_read(**home)) {
            return Err(Error::unavailable(format!("partition {partition} of the replay log is not read to its end yet")));
        }
        let ends = homes.iter().map(|home| (*home, self.log.unknown_below(*home)));
        Ok(ends.filter(|(_, end)| *end > Offset(0)).collect())
    }

    /// Each partition is a history of its own: of a replay with records in several, what was published counts.
    async fn in_history(&self, replay_id: &str, ends: &[(i32, Offset)]) -> Result<Option<LogRecord>> {
        let read = |end| in_history::newest(&self.log_history, replay_id, std::slice::from_ref(end));
        let found = try_join_all(ends.iter().map(read)).await?;
        let is_done = |record: &LogRecord| (!record.dry_run, record.published_at.is_some());
        Ok(found.into_iter().flatten().max_by_key(is_done))
    }

    /// What history has of those of these replays that memory dropped; each with the partition of its request, and those
    /// where its record may be.
    pub async fn dropped(&self, replays: Vec<(String, i32, Vec<i32>)>) -> Vec<ReplayLookup> {
        let asked = replays.into_iter().filter(|(id, ..)| self.log.get(id).is_none());
        let asked = asked.map(|(id, partition, homes)| {
            let ends = self.is_understood(&id, Some(&homes)).and_then(|()| self.unknown_below(&homes));
            (id, partition, ends)
        });
        let asked = asked.filter(|(.., ends)| ends.as_ref().map_or(true, |ends| !ends.is_empty()));
        let reads = asked.map(|(id, partition, ends)| async move {
            let record = match ends {
                Ok(ends) => self.in_history(&id, &ends).await,
                Err(error) => Err(error),
            };
            (id, partition, record.map(|record| record.map(Arc::new)))
        });
        let reads: Vec<_> = reads.collect();
        stream::iter(reads).buffer_unordered(LOOK_UPS).collect().await
    }

    /// The newest records of the replays of a saga that memory dropped, newest first; some of those it has may be among
    /// them.
    pub async fn dropped_of(&self, original: &SagaId) -> Result<Vec<Arc<LogRecord>>> {
        let homes = self.homes_of(original);
        if let Some(at) = self.log.forgotten(&homes) {
            return Err(not_understood(at));
        }
        let (mut replays, mut asked) = (Vec::new(), Vec::new());
        // Each partition has an index of its own.
        for end in self.unknown_below(&homes)? {
            for id in in_history::replays_of(&self.log_history, original, std::slice::from_ref(&end)).await? {
                if !replays.contains(&id) {
                    asked.push((id.clone(), end.0, homes.clone()));
                    replays.push(id);
                }
            }
        }
        let looked_up = self.dropped(asked).await;
        // Memory may have them again.
        let mut records: Vec<_> = replays.iter().filter_map(|id| self.log.get(id)).collect();
        for (_, _, record) in looked_up {
            records.extend(record?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(place(record)));
        Ok(records)
    }

    /// The partitions of the log where replays of this saga may be.
    pub fn homes_of(&self, saga: &SagaId) -> Vec<i32> {
        let (homes, key) = (self.homes.borrow(), saga.as_str().as_bytes());
        homes.of_key(key, homes.home(key))
    }

    /// The same of a request that was found in this partition.
    pub fn homes_of_request(&self, record: &LogRecord) -> Vec<i32> {
        let (homes, found) = (self.homes.borrow(), record.position.partition);
        match &record.original_saga_id {
            Some(saga) => homes.of_key(saga.as_str().as_bytes(), found),
            None => homes.of_partition(found),
        }
    }

    /// The same of all requests of this partition.
    pub fn homes_of_partition(&self, partition: i32) -> Vec<i32> {
        self.homes.borrow().of_partition(partition)
    }

    /// Can every replay with its record in these partitions be told from a new one? Where memory has them all, that is so.
    pub async fn is_known(&self, homes: &[i32]) -> Result<bool> {
        match self.unknown_below(homes) {
            Ok(ends) if ends.is_empty() => Ok(true),
            Ok(ends) => self.log_history.is_known_to(&ends).await,
            Err(_) => Ok(false),
        }
    }
}
