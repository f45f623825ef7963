//! Carrying out one batch: take up what is due and what was read, decide, publish together, forget what is done. The
//! next one is decided while a batch is committed, if there is enough to do: as if it were committed, and for nothing
//! if it is not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::catch_up::EndOffsets;
use super::decide::FRESH_WITHIN;
use super::outbox::TransactionOutbox;
use super::owner::may_be_of;
use super::parked::Parked;
use super::read::ReadRecords;
use super::take_up::{Item, TakenRequest, dead, take_up};
use super::{MAX_JUST_RESTORED, PARTITION_RESTS, RECORD_TOO_LARGE, Replay, TICK};
use crate::error::{Error, Result};
use crate::kafka::intake::GroupMetadata;
use crate::kafka::record::Record;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::ReplayStatus;
use crate::saga::time::Micros;
use crate::wire::payload::NotDecoded;

/// Requests that make it worth deciding a batch while the one before it is committed. What is read meanwhile comes only
/// after it: a few are rather taken up together with that.
const MIN_PREPARED: usize = 64;
/// A batch that waited longer to be published is decided anew: what it carries out may have expired.
const LONGEST_PREPARED: Duration = Duration::from_secs(1);

/// Longest time between two looks at parked requests of which none could go.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Next offsets, of every partition that gave something.
pub(super) type Offsets = HashMap<TopicPartition, Offset>;

/// A batch that is decided and not published.
pub(super) struct Prepared {
    pub draft: TransactionOutbox,
    pub offsets: Offsets,
    /// The membership under which it was taken up.
    pub group: GroupMetadata,
    /// What was parked in it: waits once it is committed.
    pub again: Vec<(Parked, TopicPartition)>,
    /// The one partition that it is of, whose log it claims.
    pub claims: Option<TopicPartition>,
    pub replay_ids: Vec<String>,
    /// Requests that were parked before, and records.
    parked: usize,
    records: usize,
    decided: Instant,
}

/// What one batch works on.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    draft: TransactionOutbox,
    offsets: Offsets,
}

impl Prepared {
    pub fn requests(&self) -> usize {
        self.parked + self.records
    }
}

