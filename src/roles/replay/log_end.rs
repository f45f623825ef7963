//! Waiting until the view of the replay log is where the log ends now: what a transaction wrote whose outcome is not known, or
//! another owner, is found there.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::replay_records::ReplayRecords;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::retry::until_available;
use crate::saga::position::TopicPartition;

/// Longest wait for the view of the log, before anything is replayed and while other partitions are.
const WITHIN: Duration = Duration::from_secs(20);
const WITHIN_BESIDE_WORK: Duration = Duration::from_secs(1);

pub struct LogEnd {
    pub ends: Ends,
    pub records: ReplayRecords,
    pub log: String,
}

impl LogEnd {
    /// Waits until the view of the log is where the log ends now, in each partition where requests of these may be recorded.
    /// Gives the numbers of those of which it is: what has no leader, or takes too long, comes later. `beside_work`: other
    /// partitions are worked on meanwhile.
    pub async fn reached(&self, requests: &[TopicPartition], beside_work: bool) -> Result<HashSet<i32>> {
        let homes: Vec<(i32, Vec<i32>)> =
            requests.iter().map(|of| (of.partition, self.records.homes_of_partition(of.partition))).collect();
        let numbers: BTreeSet<i32> = homes.iter().flat_map(|(_, homes)| homes.iter().copied()).collect();
        let log: Vec<TopicPartition> = numbers.into_iter().map(|number| TopicPartition::new(self.log.as_str(), number)).collect();
        let ends = until_available("ask for the ends of the replay log", || self.ends.each_end(&log)).await?;
        let patience = if beside_work { WITHIN_BESIDE_WORK } else { WITHIN };
        let deadline = tokio::time::Instant::now() + patience;
        let mut known = HashSet::new();
        for (partition, end) in ends {
            let end = match end {
                Ok(end) => end.end,
                Err(error) if error.is_unavailable() => continue,
                Err(error) => return Err(error),
            };
            let reached = self.records.log.reached(partition.partition, end);
            if tokio::time::timeout_at(deadline, reached).await.is_ok() {
                known.insert(partition.partition);
            }
        }
        let is_known = |homes: &[i32]| homes.iter().all(|home| known.contains(home));
        Ok(homes.into_iter().filter(|(_, homes)| is_known(homes)).map(|(partition, _)| partition).collect())
    }
}
