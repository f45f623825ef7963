//! Keeps what the process knows of the partition counts under which the replay log was written: the archive remembers them,
//! so that a request is never called new because its record lies where an earlier count put it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::homes::Homes;
use crate::cold::chain;
use crate::cold::log_counts::{self, LogCounts};
use crate::cold::object_store::ObjectStore;
use crate::error::Result;
use crate::history::chains::Chains;
use crate::kafka::ends::Ends;
use crate::retry::until_available;
use crate::saga::position::{ChainId, Offset, TopicPartition};

/// Longest look for counts that others added.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for the partitions of a log that nobody has written under any count that is known.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// The counts that this process knows of.
struct RecordedPartitionCounts(Mutex<LogCounts>);

impl RecordedPartitionCounts {
    fn new(known: LogCounts) -> Self {
        Self(Mutex::new(known))
    }

    fn known(&self) -> LogCounts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever has read more of them, in whatever order; `tell` is told of all that are known by now, one after the other.
    fn learned(&self, more: LogCounts, tell: impl FnOnce(&LogCounts)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The archive keeps one list, and it only grows.
        if more.partitions.len() > known.partitions.len() {
            *known = more;
        }
        tell(&known);
    }

    /// What others have added since. No lock is held while a store is asked: who only looks must not wait for who writes.
    async fn read(&self, objects: &dyn ObjectStore, topic: &str) -> Result<LogCounts> {
        log_counts::read(objects, topic, self.known()).await
    }

    async fn add(&self, objects: &dyn ObjectStore, topic: &str, count: i32, log_is_empty: bool) -> Result<LogCounts> {
        let add = || log_counts::add(objects, topic, self.known(), count, log_is_empty);
        until_available("write the partition count of the replay log", add).await
    }
}

/// The topics whose counts matter.
pub struct CountedTopics {
    pub requests: String,
    pub log: String,
}

/// The partition counts of the requests topic and of the log: those of now, and those under which the log was written.
pub struct LogPartitionCounts {
    topics: CountedTopics,
    objects: Arc<dyn ObjectStore>,
    ends: Ends,
    /// The log's.
    chains: Arc<Chains>,
    recorded: RecordedPartitionCounts,
    /// Where records may be by that.
    homes: watch::Sender<Homes>,
    /// Of the log, as far as anybody has heard.
    partitions: watch::Sender<i32>,
}

impl LogPartitionCounts {
    /// Until [`Self::load`] nothing is known of the past.
    pub fn new(
        topics: CountedTopics,
        objects: Arc<dyn ObjectStore>,
        ends: Ends,
        chains: Arc<Chains>,
        request_partitions: i32,
    ) -> Self {
        Self {
            topics,
            objects,
            ends,
            chains,
            recorded: RecordedPartitionCounts::new(LogCounts::default()),
            homes: watch::Sender::new(Homes::of_unknown(request_partitions)),
            partitions: watch::Sender::new(request_partitions),
        }
    }

    /// What the archive remembers; `log`: the partitions that the log has now.
    pub async fn load(&self, log: i32) -> Result<()> {
        let known = self.recorded.read(&*self.objects, &self.topics.log).await?;
        let requests = { self.homes.borrow().now() };
        self.know_homes(requests, log, known);
        Ok(())
    }

    pub fn homes(&self) -> watch::Receiver<Homes> {
        self.homes.subscribe()
    }

    pub fn partitions(&self) -> watch::Receiver<i32> {
        self.partitions.subscribe()
    }

    /// Nothing is to be learned of a log of so many partitions.
    pub fn is_known(&self, log: i32) -> bool {
        self.homes.borrow().is_known(log)
    }

    /// The view reads them all, and replays are looked for in all of their chains. `true`: there are more than before.
    pub fn log_has(&self, count: i32) -> bool {
        self.chains.raise(&self.topics.log, count);
        self.partitions.send_if_modified(|known| {
            let more = count > *known;
            *known = count.max(*known);
            more
        })
    }

    /// Before anything is written to the log under this count of the requests topic: the archive knows it.
    pub async fn record(&self, requests: i32, log: i32) -> Result<()> {
        self.log_has(log);
        let (objects, topic) = (&*self.objects, self.topics.log.as_str());
        // What was added since then came with an assignment to its process; a store that does not answer now stops nobody.
        let mut known = match tokio::time::timeout(READ_WITHIN, self.recorded.read(objects, topic)).await {
            Ok(Ok(more)) => more,
            Ok(Err(error)) if !error.is_unavailable() => return Err(error),
            Ok(Err(_)) | Err(_) => self.recorded.known(),
        };
        if !known.partitions.contains(&requests) {
            let empty = match known.partitions.is_empty() {
                true => tokio::time::timeout(EMPTY_WITHIN, self.log_is_empty(log)).await,
                false => Ok(Ok(false)),
            };
            // Where that cannot be told now the next assignment tells it; until then a record may be anywhere.
            if let Ok(empty) = empty {
                known = self.recorded.add(objects, topic, requests, empty?).await?;
            }
        }
        self.know_homes(requests, log, known);
        Ok(())
    }

    /// Learns what others have recorded, in a process that only reads the log.
    pub async fn refresh(&self, log: i32) -> Result<()> {
        let requests = self.ends.partitions_of(&self.topics.requests).await?;
        let known = self.recorded.read(&*self.objects, &self.topics.log).await?;
        self.know_homes(requests, log, known);
        Ok(())
    }

    fn know_homes(&self, requests: i32, log: i32, known: LogCounts) {
        self.recorded.learned(known, |known| {
            self.homes.send_if_modified(|homes| {
                // They never become fewer: a broker may not have heard of the last ones.
                let homes_now = Homes::new(requests.max(homes.now()), &known.partitions, known.complete, log);
                let is_new = homes_now != *homes;
                *homes = homes_now;
                is_new
            });
        });
    }

    /// Was nothing ever written to the log, also not before its topic was created again?
    async fn log_is_empty(&self, partitions: i32) -> Result<bool> {
        let of: Vec<TopicPartition> =
            (0..partitions).map(|partition| TopicPartition::new(self.topics.log.as_str(), partition)).collect();
        for partition in &of {
            let chain = ChainId { topic: partition.topic.clone(), incarnation: 0, partition: partition.partition };
            let look = || chain::is_written(&*self.objects, &chain);
            if until_available("look for the replay log's chain", look).await? {
                return Ok(false);
            }
        }
        let ends = until_available("ask whether the replay log is empty", || self.ends.ends(&of)).await?;
        Ok(ends.iter().all(|(_, end)| *end == Offset(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::directory::Directory;
    use crate::serve::testing::Faulty;

    #[tokio::test]
    async fn who_looks_does_not_wait_for_who_writes() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Faulty::new(Directory::open(directory.path()).expect("a store")));
        let counts = Arc::new(RecordedPartitionCounts::new(LogCounts::default()));
        store.hold(true);
        let writes = tokio::spawn({
            let (counts, store) = (counts.clone(), store.clone());
            async move { counts.add(&*store, "log", 12, true).await }
        });
        store.is_waited_for().await;
        let look = tokio::time::timeout(Duration::from_secs(5), counts.read(&*store, "log")).await;
        assert_eq!(look, Ok(Ok(LogCounts::default())), "a store that takes nothing");
        store.hold(false);
        let written = writes.await.expect("ended").expect("written");
        counts.learned(written.clone(), |known| assert_eq!(*known, written));
        counts.learned(LogCounts::default(), |known| assert_eq!(*known, written, "what was read before is no news"));
        assert_eq!(counts.known(), LogCounts { partitions: vec![12], complete: true });
    }
}
