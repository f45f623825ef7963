//! The histories of the sagas of a batch, as far as they reach the ends that its requests must see.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::catch_up::{CatchUpBarrier, EndOffsets};
use super::planner::{ReplayPlanner, SagaHistory};
use super::queue::RequestQueue;
use super::queue::item::RequestItem;
use super::queue::parked::waits;
use super::writable::WritablePartitions;
use crate::error::{Error, Result};
use crate::saga::position::SagaId;
use crate::saga::request::Command;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;

#[derive(Default)]
pub struct LoadedHistories {
    /// Sagas that were asked for.
    wanted: usize,
    /// Of the sagas that are caught up and could be read.
    histories: HashMap<SagaId, SagaHistory>,
    /// Of each saga: the ends to which it is looked at.
    ends: HashMap<SagaId, EndOffsets>,
}

impl LoadedHistories {
    pub fn has_all(&self) -> bool {
        self.histories.len() == self.wanted
    }

    pub fn of(&self, saga: &SagaId) -> Option<&SagaHistory> {
        self.histories.get(saga)
    }

    pub fn ends_of(&self, saga: &SagaId) -> Option<&EndOffsets> {
        self.ends.get(saga)
    }
}

/// The ends that the requests of a saga must see; `None`: those of now.
#[derive(Default, Clone, Copy)]
struct NeededEnds<'a> {
    ends: Option<&'a EndOffsets>,
    /// One of the requests is new.
    is_new: bool,
}

/// The saga whose history a request needs, and the time before which it may not go; `None`: it needs none, or which is not known.
fn history_of(item: &RequestItem) -> Option<(&SagaId, Micros)> {
    let (saga, due) = waits(&item.request.command)?;
    match &item.request.command {
        Command::Undo { .. } => Some((item.undoes.as_ref()?, due)),
        _ => Some((saga, due)),
    }
}

/// Of each saga the ends that its requests must see. Of several the latest; one request that needs those of now is enough.
fn needed_ends<'a>(items: &'a [RequestItem], just_restored: &HashSet<SagaId>) -> HashMap<&'a SagaId, NeededEnds<'a>> {
    let mut needed: HashMap<&SagaId, NeededEnds<'_>> = HashMap::new();
    for item in items {
        if let Some((saga, due)) = history_of(item) {
            let is_new = item.parked.is_none();
            // What is recorded until then counts for a request with `not_before`: the ends of its reading are too old.
            let too_old = is_new && (due > Micros::MIN || just_restored.contains(saga));
            let ends = item.ends.as_ref().filter(|_| !too_old);
            let of_saga = needed.entry(saga).or_insert(NeededEnds { ends, is_new });
            of_saga.ends = of_saga.ends.zip(ends).map(|(one, other)| one.later(other));
            of_saga.is_new |= is_new;
        }
    }
    needed
}

/// Whether all replays can be looked at to ends that were asked already.
pub fn all_ends_are_known(items: &[RequestItem], just_restored: &HashSet<SagaId>) -> bool {
    needed_ends(items, just_restored).values().all(|needed| needed.ends.is_some())
}

/// What histories are loaded with.
pub struct HistoryLoader<'a> {
    pub planner: &'a ReplayPlanner,
    pub catch_up: &'a CatchUpBarrier,
    pub writable: &'a WritablePartitions,
    pub metrics: &'a Metrics,
    pub instant: fn() -> std::time::Instant,
}

