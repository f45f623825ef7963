//! Entries of one partition that are folded and not yet durable in cold, in log order.
//!
//! Holds what both stores need of them: cold rows to be, and hot members to write again if Redis loses its tail.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;

use crate::cold::segment::NewRow;
use crate::hot::Member;
use crate::saga::entry::Entry;
use crate::saga::event::ContextChange;
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::saga::position::{Offset, SagaId};
use crate::saga::state::Status;

use super::packed_saga::PackedSaga;

/// What a row costs in memory besides its texts, about.
const ROW: usize = 512;

/// One entry that is not yet durable.
#[derive(Debug, Clone)]
pub struct UndurableEntry {
    pub entry: Arc<Entry>,
    /// After the entry.
    pub status: Status,
    /// The saga's, not the event's.
    pub saga_name: Box<str>,
    /// After the entry; only where it is shorter than [`SMALL_CONTEXT`](crate::cold::segment::SMALL_CONTEXT).
    pub context: Option<Json>,
    pub member: Member,
    /// Bytes of the record.
    pub size: usize,
}

impl UndurableEntry {
    /// Bytes in memory, about: the event, its member, and a context of its own unless it is the event's.
    fn held(&self) -> u64 {
        let context = match self.entry.event.context {
            ContextChange::None | ContextChange::Full(_) => 0,
            _ => self.context.as_ref().map_or(0, Json::len),
        };
        (self.size + self.member.bytes.len() + context + ROW) as u64
    }
}

#[derive(Debug, Clone, Default)]
pub struct UndurableBuffer {
    rows: Vec<UndurableEntry>,
    /// The fold after each saga's first row in this buffer: what its first row in the segment carries.
    first: HashMap<SagaId, PackedSaga, RandomState>,
    /// Raw bytes of the records behind the rows.
    bytes: u64,
    /// What rows and folds hold in memory.
    held: u64,
    /// Records that gave no row (dead letters, duplicates): their offsets need a segment too.
    without_row: u64,
    oldest: Option<Instant>,
}

impl UndurableBuffer {
    /// `after`: the fold after the entry.
    pub fn push(&mut self, row: UndurableEntry, after: &Saga, now: Instant) {
        self.oldest.get_or_insert(now);
        self.bytes += row.size as u64;
        self.held += row.held();
        if !self.first.contains_key(&row.entry.event.saga_id) {
            let packed = PackedSaga::new(after);
            self.held += packed.held();
            self.first.insert(row.entry.event.saga_id.clone(), packed);
        }
        self.rows.push(row);
    }

    /// A record that gave no entry.
    pub fn skip(&mut self, now: Instant) {
        self.oldest.get_or_insert(now);
        self.without_row += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.without_row == 0
    }

    pub fn rows(&self) -> &[UndurableEntry] {
        &self.rows
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn held(&self) -> u64 {
        self.held
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// The rows as a segment takes them, with the fold after each saga's first row.
    pub fn segment_rows(&self) -> Vec<NewRow> {
        let mut given: HashSet<&SagaId, RandomState> =
            HashSet::with_capacity_and_hasher(self.first.len(), RandomState::default());
        let rows = self.rows.iter().map(|row| {
            let id = &row.entry.event.saga_id;
            let first = if given.insert(id) { self.first.get(id) } else { None };
            NewRow {
                entry: row.entry.clone(),
                status: row.status,
                context: first.map(|packed| packed.context().clone()).or_else(|| row.context.clone()),
                saga: first.map(|packed| packed.frame().clone()),
            }
        });
        rows.collect()
    }

    /// Removes what a stored segment of another owner covers already: rows up to `end` (inclusive). The sagas' first
    /// folds move on to their first rows that stay.
    pub fn drop_through(&mut self, end: Offset) {
        let rows = std::mem::take(&mut self.rows);
        let mut gone: HashMap<SagaId, Vec<Arc<Entry>>> = HashMap::new();
        let mut first = HashMap::default();
        for row in rows {
            let id = &row.entry.event.saga_id;
            if row.entry.position.offset <= end {
                gone.entry(id.clone()).or_default().push(row.entry);
                continue;
            }
            if !first.contains_key(id)
                && let Some(packed) = self.first.get(id)
            {
                let packed = match gone.remove(id) {
                    None => packed.clone(),
                    // Of the first of them the fold is known.
                    Some(before) => packed.fold_on(before[1..].iter().chain([&row.entry]).map(|entry| &**entry)),
                };
                first.insert(id.clone(), packed);
            }
            self.rows.push(row);
        }
        self.first = first;
        self.bytes = self.rows.iter().map(|row| row.size as u64).sum();
        self.held = self.rows.iter().map(UndurableEntry::held).chain(self.first.values().map(PackedSaga::held)).sum();
        self.without_row = 0;
        if self.rows.is_empty() {
            self.oldest = None;
        }
    }

    /// This buffer's rows, then `newer`'s.
    pub fn append(&mut self, newer: Self) {
        self.held += newer.held;
        for (id, packed) in newer.first {
            match self.first.entry(id) {
                // No saga's first row any more.
                Place::Occupied(_) => self.held -= packed.held(),
                Place::Vacant(place) => {
                    place.insert(packed);
                }
            }
        }
        self.rows.extend(newer.rows);
        self.bytes += newer.bytes;
        self.without_row += newer.without_row;
        self.oldest = self.oldest.or(newer.oldest);
    }
}
