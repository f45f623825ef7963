//! Domain values as the messages of [`super::proto`], without building these. Numbers of kinds, statuses and anomalies
//! are their places in the `ALL` lists, which only grow at the end.
//!
//! Members are written in the order of their tags, so that equal values give equal bytes, the same as prost gives.

use super::out::Out;
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, ErrorInfo, Kind};
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::saga::lineage::{Lineage, Mode};
use crate::saga::position::Position;
use crate::saga::state::{Anomaly, EntryRef, Status};
use crate::wire::restored;

/// Where a frame has what the event did to the context.
#[derive(Clone, Copy)]
pub enum ContextForm<'a> {
    /// As the event has it.
    Own(&'a ContextChange),
    /// First bytes of the context before, what is new, its last bytes.
    Splice(u32, u32, &'a str),
    /// The whole context, which stands elsewhere: in the state of the same frame, or in a column of its own.
    Elsewhere,
}

impl ContextForm<'_> {
    /// Bytes of its text.
    pub fn len(&self) -> usize {
        match self {
            Self::Own(ContextChange::Full(text) | ContextChange::Patch(text) | ContextChange::Set(text)) => text.len(),
            Self::Own(ContextChange::Splice { middle, .. }) => middle.len(),
            Self::Splice(_, _, middle) => middle.len(),
            Self::Own(ContextChange::None) | Self::Elsewhere => 0,
        }
    }
}

/// What of an entry stands beside its frame, and is left out of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Saga id, sequence, partition and offset.
    Member,
    /// [`EntryColumns`](super::EntryColumns).
    Row,
}

fn place<T: PartialEq>(all: &[T], value: &T) -> u32 {
    all.iter().position(|v| v == value).map_or(u32::MAX, |at| at as u32)
}

pub fn entry(out: &mut Out, entry: &Entry, beside: Beside, context: ContextForm<'_>) {
    let event = &entry.event;
    let is_row = beside == Beside::Row;
    if is_row {
        out.uint(1, entry.sequence.0);
    } else {
        out.str(2, &entry.position.topic);
        out.fixed(5, entry.effective_time.0 as u64);
    }
    out.sint(6, entry.occurred_time.0.wrapping_sub(entry.effective_time.0));
    out.sint(7, entry.recorded_time.0.wrapping_sub(entry.effective_time.0));
    out.bool(8, entry.snapshot);
    out.packed(9, entry.anomalies.iter().map(|a| place(&Anomaly::ALL, a)));
    if !is_row {
        out.str(10, &event.event_id);
    }
    out.str(12, &event.saga_name);
    out.uint(13, u64::from(place(&Kind::ALL, &event.kind)));
    if !is_row {
        out.opt_fixed(14, event.occurred_at.filter(|at| *at != entry.occurred_time).map(|at| at.0 as u64));
    }
    out.opt_str(15, event.step.as_deref());
    out.opt_sint(16, event.step_index);
    out.opt_sint(17, event.attempt);
    out.opt_uint(18, event.sequence);
    out.opt_str(19, event.result.as_ref().map(Json::as_str));
    out.opt_message(20, event.error.as_deref(), error);
    out.opt_str(21, event.saga_version.as_deref());
    out.opt_str(22, event.tenant.as_deref());
    out.opt_str(23, event.region.as_deref());
    out.opt_message(24, event.labels.as_deref(), |out, labels| pairs(out, 1, labels));
    out.opt_message(25, event.lineage.as_deref(), lineage);
    out.opt_str(26, event.restored.as_ref().map(|saga| restored::encode_json(saga)).as_deref());
    out.bool(27, !is_row && event.occurred_at.is_none());
    self::context(out, context);
}

fn context(out: &mut Out, context: ContextForm<'_>) {
    match context {
        ContextForm::Own(ContextChange::None) => {}
        ContextForm::Own(ContextChange::Full(full)) => out.opt_str(30, Some(full.as_str())),
        ContextForm::Own(ContextChange::Patch(patch)) => out.opt_str(31, Some(patch.as_str())),
        ContextForm::Own(ContextChange::Set(set)) => out.opt_str(32, Some(set.as_str())),
        ContextForm::Own(ContextChange::Splice { prefix, suffix, middle }) => splice(out, *prefix, *suffix, middle),
        ContextForm::Splice(prefix, suffix, middle) => splice(out, prefix, suffix, middle),
        ContextForm::Elsewhere => out.opt_uint(34, Some(1)),
    }
}

fn splice(out: &mut Out, prefix: u32, suffix: u32, middle: &str) {
    out.message(33, |out| {
        out.uint(1, u64::from(prefix));
        out.uint(2, u64::from(suffix));
        out.str(3, middle);
    });
}

