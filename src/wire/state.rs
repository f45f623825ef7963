//! A state as JSON, its members in the order of the contract (docs/interface/events.md, State). Must not know how it was looked
//! up.

use super::event::write_error;
use super::json::Writer;
use super::restored::write_position;
use crate::saga::json::Json;
use crate::saga::state::{EntryRef, State};

/// What a replay's expression sees as `$saga`: all that the history alone decides, but for the context.
pub fn without_context(state: &State) -> Json {
    let mut out = Writer::with_capacity(1_024);
    write_state(&mut out, state, false);
    out.object("entry", |o| write_entry(o, &state.entry));
    write_anomalies(&mut out, state);
    Json::from_valid(out.end())
}

/// Up to its lineage.
pub fn write_state(out: &mut Writer, state: &State, with_context: bool) {
    out.str("saga_id", state.saga_id.as_str());
    out.str("saga_name", &state.saga_name);
    out.opt_str("saga_version", state.saga_version.as_deref());
    out.str("status", state.status.as_str());
    let current = state.running_steps.last();
    out.opt_str("current_step", current.map(|(step, _)| step.as_str()));
    out.int("step_index", current.and_then(|(_, index)| *index));
    out.map("running_steps", &state.running_steps, |o, step, index| o.int(step, *index));
    out.strings("completed_steps", &state.completed_steps);
    out.strings("skipped_steps", &state.skipped_steps);
    out.strings("compensated_steps", &state.compensated_steps);
    let failed = state.failed_steps.last();
    out.opt_str("failed_step", failed.map(|(step, _)| step.as_str()));
    write_error(out, "error", state.end_error.as_deref().or(failed.and_then(|(_, error)| error.as_deref())));
    out.map("failed_steps", &state.failed_steps, |o, step, error| write_error(o, step, error.as_deref()));
    out.opt_str("compensation_failed_step", state.compensation_failed_step.as_deref());
    write_error(out, "compensation_error", state.compensation_error.as_deref());
    out.map("attempts", &state.attempts, |o, step, attempts| o.int(step, Some(attempts)));
    out.map("results", &state.results, |o, step, result| o.raw(step, result.as_str()));
    if with_context {
        out.raw("context", state.context.as_str());
    }
    out.text("started_at", Some(state.started_at));
    out.text("updated_at", Some(state.entry.effective_time));
    out.text("ended_at", state.ended_at);
    out.opt_str("tenant", state.tenant.as_deref());
    out.opt_str("region", state.region.as_deref());
    out.map("labels", &state.labels, |o, name, value| o.str(name, value));
    match &state.lineage {
        None => out.null("lineage"),
        Some(lineage) => out.object("lineage", |o| {
            o.str("parent", lineage.parent.as_str());
            o.str("root", lineage.root.as_str());
            o.int("depth", Some(lineage.depth));
            o.str("replay_id", &lineage.replay_id);
            o.opt_str("resume_step", lineage.resume_step.as_deref());
            o.str("mode", lineage.mode.as_str());
            o.opt_str("force_failure", lineage.force_failure.as_deref());
        }),
    }
}

pub fn write_anomalies(out: &mut Writer, state: &State) {
    out.strings("anomalies", state.anomalies.iter().map(|anomaly| anomaly.as_str()));
}

pub fn write_entry(out: &mut Writer, entry: &EntryRef) {
    out.int("sequence", Some(entry.sequence));
    out.str("event_id", &entry.event_id);
    out.str("kind", entry.kind.as_str());
    out.text("effective_time", Some(entry.effective_time));
    out.text("recorded_time", Some(entry.recorded_time));
    write_position(out, &entry.position);
}
