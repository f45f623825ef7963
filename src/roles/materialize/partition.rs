//! One partition as its owner has it in memory: position, states in flight, entries that are not yet durable.
//! Applying records is a plain function; what must be written comes out as data.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::cold::segment::SMALL_CONTEXT;
use crate::hot::{HotBatch, Mark, Member, SagaWrite};
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, StepEvent};
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::fold_settings::FoldSettings;
use crate::saga::json::Json;
use crate::saga::log_clock::LogClock;
use crate::saga::position::{ChainId, EntrySequence, Offset, Position, SagaId};
use crate::saga::request::Outcome;
use crate::saga::state::Anomaly;
use crate::saga::time::Micros;
use crate::wire::frame;

use super::buffer::{Buffer, UndurableEntry};
use super::cache::{Cache, Limits, Pin};
use super::completeness::CompletenessTracker;
use super::facts;
use super::names::Names;
use super::split::MAX_SUSPECTS;

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    StepEvents,
    /// The replay log: kept like sagas, but in no index of sagas.
    ReplayLog,
}

/// So many entries of a saga in hot, and the next brings the whole saga along: a reader needs no more of them to begin.
const WHOLE_EVERY: u64 = 16;
/// A saga that is larger than so many times the records since it went along last waits for more of them: small patches
/// of a large context must not fill the store with copies of it.
const WHOLE_SHARE: u64 = 4;
/// Bytes of contexts that the patches of one fold may be merged into, some half a second of work; then others get their
/// turn.
const MAX_MERGED: usize = 256 << 20;
/// Of so many others need not be kept from their turn at all.
pub const MUCH_MERGED: usize = 8 << 20;

/// A record after decoding.
pub struct Decoded {
    pub offset: Offset,
    /// When the log recorded it: the record's timestamp, unless that is doubted.
    pub recorded: Micros,
    /// Bytes of the record.
    pub size: usize,
    pub event: StepEvent,
}

/// What a record is worth besides entries.
#[derive(Debug, Default)]
pub struct Tally {
    pub entries: u64,
    pub duplicates: u64,
    pub anomalies: Vec<Anomaly>,
}

/// What applying records asks the role to write.
#[derive(Default)]
pub struct Work {
    pub hot: HotBatch,
    /// Records that the fold turned away: offset, code, message.
    pub dead: Vec<(Offset, &'static str, String)>,
    /// Records without an entry, as another event of the saga has their sequence: which entry.
    pub taken: Vec<(Offset, SagaId, EntrySequence)>,
    pub outcomes: Vec<Outcome>,
    pub tally: Tally,
}

pub struct Partition {
    pub chain: ChainId,
    pub content: Content,
    /// First offset that is not durable: the chain's next start.
    pub durable: Offset,
    /// Where this owner began: it wrote everything from here on to hot.
    pub base: Offset,
    /// First offset that is not folded; passes control records.
    pub position: Offset,
    /// First offset that is surely not in hot: what the last finished write reached.
    pub written: Offset,
    pub cache: Cache,
    pub active: Buffer,
    /// Being made durable.
    pub sealed: Option<Arc<Buffer>>,
    /// Most bytes that the hot store takes of one member.
    pub max_member: usize,
    /// The mark of each bucket as last known.
    pub marks: Vec<Option<Mark>>,
    /// Hot was told of all that is durable below this.
    pub settled: Offset,
    pub through: CompletenessTracker,
    /// What the records before `position` say of the time.
    pub clock: LogClock,
    names: Names,
    /// See [`Partition::disown`].
    pub disowned: bool,
    /// Ranges of lost offsets that an operator accepted, ascending: (first, last).
    pub gaps: Vec<(Offset, Offset)>,
    /// Sagas loaded from an earlier incarnation of the topic: their next entry comes after a gap.
    pub of_before: HashSet<SagaId>,
    /// Not durable yet: sagas that may have events in another partition, too.
    pub suspects: Vec<SagaId>,
}

impl Partition {
    pub fn new(chain: ChainId, content: Content, durable: Offset, cache: Limits, marks: Vec<Option<Mark>>) -> Self {
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
            cache: Cache::new(cache),
            active: Buffer::default(),
            sealed: None,
            max_member: usize::MAX,
            marks,
            through: CompletenessTracker::default(),
            clock: LogClock::default(),
            names: Names::default(),
            disowned: false,
            gaps: Vec::new(),
            of_before: HashSet::new(),
            suspects: Vec::new(),
        }
    }

