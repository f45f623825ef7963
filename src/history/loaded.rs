//! Entries of one saga brought together, and how much is read at once.

use super::answer::{Coverage, Source};
use super::merge::ChainCoverage;
use crate::cold::reader::ChainEnd;
use crate::error::Error;
use crate::saga::entry::Entry;
use crate::saga::event::ContextChange;
use crate::saga::json::Json;
use crate::saga::position::Offset;
use crate::saga::state::error_size;
use crate::saga::stored_entry::StoredEntry;

/// Bytes of an entry besides its texts, about.
const ENTRY: usize = 512;
/// More members than this, or more bytes of them, are taken apart on a thread of its own.
pub(super) const LONG: usize = 1_000;
pub(super) const LONG_BYTES: usize = 4 << 20;
/// Most sagas need no more than this many of their newest entries.
pub(super) const FIRST_READ: usize = 20;

/// Entries of one saga, oldest first and without a hole, from where folding can begin.
pub(super) struct LoadedEntries {
    pub entries: Vec<StoredEntry>,
    pub source: Source,
    pub reach: Coverage,
    /// Hot has told of more than this reaches: an entry that was not found is not known to be missing.
    pub incomplete: bool,
    /// There may be later entries, which were not looked for.
    pub goes_on: bool,
    /// The saga has events in other partitions, too, which are left out.
    pub split: bool,
    /// Else it is not asked again for the same answer: a store that hangs costs a time-out each time.
    pub hot_answers: bool,
}

impl LoadedEntries {
    /// Passes `not_found` on where that is certain.
    pub(super) fn not_found_unless_incomplete(&self, not_found: Error) -> Error {
        if self.incomplete {
            return Error::unavailable("read history of saga: not in cold, and hot does not answer for what came after");
        }
        not_found
    }
}

/// Bytes of what an entry brings, about.
pub(super) fn size(entry: &Entry) -> usize {
    let event = &entry.event;
    let context = match &event.context {
        ContextChange::None => 0,
        ContextChange::Full(text) | ContextChange::Patch(text) | ContextChange::Set(text) => text.len(),
        ContextChange::Splice { middle, .. } => middle.len(),
    };
    ENTRY + context + event.result.as_ref().map_or(0, Json::len) + error_size(event.error.as_deref())
}

/// A chain that has not begun reaches 0.
pub(super) fn known(end: ChainEnd) -> ChainCoverage {
    ChainCoverage { to: end.next.unwrap_or(Offset(0)), complete_through: end.complete_through }
}
