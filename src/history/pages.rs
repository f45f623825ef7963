//! Pages of a saga's history and of its checkpoints.

use super::answer::{Checkpoint, Checkpoints, HistoryPage, HistoryRow};
use super::cursor;
use super::loaded::size;
use super::merge::{self, ReadDepth};
use super::reader::History;
use super::state::saga_not_found;
use crate::cpu;
use crate::error::{Error, Result};
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, Kind};
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::saga::patch::changed_pointers;
use crate::saga::position::SagaId;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;

/// Bytes of entries on one page; one more is on it.
const PAGE_BYTES: usize = 8 << 20;
/// Bytes of contexts that are compared for one page: what each entry changed in it is told.
const COMPARED_BYTES: usize = 64 << 20;
/// Entries of more bytes, or changes of a larger context, are put on a page by a thread of its own.
const LONG_BYTES: usize = 1 << 20;
const LARGE_CONTEXT: usize = 32 << 10;

impl History {
    /// Entries with since <= effective time < until, oldest first, after the cursor; fewer than `limit` where they are
    /// large. Reads what lies on the page and around it, not the whole history.
    pub async fn page(
        &self,
        saga: &SagaId,
        since: Option<Micros>,
        until: Option<Micros>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<HistoryPage> {
        let after = after.map(cursor::read_sequence).transpose()?.unwrap_or(0);
        let mut rows = HistoryPageBuilder {
            next: self.first_on_page(saga, since, after).await?,
            until,
            limit,
            ..HistoryPageBuilder::default()
        };
        // Where it is before the page, and often the page too.
        let before = rows.next.saturating_sub(1).max(1);
        let mut wanted = before;
        let mut loaded = self.load(saga, Micros::MAX, ReadDepth::To(wanted)).await?;
        if loaded.entries.is_empty() {
            return Err(loaded.not_found_unless_incomplete(saga_not_found()));
        }
        let is_before = |entry: &Entry| entry.sequence.0 < rows.next;
        if rows.next > 1 {
            rows.slot = merge::fold(&loaded.entries, is_before)?;
            if rows.slot.is_none() {
                return Err(missing(before, rows.next));
            }
        }
        loop {
            let goes_on = loaded.goes_on;
            let from = rows.next;
            let turned = if rows.is_long(&loaded.entries) {
                cpu::long(|| rows.add(loaded.entries)).await?
            } else {
                rows.add(loaded.entries)?
            };
            // Nothing new although it was asked for: the history ends here.
            if turned || !goes_on || (rows.next == from && wanted == from) {
                return Ok(rows.page);
            }
            wanted = rows.next;
            loaded = self.load(saga, Micros::MAX, ReadDepth::To(wanted)).await?;
        }
    }

    /// The first sequence that may be on a page.
    async fn first_on_page(&self, saga: &SagaId, since: Option<Micros>, after: u64) -> Result<u64> {
        let Some(since) = since else { return Ok(after.saturating_add(1)) };
        // Times never go back within a saga.
        let earlier = self.load(saga, since.saturating_add(-1), ReadDepth::Snapshot).await?.entries;
        let last = earlier.last().map_or(0, |stored| stored.entry.sequence.0);
        Ok(last.max(after).saturating_add(1))
    }

    /// Entries that are snapshots, newest first, after the cursor.
    pub async fn checkpoints(&self, saga: &SagaId, after: Option<&str>, limit: usize) -> Result<Checkpoints> {
        let before = after.map(cursor::read_sequence).transpose()?.unwrap_or(u64::MAX);
        let entries = self.entries(saga).await?.entries;
        let snapshots = entries.iter().rev().filter(|entry| entry.snapshot && entry.sequence.0 < before);
        let mut checkpoints: Vec<Checkpoint> = snapshots.take(limit + 1).map(checkpoint).collect();
        let more = checkpoints.len() > limit;
        checkpoints.truncate(limit);
        let last = checkpoints.last().filter(|_| more);
        let next = last.map(|last| cursor::write_sequence(last.sequence.0));
        Ok(Checkpoints { checkpoints, next })
    }
}

/// A page as it is filled.
#[derive(Default)]
struct HistoryPageBuilder {
    page: HistoryPage,
    /// The saga before the next entry.
    slot: Option<Saga>,
    /// The next entry's sequence.
    next: u64,
    until: Option<Micros>,
    limit: usize,
    bytes: usize,
    compared: usize,
}

impl HistoryPageBuilder {
    /// Will putting them on the page take more than a moment?
    fn is_long(&self, entries: &[StoredEntry]) -> bool {
        let context = self.slot.as_ref().map_or(0, |saga| saga.state.context.len());
        context > LARGE_CONTEXT || entries.iter().map(|stored| size(&stored.entry)).sum::<usize>() > LONG_BYTES
    }

    /// Puts entries on the page; `true`: it ends here.
    fn add(&mut self, entries: Vec<StoredEntry>) -> Result<bool> {
        for StoredEntry { entry, .. } in entries {
            if entry.sequence.0 < self.next {
                continue;
            }
            if entry.sequence.0 > self.next {
                return Err(missing(self.next, entry.sequence.0));
            }
            if self.until.is_some_and(|until| entry.effective_time >= until) {
                return Ok(true);
            }
            let is_full = self.page.rows.len() >= self.limit || self.bytes >= PAGE_BYTES || self.compared >= COMPARED_BYTES;
            if is_full && !self.page.rows.is_empty() {
                self.page.next = self.page.rows.last().map(|row| cursor::write_sequence(row.entry.sequence.0));
                return Ok(true);
            }
            self.next += 1;
            self.push(entry);
        }
        Ok(false)
    }

    fn push(&mut self, entry: Entry) {
        let context = |slot: &Option<Saga>| slot.as_ref().map_or_else(Json::empty_object, |saga| saga.state.context.clone());
        let before = context(&self.slot);
        Saga::apply(&mut self.slot, &entry);
        let after = context(&self.slot);
        let changed = changed_pointers(&before, &after);
        let status = self.slot.as_ref().map(|saga| saga.state.status).unwrap_or_default();
        if entry.event.context != ContextChange::None {
            self.compared += before.len() + after.len();
        }
        self.bytes += size(&entry) + changed.iter().map(String::len).sum::<usize>();
        self.page.rows.push(HistoryRow { entry, status, changed });
    }
}

/// `expected` is the sequence that neither store gave.
fn missing(expected: u64, next: u64) -> Error {
    Error::unavailable(format!(
        "read history of saga: neither hot nor cold has entry {expected} now, which must be before entry {next}; try again"
    ))
}

fn checkpoint(entry: &Entry) -> Checkpoint {
    let step = entry.event.step.clone();
    Checkpoint {
        sequence: entry.sequence,
        name: step.clone().filter(|_| entry.event.kind == Kind::Checkpoint),
        step,
        kind: entry.event.kind,
        effective_time: entry.effective_time,
        position: entry.position.clone(),
    }
}
