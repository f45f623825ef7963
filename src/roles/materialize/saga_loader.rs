//! Sagas whose next events are to be folded and that are not in memory: loaded in a few round trips. A load that takes long
//! goes on beside the loop, and its partition waits meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::background::joined;
use super::content::Histories;
use super::decode::{DecodedEvent, record_begins};
use super::ownership::Ownership;
use super::partitions::{OwnedPartition, Partitions};
use crate::error::Result;
use crate::history::newest::NewestSaga;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::telemetry::Metrics;

/// Bytes of sagas loaded for one fold; then what can be folded is.
const MAX_LOADED_BYTES: usize = 64 << 20;
/// Sagas loaded in one round trip, to begin with: how large they are shows afterwards.
const FIRST_BATCH: usize = 8;
/// Most of them.
const MAX_BATCH: usize = 4_096;
/// What a store takes that is well; for longer all others do not wait.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a load gave that took long.
pub struct SlowLoad {
    ownership: Ownership,
    /// Where the partition's owner had begun.
    base: Offset,
    found: Result<Vec<Result<Option<NewestSaga>>>>,
}

pub struct SagaLoader {
    histories: Histories,
    metrics: Arc<Metrics>,
    /// Loads that take long.
    slow: JoinSet<SlowLoad>,
    /// Sagas that are loaded in one round trip.
    batch: usize,
}

impl SagaLoader {
    pub fn new(histories: Histories, metrics: Arc<Metrics>) -> Self {
        Self { histories, metrics, slow: JoinSet::new(), batch: FIRST_BATCH }
    }

    pub fn is_idle(&self) -> bool {
        self.slow.is_empty()
    }

    /// `None`: no load takes long. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<SlowLoad>> {
        self.slow.join_next().await.map(joined)
    }

    /// Puts sagas that have durable entries into the cache, in the order in which they are needed and as many as fit in
    /// memory; gives how many of the events can be folded then. The rest finds more in the cache the next time.
    /// `None`: not yet.
    pub async fn load_missing(
        &mut self,
        partition: &TopicPartition,
        owned: &mut OwnedPartition,
        events: &[DecodedEvent],
    ) -> Result<Option<usize>> {
        // Of what an earlier incarnation of the topic holds the chain knows nothing.
        let is_later = owned.partition.chain.incarnation > 0;
        let may_have_entries = |id: &SagaId| is_later || owned.partition_chain.may_contain(id);
        let mut missing = owned.partition.missing(events.iter().map(|decoded| &decoded.event), may_have_entries);
        let mut loaded = 0;
        while !missing.is_empty() {
            if loaded >= MAX_LOADED_BYTES {
                let missing: HashSet<SagaId> = missing.into_iter().collect();
                let waits = |decoded: &DecodedEvent| missing.contains(&decoded.event.saga_id);
                let fits = events.iter().position(waits).map_or(events.len(), |at| record_begins(events, at));
                return Ok(Some(fits));
            }
            let later = missing.split_off(self.batch.min(missing.len()));
            let Some(bytes) = self.load(partition, owned, missing).await? else { return Ok(None) };
            self.adapt(bytes);
            loaded += bytes;
            missing = later;
        }
        Ok(Some(events.len()))
    }

    /// Large ones in ever smaller company.
    fn adapt(&mut self, bytes: usize) {
        self.batch = match bytes < MAX_LOADED_BYTES / 4 {
            true => (self.batch * 2).min(MAX_BATCH),
            false => (self.batch / 2).max(1),
        };
    }

    /// Loads these sagas in one round trip; gives their bytes. `None`: it goes on beside the loop.
    async fn load(
        &mut self,
        partition: &TopicPartition,
        owned: &mut OwnedPartition,
        sagas: Vec<SagaId>,
    ) -> Result<Option<usize>> {
        let (chain, durable) = (owned.partition.chain.clone(), owned.partition.durable);
        let (generation, base) = (owned.generation, owned.partition.base);
        let started = Instant::now();
        let history = self.histories.of(owned.partition.content).clone();
        let mut load = tokio::spawn(async move { history.newest_sagas(&sagas, &chain, durable).await });
        let Ok(found) = tokio::time::timeout(PATIENCE, &mut load).await else {
            let ownership = Ownership { partition: partition.clone(), generation };
            self.slow.spawn(async move { SlowLoad { ownership, base, found: joined(load.await).flatten() } });
            return Ok(None);
        };
        let found = joined(found)??;
        let timer = self.metrics.event_process_duration.with_label_values(&["load"]);
        timer.observe(started.elapsed().as_secs_f64());
        keep(owned, found).map(Some)
    }

    /// A load ended beside the loop: its partition goes on, or, if that failed, is not folded yet. `None`: it is not ours any more.
    pub fn loaded(&mut self, load: SlowLoad, partitions: &mut Partitions) -> Option<(TopicPartition, Result<()>)> {
        let SlowLoad { ownership, base, found } = load;
        let owned = partitions.current_mut(&ownership).filter(|owned| owned.partition.base == base)?;
        owned.gate.sagas_came();
        let kept = found.and_then(|found| keep(owned, found)).map(|bytes| {
            // A slow store is not one that is away: more at once, and its batch is not dropped for the loads before.
            self.adapt(bytes);
            owned.gate.suspension.progressed();
        });
        Some((ownership.partition, kept))
    }
}

/// Puts them into the cache; gives their bytes.
fn keep(owned: &mut OwnedPartition, found: Vec<Result<Option<NewestSaga>>>) -> Result<usize> {
    let (mut bytes, mut failure) = (0, None);
    for newest in found {
        match newest {
            Ok(Some(newest)) => {
                bytes += newest.saga.state.size();
                if newest.of_before {
                    owned.partition.from_earlier_incarnation.insert(newest.saga.state.saga_id.clone());
                }
                owned.partition.cache.keep(Box::new(newest.saga));
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    // What was loaded stays for the next try.
    failure.map_or(Ok(bytes), Err)
}
