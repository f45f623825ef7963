//! Answers about schedules.

use super::parts::array;
use crate::api::schedule_service::{ScheduleAnswer, WouldPage};
use crate::saga::batch::Verdict;
use crate::saga::json::Json;
use crate::saga::request::ReplayStatus;
use crate::saga::schedule::progress::StopReason;
use crate::saga::schedule::would::WouldReplay;
use crate::wire::json::{OWN_MAX_DEPTH, Writer, read_object};

pub fn schedule_accepted(schedule_id: &str) -> String {
    let mut out = Writer::with_capacity(64);
    out.str("schedule_id", schedule_id);
    out.end()
}

/// Members of the definition that stand in an answer beside it.
const SHOWN: [&str; 5] = ["name", "at", "cron", "zone", "policy"];

pub fn schedule(answer: &ScheduleAnswer) -> String {
    let record = &answer.record;
    let progress = record.schedule_progress.as_deref();
    let none = Json::empty_object();
    let definition = progress.map_or(&none, |progress| &progress.definition);
    let mut out = Writer::with_capacity(512 + definition.len() * 2);
    out.str("schedule_id", &record.replay_id);
    let members = read_object(definition.as_str().as_bytes(), OWN_MAX_DEPTH).ok();
    for name in SHOWN {
        match members.as_ref().and_then(|members| members.get(name)) {
            Some(raw) => out.raw(name, raw.text()),
            None => out.null(name),
        }
    }
    out.text("next_due", answer.next_due);
    out.text("last_due", progress.and_then(|progress| progress.last_due));
    out.int("runs", Some(progress.map_or(0, |progress| progress.runs)));
    let is_over = record.status != ReplayStatus::Accepted;
    out.bool("enabled", !is_over && progress.is_some_and(|progress| progress.enabled));
    out.opt_str("stopped_because", progress.and_then(|progress| progress.stopped_because).map(StopReason::as_str));
    out.object("counts", |out| answer.counts.named().iter().for_each(|(name, count)| out.int(name, Some(count))));
    out.json("schedule", Some(definition));
    out.str("status", record.status.as_str());
    out.text("created_at", Some(record.accepted_at));
    out.opt_str("code", record.code.as_deref());
    out.opt_str("message", record.message.as_deref());
    out.str("requested_by", &record.requested_by);
    out.str("reason", &record.reason);
    out.end()
}

pub fn schedules(answers: &[ScheduleAnswer]) -> String {
    let items = array(answers.iter().map(schedule));
    let mut out = Writer::with_capacity(items.len() + 64);
    out.raw("schedules", &items);
    out.end()
}

pub fn preview(page: &WouldPage) -> String {
    let rows = array(page.would.iter().map(would));
    let mut out = Writer::with_capacity(rows.len() + 64);
    out.raw("would", &rows);
    out.int("total", Some(page.total));
    out.opt_str("next", page.next.as_deref());
    out.end()
}

fn would(row: &WouldReplay) -> String {
    let (verdict, code) = match &row.verdict {
        Verdict::Replay { .. } => ("replay", None),
        Verdict::Refuse { code, .. } => ("refuse", Some(code.as_str())),
    };
    let mut out = Writer::with_capacity(192);
    out.str("saga_id", row.saga_id.as_str());
    out.int("sequence", row.sequence.map(|sequence| sequence.0));
    out.text("due", Some(row.due));
    out.str("verdict", verdict);
    out.opt_str("code", code);
    out.end()
}
