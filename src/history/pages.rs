//! Pages of a saga's history and of its checkpoints.

use super::History;
use super::answer::{Checkpoint, Checkpoints, Page, Row};
use super::cursor;
use crate::error::Result;
use crate::saga::entry::Entry;
use crate::saga::event::Kind;
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::saga::patch::changed_pointers;
use crate::saga::position::SagaId;
use crate::saga::time::Micros;

impl History {
    /// Entries with since <= effective time < until, oldest first, after the cursor.
    pub async fn page(
        &self,
        saga: &SagaId,
        since: Option<Micros>,
        until: Option<Micros>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page> {
        let after = after.map(cursor::read_sequence).transpose()?.unwrap_or(0);
        let entries = self.entries(saga).await?.entries;
        let inside = |entry: &Entry| {
            entry.sequence.0 > after
                && since.is_none_or(|since| since <= entry.effective_time)
                && until.is_none_or(|until| entry.effective_time < until)
        };
        let mut page = Page { rows: Vec::new(), next: None };
        let mut slot: Option<Saga> = None;
        for entry in entries {
            if !inside(&entry) {
                Saga::apply(&mut slot, &entry);
                continue;
            }
            if page.rows.len() == limit {
                page.next = page.rows.last().map(|row| cursor::write_sequence(row.entry.sequence.0));
                break;
            }
            page.rows.push(row(&mut slot, entry));
        }
        Ok(page)
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

fn row(slot: &mut Option<Saga>, entry: Entry) -> Row {
    let context = |slot: &Option<Saga>| slot.as_ref().map_or_else(Json::empty_object, |saga| saga.state.context.clone());
    let before = context(slot);
    Saga::apply(slot, &entry);
    let changed = changed_pointers(&before, &context(slot));
    let status = slot.as_ref().map(|saga| saga.state.status).unwrap_or_default();
    Row { entry, status, changed }
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
