//! One partition as its owner has it in memory: position, states in flight, entries that are not yet durable. What records do to it
//! is in `apply`, what they do to its marks in `marks`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;

use crate::hot::{HotBatch, Mark, SagaWrite};
use crate::saga::event::StepEvent;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{ChainId, EntrySequence, Offset, Position, SagaId};

use super::completeness::CompletenessTracker;
use super::content::Content;
use super::index_facts;
use super::indexed_names::IndexedNames;
use super::open_sagas::OpenSagas;
use super::saga_cache::{CacheLimits, SagaCache};
use super::undurable::{UndurableBuffer, UndurableEntry};

pub struct Partition {
    pub chain: ChainId,
    pub content: Content,
    /// First offset that is not durable: the chain's next start.
    pub durable: Offset,
    /// Where this owner began: it wrote everything from here on to hot.
    pub base: Offset,
    /// First offset that is not folded; passes control records.
    pub position: Offset,
    /// First offset that no finished hot write has reached.
    pub written: Offset,
    pub cache: SagaCache,
    pub active: UndurableBuffer,
    /// Being made durable.
    pub sealed: Option<Arc<UndurableBuffer>>,
    /// Most bytes that the hot store takes of one member.
    pub max_member: usize,
    /// The mark of each bucket as last known.
    pub marks: Vec<Option<Mark>>,
    /// Of all that is durable below this the keys in hot may expire.
    pub settled: Offset,
    /// When marks were last moved or checked.
    pub marks_checked_at: Instant,
    pub completeness: CompletenessTracker,
    /// What the records before `position` say of the time.
    pub clock: LogClock,
    pub names: IndexedNames,
    /// Of step events.
    pub open_sagas: OpenSagas,
    /// See [`Partition::disown`].
    pub disowned: bool,
    /// Ranges of lost offsets that an operator accepted, ascending: (first, last).
    pub gaps: Vec<(Offset, Offset)>,
    /// Sagas loaded from an earlier incarnation of the topic: their next entry comes after a gap.
    pub from_earlier_incarnation: HashSet<SagaId>,
    /// Not durable yet: sagas that may have events in another partition, too.
    pub suspects: Vec<SagaId>,
    /// When a sequence conflict was last reported.
    pub conflict_reported_at: Option<Instant>,
}

impl Partition {
    pub fn new(chain: ChainId, content: Content, durable: Offset, cache: CacheLimits, marks: Vec<Option<Mark>>) -> Self {
        // Without a mark there is nothing in hot, or the mark is found when it is to be moved.
        let settled = marks.iter().flatten().map(|mark| mark.settled).min();
        Self {
            settled: settled.map_or(durable, |settled| settled.min(durable)),
            chain,
            content,
            durable,
            base: durable,
            position: durable,
            written: durable,
            cache: SagaCache::new(cache),
            active: UndurableBuffer::default(),
            sealed: None,
            max_member: usize::MAX,
            marks,
            marks_checked_at: Instant::now(),
            completeness: CompletenessTracker::default(),
            clock: LogClock::default(),
            names: IndexedNames::default(),
            open_sagas: OpenSagas::default(),
            disowned: false,
            gaps: Vec::new(),
            from_earlier_incarnation: HashSet::new(),
            suspects: Vec::new(),
            conflict_reported_at: None,
        }
    }

    /// A segment of another owner with the same entries, up to `durable`, is stored in place of a part of ours (`sealed`): what it
    /// covers needs no second one.
    pub fn adopt_foreign_segment(&mut self, sealed: Option<Arc<UndurableBuffer>>, durable: Offset, now: Instant) {
        let mut back = sealed.map(Arc::unwrap_or_clone).unwrap_or_default();
        back.append(std::mem::take(&mut self.active));
        back.drop_through(Offset(durable.0 - 1));
        if back.is_empty() && self.position > durable {
            // Offsets without rows (dead letters, duplicates) need a segment too.
            back.skip(now);
        }
        self.active = back;
    }

