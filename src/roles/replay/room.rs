//! Requests for which there is no room to wait: they are passed over, committed behind, and read again.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::Replay;
use super::batch::Prepared;
use super::outbox::TransactionOutbox;
use super::skipped::{SkippedRequest, SkippedRequests};
use super::take_up::Item;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::ReplayOrder;
use crate::saga::time::Micros;

impl Replay {
    /// Leaves a request in the topic, to be read again: there is no room to let it wait, and it keeps nobody else.
    pub(super) fn pass_over(&self, item: Item, order: Option<&ReplayOrder>, draft: &mut TransactionOutbox) {
        let go = |order: &ReplayOrder| order.not_before.unwrap_or(Micros::MIN).max(Micros::MIN);
        let order = order.map(|order| (order.saga_id.clone(), go(order)));
        let one = SkippedRequest { offset: item.record.position.offset, replay_id: item.record.replay_id, order };
        draft.passed.push((item.partition, one));
    }

    pub(super) fn follows_one_passed_over(&self, item: &Item, saga: &SagaId, now: Micros, draft: &TransactionOutbox) -> bool {
        let none = HashSet::new();
        let done = draft.looked_again.get(&item.partition).unwrap_or(&none);
        let precedes = |passed: &SkippedRequests| passed.precedes(saga, item.record.position.offset, now, done);
        self.owned.get(&item.partition).is_some_and(|owned| precedes(&owned.passed))
    }

    /// Of each partition the first request that stays in the topic, or behind what was looked at.
    pub(super) fn offsets_to_commit(&self, batch: &Prepared) -> Vec<(TopicPartition, Offset)> {
        let draft = &batch.draft;
        let commit = |(partition, looked): (&TopicPartition, &Offset)| {
            let passed = draft.passed.iter().filter(|(of, _)| of == partition).map(|(_, one)| one.offset);
            let none = HashSet::new();
            let before = self
                .owned
                .get(partition)
                .and_then(|owned| owned.passed.first_without(draft.looked_again.get(partition).unwrap_or(&none)));
            let first = passed.chain(before).min().map_or(*looked, |first| first.min(*looked));
            (partition.clone(), first)
        };
        batch.offsets.iter().map(commit).collect()
    }

    /// After a commit: what was passed over, and what of that is done with.
    pub(super) fn remember_passed(
        &mut self,
        passed: Vec<(TopicPartition, SkippedRequest)>,
        looked_again: &HashMap<TopicPartition, HashSet<Offset>>,
        wanted: Vec<(TopicPartition, String)>,
    ) {
        let now = Instant::now();
        for (partition, offsets) in looked_again {
            let Some(owned) = self.owned.get_mut(partition) else { continue };
            let stays = |offset: &Offset| passed.iter().any(|(of, one)| of == partition && one.offset == *offset);
            let done: Vec<Offset> = offsets.iter().filter(|offset| !stays(offset)).copied().collect();
            done.iter().for_each(|offset| owned.passed.remove(*offset));
            if let Some(last) = offsets.iter().max() {
                owned.passed.looked(last.next(), owned.next, !done.is_empty());
            }
        }
        for (partition, one) in passed {
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            if owned.passed.is_empty() && owned.waiting.len() >= self.settings.max_parked_requests {
                let limit = self.settings.max_parked_requests;
                tracing::warn!(%partition, limit, "as many requests wait as may (replay.max_parked_requests), more stay in the topic");
            }
            owned.passed.insert(one, now);
        }
        for (partition, replay_id) in wanted {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.passed.want(replay_id, now);
            }
        }
    }

    /// Reads again what was passed over, where there is room now or its time has come.
    pub(super) async fn reread_skipped(&mut self) -> Result<()> {
        let (limit, now) = (self.settings.max_parked_requests, (self.deps.now)());
        let mut from: Vec<(TopicPartition, Offset)> = Vec::new();
        for (partition, owned) in &mut self.owned {
            // What cannot go on is not read at all.
            if !owned.rest.is_active() {
                continue;
            }
            let room = limit.saturating_sub(owned.waiting.len());
            if let Some(first) = owned.passed.look_again(room, now, owned.next, Instant::now()) {
                from.push((partition.clone(), first));
            } else if owned.cut_off && !owned.passed.is_full() && !owned.passed.is_read_again() {
                // Behind the answer comes what follows: until then it is cut off.
                self.tickets += 1;
                if self.intake.read_again(partition.clone(), owned.next, self.tickets).is_ok() {
                    owned.rest.resume_asked(self.tickets);
                }
            }
        }
        for (partition, offset) in from {
            match self.intake.seek(partition.clone(), offset).await {
                // It goes to another member, which begins where we committed.
                Err(Error::Refused { .. }) | Ok(()) => {}
                Err(Error::Unavailable(reason)) => {
                    tracing::warn!(%partition, reason, "requests that were passed over not read again yet");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}