impl Replay {
    /// `false`: there was nothing that could be done.
    pub(super) async fn batch(&mut self) -> Result<bool> {
        self.release_foreign_partitions().await?;
        let prepared = self.prepared.take().filter(|batch| batch.decided.elapsed() < LONGEST_PREPARED);
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => match self.prepare(None).await? {
                Some(prepared) => prepared,
                None => return Ok(false),
            },
        };
        let (replay_ids, requests) = (prepared.replay_ids.clone(), prepared.requests());
        let (culprit, offsets) = (prepared.culprit(), prepared.offsets.clone());
        self.read_batch();
        self.fetch_end_offsets_of_batch(&prepared.offsets).await;
        match self.publish(prepared).await {
            Err(Error::Refused { code: RECORD_TOO_LARGE, .. }) => {
                return self.was_too_large(culprit, requests).await.map(|()| true);
            }
            other => other?,
        }
        self.alone = self.alone.saturating_sub(1);
        self.too_large.committed(&replay_ids, &offsets);
        self.drop_taken();
        Ok(true)
    }

    /// Takes up a batch and decides it. `behind`: the next offsets of the batch that is being committed, if one is; then only
    /// what needs no waiting.
    async fn prepare(&mut self, behind: Option<&Offsets>) -> Result<Option<Prepared>> {
        self.see_leaders().await;
        let group = self.intake.group_metadata().await?;
        let now = (self.deps.now)();
        let mut batch = Batch::default();
        let limit = self.batch_limit();
        let mut claims = None;
        if behind.is_none() {
            self.look_at_logs().await?;
            claims = self.unclaimed().await?;
        }
        self.sign(&mut batch.draft);
        if behind.is_none() && Instant::now() >= self.look_again.0 && self.rate.allows(Instant::now()) > 0 {
            // Half, so that requests which cannot go yet never keep new ones out.
            self.take_parked(&mut batch, now, (limit / 2).max(1), claims.as_ref());
        }
        let parked = batch.items.len();
        let records = self.take_read(&mut batch, limit.saturating_sub(parked), behind, claims.as_ref()).await?;
        if batch.items.is_empty() && records == 0 {
            return Ok(None);
        }
        let Batch { items, mut draft, offsets } = batch;
        if behind.is_some() && !self.all_ends_are_known(&items) {
            return Ok(None);
        }
        let patience = if behind.is_some() { Duration::ZERO } else { FRESH_WITHIN };
        let mut loaded = self.load_fresh(&items, now, patience).await?;
        if behind.is_some() && !loaded.has_all() {
            return Ok(None);
        }
        loaded.dropped = self.look_up(&items).await?;
        let mut again: Vec<(Parked, TopicPartition)> = Vec::new();
        let replay_ids: Vec<String> = items.iter().map(|item| item.record.replay_id.clone()).collect();
        self.decide_all(items, loaded, &mut draft, &mut again, now).await?;
        let decided = Instant::now();
        self.looked(&replay_ids[..parked], &draft);
        if draft.is_empty() && records == 0 {
            // Only parked ones that are still behind.
            return Ok(None);
        }
        // What was cancelled or replaced in this very batch does not wait.
        let waits = |parked: &Parked| {
            let last = draft.log.get(&parked.record.replay_id);
            last.is_some_and(|last| last.status == ReplayStatus::Accepted && last.dry_run == parked.record.dry_run)
        };
        again.retain(|(parked, _)| waits(parked));
        Ok(Some(Prepared { draft, offsets, group, again, claims, replay_ids, parked, records, decided }))
    }

    /// Whether the next batch can be decided as if this one were committed. Not if that depends on what waits: requests of a
    /// saga keep their order; nor with a rate, of which a batch that is decided for nothing would take its part.
    pub(super) fn may_prepare_behind(&self, batch: &Prepared) -> bool {
        let nothing_is_passed = batch.draft.passed.is_empty() && self.owned.values().all(|owned| owned.passed.is_empty());
        let nothing_waits = batch.parked == 0 && batch.again.is_empty() && nothing_is_passed && !self.is_anything_due();
        let known = self.read.iter().filter(|read| read.ends.is_some()).flat_map(|read| read.behind(&batch.offsets));
        let enough = MIN_PREPARED.min(self.batch_limit());
        let is_free = self.alone == 0 && !self.rate.is_limited();
        nothing_waits && is_free && self.came.is_empty() && known.take(enough).count() == enough
    }

    /// The batch behind these next offsets, which are being committed. What cannot be decided now is met again by the next
    /// batch in its turn.
    pub(super) async fn prepare_behind(&mut self, offsets: &Offsets) -> Option<Prepared> {
        match self.prepare(Some(offsets)).await {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::debug!(%error, "next batch of replays not prepared");
                None
            }
        }
    }

    /// Where nothing of what is parked could go, the next look is later each time: it asks both stores.
    fn looked(&mut self, parked: &[String], draft: &TransactionOutbox) {
        let (at, pause) = &mut self.look_again;
        if parked.iter().any(|replay_id| draft.log.get(replay_id).is_some()) {
            *pause = Duration::ZERO;
        } else if !parked.is_empty() {
            *pause = (*pause * 2).clamp(TICK, LONGEST_LOOK);
            *at = Instant::now() + *pause;
        }
    }

    /// Requests of one batch; one, while the one that is too large for its topic is looked for.
    fn batch_limit(&self) -> usize {
        if self.alone > 0 { 1 } else { self.settings.max_batch_requests }
    }

    fn take_parked(&mut self, batch: &mut Batch, now: Micros, limit: usize, only: Option<&TopicPartition>) {
        let share = (limit / self.owned.len().max(1)).max(1);
        let (unreadable, instant) = (&self.unreadable, Instant::now());
        let rests = |saga: &SagaId| unreadable.get(saga).is_some_and(|(again, _)| *again > instant);
        // Another one first each time, should there be more partitions than room.
        let mut partitions: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        partitions.sort_unstable();
        let first = self.turn % partitions.len().max(1);
        partitions.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        let (log, view) = (&self.settings.targets.log, &self.deps.planner.log);
        let may_be = |of: &&TopicPartition| !self.writable.lacks(log, of.partition) && may_be_of(view, of, only);
        for partition in partitions.iter().filter(may_be) {
            let Some(owned) = self.owned.get_mut(partition) else { continue };
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

    /// Takes up records read, without removing them: they go when the transaction is committed. Gives how many. Behind a
    /// batch that is being committed only those whose ends are known: those of now take in what it writes.
    async fn take_read(
        &mut self,
        batch: &mut Batch,
        room: usize,
        behind: Option<&Offsets>,
        only: Option<&TopicPartition>,
    ) -> Result<usize> {
        let mut taken = 0;
        let instant = Instant::now();
        let read: Vec<(TopicPartition, Option<EndOffsets>, Vec<Record>)> = {
            let mut left = room;
            let mut out = Vec::new();
            for ReadRecords { records, ends, .. } in &self.read {
                if behind.is_some() && ends.is_none() {
                    break;
                }
                let owned = self
                    .owned
                    .get(&records.partition)
                    .filter(|owned| owned.log_not_known.is_none() && owned.head_rests <= instant);
                let Some(owned) = owned.filter(|_| may_be_of(&self.deps.planner.log, &records.partition, only)) else { continue };
                if self.writable.lacks(&self.settings.targets.log, records.partition.partition) {
                    continue;
                }
                let next = behind.and_then(|offsets| offsets.get(&records.partition)).copied();
                let wanted = |record: &&Record| match next {
                    Some(next) => record.offset >= next,
                    None => owned.wants(record.offset),
                };
                let some: Vec<Record> = records.records.iter().filter(wanted).take(left).cloned().collect();
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
        let mut waits: Vec<TopicPartition> = Vec::new();
        for (partition, ends, records) in read {
            if waits.contains(&partition) {
                continue;
            }
            for record in records {
                let next = self.owned.get(&partition).map(|owned| owned.next).unwrap_or_default();
                let is_again = behind.is_none() && record.offset < next;
                if is_again && !batch.draft.looked_again.entry(partition.clone()).or_default().insert(record.offset) {
                    continue;
                }
                // Its schema is asked for: it waits where it is, and what comes behind it.
                let Some(what) = self.take_up_record(&record, &partition)? else {
                    batch.draft.look_again_at(&partition, record.offset);
                    waits.push(partition.clone());
                    break;
                };
                match what {
                    TakenRequest::Item(item) => batch.items.push(Item { ends: ends.clone(), ..*item }),
                    TakenRequest::Dead(letter) => {
                        let mut letter = self.as_small_as_it_must_be(letter, &partition, record.offset).await?;
                        batch.draft.tally.dead_letters += 1;
                        letter.partition = self.writable.another(&letter.topic, letter.key.as_deref().unwrap_or_default());
                        batch.draft.records.push(letter);
                    }
                    // It waits where it is, and what comes behind it, until its home has a leader.
                    TakenRequest::Forward(forwarded)
                        if forwarded.partition.is_some_and(|home| self.writable.lacks(&forwarded.topic, home)) =>
                    {
                        batch.draft.look_again_at(&partition, record.offset);
                        waits.push(partition.clone());
                        break;
                    }
                    TakenRequest::Forward(forwarded) => batch.draft.records.push(forwarded),
                }
                let looked = batch.offsets.entry(partition.clone()).or_insert(next);
                *looked = (*looked).max(record.offset.next());
                taken += 1;
            }
        }
        // Their next batches have room for others.
        for partition in &waits {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.head_rests = Instant::now() + PARTITION_RESTS;
            }
        }
        if taken == 0 {
            self.drop_taken();
        }
        Ok(taken)
    }

    /// `None`: its schema is not known yet.
    fn take_up_record(&mut self, record: &Record, partition: &TopicPartition) -> Result<Option<TakenRequest>> {
        let (targets, schemas) = (&self.settings.targets, &self.deps.schemas);
        // With the headers of a forwarding it is larger than its topic takes.
        let stays = self.too_large.times_at(partition, record.offset) > 0;
        let of = (!stays).then_some(self.settings.request_partitions);
        match take_up(record, partition, of, &targets.dead_letters, schemas) {
            Ok(taken) => Ok(Some(taken)),
            Err(NotDecoded::NeedSchema(schema)) if self.is_given_up(partition, record.offset, schema) => {
                let message = format!("the registry has no Avro schema with {schema}");
                Ok(Some(TakenRequest::Dead(dead(record, partition, &targets.dead_letters, "invalid_request", &message))))
            }
            Err(NotDecoded::NeedSchema(schema)) => {
                self.wait_for(partition, schema, record.offset);
                Ok(None)
            }
            Err(NotDecoded::DeadLetter { message, .. }) => Err(Error::bug(message)),
        }
    }

    /// Records that were looked at are done with.
    fn drop_taken(&mut self) {
        let owned = &mut self.owned;
        self.read.retain_mut(|read| match owned.get_mut(&read.records.partition) {
            Some(owned) => {
                let is_new = |record: &Record| record.offset >= owned.next;
                owned.cut_off |= owned.passed.is_full() && read.records.records.iter().any(is_new);
                read.records.records.retain(|record| owned.wants(record.offset));
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
    async fn fetch_end_offsets_of_batch(&mut self, offsets: &Offsets) {
        if self.read.iter().any(|read| read.ends.is_none() && read.behind(offsets).next().is_some())
            && let Ok(now) = self.deps.catch_up.fetch_end_offsets().await
        {
            self.know_ends(&now);
        }
    }

    /// What was read so far was recorded before these ends were asked: its batches need not ask again, and need not wait for
    /// what the batches before them write.
    pub(super) fn know_ends(&mut self, ends: &EndOffsets) {
        for read in &mut self.read {
            read.ends.get_or_insert_with(|| ends.clone());
        }
    }

    /// Ends are asked anew for all that is read.
    pub(super) fn forget_ends(&mut self) {
        self.just_restored.clear();
        self.read.iter_mut().for_each(|read| read.ends = None);
    }
}
