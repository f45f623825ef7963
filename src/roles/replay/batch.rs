//! One batch, from take-up to commit: what is due and what was read is decided, published together, and forgotten. The
//! next one is decided while a batch is committed, if there is enough to do: as if it were committed, and for nothing
//! if it is not.

use std::time::Duration;

use super::batches::ExpansionSurroundings;
use super::commit::{RECORD_TOO_LARGE, commit_beside};
use super::decide::{BatchTimes, decide};
use super::draft::{BatchDraft, DecidedBatch, PreparedBatch};
use super::facts::{LoadedBatch, Surroundings};
use super::histories::{HistoryLoader, LoadedHistories, all_ends_are_known};
use super::history_lookup::HistoryLookup;
use super::incoming::{IncomingRecord, dead_letter, read_record};
use super::intake_events::IntakeEvents;
use super::oversized::cut_dead_letter;
use super::queue::item::{NextOffsets, RequestItem};
use super::queue::requests::{NextRecords, PARTITION_RESTS};
use super::runner::BatchRunner;
use crate::error::{Error, Result};
use crate::kafka::record::{NewRecord, Record};
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::request::Command;
use crate::saga::time::Micros;
use crate::saga::undo::undo_target;
use crate::telemetry::Alarm;
use crate::wire::payload::NotDecoded;

/// How long a batch waits for its sagas' partitions; what is still behind then is parked.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(1);
/// Requests that make it worth deciding a batch while the one before it is committed. What is read meanwhile comes only
/// after it: a few are better decided together with that.
const MIN_PREPARED: usize = 64;
/// A batch that waited longer to be published is decided again: what it publishes may have expired.
const MAX_PREPARED_AGE: Duration = Duration::from_secs(1);
/// Requests that are decided before others get their turn: some 100 us each.
const DECIDED_AT_ONCE: usize = 16;

/// What a batch takes up.
#[derive(Default)]
struct TakenUp {
    items: Vec<RequestItem>,
    /// Of the items: those that were parked before, which come first.
    parked: usize,
    records: usize,
}

