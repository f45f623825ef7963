//! Deciding the requests of one batch, one after the other: repeat, wait, refuse or plan. What comes of it is a draft.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Replay;
use super::desk::{Asked, Known};
use super::draft::{self, Draft};
use super::fresh::EndsThen;
use super::parked::Parked;
use super::take_up::Item;
use super::unseen::Unseen;
use crate::error::{Error, Result};
use crate::saga::partitioner::Partitioner;
use crate::saga::position::{SagaId, Shown, TopicPartition};
use crate::saga::request::{Command, LogRecord, Outcome, Refusal, ReplayOrder, ReplayStatus};
use crate::saga::restored::RestoredSaga;
use crate::saga::state::Status;
use crate::saga::time::Micros;

/// How long a batch waits for its sagas' partitions; what is still behind then is parked.
pub(super) const FRESH_WITHIN: Duration = Duration::from_secs(1);
/// Requests, before others get their turn: some 100 us each.
const DECIDED_AT_ONCE: usize = 16;
/// Between two looks at a saga whose history cannot be read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Loaded {
    /// Sagas that were asked for.
    wanted: usize,
    /// Of the sagas that are fresh and could be read.
    histories: HashMap<SagaId, Known>,
    /// Of each saga: the ends to which it is looked at.
    ends: HashMap<SagaId, EndsThen>,
}

impl Loaded {
    pub(super) fn has_all(&self) -> bool {
        self.histories.len() == self.wanted
    }
}

/// Of each saga the ends that its requests must see, and whether one of these is new. `None`: the ends of now; one request
/// that needs them is enough. Of several the latest.
fn known_ends<'a>(items: &'a [Item], just_restored: &HashSet<SagaId>) -> HashMap<&'a SagaId, (Option<&'a EndsThen>, bool)> {
    let mut known: HashMap<&SagaId, (Option<&EndsThen>, bool)> = HashMap::new();
    for item in items {
        if let Command::Replay(order) = &item.request.command {
            let is_new = item.parked.is_none();
            // What is recorded until then counts for a request with `not_before`: the ends of its reading are too old.
            let anew = is_new && (order.not_before.is_some() || just_restored.contains(&order.saga_id));
            let ends = item.ends.as_ref().filter(|_| !anew);
            let (known_ends, new) = known.entry(&order.saga_id).or_insert((ends, is_new));
            *known_ends = known_ends.zip(ends).map(|(one, other)| one.later(other));
            *new |= is_new;
        }
    }
    known
}

