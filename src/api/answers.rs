//! Answers made of several things: pages, differences, trees. What one state, entry or log record looks like is `wire`'s.

use crate::history::answer::{Checkpoints, LineageNode, Page, StateAnswer};
use crate::saga::patch;
use crate::saga::request::LogRecord;
use crate::saga::selector::FoundSaga;
use crate::saga::time::Micros;
use crate::saga::timeline::StepsChange;
use crate::wire::entry::entry_json;
use crate::wire::event::write_error;
use crate::wire::json::Writer;
use crate::wire::log::log_answer;
use crate::wire::restored::write_position;
use crate::wire::state::{AsOf, state_json};

/// A State (INTERFACE 2). `asked`: the time asked for, if one was.
pub fn state(found: &StateAnswer, asked: Option<Micros>) -> String {
    let looked_up = AsOf {
        as_of: asked,
        folded: found.folded,
        source: found.source.as_str(),
        complete_through: known_through(found.reach.complete_through),
    };
    state_json(&found.state, &looked_up)
}

/// Two states, each with the time asked for if one was, and what differs.
pub fn difference(from: (&StateAnswer, Option<Micros>), to: (&StateAnswer, Option<Micros>)) -> String {
    let (old, new) = (&from.0.state, &to.0.state);
    let mut out = Writer::with_capacity(4_096);
    out.raw("from", &state(from.0, from.1));
    out.raw("to", &state(to.0, to.1));
    out.raw("patch", &patch::diff(&old.context, &new.context).to_string());
    let steps = StepsChange::between(old, new);
    out.object("steps", |o| {
        for (name, change) in [("completed", &steps.completed), ("skipped", &steps.skipped), ("compensated", &steps.compensated)]
        {
            o.object(name, |o| {
                o.strings("added", &change.added);
                o.strings("removed", &change.removed);
            });
        }
    });
    out.object("status", |o| {
        o.str("from", old.status.as_str());
        o.str("to", new.status.as_str());
    });
    out.end()
}

pub fn page(page: &Page) -> String {
    let entries = page.rows.iter().map(|row| entry_json(&row.entry, row.status, &row.changed));
    listed("entries", entries, page.next.as_deref()).end()
}

pub fn records(records: &[LogRecord], next: Option<&str>) -> String {
    listed("replays", records.iter().map(log_answer), next).end()
}

pub fn checkpoints(found: &Checkpoints) -> String {
    let checkpoints = found.checkpoints.iter().map(|checkpoint| {
        let mut out = Writer::with_capacity(256);
        out.int("sequence", Some(checkpoint.sequence));
        out.opt_str("step", checkpoint.step.as_deref());
        out.opt_str("name", checkpoint.name.as_deref());
        out.str("kind", checkpoint.kind.as_str());
        out.text("effective_time", Some(checkpoint.effective_time));
        write_position(&mut out, &checkpoint.position);
        out.end()
    });
    listed("checkpoints", checkpoints, found.next.as_deref()).end()
}

/// What a search found.
pub fn sagas(found: &[FoundSaga], next: Option<&str>, complete_through: Micros) -> String {
    let sagas = found.iter().map(|saga| {
        let mut out = Writer::with_capacity(256);
        out.str("saga_id", saga.saga_id.as_str());
        out.str("saga_name", &saga.saga_name);
        out.str("status", saga.status.as_str());
        out.opt_str("failed_step", saga.failed_step.as_deref());
        write_error(&mut out, "error", saga.error.as_ref());
        out.opt_str("current_step", saga.current_step.as_deref());
        out.text("started_at", Some(saga.started_at));
        out.text("updated_at", Some(saga.updated_at));
        out.text("failed_at", saga.failed_at);
        out.int("depth", Some(saga.depth));
        out.end()
    });
    let mut out = listed("sagas", sagas, next);
    out.text("complete_through", Some(known_through(complete_through)));
    out.end()
}

/// Where nothing is known yet: 1970, a time that every reader of RFC 3339 takes.
fn known_through(complete_through: Micros) -> Micros {
    complete_through.max(Micros(0))
}

/// The tree from its root.
pub fn lineage(root: &LineageNode) -> String {
    let mut out = Writer::with_capacity(256);
    out.str("saga_id", root.saga_id.as_str());
    out.opt_str("status", root.status.map(|status| status.as_str()));
    out.opt_str("replay_id", root.replay_id.as_deref());
    out.int("depth", Some(root.depth));
    out.opt_str("resume_step", root.resume_step.as_deref());
    out.raw("children", &array(root.children.iter().map(lineage)));
    out.end()
}

/// A page: its items, and the cursor of what comes after them.
fn listed(name: &str, items: impl Iterator<Item = String>, next: Option<&str>) -> Writer {
    let items = array(items);
    let mut out = Writer::with_capacity(items.len() + 64);
    out.raw(name, &items);
    out.opt_str("next", next);
    out
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}