impl HistoryLoader<'_> {
    /// The histories of the sagas whose partitions are materialized to the ends that were asked after their requests were read.
    /// No more of them than the rate allows to go. `patience`: how long new requests wait for that.
    pub async fn load_caught_up(
        &self,
        items: &[RequestItem],
        now: Micros,
        patience: Duration,
        queue: &mut RequestQueue,
    ) -> Result<LoadedHistories> {
        let of_replay = |item: &RequestItem| match &item.request.command {
            Command::Replay(order) if self.writable.still_lacks(item, order) => None,
            _ => history_of(item).filter(|(_, due)| *due <= now).map(|(saga, _)| saga.clone()),
        };
        let mut seen = HashSet::new();
        let sagas: Vec<SagaId> = items.iter().filter_map(of_replay).filter(|saga| seen.insert(saga.clone())).collect();
        if sagas.is_empty() {
            return Ok(LoadedHistories::default());
        }
        let mut loaded = LoadedHistories { wanted: sagas.len(), ..LoadedHistories::default() };
        let caught_up = self.caught_up(items, &sagas, patience, queue, &mut loaded).await?;
        // In their order: with a rate the first go.
        let mut in_turn: Vec<SagaId> = sagas.into_iter().filter(|saga| caught_up.contains(saga)).collect();
        let allowed = queue.rate_allows((self.instant)());
        if in_turn.len() > allowed {
            self.metrics.replay_throttled.inc_by((in_turn.len() - allowed) as u64);
            in_turn.truncate(allowed);
            queue.look_from_the_first();
        }
        self.read(in_turn, &mut loaded, queue).await?;
        Ok(loaded)
    }

    /// Those of the sagas whose partitions are materialized to the ends that they need.
    async fn caught_up(
        &self,
        items: &[RequestItem],
        sagas: &[SagaId],
        patience: Duration,
        queue: &mut RequestQueue,
        loaded: &mut LoadedHistories,
    ) -> Result<HashSet<SagaId>> {
        let mut needed = needed_ends(items, queue.just_restored());
        // Of a partition without a leader: asked again, until it has one.
        for (saga, needed) in &mut needed {
            needed.ends = needed.ends.filter(|ends| self.catch_up.knows(saga, ends));
        }
        let all_known = needed.values().all(|needed| needed.ends.is_some());
        let ends_of_now = if all_known { None } else { Some(self.catch_up.fetch_end_offsets().await?) };
        let mut groups: Vec<(&EndOffsets, bool, Vec<SagaId>)> = Vec::new();
        for saga in sagas {
            let NeededEnds { ends, is_new } = needed.get(saga).copied().unwrap_or_default();
            let Some(ends) = ends.or(ends_of_now.as_ref()) else { continue };
            match groups.iter_mut().find(|(other, new, _)| *new == is_new && other.is_same(ends)) {
                Some((.., sagas)) => sagas.push(saga.clone()),
                None => groups.push((ends, is_new, vec![saga.clone()])),
            }
        }
        // New ones may wait a moment for materialize; those parked before are looked at only.
        let began = Instant::now();
        let mut caught_up: HashSet<SagaId> = HashSet::new();
        for (ends, is_new, sagas) in groups {
            let deadline = began + if is_new { patience } else { Duration::ZERO };
            let each = self.catch_up.wait(&sagas, ends, deadline).await?;
            caught_up.extend(sagas.iter().zip(each).filter(|(_, is)| *is).map(|(saga, _)| saga.clone()));
            let known = sagas.into_iter().filter(|saga| self.catch_up.knows(saga, ends));
            loaded.ends.extend(known.map(|saga| (saga, ends.clone())));
        }
        if let Some(ends) = ends_of_now {
            queue.know_ends(&ends);
        }
        Ok(caught_up)
    }

    /// What history has of these sagas. One that cannot be read waits, longer each time, and keeps no other from being
    /// replayed.
    async fn read(&self, sagas: Vec<SagaId>, loaded: &mut LoadedHistories, queue: &mut RequestQueue) -> Result<()> {
        let histories = self.planner.histories_of(&sagas).await;
        for (saga, known) in sagas.into_iter().zip(histories) {
            match known {
                Ok(known) => {
                    let ends = loaded.ends.get(&saga);
                    if ends.is_some_and(|ends| self.catch_up.covers(&saga, ends, &known)) {
                        loaded.histories.insert(saga, known);
                    }
                }
                Err(error @ (Error::Unavailable(_) | Error::Corrupt(_))) => {
                    report_unreadable(&saga, &error, queue, (self.instant)())
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

/// The saga's history cannot be read: its replays wait, and the log says so once.
pub fn report_unreadable(saga: &SagaId, error: &Error, queue: &mut RequestQueue, now: std::time::Instant) {
    if queue.saga_is_unreadable(saga, now) {
        tracing::warn!(saga = %saga.shown(), %error, "history cannot be read, the saga's replays wait");
    }
}

#[cfg(test)]
#[path = "histories_tests.rs"]
mod tests;
