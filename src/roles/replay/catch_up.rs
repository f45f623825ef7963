//! Catch up first: a replay is never planned from less than what was recorded before its request was read, or woke at its
//! `not_before` (docs/ARCHITECTURE.md, Guarantees).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::planner::SagaHistory;
use crate::error::{Error, Result};
use crate::history::answer::{FullHistory, Source};
use crate::history::chains::Chains;
use crate::history::{History, MaterializeProgress};
use crate::kafka::ends::Ends;
use crate::saga::position::{ChainId, Offset, SagaId, TopicPartition};

/// Between two looks at what is materialized.
const LOOK: Duration = Duration::from_millis(10);

/// The ends of the events topics at one moment: what must be materialized before an answer.
#[derive(Debug, Clone)]
pub struct EndOffsets(Arc<EndsRequest>);

#[derive(Debug)]
struct EndsRequest {
    at: Instant,
    /// `None`: the partition has no leader that answers; what is behind it waits.
    ends: HashMap<TopicPartition, Option<Offset>>,
}

impl EndOffsets {
    /// The one of the two that was asked later.
    pub fn later<'a>(&'a self, other: &'a Self) -> &'a Self {
        if other.0.at > self.0.at { other } else { self }
    }

    /// By an answer about a saga that may live in these chains.
    fn are_reached(&self, chains: &[ChainId], whole: &FullHistory) -> bool {
        let newest = whole.entries.last().map(|entry| &entry.position);
        let is_own = |chain: &ChainId| newest.is_some_and(|at| at.topic == chain.topic && at.partition == chain.partition);
        // An answer of hot alone vouches for the chain of its newest entry, and that cold has nothing in the others.
        chains.iter().filter(|chain| whole.source != Source::Hot || is_own(chain)).all(|chain| {
            match self.0.ends.get(&chain.topic_partition()) {
                Some(Some(end)) => whole.reach.of(&chain.topic, chain.partition) >= *end,
                Some(None) => false,
                None => true,
            }
        })
    }

    /// Whether the ends of all these chains are known.
    fn know(&self, chains: &[ChainId]) -> bool {
        chains.iter().all(|chain| self.0.ends.get(&chain.topic_partition()) != Some(&None))
    }

    #[cfg(test)]
    pub fn asked_at(at: Instant) -> Self {
        Self(Arc::new(EndsRequest { at, ends: HashMap::new() }))
    }

    /// Of the very same moment.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Knows the ends and how far materialize is.
#[derive(Clone)]
pub struct CatchUpBarrier {
    pub ends: Ends,
    pub history: History,
    pub chains: Arc<Chains>,
}

impl CatchUpBarrier {
    /// The ends of every events partition, asked now.
    pub async fn fetch_end_offsets(&self) -> Result<EndOffsets> {
        let mut partitions: Vec<TopicPartition> = self.chains.all().iter().map(ChainId::topic_partition).collect();
        partitions.sort();
        partitions.dedup();
        // Before asking: of two answers the later one is never taken for the earlier.
        let at = Instant::now();
        let each = self.ends.each_end(&partitions).await?;
        let ends = each.into_iter().map(|(partition, end)| (partition, end.ok().map(|end| end.end))).collect();
        Ok(EndOffsets(Arc::new(EndsRequest { at, ends })))
    }

    /// Whether these ends say how far the saga's partition must be materialized. If not they must be asked again.
    pub fn knows(&self, saga: &SagaId, ends: &EndOffsets) -> bool {
        ends.know(&self.chains.newest_of(saga))
    }

    /// Those of `sagas` whose partitions are materialized to the ends; waits for the others until the deadline.
    pub async fn wait(&self, sagas: &[SagaId], ends: &EndOffsets, deadline: Instant) -> Result<Vec<bool>> {
        loop {
            let progress = self.history.progress().await?;
            let mut fresh = Vec::with_capacity(sagas.len());
            let mut all = true;
            for saga in sagas {
                let is_fresh = self.is_fresh(saga, ends, &progress).await?;
                fresh.push(is_fresh);
                // Waiting tells nothing of what has no leader.
                all &= is_fresh || !self.knows(saga, ends);
            }
            if all || Instant::now() >= deadline {
                return Ok(fresh);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does what was loaded reach the ends? A store may have failed, or been wiped, since it was asked how far it is.
    pub fn covers(&self, saga: &SagaId, ends: &EndOffsets, known: &SagaHistory) -> bool {
        match known {
            // It is refused, whatever else there is.
            SagaHistory::FullHistory(whole) if whole.split => true,
            SagaHistory::FullHistory(whole) => ends.are_reached(&self.chains.newest_of(saga), whole),
            // Of nothing, and of too much, the reader itself makes sure.
            SagaHistory::Nothing | SagaHistory::TooLong => true,
        }
    }

    async fn is_fresh(&self, saga: &SagaId, ends: &EndOffsets, progress: &MaterializeProgress) -> Result<bool> {
        // A new saga may begin anywhere that its key can be put: where the partitioner is not known, everywhere.
        for chain in self.chains.newest_of(saga) {
            let end = match ends.0.ends.get(&chain.topic_partition()) {
                Some(Some(end)) => end,
                Some(None) => return Ok(false),
                None => continue,
            };
            match self.history.reaches(progress, saga, &chain, *end).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // The partition has stopped with an alarm of its own: its sagas' replays wait until it is mended.
                Err(Error::Corrupt(reason)) => {
                    tracing::debug!(%chain, reason, "chain cannot be read");
                    return Ok(false);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::answer::Coverage;
    use crate::saga::time::Micros;

    fn chain(partition: i32) -> ChainId {
        ChainId { topic: "events".into(), incarnation: 0, partition }
    }

    fn whole(source: Source, to: &[(i32, i64)]) -> FullHistory {
        let to = to.iter().map(|(partition, to)| (chain(*partition), Offset(*to))).collect();
        FullHistory { entries: Vec::new(), source, reach: Coverage { to, complete_through: Micros(0) }, split: false }
    }

    #[test]
    fn an_answer_that_ends_before_the_ends_does_not_do() {
        let told = |(partition, end): (i32, i64)| (chain(partition).topic_partition(), Some(Offset(end)));
        let ends = [(0, 8), (1, 3), (2, 0)].map(told);
        let ends = EndOffsets(Arc::new(EndsRequest { at: Instant::now(), ends: ends.into() }));
        let chains = [chain(0), chain(1), chain(2)];
        assert!(ends.are_reached(&chains, &whole(Source::Both, &[(0, 8), (1, 4)])));
        // Hot failed after it was asked how far it is: what cold has ends at 5.
        assert!(!ends.are_reached(&chains, &whole(Source::Cold, &[(0, 5), (1, 4)])));
        assert!(!ends.are_reached(&chains, &whole(Source::Cold, &[(0, 8)])));
        assert!(ends.are_reached(&chains[2..], &whole(Source::Cold, &[])));
    }

    #[test]
    fn what_has_no_leader_is_reached_by_nothing() {
        let ends = [(chain(0).topic_partition(), Some(Offset(8))), (chain(1).topic_partition(), None)];
        let ends = EndOffsets(Arc::new(EndsRequest { at: Instant::now(), ends: ends.into() }));
        let all = whole(Source::Both, &[(0, 8), (1, 100)]);
        assert!(ends.are_reached(&[chain(0)], &all) && ends.know(&[chain(0)]));
        assert!(!ends.are_reached(&[chain(0), chain(1)], &all) && !ends.know(&[chain(0), chain(1)]));
    }
}
