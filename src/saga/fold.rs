//! The fold: from step events to entries and states. Pure and total; docs/interface/events.md is its specification.
//!
//! Two layers. [`Saga::admit`] looks at a record once, when it is read from the log: is it a duplicate, stale, an
//! entry; with which effective time, which anomalies, is it a snapshot. [`Saga::apply`] replays an entry, at once or
//! years later, and must give the same state each time.

use std::borrow::{Borrow, BorrowMut};
use std::collections::VecDeque;

use super::context::{changed_by_all, changed_context};
use super::entry::Entry;
use super::event::{ContextChange, Kind, StepEvent};
use super::fold_settings::FoldSettings;
use super::json::Json;
use super::position::{EntrySequence, Position};
use super::state::{Anomaly, State};
use super::time::Micros;

/// How many of a saga's last entries are remembered to recognise duplicates.
pub const WINDOW: usize = 64;

/// What is remembered of an entry to recognise a duplicate of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// XXH3-64 of the event id.
    pub event_id_hash: u64,
    pub sequence: Option<u64>,
}

/// Everything the fold needs to go on: the state and the memory for duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    pub state: State,
    /// The last [`WINDOW`] entries, oldest first.
    pub window: VecDeque<Seen>,
    /// The highest `sequence` seen in an entry.
    pub highest_sequence: Option<u64>,
}

/// Where and when the log has a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMeta {
    pub position: Position,
    /// The record's timestamp.
    pub timestamp: Micros,
}

/// What a record becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// An entry; the saga after it is in place.
    Entry(Box<Entry>),
    /// Seen among the last 64 entries: no entry, counted.
    Duplicate,
    /// Another event under the `sequence` of one of the last 64 entries, which is named: no entry, but maybe a fact lost.
    SequenceTaken { by: EntrySequence },
    /// No entry; to the dead letters with this code (`stale_sequence`, `id_taken`).
    DeadLetter { code: &'static str, message: String },
}

impl Seen {
    pub fn of(event: &StepEvent) -> Self {
        Self { event_id_hash: xxhash_rust::xxh3::xxh3_64(event.event_id.as_bytes()), sequence: event.sequence }
    }
}

impl Saga {
    /// Looks at a record once, in log order: an entry, a duplicate or a dead letter. An entry is applied to `slot` (a saga,
    /// or one in a box); otherwise `slot` stays as it is. `across_gap`: an operator accepted the loss of offsets between
    /// the saga's previous entry, or the start of the log, and this record.
    pub fn admit<S: BorrowMut<Self> + From<Self>>(
        slot: &mut Option<S>,
        event: StepEvent,
        record: &RecordMeta,
        across_gap: bool,
        settings: &FoldSettings,
    ) -> Admitted {
        let seen = Seen::of(&event);
        let before: Option<&Self> = slot.as_ref().map(Borrow::borrow);
        if let Some(turned_away) = before.and_then(|saga| saga.rejects(&event, seen)) {
            return turned_away;
        }
        let mut anomalies = Vec::new();
        let mut note = |when: bool, anomaly| {
            if when {
                anomalies.push(anomaly);
            }
        };

        let latest_allowed = record.timestamp.saturating_add(settings.max_clock_ahead_micros);
        let clock_ahead = event.occurred_at.is_some_and(|at| at > latest_allowed);
        let occurred_time = event.occurred_at.filter(|_| !clock_ahead).unwrap_or(record.timestamp);
        let effective_time = before.map_or(occurred_time, |saga| occurred_time.max(saga.state.entry.effective_time));
        note(clock_ahead, Anomaly::ClockAhead);
        note(!clock_ahead && event.occurred_at.is_some_and(|at| effective_time > at), Anomaly::Late);

        let highest = before.and_then(|saga| saga.highest_sequence);
        if let (Some(highest), Some(sequence)) = (highest, event.sequence) {
            note(sequence <= highest, Anomaly::OutOfOrder);
            note(sequence > highest && sequence - highest > 1, Anomaly::Gap);
        }
        note(before.is_none() && !matches!(event.kind, Kind::SagaStarted | Kind::SagaRestored), Anomaly::NoStart);
        note(before.is_some_and(|saga| saga.state.status.is_end()), Anomaly::AfterEnd);

        let moved = before.is_some_and(|saga| {
            let last = &saga.state.entry.position;
            last.partition != record.position.partition || last.topic != record.position.topic
        });

        // As the state will have it: the first event's name until a SAGA_RESTORED gives another.
        let known = before.filter(|_| event.kind != Kind::SagaRestored);
        let name = known.map_or(&event.saga_name, |saga| &saga.state.saga_name);
        let mut entry = Entry {
            sequence: before.map_or(EntrySequence::FIRST, |saga| saga.state.entry.sequence.next()),
            position: record.position.clone(),
            effective_time,
            occurred_time,
            recorded_time: record.timestamp,
            snapshot: settings.policy_of(name).takes(event.kind),
            anomalies,
            event,
        };
        let context = next_context(before, &entry.event.context);
        let too_large = over_limit(before, &entry, context.as_ref(), settings.max_state_bytes);
        let more = [(too_large, Anomaly::StateTooLarge), (across_gap, Anomaly::LogGap), (moved, Anomaly::Moved)];
        entry.anomalies.extend(more.into_iter().filter(|(when, _)| *when).map(|(_, anomaly)| anomaly));
        Self::apply_with(slot, &entry, seen, context.filter(|_| !too_large));
        Admitted::Entry(Box::new(entry))
    }

