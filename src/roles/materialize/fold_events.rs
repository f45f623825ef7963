//! Folding decoded records onto a partition: a plain function; what must be written comes out as data.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::cold::segment::SMALL_CONTEXT;
use crate::hot::{HotBatch, Member, SagaWrite};
use crate::saga::entry::Entry;
use crate::saga::event::ContextChange;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::fold_settings::FoldSettings;
use crate::saga::json::Json;
use crate::saga::position::{EntrySequence, Offset, Position, SagaId};
use crate::saga::request::Outcome;
use crate::saga::state::Anomaly;
use crate::wire::frame;

use super::content::Content;
use super::decode::DecodedEvent;
use super::index_facts;
use super::open_sagas::MovedAt;
use super::outcome::outcome;
use super::partition::Partition;
use super::partition_conflicts::MAX_SUSPECTS;
use super::saga_cache::Pin;
use super::sequence_conflicts::SequenceConflict;
use super::undurable::UndurableEntry;

/// After this many entries of a saga in hot the next brings the whole saga along: a reader needs no more of them to begin.
const WHOLE_EVERY: u64 = 16;
/// A saga that is this many times larger than its records since it last went along waits for more of them: small patches
/// of a large context must not fill the store with copies of it.
const WHOLE_SHARE: u64 = 4;
/// Bytes of contexts that the patches of one fold may be merged into, some half a second of work; then others get their
/// turn.
const MAX_MERGED_BYTES: usize = 256 << 20;
/// Merging this many is done on a thread of its own.
pub const LONG_MERGE_BYTES: usize = 8 << 20;

/// A record that the fold rejects.
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    pub offset: Offset,
    pub code: &'static str,
    pub message: String,
}

/// What applying records asks the role to write and count.
#[derive(Default)]
pub struct Applied {
    pub hot: HotBatch,
    pub dead: Vec<RejectedRecord>,
    /// Records without an entry, as another event of the saga has their sequence.
    pub sequence_conflicts: Vec<SequenceConflict>,
    pub outcomes: Vec<Outcome>,
    pub duplicates: u64,
    pub anomalies: Vec<Anomaly>,
}

/// How many events may be folded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affordable {
    /// At least one.
    pub events: usize,
    /// Bytes of contexts that their patches are merged into.
    pub merged_bytes: usize,
}

impl Affordable {
    /// Too long for the loop.
    pub fn is_long(self) -> bool {
        self.merged_bytes >= LONG_MERGE_BYTES
    }
}

impl Partition {
    /// Folds events in log order. Every saga that has durable entries must be in the cache: see [`Partition::missing`].
    pub fn fold_events(&mut self, events: Vec<DecodedEvent>, settings: &FoldSettings, now: Instant) -> Applied {
        let mut applied = Applied::default();
        let fold = settings.id();
        let mut writes: Vec<SagaWrite> = Vec::new();
        let mut write_of: HashMap<SagaId, usize, RandomState> = HashMap::default();
        let mut seen_minutes: HashSet<(SagaId, i64), RandomState> = HashSet::default();
        for event in events {
            let DecodedEvent { offset, recorded, size, event } = event;
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
                    self.from_earlier_incarnation.remove(&id);
                    applied.anomalies.extend_from_slice(&entry.anomalies);
                    if let Some(outcome) = outcome(&entry, &saga.state) {
                        applied.outcomes.push(outcome);
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
                        self.open_sagas.moved(&id, &saga.state.saga_name, saga.state.status, moved_at(&entry));
                        if seen_minutes.insert((id, index_facts::minute(entry.effective_time))) {
                            let activity = index_facts::activity(&entry, &saga.state.saga_name);
                            applied.hot.activity.push(self.names.new_activity(activity));
                        }
                        let failure = index_facts::failure(&entry, &saga.state.saga_name);
                        applied.hot.failures.extend(failure.map(|failure| self.names.new_failure(failure)));
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
                rejected => {
                    if let Some(saga) = slot {
                        match pinned {
                            Some(pin) => self.cache.pin(saga, pin),
                            None => self.cache.rest(&saga),
                        }
                    }
                    self.active.skip(now);
                    match rejected {
                        Admitted::DeadLetter { code, message } => applied.dead.push(RejectedRecord { offset, code, message }),
                        Admitted::SequenceTaken { by } => {
                            applied.duplicates += 1;
                            applied.sequence_conflicts.push(SequenceConflict { offset, saga: id, taken_by: by });
                        }
                        // In the log's indexes a repeat is the rule.
                        _ => applied.duplicates += u64::from(self.content == Content::StepEvents),
                    }
                }
            }
        }
        applied.hot.sagas = writes;
        self.cache.trim();
        applied
    }

