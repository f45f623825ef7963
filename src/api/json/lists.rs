//! Lists: pages of history, of checkpoints, of replays, and what a search found.

use super::entry::entry;
use super::parts::{array, known_through};
use crate::history::answer::{Checkpoints, HistoryPage};
use crate::saga::grouping::GroupBy;
use crate::saga::request::LogRecord;
use crate::saga::selector::FoundSaga;
use crate::saga::time::Micros;
use crate::wire::event::write_error;
use crate::wire::json::Writer;
use crate::wire::log::log_answer;
use crate::wire::restored::write_position;

pub fn page(page: &HistoryPage) -> String {
    let entries = page.rows.iter().map(|row| entry(&row.entry, row.status, &row.changed));
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

/// Sagas counted in groups.
pub fn counts(by: &[GroupBy], total: u64, groups: &[(Vec<Option<String>>, u64)], complete_through: Micros) -> String {
    let groups = groups.iter().map(|(values, count)| {
        let mut out = Writer::with_capacity(128);
        by.iter().zip(values).for_each(|(by, value)| out.opt_str(by.as_str(), value.as_deref()));
        out.int("count", Some(count));
        out.end()
    });
    let groups = array(groups);
    let mut out = Writer::with_capacity(groups.len() + 128);
    out.int("total", Some(total));
    out.raw("groups", &groups);
    out.text("complete_through", Some(known_through(complete_through)));
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