    /// Folds events in log order. Every saga that has durable entries must be in the cache: see [`Partition::missing`].
    pub fn apply(&mut self, records: Vec<Decoded>, settings: &FoldSettings, now: Instant) -> Work {
        let mut work = Work::default();
        let fold = settings.id();
        let mut writes: Vec<SagaWrite> = Vec::new();
        let mut write_of: HashMap<SagaId, usize, RandomState> = HashMap::default();
        let mut seen_minutes: HashSet<(SagaId, i64), RandomState> = HashSet::default();
        for record in records {
            let Decoded { offset, recorded, size, event } = record;
            let id = event.saga_id.clone();
            let (mut slot, pinned) = match self.cache.take(&id) {
                Some((saga, pinned)) => (Some(saga), pinned),
                None => (None, None),
            };
            let had_entries = slot.is_some();
            let before = slot.as_ref().map(|saga| saga.state.context.clone());
            let meta = RecordMeta {
                position: Position { topic: self.chain.topic.clone(), partition: self.chain.partition, offset },
                timestamp: recorded,
            };
            let across_gap = self.across_gap(slot.as_deref(), offset);
            match Saga::admit(&mut slot, event, &meta, across_gap, settings) {
                Admitted::Entry(entry) => {
                    let Some(saga) = slot else { continue };
                    self.of_before.remove(&id);
                    work.tally.entries += 1;
                    work.tally.anomalies.extend_from_slice(&entry.anomalies);
                    if let Some(outcome) = facts::outcome(&entry, &saga.state) {
                        work.outcomes.push(outcome);
                    }
                    let whole = had_entries && whole_is_due(pinned, entry.sequence, &saga);
                    let pin = if whole || !had_entries {
                        Pin { newest: offset, whole_at: Some(entry.sequence), since: 0 }
                    } else {
                        let (whole_at, since) = pinned.map_or((None, 0), |pin| (pin.whole_at, pin.since));
                        Pin { newest: offset, whole_at, since: since + size as u64 }
                    };
                    let bytes = member_bytes(&entry, fold, before.as_ref(), whole.then_some(&saga), self.max_member);
                    let member = Member { effective_time: entry.effective_time, bytes };
                    let at = *write_of.entry(id.clone()).or_insert_with(|| {
                        let persist = had_entries && pinned.is_none();
                        writes.push(SagaWrite { saga: id.clone(), members: Vec::new(), persist });
                        writes.len() - 1
                    });
                    writes[at].members.push(member.clone());
                    if self.content == Content::StepEvents {
                        self.suspect(&entry);
                        if seen_minutes.insert((id, facts::minute(entry.effective_time))) {
                            let activity = facts::activity(&entry, &saga.state.saga_name);
                            work.hot.activity.push(self.names.new_activity(activity));
                        }
                        let failure = facts::failure(&entry, &saga.state.saga_name);
                        work.hot.failures.extend(failure.map(|failure| self.names.new_failure(failure)));
                    }
                    let row = UndurableEntry {
                        status: saga.state.status,
                        saga_name: saga.state.saga_name.as_str().into(),
                        context: Some(&saga.state.context).filter(|context| context.len() < SMALL_CONTEXT).cloned(),
                        member,
                        size,
                        entry: Arc::from(entry),
                    };
                    self.active.push(row, &saga, now);
                    self.cache.pin(saga, pin);
                }
                turned_away => {
                    if let Some(saga) = slot {
                        match pinned {
                            Some(pin) => self.cache.pin(saga, pin),
                            None => self.cache.rest(&saga),
                        }
                    }
                    self.active.skip(now);
                    match turned_away {
                        Admitted::DeadLetter { code, message } => work.dead.push((offset, code, message)),
                        Admitted::SequenceTaken { by } => {
                            work.tally.duplicates += 1;
                            work.taken.push((offset, id, by));
                        }
                        // In the log's indexes a repeat is the rule.
                        _ => work.tally.duplicates += u64::from(self.content == Content::StepEvents),
                    }
                }
            }
        }
        work.hot.sagas = writes;
        self.cache.trim();
        work
    }