impl BatchRunner {
    /// `false`: there was nothing that could be done.
    pub async fn run_batch(&mut self, events: &mut IntakeEvents) -> Result<bool> {
        self.release_foreign_partitions().await?;
        let instant = (self.instant)();
        let prepared = self.prepared.take().filter(|prepared| instant.duration_since(prepared.batch.decided) < MAX_PREPARED_AGE);
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => match self.prepare(None).await? {
                Some(prepared) => prepared,
                None => return Ok(false),
            },
        };
        let batch = &prepared.batch;
        let (replay_ids, requests) = (batch.replay_ids.clone(), batch.requests());
        let (source, offsets) = (batch.source(), batch.draft.offsets.clone());
        while let Some(event) = events.try_reading() {
            self.apply_reading(event);
        }
        self.fetch_end_offsets_of_batch(&offsets).await;
        match self.commit(prepared, events.is_idle()).await {
            Err(Error::Refused { code: RECORD_TOO_LARGE, .. }) => {
                let stuck = self.oversized.not_taken(source, requests);
                self.give_back(stuck.into_iter().collect()).await;
                return Ok(true);
            }
            other => other?,
        }
        self.oversized.committed(&replay_ids, &offsets);
        self.queue.drop_done();
        Ok(true)
    }

    /// Commits a batch; the next one is prepared meanwhile. `is_idle`: no event waits.
    async fn commit(&mut self, prepared: PreparedBatch, is_idle: bool) -> Result<()> {
        let may_prepare = is_idle && self.may_prepare_behind(&prepared.batch);
        let (open, transaction) = self.begin_commit(prepared).await?;
        let prepare = async { if may_prepare { self.prepare_behind(&open.offsets).await } else { None } };
        let (commit, next) = commit_beside(&open.producer, transaction, prepare).await;
        self.finish_commit(open, commit).await?;
        self.prepared = next;
        Ok(())
    }

    /// Takes up a batch and decides it. `behind`: the next offsets of the batch that is being committed, if one is; then only
    /// what needs no waiting.
    async fn prepare(&mut self, behind: Option<&NextOffsets>) -> Result<Option<PreparedBatch>> {
        self.writable.refresh().await;
        self.advance_jobs().await;
        let group = self.intake.group_metadata().await?;
        let taken_up_at = (self.now)();
        let mut claims = None;
        if behind.is_none() {
            self.look_at_logs().await?;
            claims = self.partition_to_claim().await?;
        }
        let batch = self.decide_batch(taken_up_at, behind, claims).await?;
        Ok(batch.map(|batch| PreparedBatch { batch, group }))
    }

    /// Takes up what is due and what was read, and decides it. `None`: nothing comes of it now.
    pub async fn decide_batch(
        &mut self,
        taken_up_at: Micros,
        behind: Option<&NextOffsets>,
        claims: Option<TopicPartition>,
    ) -> Result<Option<DecidedBatch>> {
        let mut draft = BatchDraft::default();
        draft.outbox.signatures = self.claims.signatures();
        let TakenUp { mut items, parked, records } = self.take_up(&mut draft, taken_up_at, behind, claims.as_ref()).await?;
        self.find_undone(&mut items).await?;
        if items.is_empty() && records == 0 && (behind.is_some() || !self.is_batch_ready()) {
            return Ok(None);
        }
        let Some(loaded) = self.load_batch(&items, taken_up_at, behind.is_some()).await? else { return Ok(None) };
        let replay_ids: Vec<String> = items.iter().map(|item| item.record.replay_id.clone()).collect();
        self.decide_all(items, &loaded, &mut draft).await?;
        if behind.is_none() {
            self.expand_batches(&mut draft, taken_up_at, claims.as_ref())?;
        }
        let decided = (self.instant)();
        if parked > 0 {
            let some_went = replay_ids[..parked].iter().any(|replay_id| draft.outbox.log.get(replay_id).is_some());
            self.queue.looked_at_parked(some_went, decided);
        }
        if draft.is_empty() && records == 0 {
            // Only parked ones that are still behind.
            return Ok(None);
        }
        draft.forget_done();
        Ok(Some(DecidedBatch { draft, claims, replay_ids, parked, records, decided }))
    }

    /// Adds the requests of batches and schedules that may go now.
    fn expand_batches(&mut self, draft: &mut BatchDraft, now: Micros, claims: Option<&TopicPartition>) -> Result<()> {
        // One request alone is looked for that is too large: nothing else goes with it.
        if self.oversized.is_looked_for() {
            return Ok(());
        }
        let (queue, log_claims, writable) = (&self.queue, &self.claims, &self.writable);
        let may_be = |of: &TopicPartition| !writable.lacks_log(of.partition) && log_claims.may_be_of(of, claims);
        let next = |of: &TopicPartition| (queue.has_partition(of) && may_be(of)).then(|| queue.next_offset(of));
        let requests = &self.settings.targets.requests;
        let around = ExpansionSurroundings {
            unapplied: &self.unapplied,
            targets: &self.settings.targets,
            partitions: self.settings.request_partitions,
            now,
            instant: (self.instant)(),
        };
        let may_go = |home| !writable.lacks(requests, home);
        self.schedules.make_requests(draft, &around, next, may_go)?;
        self.batches.expand(draft, &around, next, may_go)
    }

    /// The batch behind these next offsets, which are being committed. What cannot be decided now comes again with the next
    /// batch.
    async fn prepare_behind(&mut self, offsets: &NextOffsets) -> Option<PreparedBatch> {
        match self.prepare(Some(offsets)).await {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::debug!(%error, "next batch of replays not prepared");
                None
            }
        }
    }

    /// Whether the next batch can be decided as if this one were committed. Not if that depends on what waits: requests of a
    /// saga keep their order; nor with a rate, of which a batch that is decided for nothing would take its part.
    fn may_prepare_behind(&self, batch: &DecidedBatch) -> bool {
        let draft = &batch.draft;
        let nothing_waits = batch.parked == 0
            && draft.parked.is_empty()
            && draft.changes.skipped.is_empty()
            && self.queue.nothing_waits((self.now)());
        let enough = MIN_PREPARED.min(self.batch_limit());
        let is_free =
            !self.oversized.is_looked_for() && !self.queue.is_limited() && self.batches.is_idle() && !self.has_schedule_work();
        nothing_waits && is_free && self.queue.has_behind(&draft.offsets, enough)
    }

    /// Requests of one batch; one, while the one that is too large for its topic is looked for.
    fn batch_limit(&self) -> usize {
        if self.oversized.is_looked_for() { 1 } else { self.settings.max_batch_requests }
    }

    /// Looks, for each partition with something read, whether its requests can be told from those seen before: by memory, else
    /// by history. Where neither has it yet (the log's materializer stands still), the partition's requests wait, unread: a
    /// request must not be parked under an id that may be done with, and none may be replayed twice.
    async fn look_at_logs(&mut self) -> Result<()> {
        let now = (self.instant)();
        for partition in self.queue.partitions_to_look_up(now) {
            let records = &self.facts.planner.records;
            let known = match records.is_known(&records.homes_of_partition(partition.partition)).await {
                Err(Error::Unavailable(reason) | Error::Corrupt(reason)) => {
                    tracing::debug!(%partition, reason, "replay log not looked up in history");
                    false
                }
                other => other?,
            };
            if known {
                if self.queue.log_is_known(&partition) {
                    self.alarms.clear(partition.partition, Alarm::LogNotKnown);
                }
            } else if self.queue.log_is_not_known(&partition, now) {
                self.alarms.raise(partition.partition, Alarm::LogNotKnown);
                tracing::error!(
                    %partition, log = self.settings.targets.log,
                    "replay requests wait: what the log had before is neither in memory nor, yet, in history; see that role materialize reads it"
                );
            }
        }
        Ok(())
    }

    /// A partition with something to do whose log is unclaimed yet: the next batch is of it alone, and claims it.
    async fn partition_to_claim(&mut self) -> Result<Option<TopicPartition>> {
        let may_be = |number| !self.claims.is_claimed(number) && !self.writable.lacks_log(number);
        let unclaimed = self.queue.claimable((self.now)(), (self.instant)(), may_be);
        let opened = self.claims.open_missing(&unclaimed).await?;
        if !opened.is_empty() {
            // Whoever claimed them before is fenced now, and what it wrote is visible.
            let known = self.log_end.reached(&opened, self.has_work_beside()).await?;
            self.claims.keep_known(&opened, &known);
            self.release_foreign_partitions().await?;
        }
        let claims = self.claims.first_ready(&unclaimed);
        // Should nothing come of it, the others go first: what cannot go must keep out no other.
        let tried = claims.map_or(&unclaimed[..], std::slice::from_ref);
        self.queue.rest_claims_until(tried, (self.instant)() + PARTITION_RESTS);
        Ok(claims.cloned())
    }

    /// Gives up what was handed to another group meanwhile.
    async fn release_foreign_partitions(&mut self) -> Result<()> {
        let is_foreign = |partition: &&TopicPartition| self.claims.foreign_owner(partition.partition).is_some();
        let foreign: Vec<TopicPartition> = self.queue.partitions().filter(is_foreign).cloned().collect();
        if foreign.is_empty() {
            return Ok(());
        }
        self.prepared = None;
        self.queue.remove(&foreign);
        self.batches.remove(&foreign);
        self.schedules.remove(&foreign);
        for partition in &foreign {
            self.claims.report_foreign(partition.partition);
        }
        self.intake.pause(foreign).await
    }

    /// Takes up what is due and records read. `claims`: only of this partition.
    async fn take_up(
        &mut self,
        draft: &mut BatchDraft,
        now: Micros,
        behind: Option<&NextOffsets>,
        claims: Option<&TopicPartition>,
    ) -> Result<TakenUp> {
        let (limit, instant) = (self.batch_limit(), (self.instant)());
        let (log_claims, writable) = (&self.claims, &self.writable);
        let may_be = |of: &TopicPartition| !writable.lacks_log(of.partition) && log_claims.may_be_of(of, claims);
        let mut taken = TakenUp::default();
        if behind.is_none() && self.queue.may_look_at_parked(instant) {
            // Half, so that requests which cannot go yet never keep new ones out.
            for (item, next) in self.queue.take_due(now, (limit / 2).max(1), instant, may_be) {
                draft.offsets.insert(item.partition.clone(), next);
                taken.items.push(item);
            }
        }
        taken.parked = taken.items.len();
        let records = self.queue.next_records(limit.saturating_sub(taken.parked), behind, (self.instant)(), may_be);
        self.take_records(records, behind.is_some(), draft, &mut taken).await?;
        Ok(taken)
    }

    /// Takes up records read: each is a request, a dead letter, or forwarded.
    async fn take_records(
        &mut self,
        read: Vec<NextRecords>,
        is_behind: bool,
        draft: &mut BatchDraft,
        taken: &mut TakenUp,
    ) -> Result<()> {
        let mut waits: Vec<TopicPartition> = Vec::new();
        for NextRecords { partition, ends, records } in read {
            if waits.contains(&partition) {
                continue;
            }
            for record in records {
                let next = self.queue.next_offset(&partition);
                let is_again = !is_behind && record.offset < next;
                if is_again && !draft.changes.looked_again.entry(partition.clone()).or_default().insert(record.offset) {
                    continue;
                }
                match self.read_record(&record, &partition)? {
                    Some(IncomingRecord::Request(item)) => taken.items.push(RequestItem { ends: ends.clone(), ..*item }),
                    Some(IncomingRecord::DeadLetter(letter)) => {
                        let letter = self.address_dead_letter(letter, &partition, record.offset).await?;
                        draft.metrics.dead_letters += 1;
                        draft.outbox.records.push(letter);
                    }
                    Some(IncomingRecord::Forward(forwarded)) if self.has_home(&forwarded) => {
                        draft.outbox.records.push(forwarded);
                    }
                    // Its schema is asked for, or its home has no leader: it waits where it is, and what comes behind it.
                    Some(IncomingRecord::Forward(_)) | None => {
                        draft.changes.look_again_at(&partition, record.offset);
                        waits.push(partition.clone());
                        break;
                    }
                }
                let looked = draft.offsets.entry(partition.clone()).or_insert(next);
                *looked = (*looked).max(record.offset.next());
                taken.records += 1;
            }
        }
        self.queue.rest_heads(&waits, (self.instant)());
        if taken.records == 0 {
            self.queue.drop_done();
        }
        Ok(())
    }

    fn has_home(&self, forwarded: &NewRecord) -> bool {
        forwarded.partition.is_none_or(|home| !self.writable.lacks(&forwarded.topic, home))
    }

    /// A dead letter as small as it must be, and where there is a leader.
    async fn address_dead_letter(&self, letter: NewRecord, from: &TopicPartition, offset: Offset) -> Result<NewRecord> {
        let times = self.oversized.times_at(from, offset);
        if times > 0 {
            self.metrics.dead_letters_cut.inc();
        }
        let mut letter = cut_dead_letter(letter, times).await?;
        letter.partition = self.writable.another(&letter.topic, letter.key.as_deref().unwrap_or_default());
        Ok(letter)
    }

    /// `None`: its schema is not known yet.
    fn read_record(&mut self, record: &Record, partition: &TopicPartition) -> Result<Option<IncomingRecord>> {
        let dead_letters = &self.settings.targets.dead_letters;
        // With the headers of a forwarding it is larger than its topic takes.
        let stays = self.oversized.times_at(partition, record.offset) > 0;
        let partitions = (!stays).then_some(self.settings.request_partitions);
        match read_record(record, partition, partitions, dead_letters, &self.schemas) {
            Ok(incoming) => Ok(Some(incoming)),
            Err(NotDecoded::NeedSchema(schema))
                if self.queue.has_no_schema(partition, record.offset) || self.schema_waits.is_missing(schema) =>
            {
                let message = format!("the registry has no Avro schema with {schema}");
                let letter = dead_letter(record, partition, dead_letters, "invalid_request", &message);
                Ok(Some(IncomingRecord::DeadLetter(letter)))
            }
            Err(NotDecoded::NeedSchema(schema)) => {
                self.schema_waits.ask(schema);
                self.queue.wait_for_schema(partition, schema, record.offset);
                Ok(None)
            }
            Err(NotDecoded::DeadLetter { message, .. }) => Err(Error::bug(message)),
        }
    }

    /// Of each UNDO the saga that it is about, by the log. Where the log does not answer now, the undo waits.
    async fn find_undone(&self, items: &mut [RequestItem]) -> Result<()> {
        let records = &self.facts.planner.records;
        for item in items {
            let Command::Undo { replay_id, .. } = &item.request.command else { continue };
            let homes = records.homes_of_request(&item.record);
            let named = match records.find(replay_id, Some(&homes), self.unapplied.overlay()).await {
                Err(Error::Unavailable(_) | Error::Corrupt(_)) => continue,
                other => other?,
            };
            item.undoes = undo_target(named.as_deref(), item.record.original_saga_id.as_ref()).ok().cloned();
        }
        Ok(())
    }

    /// What the requests of a batch are decided by. `None`: behind another batch, and something needs waiting.
    async fn load_batch(&mut self, items: &[RequestItem], taken_up_at: Micros, is_behind: bool) -> Result<Option<LoadedBatch>> {
        if is_behind && !all_ends_are_known(items, self.queue.just_restored()) {
            return Ok(None);
        }
        let patience = if is_behind { Duration::ZERO } else { CAUGHT_UP_WITHIN };
        let histories = self.load_histories(items, taken_up_at, patience).await?;
        if is_behind && !histories.has_all() {
            return Ok(None);
        }
        let facts = &mut self.facts;
        let mut replays =
            HistoryLookup::of(items, &facts.planner.records, self.unapplied.overlay(), &mut facts.alarms, self.instant).await?;
        if let Some(failed) = replays.failed.take() {
            self.queue.log_look_up_failed(&failed.partitions, (self.instant)());
            return Err(failed.error);
        }
        let decided_at = (self.now)().max(taken_up_at);
        Ok(Some(LoadedBatch { times: BatchTimes { taken_up_at, decided_at }, histories, replays }))
    }

    async fn load_histories(&mut self, items: &[RequestItem], now: Micros, patience: Duration) -> Result<LoadedHistories> {
        let loader = HistoryLoader {
            planner: &self.facts.planner,
            catch_up: &self.facts.catch_up,
            writable: &self.writable,
            metrics: &self.metrics,
            instant: self.instant,
        };
        loader.load_caught_up(items, now, patience, &mut self.queue).await
    }

    /// One after the other: each sees what was decided of those before it.
    async fn decide_all(&mut self, items: Vec<RequestItem>, loaded: &LoadedBatch, draft: &mut BatchDraft) -> Result<()> {
        for (number, item) in items.into_iter().enumerate() {
            if number % DECIDED_AT_ONCE == DECIDED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let mut around = Surroundings {
                loaded,
                draft,
                unapplied: &self.unapplied,
                oversized: &self.oversized,
                writable: &self.writable,
                batches: &self.batches,
                queue: &mut self.queue,
            };
            let facts = self.facts.facts_of(&item, &mut around).await?;
            let decision = decide(&facts, &item);
            draft.apply(decision, item, facts, &mut self.queue, &self.settings.targets)?;
        }
        Ok(())
    }

    /// Ends of what was read since they were asked last. Before the transaction: what it writes need not be waited for.
    /// Where Kafka does not answer now, the next batch asks.
    async fn fetch_end_offsets_of_batch(&mut self, offsets: &NextOffsets) {
        if self.queue.needs_ends(offsets)
            && let Ok(now) = self.facts.catch_up.fetch_end_offsets().await
        {
            self.queue.know_ends(&now);
        }
    }
}