    /// Believes only what is durable: position and cache go back to it. Gives the sagas of which hot has more.
    pub fn disown(&mut self) -> HashSet<SagaId> {
        let active = std::mem::take(&mut self.active);
        let sealed = self.sealed.take();
        let rows = sealed.iter().flat_map(|sealed| sealed.rows()).chain(active.rows());
        let sagas = rows.map(|row| row.entry.event.saga_id.clone()).collect();
        self.cache.clear();
        self.from_earlier_incarnation.clear();
        self.disowned = true;
        (self.base, self.position, self.written) = (self.durable, self.durable, self.durable);
        sagas
    }

    /// Sagas of these events whose states must be loaded first.
    pub fn missing<'a>(
        &self,
        events: impl Iterator<Item = &'a StepEvent>,
        may_have_entries: impl Fn(&SagaId) -> bool,
    ) -> Vec<SagaId> {
        let mut asked: HashSet<SagaId, RandomState> = HashSet::default();
        events
            .map(|event| &event.saga_id)
            .filter(|id| !self.cache.contains(id) && asked.insert((*id).clone()))
            .filter(|id| may_have_entries(id))
            .cloned()
            .collect()
    }

    /// Members and facts that hot must have from `from` on: everything that cold does not have yet.
    pub fn undurable_from(&self, from: Offset) -> HotBatch {
        let mut batch = HotBatch::default();
        let mut write_of: HashMap<SagaId, usize> = HashMap::new();
        let sealed = self.sealed.iter().flat_map(|sealed| sealed.rows());
        for row in sealed.chain(self.active.rows()).filter(|row| row.entry.position.offset >= from) {
            let id = &row.entry.event.saga_id;
            let at = *write_of.entry(id.clone()).or_insert_with(|| {
                batch.sagas.push(SagaWrite { saga: id.clone(), members: Vec::new(), persist: true });
                batch.sagas.len() - 1
            });
            batch.sagas[at].members.push(row.member.clone());
            if self.content == Content::StepEvents {
                self.facts_of(row, &mut batch);
            }
        }
        batch
    }

    /// Index facts of what is not durable, of minutes (effective time) before this one.
    pub fn undurable_facts(&self, before: i64) -> HotBatch {
        let mut batch = HotBatch::default();
        let sealed = self.sealed.iter().flat_map(|sealed| sealed.rows());
        let old = |row: &&UndurableEntry| index_facts::minute(row.entry.effective_time) < before;
        if self.content == Content::StepEvents {
            for row in sealed.chain(self.active.rows()).filter(old) {
                self.facts_of(row, &mut batch);
            }
        }
        batch
    }

    fn facts_of(&self, row: &UndurableEntry, batch: &mut HotBatch) {
        batch.activity.push(self.names.activity(index_facts::activity(&row.entry, &row.saga_name)));
        batch.failures.extend(index_facts::failure(&row.entry, &row.saga_name).map(|failure| self.names.failure(failure)));
    }

    /// Where an entry is that is not yet durable.
    pub fn position_of(&self, saga: &SagaId, sequence: EntrySequence) -> Option<Position> {
        let sealed = self.sealed.iter().flat_map(|sealed| sealed.rows());
        let is_it = |entry: &&UndurableEntry| entry.entry.sequence == sequence && entry.entry.event.saga_id == *saga;
        sealed.chain(self.active.rows()).find(is_it).map(|row| row.entry.position.clone())
    }

    /// Entries that are not yet durable.
    pub fn undurable_rows(&self) -> usize {
        self.active.rows().len() + self.sealed.as_ref().map_or(0, |sealed| sealed.rows().len())
    }

    /// Bytes in memory of what is not yet durable.
    pub fn backlog_bytes(&self) -> u64 {
        self.active.held() + self.sealed.as_ref().map_or(0, |sealed| sealed.held()) + self.cache.pinned_bytes()
    }
}