    /// Replays an entry that was admitted before, in whatever form a store gave it back.
    pub fn apply(slot: &mut Option<Self>, entry: &Entry) {
        let kept = entry.anomalies.contains(&Anomaly::StateTooLarge);
        let context = if kept { None } else { next_context(slot.as_ref(), &entry.event.context) };
        Self::apply_with(slot, entry, Seen::of(&entry.event), context);
    }

    /// The same of many, one after the other. Their contexts are folded at once: see [`changed_by_all`].
    pub fn apply_all<'e>(slot: &mut Option<Self>, entries: impl IntoIterator<Item = &'e Entry>) {
        let mut changes: Vec<&ContextChange> = Vec::new();
        for entry in entries {
            Self::apply_facts(slot, entry);
            let kept = entry.anomalies.contains(&Anomaly::StateTooLarge);
            if !kept && entry.event.context != ContextChange::None {
                changes.push(&entry.event.context);
            }
        }
        if let Some(saga) = slot.as_mut().filter(|_| !changes.is_empty()) {
            saga.state.context = changed_by_all(&saga.state.context, &changes);
        }
    }

    /// Replays an entry, except what it does to the context.
    pub fn apply_facts(slot: &mut Option<Self>, entry: &Entry) {
        Self::apply_with(slot, entry, Seen::of(&entry.event), None);
    }

    fn apply_with<S: BorrowMut<Self> + From<Self>>(slot: &mut Option<S>, entry: &Entry, seen: Seen, context: Option<Json>) {
        let saga: &mut Self = slot
            .get_or_insert_with(|| {
                S::from(Self { state: State::before_first(entry), window: VecDeque::new(), highest_sequence: None })
            })
            .borrow_mut();
        saga.state.apply(entry, context);
        if saga.window.len() == WINDOW {
            saga.window.pop_front();
        }
        saga.window.push_back(seen);
        saga.highest_sequence = saga.highest_sequence.max(seen.sequence);
    }

    /// Why the event becomes no entry, if so.
    fn rejects(&self, event: &StepEvent, seen: Seen) -> Option<Admitted> {
        let same_id = |known: &Seen| known.event_id_hash == seen.event_id_hash;
        let same_sequence = |known: &Seen| seen.sequence.is_some() && known.sequence == seen.sequence;
        if self.window.iter().any(same_id) {
            return Some(Admitted::Duplicate);
        }
        if let Some(before_newest) = self.window.iter().rev().position(same_sequence) {
            let newest = self.state.entry.sequence.0;
            return Some(Admitted::SequenceTaken { by: EntrySequence(newest - before_newest as u64) });
        }
        // "Below them all": below every sequence among the 64; entries without one have nothing to be below of, and
        // where none has one a sequence is never stale.
        let lowest = self.window.iter().filter_map(|known| known.sequence).min();
        if let (Some(sequence), Some(lowest)) = (event.sequence, lowest)
            && self.window.len() == WINDOW
            && sequence < lowest
        {
            let message = "sequence: below those of the saga's last 64 entries".to_owned();
            return Some(Admitted::DeadLetter { code: "stale_sequence", message });
        }
        self.state.taken_by_another_replay(event).then(|| Admitted::DeadLetter {
            code: "id_taken",
            message: "saga_id: another replay has restored a saga under this id".to_owned(),
        })
    }
}

fn next_context(before: Option<&Saga>, change: &ContextChange) -> Option<Json> {
    match before {
        Some(saga) => changed_context(&saga.state.context, change),
        None => changed_context(&Json::empty_object(), change),
    }
}

/// Would the state after the entry be over the limit? Asked of events that add to what [`State::size`] counts.
fn over_limit(before: Option<&Saga>, entry: &Entry, context: Option<&Json>, limit: u64) -> bool {
    let event = &entry.event;
    let adds = event.kind == Kind::StepCompleted || event.error.is_some() || event.labels.is_some() || event.restored.is_some();
    if context.is_none() && !adds {
        return false;
    }
    // What the event takes away is not looked at, unless the limit is near.
    let had = before.map_or(2, |saga| saga.state.size());
    if (had + context.map_or(0, Json::len) + event.most_added()) as u64 <= limit {
        return false;
    }
    let mut after = before.map_or_else(|| State::before_first(entry), |saga| saga.state.clone());
    after.apply(entry, context.cloned());
    after.size() as u64 > limit
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
