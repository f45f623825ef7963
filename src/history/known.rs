//! What history has of a saga in the partitions where it may be, known to an end: for those who must not take "not found"
//! for "never there", such as the reader of the replay log. Asked for nothing newer than these ends.

use futures::future::try_join_all;

use super::loaded::LoadedEntries;
use super::merge::{self, ReadDepth};
use super::reader::History;
use crate::error::{Error, Result};
use crate::saga::entry::Entry;
use crate::saga::position::{ChainId, Offset, SagaId};
use crate::saga::state::State;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;

/// Partitions of this history's topic, each with the offset to which it must be known.
pub type PartitionEnds = [(i32, Offset)];

impl History {
    /// The newest state of the saga; `None`: no entry below these ends is its. `Unavailable`: that is not known yet.
    pub async fn state_to(&self, saga: &SagaId, ends: &PartitionEnds) -> Result<Option<State>> {
        let entries = self.load_to(saga, ends, ReadDepth::Snapshot).await?;
        Ok(merge::fold(&entries, |_| true)?.map(|folded| folded.state))
    }

    /// All entries of the saga, oldest first. `Unavailable`: not all below these ends are known yet.
    pub async fn entries_to(&self, saga: &SagaId, ends: &PartitionEnds) -> Result<Vec<Entry>> {
        let entries = self.load_to(saga, ends, ReadDepth::Start).await?;
        Ok(entries.into_iter().map(|stored| stored.entry).collect())
    }

    /// Are all of these partitions known to their ends? The stores are asked only where they were not known before.
    pub async fn is_known_to(&self, ends: &PartitionEnds) -> Result<bool> {
        let chains = self.chains_of(ends);
        if self.are_durable(&chains, ends) {
            return Ok(true);
        }
        try_join_all(chains.iter().map(|chain| self.cold.follow(chain))).await?;
        if self.are_durable(&chains, ends) {
            return Ok(true);
        }
        let progress = self.progress().await?;
        Ok(ends.iter().all(|(partition, end)| {
            let newest = chains.iter().filter(|chain| chain.partition == *partition).max_by_key(|chain| chain.incarnation);
            newest.is_some_and(|chain| self.is_durable(chain, *end) || progress.least(chain) >= *end)
        }))
    }

    /// Is all that these partitions had below their ends in cold?
    pub async fn is_durable_to(&self, ends: &PartitionEnds) -> Result<bool> {
        let chains = self.chains_of(ends);
        try_join_all(chains.iter().map(|chain| self.cold.follow(chain))).await?;
        Ok(self.are_durable(&chains, ends))
    }

    async fn load_to(&self, saga: &SagaId, ends: &PartitionEnds, back: ReadDepth) -> Result<Vec<StoredEntry>> {
        let chains = self.chains_of(ends);
        // Cold as it is known already has all that is asked for, and says "never seen" without being read.
        if self.are_durable(&chains, ends) {
            return match back {
                ReadDepth::Start => self.cold_whole(saga, &chains).await,
                _ => self.cold_at(saga, Micros::MAX, &chains).await,
            };
        }
        let loaded = self.load_home(saga, Micros::MAX, back, &chains).await?;
        for (partition, end) in ends.iter().filter(|(partition, _)| may_be_in(&loaded, *partition, back)) {
            let reached = chains.first().map_or(Offset(0), |chain| loaded.reach.of(&chain.topic, *partition));
            if reached < *end {
                return Err(Error::unavailable(format!(
                    "read partition {partition} of the replay log in history: it is known to offset {reached}, and must be to {end}"
                )));
            }
        }
        Ok(loaded.entries)
    }

    fn chains_of(&self, ends: &PartitionEnds) -> Vec<ChainId> {
        let mut chains = self.chains.all();
        chains.retain(|chain| ends.iter().any(|(partition, _)| *partition == chain.partition));
        chains
    }

    fn are_durable(&self, chains: &[ChainId], ends: &PartitionEnds) -> bool {
        ends.iter().all(|(partition, end)| {
            let newest = chains.iter().filter(|chain| chain.partition == *partition).max_by_key(|chain| chain.incarnation);
            newest.is_some_and(|chain| self.is_durable(chain, *end))
                && chains.iter().filter(|chain| chain.partition == *partition).all(|chain| self.cold.known_end(chain).is_some())
        })
    }

    fn is_durable(&self, chain: &ChainId, end: Offset) -> bool {
        self.cold.known_end(chain).and_then(|known| known.next) >= Some(end)
    }
}

/// A saga that was found is in one partition; one that was not found may be in each.
fn may_be_in(loaded: &LoadedEntries, partition: i32, back: ReadDepth) -> bool {
    let newest = loaded.entries.last().map(|stored| &stored.entry.position);
    back == ReadDepth::Start || newest.is_none_or(|newest| newest.partition == partition)
}
