//! Sagas whose next events are to be folded and that are not in memory: loaded in a few round trips. A load that takes long
//! goes on beside the loop, and its partition rests meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::partition::{Decoded, record_begins};
use super::suspended::Waits;
use super::{Materialize, joined};
use crate::error::Result;
use crate::history::newest::NewestSaga;
use crate::saga::position::{Offset, SagaId, TopicPartition};

/// Bytes of sagas loaded for one fold; then what can be folded is.
const MAX_LOADED_BYTES: usize = 64 << 20;
/// Sagas loaded in one round trip, to begin with: how large they are shows afterwards.
pub(super) const FEW_TOGETHER: usize = 8;
/// Most of them.
const MANY_TOGETHER: usize = 4_096;
/// What a store takes that is well; for longer all others do not wait.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a load gave that took long.
pub(super) struct LoadedSagas {
    partition: TopicPartition,
    generation: u64,
    /// Where the partition's owner had begun.
    base: Offset,
    found: Result<Vec<Result<Option<NewestSaga>>>>,
}

impl Materialize {
    /// Puts sagas that have durable entries into the cache, in the order in which they are needed and as many as fit in
    /// memory; gives how many of the events can be folded then. The rest finds more in the cache the next time.
    /// `None`: not yet.
    pub(super) async fn load_missing(&mut self, partition: &TopicPartition, decoded: &[Decoded]) -> Result<Option<usize>> {
        let Some(owned) = self.owned.get(partition) else { return Ok(Some(decoded.len())) };
        let may_have_entries = |id: &SagaId| {
            // While a flush has the writer, ask: it is rare, and a false yes only costs a look-up. Of what an earlier
            // incarnation of the topic holds the writer knows nothing.
            owned.partition.chain.incarnation > 0 || owned.writer.as_ref().is_none_or(|writer| writer.may_contain(id))
        };
        let mut missing = owned.partition.missing(decoded.iter().map(|d| &d.event), may_have_entries);
        let mut loaded = 0;
        while !missing.is_empty() {
            if loaded >= MAX_LOADED_BYTES {
                let missing: HashSet<SagaId> = missing.into_iter().collect();
                let waits = |decoded: &Decoded| missing.contains(&decoded.event.saga_id);
                let fits = decoded.iter().position(waits).map_or(decoded.len(), |at| record_begins(decoded, at));
                return Ok(Some(fits));
            }
            let later = missing.split_off(self.load_together.min(missing.len()));
            let Some(bytes) = self.load(partition, missing).await? else { return Ok(None) };
            self.adapt(bytes);
            loaded += bytes;
            missing = later;
        }
        Ok(Some(decoded.len()))
    }

    /// Large ones in ever smaller company.
    fn adapt(&mut self, bytes: usize) {
        self.load_together = match bytes < MAX_LOADED_BYTES / 4 {
            true => (self.load_together * 2).min(MANY_TOGETHER),
            false => (self.load_together / 2).max(1),
        };
    }

    /// Loads these sagas in one round trip; gives their bytes. `None`: it goes on beside the loop.
    async fn load(&mut self, partition: &TopicPartition, sagas: Vec<SagaId>) -> Result<Option<usize>> {
        let Some(owned) = self.owned.get(partition) else { return Ok(Some(0)) };
        let (chain, durable) = (owned.partition.chain.clone(), owned.partition.durable);
        let (generation, base) = (owned.generation, owned.partition.base);
        let started = Instant::now();
        let history = self.deps.history_of(owned.partition.content).clone();
        let mut load = tokio::spawn(async move { history.newest_sagas(&sagas, &chain, durable).await });
        let Ok(found) = tokio::time::timeout(PATIENCE, &mut load).await else {
            let partition = partition.clone();
            self.loads.spawn(async move { LoadedSagas { partition, generation, base, found: joined(load.await).flatten() } });
            return Ok(None);
        };
        let found = joined(found)??;
        let timer = self.deps.metrics.event_process_duration.with_label_values(&["load"]);
        timer.observe(started.elapsed().as_secs_f64());
        self.keep(partition, found).map(Some)
    }

    /// A load ended beside the loop: the partition goes on.
    pub(super) fn loaded(&mut self, LoadedSagas { partition, generation, base, found }: LoadedSagas) -> Result<()> {
        let is_same = |owned: &super::OwnedPartition| owned.generation == generation && owned.partition.base == base;
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| is_same(owned)) else { return Ok(()) };
        if matches!(owned.waits, Some(Waits::Load)) {
            owned.waits = None;
        }
        match found.and_then(|found| self.keep(&partition, found)) {
            Ok(bytes) => {
                // A slow store is not one that is away: more at once, and its batch is not let go of for the loads before.
                self.adapt(bytes);
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.rest.went_on();
                }
                Ok(())
            }
            Err(error) => self.not_folded(&partition, error),
        }
    }

    /// Puts them into the cache; gives their bytes.
    fn keep(&mut self, partition: &TopicPartition, found: Vec<Result<Option<NewestSaga>>>) -> Result<usize> {
        let Some(owned) = self.owned.get_mut(partition) else { return Ok(0) };
        let (mut bytes, mut failure) = (0, None);
        for newest in found {
            match newest {
                Ok(Some(newest)) => {
                    bytes += newest.saga.state.size();
                    if newest.of_before {
                        owned.partition.of_before.insert(newest.saga.state.saga_id.clone());
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
}