    /// A saga whose first event here is no start may have started in another partition.
    fn suspect(&mut self, entry: &Entry) {
        let no_start = entry.sequence == EntrySequence::FIRST && entry.anomalies.contains(&Anomaly::NoStart);
        if no_start && self.suspects.len() < MAX_SUSPECTS {
            self.suspects.push(entry.event.saga_id.clone());
        }
    }

    fn across_gap(&self, saga: Option<&Saga>, offset: Offset) -> bool {
        // A saga that begins after the gap was not folded across it.
        let Some(saga) = saga else { return false };
        if self.from_earlier_incarnation.contains(&saga.state.saga_id) {
            return true;
        }
        let previous = saga.state.entry.position.offset;
        self.gaps.iter().any(|(first, last)| previous < *first && *last < offset)
    }

    /// How many of these may be folded at once.
    pub fn affordable(&self, events: &[DecodedEvent]) -> Affordable {
        let mut contexts: HashMap<&SagaId, usize> = HashMap::new();
        let mut merged = 0;
        for (number, DecodedEvent { event, .. }) in events.iter().enumerate() {
            match &event.context {
                ContextChange::Full(context) if context.len() >= SMALL_CONTEXT => {
                    contexts.insert(&event.saga_id, context.len());
                }
                ContextChange::Patch(_) | ContextChange::Set(_) => {
                    let known = contexts.get(&event.saga_id).copied();
                    let bytes = known.or_else(|| self.cache.context_bytes(&event.saga_id)).unwrap_or(0);
                    if number > 0 && merged + bytes > MAX_MERGED_BYTES {
                        return Affordable { events: number, merged_bytes: merged };
                    }
                    merged += bytes;
                }
                _ => {}
            }
        }
        Affordable { events: events.len(), merged_bytes: merged }
    }
}

fn moved_at(entry: &Entry) -> MovedAt {
    MovedAt { effective: entry.effective_time, recorded: entry.recorded_time }
}

/// The entry as hot has it: with the saga if that is due and fits, else alone, else a sign that it is there.
fn member_bytes(entry: &Entry, fold: u32, before: Option<&Json>, whole: Option<&Saga>, most: usize) -> Bytes {
    let with_saga = whole.map(|saga| frame::encode_member(entry, fold, None, Some(saga))).filter(|bytes| bytes.len() <= most);
    let alone = || Some(frame::encode_member(entry, fold, before, None)).filter(|bytes| bytes.len() <= most);
    with_saga.or_else(alone).unwrap_or_else(|| frame::absent_member(entry, fold))
}

/// Does the member of this entry hold the whole saga? Hot can be read from there on. It does where hot may have nothing
/// of the saga (all was durable, so its key may be gone), and from time to time.
fn whole_is_due(pinned: Option<Pin>, sequence: EntrySequence, saga: &Saga) -> bool {
    let Some((at, since)) = pinned.and_then(|pin| Some((pin.whole_at?, pin.since))) else { return true };
    sequence.0 - at.0 >= WHOLE_EVERY && since.saturating_mul(WHOLE_SHARE) >= saga.state.size() as u64
}

#[cfg(test)]
#[path = "fold_events_tests.rs"]
mod tests;
