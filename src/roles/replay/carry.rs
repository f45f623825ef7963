//! Carrying out one batch: take up what is due and what was read, decide, publish together, forget what is done.

use std::collections::HashMap;
use std::time::Instant;

use super::ahead::Ahead;
use super::draft::Draft;
use super::fresh::EndsThen;
use super::parked::Parked;
use super::take_up::{Item, Taken, dead, take_up};
use super::{MAX_JUST_RESTORED, RECORD_TOO_LARGE, Read, Replay};
use crate::error::{Error, Result};
use crate::kafka::record::Record;
use crate::roles::schema::learn;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::{CommandName, ReplayStatus};
use crate::saga::time::Micros;
use crate::wire::payload::NotDecoded;

/// What one batch works on.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    draft: Draft,
    /// Next offsets, of every partition that gave something.
    offsets: HashMap<TopicPartition, Offset>,
}

impl Read {
    /// Records that are not passed by these next offsets.
    fn behind(&self, offsets: &HashMap<TopicPartition, Offset>) -> impl Iterator<Item = &Record> {
        let next = offsets.get(&self.records.partition).copied().unwrap_or(Offset(0));
        self.records.records.iter().filter(move |record| record.offset >= next)
    }
}

impl Replay {
    /// `false`: there was nothing that could be done.
    pub(super) async fn batch(&mut self) -> Result<bool> {
        let group = self.intake.group_metadata().await?;
        let now = (self.parts.now)();
        let mut batch = Batch::default();
        let limit = self.batch_limit();
        // Half, so that requests which cannot go yet never keep new ones out.
        self.take_parked(&mut batch, now, (limit / 2).max(1));
        let parked = batch.items.len();
        let room = limit.saturating_sub(parked);
        let taken_records = self.take_read(&mut batch, room).await?;
        if batch.items.is_empty() && taken_records == 0 {
            return Ok(false);
        }
        let Batch { items, mut draft, offsets, .. } = batch;
        let mut again: Vec<(Parked, TopicPartition)> = Vec::new();
        let replay_ids: Vec<String> = items.iter().map(|item| item.record.replay_id.clone()).collect();
        self.decide_all(items, &mut draft, &mut again, now).await?;
        if draft.is_empty() && taken_records == 0 {
            // Only parked ones that are still behind.
            return Ok(false);
        }
        // What was cancelled or replaced in this very batch does not wait.
        let waits = |parked: &Parked| {
            let last = draft.log.get(&parked.record.replay_id);
            last.is_some_and(|last| last.status == ReplayStatus::Accepted && last.dry_run == parked.record.dry_run)
        };
        again.retain(|(parked, _)| waits(parked));
        self.read_what_came();
        self.ask_ends_of_what_came(&offsets).await;
        let look_at = self.next_sagas(&offsets);
        match self.publish(draft, offsets.into_iter().collect(), group, look_at).await {
            Err(Error::Refused { code: RECORD_TOO_LARGE, message }) => {
                return self.too_large(&replay_ids, parked + taken_records, &message).map(|()| true);
            }
            other => other?,
        }
        self.alone = self.alone.saturating_sub(1);
        for replay_id in replay_ids {
            self.too_large.remove(&replay_id);
        }
        // Committed: what was taken is done with, what waits is in memory as it is in the log.
        self.drop_taken();
        for (parked, partition) in again {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.waiting.insert(parked);
            }
        }
        self.pause_what_is_full().await?;
        Ok(true)
    }

    /// Requests of one batch; one, while the one that is too large for its topic is looked for.
    fn batch_limit(&self) -> usize {
        if self.alone > 0 { 1 } else { self.settings.max_batch_requests }
    }

    /// A topic did not take a record of this batch: one request alone is refused, several are carried out one by one.
    fn too_large(&mut self, replay_ids: &[String], requests: usize, reason: &str) -> Result<()> {
        if requests > 1 {
            self.alone = requests;
            return Ok(());
        }
        match replay_ids {
            [one] if self.too_large.insert(one.clone()) => {
                tracing::warn!(replay_id = one, "the request's records are larger than their topics take, refusing it");
                Ok(())
            }
            // A dead letter, or even the refusal: only an operator can help, by the topic's max.message.bytes.
            _ => Err(Error::unavailable(format!("publish replays: {reason}"))),
        }
    }

    fn take_parked(&mut self, batch: &mut Batch, now: Micros, limit: usize) {
        let share = (limit / self.owned.len().max(1)).max(1);
        let (unreadable, instant) = (&self.unreadable, Instant::now());
        let rests = |saga: &SagaId| unreadable.get(saga).is_some_and(|(again, _)| *again > instant);
        for (partition, owned) in &mut self.owned {
            let due = owned.waiting.due(now, share.min(limit.saturating_sub(batch.items.len())));
            for parked in due.into_iter().filter(|parked| !rests(&parked.order.saga_id)) {
                batch.offsets.insert(partition.clone(), owned.next);
                batch.items.push(Item {
                    request: parked.request.clone(),
                    partition: partition.clone(),
                    record: parked.record.clone(),
                    trace: parked.trace.clone(),
                    ends: parked.ends.clone(),
                    parked: Some(parked),
                });
            }
        }
    }

    /// Takes up records read, without removing them: they go when the transaction is committed. Gives how many.
    async fn take_read(&mut self, batch: &mut Batch, room: usize) -> Result<usize> {
        let mut taken = 0;
        let read: Vec<(TopicPartition, Option<EndsThen>, Vec<Record>)> = {
            let mut left = room;
            let mut out = Vec::new();
            for Read { records, ends, .. } in &self.read {
                let Some(owned) = self.owned.get(&records.partition) else { continue };
                let fresh = records.records.iter().filter(|record| record.offset >= owned.next);
                let some: Vec<Record> = fresh.take(left).cloned().collect();
                left -= some.len();
                if !some.is_empty() {
                    out.push((records.partition.clone(), ends.clone(), some));
                }
                if left == 0 {
                    break;
                }
            }
            out
        };
        for (partition, ends, records) in read {
            for record in records {
                batch.offsets.insert(partition.clone(), record.offset.next());
                taken += 1;
                match self.take_up_record(&record, &partition).await? {
                    Taken::Item(item) => batch.items.push(Item { ends: ends.clone(), ..*item }),
                    Taken::Dead(letter) => {
                        self.parts.metrics.dead_letters.with_label_values(&["replay", "invalid_request"]).inc();
                        batch.draft.records.push(letter);
                    }
                    Taken::Forward(forwarded) => batch.draft.records.push(forwarded),
                }
            }
        }
        if taken == 0 {
            self.drop_taken();
        }
        Ok(taken)
    }

    async fn take_up_record(&self, record: &Record, partition: &TopicPartition) -> Result<Taken> {
        let (targets, schemas) = (&self.settings.targets, &self.parts.schemas);
        loop {
            let of = self.settings.request_partitions;
            match take_up(record, partition, of, &targets.dead_letters, schemas) {
                Ok(taken) => return Ok(taken),
                Err(NotDecoded::NeedSchema(schema)) => {
                    if !learn(self.parts.registry.as_deref(), schema, schemas).await? {
                        let message = format!("the registry has no Avro schema with {schema}");
                        return Ok(Taken::Dead(dead(record, partition, &targets.dead_letters, "invalid_request", &message)));
                    }
                }
                Err(NotDecoded::DeadLetter { message, .. }) => return Err(Error::bug(message)),
            }
        }
    }

    /// Records below the committed offsets are done with.
    fn drop_taken(&mut self) {
        let owned = &self.owned;
        self.read.retain_mut(|read| match owned.get(&read.records.partition) {
            Some(owned) => {
                read.records.records.retain(|record| record.offset >= owned.next);
                !read.records.records.is_empty()
            }
            None => false,
        });
        if self.read.is_empty() || self.just_restored.len() > MAX_JUST_RESTORED {
            self.forget_ends();
        }
    }

    /// Ends of what was read since they were asked last. Before the transaction: what it writes need not be waited for.
    /// Where Kafka does not answer now, the next batch asks.
    async fn ask_ends_of_what_came(&mut self, offsets: &HashMap<TopicPartition, Offset>) {
        if self.read.iter().any(|read| read.ends.is_none() && read.behind(offsets).next().is_some())
            && let Ok(now) = self.parts.freshness.ends_now().await
        {
            self.know_ends(&now);
        }
    }

    /// The sagas that the batch behind these offsets is about, by the keys of its records, with the ends they share.
    fn next_sagas(&self, offsets: &HashMap<TopicPartition, Offset>) -> Option<(EndsThen, Vec<SagaId>)> {
        let mut shared: Option<&EndsThen> = None;
        let mut sagas: Vec<SagaId> = Vec::new();
        for read in &self.read {
            let ends = read.ends.as_ref().filter(|ends| shared.is_none_or(|shared| shared.is_same(ends)));
            let Some(ends) = ends else { continue };
            // A wrong guess costs a history that is not used, or is loaded later.
            let may_replay = |record: &&Record| {
                record
                    .value
                    .as_deref()
                    .is_some_and(|value| memchr::memmem::find(value, CommandName::Outcome.as_str().as_bytes()).is_none())
            };
            let keys =
                read.behind(offsets).filter(may_replay).filter_map(|record| std::str::from_utf8(record.key.as_deref()?).ok());
            sagas.extend(keys.map(SagaId::new).take(self.batch_limit() - sagas.len()));
            if !sagas.is_empty() {
                shared = Some(ends);
            }
        }
        sagas.sort_unstable();
        sagas.dedup();
        Some((shared?.clone(), sagas))
    }

    /// What was read so far was recorded before these ends were asked: its batches need not ask again, and need not wait for
    /// what the batches before them write.
    pub(super) fn know_ends(&mut self, ends: &EndsThen) {
        for read in &mut self.read {
            read.ends.get_or_insert_with(|| ends.clone());
        }
    }

    /// Ends are asked anew for all that is read.
    pub(super) fn forget_ends(&mut self) {
        self.just_restored.clear();
        self.ahead = Ahead::default();
        self.read.iter_mut().for_each(|read| read.ends = None);
    }

    /// More waits than may: that partition is not read on until it is less.
    async fn pause_what_is_full(&mut self) -> Result<()> {
        let limit = self.settings.max_parked_requests;
        let (mut full, mut free) = (Vec::new(), Vec::new());
        for (partition, owned) in &mut self.owned {
            if !owned.paused && owned.waiting.len() >= limit {
                owned.paused = true;
                full.push(partition.clone());
            } else if owned.paused && owned.waiting.len() < limit {
                owned.paused = false;
                free.push(partition.clone());
            }
        }
        if !full.is_empty() {
            tracing::warn!(partitions = full.len(), limit, "too many replay requests wait, partitions paused");
            self.intake.pause(full).await?;
        }
        if !free.is_empty() {
            self.intake.resume(free).await?;
        }
        Ok(())
    }
}
