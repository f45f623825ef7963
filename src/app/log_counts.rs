//! Keeps what the process knows of the partition counts under which the replay log was written: the archive remembers them,
//! so that a request is never called new because its record lies where an earlier count put it.

use std::time::Duration;

use super::serve::Process;
use crate::cold::keys;
use crate::cold::log_counts::{self, LogCounts};
use crate::error::Result;
use crate::roles::replay_log::homes::Homes;
use crate::roles::retry::until_available;
use crate::saga::position::{ChainId, Offset, TopicPartition};

/// Longest look for counts that others added.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for the partitions of a log that nobody has written under any count that is known.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

impl Process {
    /// Before anything is carried out under this count of the requests topic: the archive knows it.
    pub(super) async fn log_is_written_under(&self, requests: i32, log: i32) -> Result<()> {
        self.log_has_partitions(log);
        let (objects, topic) = (&*self.stores.objects, self.config.topics.log.as_str());
        let mut known = self.written_under.lock().await;
        // What was added since then came with an assignment to its process; a store that does not answer now stops nobody.
        match tokio::time::timeout(READ_WITHIN, log_counts::read(objects, topic, known.clone())).await {
            Ok(Ok(more)) => *known = more,
            Ok(Err(error)) if !error.is_unavailable() => return Err(error),
            Ok(Err(_)) | Err(_) => {}
        }
        if !known.partitions.contains(&requests) {
            let empty = match known.partitions.is_empty() {
                true => tokio::time::timeout(EMPTY_WITHIN, self.log_is_empty(log)).await,
                false => Ok(Ok(false)),
            };
            // Where that cannot be told now the next assignment tells it; until then a record may be anywhere.
            if let Ok(empty) = empty {
                let (before, empty) = (known.clone(), empty?);
                let add = || log_counts::add(objects, topic, before.clone(), requests, empty);
                *known = until_available("write the partition count of the replay log", add).await?;
            }
        }
        self.know_homes(requests, log, &known);
        Ok(())
    }

    /// The same, of a process that only reads the log.
    pub(super) async fn see_log_counts(&self, log: i32) -> Result<()> {
        let requests = self.ends.partitions_of(&self.config.topics.requests).await?;
        let mut known = self.written_under.lock().await;
        *known = log_counts::read(&*self.stores.objects, &self.config.topics.log, known.clone()).await?;
        self.know_homes(requests, log, &known);
        Ok(())
    }

    fn know_homes(&self, requests: i32, log: i32, known: &LogCounts) {
        self.homes.send_if_modified(|homes| {
            // They never become fewer: a broker may not have heard of the last ones.
            let homes_now = Homes::new(requests.max(homes.now()), &known.partitions, known.complete, log);
            let is_new = homes_now != *homes;
            *homes = homes_now;
            is_new
        });
    }

    /// Was nothing ever written to the log, also not before its topic was created again?
    async fn log_is_empty(&self, partitions: i32) -> Result<bool> {
        let of: Vec<TopicPartition> =
            (0..partitions).map(|partition| TopicPartition::new(self.config.topics.log.as_str(), partition)).collect();
        for partition in &of {
            let chain = ChainId { topic: partition.topic.clone(), incarnation: 0, partition: partition.partition };
            let key = keys::chain_start(&chain);
            let head = || self.stores.objects.head(&key);
            if until_available("look for the replay log's chain", head).await?.is_some() {
                return Ok(false);
            }
        }
        let ends = until_available("ask whether the replay log is empty", || self.ends.ends(&of)).await?;
        Ok(ends.iter().all(|(_, end)| *end == Offset(0)))
    }
}