impl Replay {
    pub(super) async fn decide_all(
        &mut self,
        items: Vec<Item>,
        loaded: Loaded,
        draft: &mut Draft,
        again: &mut Vec<(Parked, TopicPartition)>,
        now: Micros,
    ) -> Result<()> {
        // Loading may have taken a while: what expired meanwhile is not carried out.
        let decided_at = (self.parts.now)().max(now);
        let mut blocked: HashSet<SagaId> = HashSet::new();
        for (number, item) in items.into_iter().enumerate() {
            if number % DECIDED_AT_ONCE == DECIDED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match item.request.command.clone() {
                Command::Replay(order) => {
                    self.replay(item, &order, &loaded, &mut blocked, draft, again, (now, decided_at)).await?;
                }
                Command::Cancel { replay_id, .. } => self.cancel(item, &replay_id, draft, decided_at).await?,
                Command::Outcome(outcome) => self.outcome(&outcome, draft).await?,
                Command::Invalid { message, .. } => {
                    if self.is_repeat(&item.record, draft).await? {
                        draft.tally.duplicates += 1;
                    } else {
                        self.refuse(item, &Refusal::new("request_invalid", message), draft)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether all replays can be looked at to ends that were asked already.
    pub(super) fn all_ends_are_known(&self, items: &[Item]) -> bool {
        known_ends(items, &self.just_restored).values().all(|(ends, _)| ends.is_some())
    }

    /// The histories of the sagas whose partitions are materialized to the ends that were asked after their requests were read.
    /// `patience`: how long new requests wait for that.
    pub(super) async fn load_fresh(&mut self, items: &[Item], patience: Duration) -> Result<Loaded> {
        let of_replay = |item: &Item| match &item.request.command {
            Command::Replay(order) => Some(order.saga_id.clone()),
            _ => None,
        };
        let mut seen = HashSet::new();
        let sagas: Vec<SagaId> = items.iter().filter_map(of_replay).filter(|saga| seen.insert(saga.clone())).collect();
        if sagas.is_empty() {
            return Ok(Loaded::default());
        }
        let known = known_ends(items, &self.just_restored);
        let all_known = known.values().all(|(ends, _)| ends.is_some());
        let now = if all_known { None } else { Some(self.parts.freshness.ends_now().await?) };
        let mut loaded = Loaded { wanted: sagas.len(), ..Loaded::default() };
        let mut groups: Vec<(&EndsThen, bool, Vec<SagaId>)> = Vec::new();
        for saga in &sagas {
            let (then, is_new) = known.get(saga).copied().unwrap_or_default();
            let Some(then) = then.or(now.as_ref()) else { continue };
            match groups.iter_mut().find(|(ends, new, _)| *new == is_new && ends.is_same(then)) {
                Some((.., sagas)) => sagas.push(saga.clone()),
                None => groups.push((then, is_new, vec![saga.clone()])),
            }
        }
        // New ones may wait a moment for materialize; those parked before are looked at only.
        let began = Instant::now();
        let mut fresh: Vec<SagaId> = Vec::new();
        for (then, is_new, sagas) in groups {
            let deadline = began + if is_new { patience } else { Duration::ZERO };
            let is_fresh = self.parts.freshness.wait(&sagas, then, deadline).await?;
            fresh.extend(sagas.iter().zip(is_fresh).filter(|(_, fresh)| *fresh).map(|(saga, _)| saga.clone()));
            loaded.ends.extend(sagas.into_iter().map(|saga| (saga, then.clone())));
        }
        if let Some(now) = now {
            self.know_ends(&now);
        }
        self.load_histories(fresh, &mut loaded).await?;
        Ok(loaded)
    }

    /// What history has of these sagas. One that cannot be read waits, longer each time, and keeps no other from being
    /// carried out.
    async fn load_histories(&mut self, sagas: Vec<SagaId>, loaded: &mut Loaded) -> Result<()> {
        let histories = self.parts.desk.load(&sagas).await;
        for (saga, known) in sagas.into_iter().zip(histories) {
            match known {
                Ok(known) => {
                    self.unreadable.remove(&saga);
                    let ends = loaded.ends.get(&saga);
                    if ends.is_some_and(|ends| self.parts.freshness.covers(&saga, ends, &known)) {
                        loaded.histories.insert(saga, known);
                    }
                }
                Err(error @ (Error::Unavailable(_) | Error::Corrupt(_))) => self.unreadable(saga, &error),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, saga: SagaId, error: &Error) {
        let pause = match self.unreadable.get(&saga) {
            Some((_, pause)) => (*pause * 2).min(LONGEST_PAUSE),
            None => {
                tracing::warn!(saga = %saga.shown(), %error, "history cannot be read, the saga's replays wait");
                FIRST_PAUSE
            }
        };
        self.unreadable.insert(saga, (Instant::now().into_std() + pause, pause));
    }

    #[expect(clippy::too_many_arguments, reason = "one request meets everything that a batch has")]
    async fn replay(
        &mut self,
        item: Item,
        order: &ReplayOrder,
        loaded: &Loaded,
        blocked: &mut HashSet<SagaId>,
        draft: &mut Draft,
        again: &mut Vec<(Parked, TopicPartition)>,
        (now, decided_at): (Micros, Micros),
    ) -> Result<()> {
        if item.parked.is_some() {
            if !self.still_waits(&item.record, draft).await? {
                if let Some(owned) = self.owned.get_mut(&item.partition) {
                    owned.waiting.remove(&item.record.replay_id);
                }
                return Ok(());
            }
        } else if self.is_repeat(&item.record, draft).await? {
            draft.tally.duplicates += 1;
            return Ok(());
        }
        let not_yet = order.not_before.is_some_and(|at| at > now);
        // Requests of one saga keep their order: none overtakes one that waits for the saga's partition.
        let overtakes = item.parked.is_none()
            && self.owned.get(&item.partition).is_some_and(|owned| owned.waiting.blocks(&order.saga_id, now));
        let known = loaded.histories.get(&order.saga_id);
        let may_go = !not_yet && !overtakes && !blocked.contains(&order.saga_id);
        let oversize = self.too_large.contains(&item.record.replay_id);
        let Some(known) = known.filter(|_| may_go && self.rate_allows()) else {
            if oversize && item.parked.is_none() {
                return self.refuse(
                    item,
                    &Refusal::new("too_large", "the request is larger than the replay log's topic takes"),
                    draft,
                );
            }
            if !not_yet {
                blocked.insert(order.saga_id.clone());
            }
            let ends = loaded.ends.get(&order.saga_id).filter(|_| !not_yet);
            return self.park(item, order, ends.cloned(), draft, again);
        };
        let restored_at = item.record.accepted_at.max(order.not_before.unwrap_or(Micros::MIN));
        let newer = [&draft.log, &self.publishing, &self.pending];
        let unseen = Unseen(&newer);
        let asked = Some(Asked::of(&item.record));
        let decided = self.parts.desk.decide(&item.request, order, known, unseen, asked, (restored_at, decided_at)).await;
        let decided = match decided {
            // Whether the new id is free cannot be told: this one waits, the others are carried out.
            Err(error @ Error::Unavailable(_)) => {
                self.unreadable(order.saga_id.clone(), &error);
                blocked.insert(order.saga_id.clone());
                return self.park(item, order, loaded.ends.get(&order.saga_id).cloned(), draft, again);
            }
            Err(error) => return Err(error),
            Ok(decided) => decided,
        };
        let (plan, event) = match decided {
            Ok(_) if oversize => {
                return self.refuse(item, &Refusal::new("too_large", "the restored saga is larger than its topic takes"), draft);
            }
            Ok(planned) => planned,
            Err(refusal) => return self.refuse(item, &refusal, draft),
        };
        if !order.dry_run {
            let target = self.events_target(&plan.restored)?;
            let restored = (&plan.restored, event);
            draft.restored(&self.settings.targets, restored, order.target.as_deref(), target, item.trace.as_deref())?;
        }
        let record = draft::planned(item.record, &plan, decided_at);
        draft.tally.result(&plan.restored.saga_name, if order.dry_run { "dry_run" } else { "published" });
        if !order.dry_run {
            draft.tally.asked.push(restored_at);
        }
        draft.log(&self.settings.targets, record, item.trace.as_deref())
    }

    fn refuse(&self, item: Item, refusal: &Refusal, draft: &mut Draft) -> Result<()> {
        draft.tally.result("", refusal.code);
        draft.log(&self.settings.targets, draft::refused(item.record, refusal), item.trace.as_deref())
    }

    /// Where SAGA_RESTORED goes: how keys of step events are spread over how many partitions.
    fn events_target(&self, saga: &RestoredSaga) -> Result<(Partitioner, i32)> {
        let position = &saga.checkpoint.position;
        let partitions =
            self.parts.freshness.chains.partitions_of(&position.topic).ok_or_else(|| {
                Error::unavailable(format!("the saga's topic {} is not one of [topics] events", position.topic))
            })?;
        let original = saga.original_saga_id.as_str().as_bytes();
        self.parts.partitioning.see(std::iter::once(original), position.partition, partitions);
        let partitioner = self.parts.partitioning.partitioner().ok_or_else(|| {
            Error::unavailable("no known partitioner explains where the step events' keys are: set [topics] partitioner")
        })?;
        Ok((partitioner, partitions))
    }

    fn park(
        &mut self,
        item: Item,
        order: &ReplayOrder,
        ends: Option<EndsThen>,
        draft: &mut Draft,
        again: &mut Vec<(Parked, TopicPartition)>,
    ) -> Result<()> {
        if let Some(parked) = item.parked {
            // In the log already. The first take-up's ends stay.
            if let (Some(ends), Some(owned)) = (ends, self.owned.get_mut(&item.partition)) {
                owned.waiting.taken_up(&parked.record.replay_id, &ends);
            }
            return Ok(());
        }
        draft.tally.result("", "parked");
        let record = draft::accepted(item.record, &item.request);
        let parked = Parked {
            request: item.request,
            order: Box::new(order.clone()),
            record: record.clone(),
            trace: item.trace.clone(),
            ends,
        };
        again.push((parked, item.partition));
        draft.log(&self.settings.targets, record, item.trace.as_deref())
    }

    async fn known(&self, replay_id: &str, draft: &Draft) -> Result<Option<Arc<LogRecord>>> {
        self.parts.desk.record(replay_id, Unseen(&[&draft.log, &self.publishing, &self.pending])).await
    }

    /// Seen before, other than as a dry run, whatever became of that.
    async fn is_repeat(&self, record: &LogRecord, draft: &Draft) -> Result<bool> {
        let known = self.known(&record.replay_id, draft).await?;
        Ok(known.is_some_and(|known| !known.dry_run))
    }

    /// Is a request that was parked still to be carried out? Not if it was cancelled, if the real run replaced it, or if
    /// it was committed by a transaction whose outcome was not known.
    async fn still_waits(&self, record: &LogRecord, draft: &Draft) -> Result<bool> {
        let known = self.known(&record.replay_id, draft).await?;
        Ok(known.is_some_and(|known| known.status == ReplayStatus::Accepted && known.dry_run == record.dry_run))
    }

    async fn cancel(&mut self, item: Item, replay_id: &str, draft: &mut Draft, now: Micros) -> Result<()> {
        if self.is_repeat(&item.record, draft).await? {
            draft.tally.duplicates += 1;
            return Ok(());
        }
        let known = self.known(replay_id, draft).await?;
        let waits = known
            .filter(|known| known.status == ReplayStatus::Accepted && known.original_saga_id == item.record.original_saga_id);
        match waits {
            Some(waiting) => {
                let mut cancelled = (*waiting).clone();
                cancelled.status = ReplayStatus::Cancelled;
                cancelled.request = None;
                draft.log(&self.settings.targets, cancelled, None)?;
                let mut done = item.record;
                done.published_at = Some(now);
                draft.log(&self.settings.targets, done, item.trace.as_deref())
            }
            None => {
                let refusal = Refusal::new("request_invalid", "replay_id: no replay of this saga with this id is waiting");
                self.refuse(item, &refusal, draft)
            }
        }
    }

    /// A restored saga ended; an earlier end than the one recorded changes nothing.
    async fn outcome(&mut self, outcome: &Outcome, draft: &mut Draft) -> Result<()> {
        let Some(known) = self.known(&outcome.replay_id, draft).await? else {
            tracing::warn!(replay_id = %Shown(&outcome.replay_id), "outcome of a replay that the log does not know");
            return Ok(());
        };
        let undecided = known.published_at.is_some() && known.outcome_sequence.is_none_or(|before| outcome.sequence > before);
        if !undecided {
            return Ok(());
        }
        let mut record = (*known).clone();
        record.status = match outcome.status {
            Status::Completed => ReplayStatus::Completed,
            Status::Compensated => ReplayStatus::Compensated,
            Status::Cancelled => ReplayStatus::SagaCancelled,
            Status::Failed | Status::Running | Status::Compensating => ReplayStatus::Failed,
        };
        record.outcome = Some(record.status.as_str().to_owned());
        record.outcome_sequence = Some(outcome.sequence);
        record.ended_at = Some(outcome.ended_at);
        if record.new_saga_id.as_ref() != Some(&outcome.ended_saga_id) {
            record.executed_as = Some(outcome.ended_saga_id.clone());
        }
        if let Some(published) = record.published_at {
            draft.tally.ended_after.push(outcome.ended_at.0 - published.0);
        }
        draft.log(&self.settings.targets, record, None)
    }

    fn rate_allows(&mut self) -> bool {
        let Some(rate) = self.settings.rate else { return true };
        let (allowance, at) = self.allowance;
        let now = std::time::Instant::now();
        // A burst of one second.
        let allowance = (allowance + now.duration_since(at).as_secs_f64() * rate).min(rate.max(1.0));
        let may = allowance >= 1.0;
        self.allowance = (if may { allowance - 1.0 } else { allowance }, now);
        if !may {
            self.parts.metrics.replay_throttled.inc();
        }
        may
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