    /// A segment of another owner with the same entries, up to `durable`, is stored in place of a part of ours (`sealed`): what it
    /// covers needs no second one.
    pub fn adopt_foreign_segment(&mut self, sealed: Option<Arc<Buffer>>, durable: Offset, now: Instant) {
        let mut back = sealed.map(Arc::unwrap_or_clone).unwrap_or_default();
        back.append(std::mem::take(&mut self.active));
        back.drop_through(Offset(durable.0 - 1));
        if back.is_empty() && self.position > durable {
            // Offsets without rows (dead letters, duplicates) need a segment too.
            back.skip(now);
        }
        self.active = back;
    }

    /// Nothing that is not durable was, after all: position and cache go back to what is. Gives the sagas of which hot has more.
    pub fn disown(&mut self) -> HashSet<SagaId> {
        let active = std::mem::take(&mut self.active);
        let sealed = self.sealed.take();
        let rows = sealed.iter().flat_map(|sealed| sealed.rows()).chain(active.rows());
        let sagas = rows.map(|row| row.entry.event.saga_id.clone()).collect();
        self.cache.clear();
        self.of_before.clear();
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

    /// A saga that goes on where it has not begun may have begun in another partition.
    fn suspect(&mut self, entry: &Entry) {
        let no_start = entry.sequence == EntrySequence::FIRST && entry.anomalies.contains(&Anomaly::NoStart);
        if no_start && self.suspects.len() < MAX_SUSPECTS {
            self.suspects.push(entry.event.saga_id.clone());
        }
    }

    fn across_gap(&self, saga: Option<&Saga>, offset: Offset) -> bool {
        // A saga that begins after the gap was not folded across it.
        let Some(saga) = saga else { return false };
        if self.of_before.contains(&saga.state.saga_id) {
            return true;
        }
        let previous = saga.state.entry.position.offset;
        self.gaps.iter().any(|(first, last)| previous < *first && *last < offset)
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
        let old = |row: &&UndurableEntry| facts::minute(row.entry.effective_time) < before;
        if self.content == Content::StepEvents {
            for row in sealed.chain(self.active.rows()).filter(old) {
                self.facts_of(row, &mut batch);
            }
        }
        batch
    }

    fn facts_of(&self, row: &UndurableEntry, batch: &mut HotBatch) {
        batch.activity.push(self.names.activity(facts::activity(&row.entry, &row.saga_name)));
        batch.failures.extend(facts::failure(&row.entry, &row.saga_name).map(|failure| self.names.failure(failure)));
    }

    /// Where an entry is that is not yet durable.
    pub fn position_of(&self, saga: &SagaId, sequence: EntrySequence) -> Option<Position> {
        let sealed = self.sealed.iter().flat_map(|sealed| sealed.rows());
        let is_it = |entry: &&UndurableEntry| entry.entry.sequence == sequence && entry.entry.event.saga_id == *saga;
        sealed.chain(self.active.rows()).find(is_it).map(|row| row.entry.position.clone())
    }

    /// Bytes in memory of what is not yet durable.
    pub fn backlog_bytes(&self) -> u64 {
        self.active.held() + self.sealed.as_ref().map_or(0, |sealed| sealed.held()) + self.cache.pinned_bytes()
    }

    /// How many of these records, at least one, may be folded at once, and the bytes of contexts that their patches are
    /// merged into.
    pub fn affordable(&self, records: &[Decoded]) -> (usize, usize) {
        let mut contexts: HashMap<&SagaId, usize> = HashMap::new();
        let mut merged = 0;
        for (number, Decoded { event, .. }) in records.iter().enumerate() {
            match &event.context {
                ContextChange::Full(context) if context.len() >= SMALL_CONTEXT => {
                    contexts.insert(&event.saga_id, context.len());
                }
                ContextChange::Patch(_) | ContextChange::Set(_) => {
                    let known = contexts.get(&event.saga_id).copied();
                    let bytes = known.or_else(|| self.cache.context_bytes(&event.saga_id)).unwrap_or(0);
                    if number > 0 && merged + bytes > MAX_MERGED {
                        return (number, merged);
                    }
                    merged += bytes;
                }
                _ => {}
            }
        }
        (records.len(), merged)
    }
}

/// The entry as hot has it: with the saga if that is due and fits, else alone, else a sign that it is there.
fn member_bytes(entry: &Entry, fold: u32, before: Option<&Json>, whole: Option<&Saga>, most: usize) -> Bytes {
    let with_saga = whole.map(|saga| frame::encode_member(entry, fold, None, Some(saga))).filter(|bytes| bytes.len() <= most);
    let alone = || Some(frame::encode_member(entry, fold, before, None)).filter(|bytes| bytes.len() <= most);
    with_saga.or_else(alone).unwrap_or_else(|| frame::absent_member(entry, fold))
}

/// Where the record of the event at this place begins: the events of one record are folded together, for a position
/// lies between records.
pub fn record_begins(events: &[Decoded], place: usize) -> usize {
    let Some(at) = events.get(place) else { return place };
    events[..place].iter().rposition(|before| before.offset != at.offset).map_or(0, |last| last + 1)
}

/// Does the member of this entry hold the whole saga? Hot can be read from there on. It does where hot may have nothing
/// of the saga (all was durable, so its key may be gone), and from time to time.
fn whole_is_due(pinned: Option<Pin>, sequence: EntrySequence, saga: &Saga) -> bool {
    let Some((at, since)) = pinned.and_then(|pin| Some((pin.whole_at?, pin.since))) else { return true };
    sequence.0 - at.0 >= WHOLE_EVERY && since.saturating_mul(WHOLE_SHARE) >= saga.state.size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::DurableSaga;
    use crate::saga::event::{ContextChange, Kind};
    use crate::saga::testing::{event, settings};

    /// Folds an event alone; has its member the whole saga, and must its key be kept from expiring?
    fn fold(partition: &mut Partition, number: i64) -> (bool, bool) {
        let event = StepEvent { event_id: format!("event-{number}"), ..event(Kind::ContextUpdated) };
        let record = Decoded { offset: Offset(number), recorded: Micros(number), size: 100, event };
        let work = partition.apply(vec![record], &settings(), Instant::now());
        let [write] = &work.hot.sagas[..] else { panic!("one saga is written") };
        let header = frame::peek_member(&write.members[0].bytes).expect("a member");
        (header.has_saga, write.persist)
    }

    fn partition() -> Partition {
        let chain = ChainId { topic: "events".into(), incarnation: 0, partition: 0 };
        Partition::new(chain, Content::StepEvents, Offset(0), Limits { sagas: 10, bytes: 1 << 20 }, vec![None])
    }

    #[test]
    fn the_whole_saga_goes_with_every_sixteenth_entry_after_the_first() {
        let mut partition = partition();
        let whole: Vec<i64> = (0..40).filter(|number| fold(&mut partition, *number).0).collect();
        assert_eq!(whole, [16, 32]);
    }

    #[test]
    fn a_batch_is_cut_between_records_not_between_the_events_of_one() {
        let of = |offset| Decoded { offset: Offset(offset), recorded: Micros(0), size: 0, event: event(Kind::Checkpoint) };
        let events = [of(7), of(7), of(8), of(9), of(9)];
        let begins: Vec<usize> = (0..=5).map(|place| record_begins(&events, place)).collect();
        assert_eq!(begins, [0, 0, 2, 3, 3, 5]);
    }

    #[test]
    fn another_event_under_a_sequence_that_is_taken_is_told_with_the_entry_that_has_it() {
        let mut partition = partition();
        let record = |offset: i64, id: &str, sequence: u64| {
            let event = StepEvent { event_id: id.into(), sequence: Some(sequence), ..event(Kind::ContextUpdated) };
            Decoded { offset: Offset(offset), recorded: Micros(offset), size: 100, event }
        };
        let records = vec![record(7, "a", 1), record(8, "b", 2), record(9, "b", 2), record(10, "c", 1)];
        let work = partition.apply(records, &settings(), Instant::now());
        let (saga, by) = (SagaId::from("order-1"), EntrySequence(1));
        assert_eq!((work.tally.duplicates, work.taken), (2, vec![(Offset(10), saga.clone(), by)]));
        assert_eq!(partition.position_of(&saga, by).map(|position| position.offset), Some(Offset(7)));
    }

    #[test]
    fn no_member_is_larger_than_the_store_takes() {
        let event = |number: i64, bytes: usize| {
            // Not to be compressed.
            let words: String = (0..bytes / 8)
                .map(|n| format!("{:08x}", (n as u32 + number as u32 * 100_000).wrapping_mul(2_654_435_761)))
                .collect();
            let context = ContextChange::Patch(Json::from_valid(format!("{{\"{number}\":\"{words}\"}}")));
            StepEvent { event_id: number.to_string(), context, ..event(Kind::ContextUpdated) }
        };
        let mut partition = partition();
        partition.max_member = 10_000;
        let mut members = Vec::new();
        for number in 0..40 {
            let bytes = if number == 20 { 40_000 } else { 2_000 };
            let record = Decoded { offset: Offset(number), recorded: Micros(number), size: bytes, event: event(number, bytes) };
            let mut work = partition.apply(vec![record], &settings(), Instant::now());
            members.extend(work.hot.sagas.remove(0).members);
        }
        assert!(members.iter().all(|member| member.bytes.len() <= 10_000));
        let header = |number: usize| frame::peek_member(&members[number].bytes).expect("a member");
        assert!(!header(16).has_saga && !header(32).has_saga, "the whole saga is too large by then");
        let readable: Vec<bool> =
            members.iter().map(|member| frame::decode_member(&"order-1".into(), &member.bytes).is_ok()).collect();
        assert_eq!(readable.iter().filter(|readable| !**readable).count(), 1);
        assert!(!readable[20] && header(20).sequence == EntrySequence(21), "it is there, and cannot be read here");
    }

    #[test]
    fn the_whole_saga_goes_along_where_hot_may_have_nothing_of_it() {
        let mut partition = partition();
        (0..3).for_each(|number| assert_eq!(fold(&mut partition, number), (false, false)));
        partition.cache.hot_lost_writes();
        assert_eq!(fold(&mut partition, 3), (true, false));
        assert_eq!(fold(&mut partition, 4), (false, false));
        // Durable: the key may expire from now on, or be evicted.
        let at_rest = DurableSaga { saga: "order-1".into(), sequence: EntrySequence(5) };
        assert_eq!(partition.cache.unpin_through(Offset(4)), [at_rest]);
        assert_eq!(fold(&mut partition, 5), (true, true));
        assert_eq!(fold(&mut partition, 6), (false, false));
    }
}