fn position(out: &mut Out, tag: u32, position: &Position) {
    out.str(tag, &position.topic);
    out.uint(tag + 1, u64::from(position.partition as u32));
    out.uint(tag + 2, position.offset.0 as u64);
}

fn error(out: &mut Out, error: &ErrorInfo) {
    out.opt_str(1, error.code.as_deref());
    out.opt_str(2, error.kind.as_deref());
    out.opt_str(3, error.message.as_deref());
    out.opt_str(4, error.details.as_ref().map(Json::as_str));
}

fn pairs(out: &mut Out, tag: u32, pairs: &[(String, String)]) {
    for (name, text) in pairs {
        pair(out, tag, name, text);
    }
}

fn pair(out: &mut Out, tag: u32, name: &str, text: &str) {
    out.message(tag, |out| {
        out.str(1, name);
        out.str(2, text);
    });
}

fn number(out: &mut Out, tag: u32, name: &str, n: Option<i64>) {
    out.message(tag, |out| {
        out.str(1, name);
        out.opt_sint(2, n);
    });
}

fn lineage(out: &mut Out, lineage: &Lineage) {
    out.str(1, lineage.parent.as_str());
    out.str(2, lineage.root.as_str());
    out.uint(3, u64::from(lineage.depth));
    out.str(4, &lineage.replay_id);
    out.opt_str(5, lineage.resume_step.as_deref());
    out.bool(6, lineage.mode == Mode::Compensate);
    out.opt_str(7, lineage.force_failure.as_deref());
    out.opt_str(8, lineage.executes.as_ref().map(|id| id.as_str()));
}

/// What a frame has of a saga.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The context to write; the state's own, or that it stands elsewhere.
    pub context: &'a str,
    /// The entry in the same frame: the state's reference to it, and the saga's id, are left out.
    pub beside: Option<&'a Entry>,
    pub window: bool,
}

pub fn saga(out: &mut Out, saga: &Saga, parts: Parts<'_>) {
    let state = &saga.state;
    if parts.beside.is_none() {
        out.str(1, state.saga_id.as_str());
    }
    out.str(2, &state.saga_name);
    out.opt_str(3, state.saga_version.as_deref());
    out.uint(4, u64::from(place(&Status::ALL, &state.status)));
    state.running_steps.iter().for_each(|(step, index)| number(out, 5, step, *index));
    out.strs(6, &state.completed_steps);
    out.strs(7, &state.skipped_steps);
    out.strs(8, &state.compensated_steps);
    for (step, failure) in &state.failed_steps {
        out.message(9, |out| {
            out.str(1, step);
            out.opt_message(2, failure.as_deref(), error);
        });
    }
    out.opt_message(10, state.end_error.as_deref(), error);
    out.opt_str(11, state.compensation_failed_step.as_deref());
    out.opt_message(12, state.compensation_error.as_deref(), error);
    state.attempts.iter().for_each(|(step, n)| number(out, 13, step, Some(*n)));
    state.results.iter().for_each(|(step, result)| pair(out, 14, step, result.as_str()));
    out.str(15, parts.context);
    out.fixed(16, state.started_at.0 as u64);
    out.opt_fixed(17, state.ended_at.map(|at| at.0 as u64));
    out.opt_str(18, state.tenant.as_deref());
    out.opt_str(19, state.region.as_deref());
    pairs(out, 20, &state.labels);
    out.opt_message(21, state.lineage.as_deref(), lineage);
    out.packed(22, state.anomalies.iter().map(|a| place(&Anomaly::ALL, a)));
    out.opt_uint(23, state.snapshot.map(|s| s.0));
    if !parts.beside.is_some_and(|entry| is_of(&state.entry, entry)) {
        out.message(24, |out| reference(out, &state.entry));
    }
    if parts.window {
        for seen in &saga.window {
            out.message(25, |out| {
                out.fixed(1, seen.event_id_hash);
                out.opt_uint(2, seen.sequence);
            });
        }
    }
    out.opt_uint(26, saga.highest_sequence);
}

fn reference(out: &mut Out, entry: &EntryRef) {
    out.uint(1, entry.sequence.0);
    out.str(2, &entry.event_id);
    out.uint(3, u64::from(place(&Kind::ALL, &entry.kind)));
    out.fixed(4, entry.effective_time.0 as u64);
    out.fixed(5, entry.recorded_time.0 as u64);
    position(out, 6, &entry.position);
}

/// Is it the reference to this entry?
fn is_of(reference: &EntryRef, entry: &Entry) -> bool {
    reference.sequence == entry.sequence
        && reference.event_id == entry.event.event_id
        && reference.kind == entry.event.kind
        && reference.effective_time == entry.effective_time
        && reference.recorded_time == entry.recorded_time
        && reference.position == entry.position
}
