//! Deciding the requests of one batch, one after the other: repeat, wait, refuse or plan. What comes of it is a draft.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Replay;
use super::catch_up::EndOffsets;
use super::log_overlay::LogOverlay;
use super::outbox::{self, TransactionOutbox};
use super::parked::Parked;
use super::planner::{RequestOrder, SagaHistory};
use super::seen::HistoryLookup;
use super::take_up::Item;
use crate::error::{Error, Result};
use crate::saga::partitioner::Partitioner;
use crate::saga::position::{SagaId, Shown, TopicPartition};
use crate::saga::request::{Command, Outcome, Refusal, ReplayOrder, ReplayStatus};
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
pub(super) struct LoadedHistories {
    /// Sagas that were asked for.
    wanted: usize,
    /// Of the sagas that are fresh and could be read.
    histories: HashMap<SagaId, SagaHistory>,
    /// Of each saga: the ends to which it is looked at.
    ends: HashMap<SagaId, EndOffsets>,
    /// What history has of these replays, which memory has not.
    pub(super) dropped: HistoryLookup,
}

impl LoadedHistories {
    pub(super) fn has_all(&self) -> bool {
        self.histories.len() == self.wanted
    }
}

/// Of each saga the ends that its requests must see, and whether one of these is new. `None`: the ends of now; one request
/// that needs them is enough. Of several the latest.
fn known_ends<'a>(items: &'a [Item], just_restored: &HashSet<SagaId>) -> HashMap<&'a SagaId, (Option<&'a EndOffsets>, bool)> {
    let mut known: HashMap<&SagaId, (Option<&EndOffsets>, bool)> = HashMap::new();
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

fn is_for_later(order: &ReplayOrder, now: Micros) -> bool {
    order.not_before.is_some_and(|at| at > now)
}

impl Replay {
    pub(super) async fn decide_all(
        &mut self,
        items: Vec<Item>,
        loaded: LoadedHistories,
        draft: &mut TransactionOutbox,
        again: &mut Vec<(Parked, TopicPartition)>,
        now: Micros,
    ) -> Result<()> {
        // Loading may have taken a while: what expired meanwhile is not carried out.
        let decided_at = (self.deps.now)().max(now);
        let mut blocked: HashSet<SagaId> = HashSet::new();
        for (number, item) in items.into_iter().enumerate() {
            if number % DECIDED_AT_ONCE == DECIDED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if loaded.dropped.is_unreadable(&item) {
                // Nobody can tell whether it is new: it stays in the topic.
                let order = if let Command::Replay(order) = &item.request.command { Some(order.clone()) } else { None };
                self.pass_over(item, order.as_deref(), draft);
                continue;
            }
            match item.request.command.clone() {
                Command::Replay(order) => {
                    self.replay(item, &order, &loaded, &mut blocked, draft, again, (now, decided_at)).await?;
                }
                Command::Cancel { replay_id, .. } => self.cancel(item, &replay_id, &loaded, draft, decided_at).await?,
                Command::Outcome(outcome) => self.outcome(&item, &outcome, &loaded, draft).await?,
                Command::Invalid { message, .. } => {
                    if self.is_repeat(&item.record, &loaded, draft).await? {
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
    /// No more of them than the rate allows to go. `patience`: how long new requests wait for that.
    pub(super) async fn load_fresh(&mut self, items: &[Item], now: Micros, patience: Duration) -> Result<LoadedHistories> {
        let of_replay = |item: &Item| match &item.request.command {
            Command::Replay(order) if !is_for_later(order, now) && !self.waits_for_a_leader(item, order) => {
                Some(order.saga_id.clone())
            }
            _ => None,
        };
        let mut seen = HashSet::new();
        let sagas: Vec<SagaId> = items.iter().filter_map(of_replay).filter(|saga| seen.insert(saga.clone())).collect();
        if sagas.is_empty() {
            return Ok(LoadedHistories::default());
        }
        let mut known = known_ends(items, &self.just_restored);
        // Of a partition without a leader: asked again, until it has one.
        for (saga, (ends, _)) in &mut known {
            *ends = ends.filter(|ends| self.deps.catch_up.knows(saga, ends));
        }
        let all_known = known.values().all(|(ends, _)| ends.is_some());
        let fetch_end_offsets = if all_known { None } else { Some(self.deps.catch_up.fetch_end_offsets().await?) };
        let mut loaded = LoadedHistories { wanted: sagas.len(), ..LoadedHistories::default() };
        let mut groups: Vec<(&EndOffsets, bool, Vec<SagaId>)> = Vec::new();
        for saga in &sagas {
            let (then, is_new) = known.get(saga).copied().unwrap_or_default();
            let Some(then) = then.or(fetch_end_offsets.as_ref()) else { continue };
            match groups.iter_mut().find(|(ends, new, _)| *new == is_new && ends.is_same(then)) {
                Some((.., sagas)) => sagas.push(saga.clone()),
                None => groups.push((then, is_new, vec![saga.clone()])),
            }
        }
        // New ones may wait a moment for materialize; those parked before are looked at only.
        let began = Instant::now();
        let mut fresh: HashSet<SagaId> = HashSet::new();
        for (then, is_new, sagas) in groups {
            let deadline = began + if is_new { patience } else { Duration::ZERO };
            let is_fresh = self.deps.catch_up.wait(&sagas, then, deadline).await?;
            fresh.extend(sagas.iter().zip(is_fresh).filter(|(_, fresh)| *fresh).map(|(saga, _)| saga.clone()));
            let known = sagas.into_iter().filter(|saga| self.deps.catch_up.knows(saga, then));
            loaded.ends.extend(known.map(|saga| (saga, then.clone())));
        }
        if let Some(ends) = fetch_end_offsets {
            self.know_ends(&ends);
        }
        // In their order: with a rate the first go.
        let mut in_turn: Vec<SagaId> = sagas.into_iter().filter(|saga| fresh.contains(saga)).collect();
        let allowed = self.rate.allows(std::time::Instant::now());
        if in_turn.len() > allowed {
            self.deps.metrics.replay_throttled.inc_by((in_turn.len() - allowed) as u64);
            in_turn.truncate(allowed);
            // Those that may go first next time are the same that came first now.
            self.owned.values_mut().for_each(|owned| owned.waiting.look_from_the_first());
        }
        self.load_histories(in_turn, &mut loaded).await?;
        Ok(loaded)
    }

    /// What history has of these sagas. One that cannot be read waits, longer each time, and keeps no other from being
    /// carried out.
    async fn load_histories(&mut self, sagas: Vec<SagaId>, loaded: &mut LoadedHistories) -> Result<()> {
        let histories = self.deps.planner.load(&sagas).await;
        for (saga, known) in sagas.into_iter().zip(histories) {
            match known {
                Ok(known) => {
                    let ends = loaded.ends.get(&saga);
                    if ends.is_some_and(|ends| self.deps.catch_up.covers(&saga, ends, &known)) {
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
        loaded: &LoadedHistories,
        blocked: &mut HashSet<SagaId>,
        draft: &mut TransactionOutbox,
        again: &mut Vec<(Parked, TopicPartition)>,
        (now, decided_at): (Micros, Micros),
    ) -> Result<()> {
        if item.parked.is_some() {
            if !self.still_waits(&item.record, loaded, draft).await? {
                if let Some(owned) = self.owned.get_mut(&item.partition) {
                    owned.waiting.remove(&item.record.replay_id);
                }
                return Ok(());
            }
        } else if self.is_repeat(&item.record, loaded, draft).await? {
            draft.tally.duplicates += 1;
            return Ok(());
        }
        let not_yet = is_for_later(order, now);
        // Requests of one saga keep their order: none overtakes one that waits for the saga's partition, or for room to wait.
        let follows = item.parked.is_none() && self.follows_one_passed_over(&item, &order.saga_id, now, draft);
        let overtakes = item.parked.is_none()
            && (follows || self.owned.get(&item.partition).is_some_and(|owned| owned.waiting.blocks(&order.saga_id, now)));
        let known = loaded.histories.get(&order.saga_id);
        let may_go = !not_yet && !overtakes && !blocked.contains(&order.saga_id);
        let oversize = self.too_large.times(&item.record.replay_id) > 0;
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
            if follows {
                self.pass_over(item, Some(order), draft);
                return Ok(());
            }
            let ends = loaded.ends.get(&order.saga_id).filter(|_| !not_yet);
            return self.park(item, order, ends.cloned(), draft, again);
        };
        let restored_at = item.record.accepted_at.max(order.not_before.unwrap_or(Micros::MIN));
        let newer = [&draft.log, &self.publishing, &self.pending];
        let log_overlay = LogOverlay(&newer);
        let asked = Some(RequestOrder::of(&item.record));
        let decided = self.deps.planner.decide(&item.request, order, known, log_overlay, asked, (restored_at, decided_at)).await;
        let decided = match decided {
            // Whether it was replayed, or the new id is free, cannot be told: this one waits, the others are carried out.
            Err(error @ (Error::Unavailable(_) | Error::Corrupt(_))) => {
                self.was_not_read(order.saga_id.as_str(), &item.record.position, &error);
                self.unreadable(order.saga_id.clone(), &error);
                blocked.insert(order.saga_id.clone());
                return self.park(item, order, loaded.ends.get(&order.saga_id).cloned(), draft, again);
            }
            Err(error) => return Err(error),
            Ok(decided) => decided,
        };
        self.unreadable.remove(&order.saga_id);
        self.was_read(order.saga_id.as_str());
        let (plan, event) = match decided {
            Ok(_) if oversize => {
                return self.refuse(item, &Refusal::new("too_large", "the restored saga is larger than its topic takes"), draft);
            }
            Ok(planned) => planned,
            Err(refusal) => return self.refuse(item, &refusal, draft),
        };
        if !order.dry_run {
            let target = self.events_target(&plan.restored)?;
            if !self.can_be_written(&plan.restored, order.target.as_deref(), target) {
                blocked.insert(order.saga_id.clone());
                return self.park(item, order, loaded.ends.get(&order.saga_id).cloned(), draft, again);
            }
            let restored = (&plan.restored, event);
            draft.restored(&self.settings.targets, restored, order.target.as_deref(), target, item.trace.as_deref())?;
        }
        let record = outbox::planned(item.record, &plan, decided_at);
        draft.tally.result(&plan.restored.saga_name, if order.dry_run { "dry_run" } else { "published" });
        if !order.dry_run {
            draft.tally.asked.push(restored_at);
        }
        draft.log(&self.settings.targets, record, item.trace.as_deref())
    }

    fn refuse(&self, item: Item, refusal: &Refusal, draft: &mut TransactionOutbox) -> Result<()> {
        draft.tally.result("", refusal.code);
        let record = outbox::refused(item.record, refusal);
        let record = if self.too_large.times(&record.replay_id) > 1 { outbox::cut(record, &item.request) } else { record };
        draft.log(&self.settings.targets, record, item.trace.as_deref())
    }

    /// Where SAGA_RESTORED goes: how keys of step events are spread over how many partitions.
    fn events_target(&self, saga: &RestoredSaga) -> Result<(Partitioner, i32)> {
        let position = &saga.checkpoint.position;
        let partitions =
            self.deps.catch_up.chains.partitions_of(&position.topic).ok_or_else(|| {
                Error::unavailable(format!("the saga's topic {} is not one of [topics] events", position.topic))
            })?;
        let original = saga.original_saga_id.as_str().as_bytes();
        self.deps.partitioning.see(std::iter::once(original), position.partition, partitions);
        let partitioner = self.deps.partitioning.partitioner().ok_or_else(|| {
            Error::unavailable("no known partitioner explains where the step events' keys are: set [topics] partitioner")
        })?;
        Ok((partitioner, partitions))
    }

    fn park(
        &mut self,
        item: Item,
        order: &ReplayOrder,
        ends: Option<EndOffsets>,
        draft: &mut TransactionOutbox,
        again: &mut Vec<(Parked, TopicPartition)>,
    ) -> Result<()> {
        if let Some(parked) = item.parked {
            // In the log already. The first take-up's ends stay.
            if let (Some(ends), Some(owned)) = (ends, self.owned.get_mut(&item.partition)) {
                owned.waiting.taken_up(&parked.record.replay_id, &ends);
            }
            return Ok(());
        }
        let Some(owned) = self.owned.get(&item.partition) else { return Ok(()) };
        let limit = self.settings.max_parked_requests;
        // Those of other partitions count too, which is only asked where it could matter.
        let parked = || again.iter().filter(|(_, partition)| *partition == item.partition).count();
        let is_full = owned.waiting.len() + again.len() >= limit && owned.waiting.len() + parked() >= limit;
        if is_full && !owned.passed.is_wanted(&item.record.replay_id) {
            self.pass_over(item, Some(order), draft);
            return Ok(());
        }
        draft.tally.result("", "parked");
        let record = outbox::accepted(item.record, &item.request);
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

    async fn cancel(
        &mut self,
        item: Item,
        replay_id: &str,
        loaded: &LoadedHistories,
        draft: &mut TransactionOutbox,
        now: Micros,
    ) -> Result<()> {
        if self.is_repeat(&item.record, loaded, draft).await? {
            draft.tally.duplicates += 1;
            return Ok(());
        }
        if self.too_large.times(&item.record.replay_id) > 0 {
            return self.refuse(
                item,
                &Refusal::new("too_large", "the request is larger than the replay log's topic takes"),
                draft,
            );
        }
        let known = self.known(replay_id, &item.record, loaded, draft).await?;
        let in_topic = self.owned.get(&item.partition).is_some_and(|owned| owned.passed.has(replay_id))
            || draft.passed.iter().any(|(_, passed)| passed.replay_id == replay_id);
        if in_topic && known.as_ref().is_none_or(|known| known.status != ReplayStatus::Accepted) {
            // It stays behind that one, which is read again at once and then waits, to be called off.
            draft.wanted.push((item.partition.clone(), replay_id.to_owned()));
            self.pass_over(item, None, draft);
            return Ok(());
        }
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
    async fn outcome(
        &mut self,
        item: &Item,
        outcome: &Outcome,
        loaded: &LoadedHistories,
        draft: &mut TransactionOutbox,
    ) -> Result<()> {
        let Some(known) = self.known(&outcome.replay_id, &item.record, loaded, draft).await? else {
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
        if self.too_large.times(&item.record.replay_id) > 0 {
            record = outbox::cut(record, &item.request);
        }
        draft.log(&self.settings.targets, record, None)
    }

    fn rate_allows(&mut self) -> bool {
        let may = self.rate.take(std::time::Instant::now());
        if !may {
            self.deps.metrics.replay_throttled.inc();
        }
        may
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
