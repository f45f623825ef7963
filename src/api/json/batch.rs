//! Answers about batches and their plans.

use super::parts::array;
use crate::api::batch_service::{BatchAnswer, BatchPage, EffectCount, PlanAnswer};
use crate::saga::batch::{BatchRow, Verdict};
use crate::saga::batch_progress::PauseReason;
use crate::wire::batch::write_limits;
use crate::wire::json::Writer;

pub fn batch_accepted(batch_id: &str) -> String {
    let mut out = Writer::with_capacity(64);
    out.str("batch_id", batch_id);
    out.end()
}

pub fn batch(answer: &BatchAnswer) -> String {
    let (record, progress) = (&answer.record, answer.record.batch_progress.as_deref());
    let mut out = Writer::with_capacity(512);
    out.str("batch_id", &record.replay_id);
    out.opt_str("name", progress.and_then(|progress| progress.name.as_deref()));
    out.str("status", answer.status.as_str());
    out.int("total", Some(answer.total));
    out.object("counts", |out| answer.counts.named().iter().for_each(|(name, count)| out.int(name, Some(count))));
    write_limits(&mut out, progress.map(|progress| progress.limits).unwrap_or_default());
    out.text("eta", answer.eta);
    out.text("created_at", Some(record.accepted_at));
    out.opt_str("paused_because", progress.and_then(|progress| progress.paused).map(PauseReason::as_str));
    out.opt_str("code", record.code.as_deref());
    out.opt_str("message", record.message.as_deref());
    out.str("requested_by", &record.requested_by);
    out.str("reason", &record.reason);
    out.end()
}

pub fn batches(page: &BatchPage) -> String {
    let items = array(page.batches.iter().map(batch));
    let mut out = Writer::with_capacity(items.len() + 64);
    out.raw("batches", &items);
    out.opt_str("next", page.next.as_deref());
    out.end()
}

pub fn plan(answer: &PlanAnswer) -> String {
    let rows = array(answer.rows.iter().map(row));
    let mut out = Writer::with_capacity(rows.len() + 512);
    out.str("plan_id", &answer.plan_id);
    out.str("digest", &answer.digest);
    out.raw("sagas", &rows);
    out.opt_str("next", answer.next.as_deref());
    out.int("total", Some(answer.total));
    out.object("counts", |out| answer.counts.iter().for_each(|(name, count)| out.int(name, Some(count))));
    out.raw("effects", &array(answer.effects.iter().map(effect)));
    out.end()
}

fn effect(counted: &EffectCount) -> String {
    let mut out = Writer::with_capacity(128);
    out.str("step", &counted.effect.step);
    out.str("effect", &counted.effect.effect);
    out.int("count", Some(counted.count));
    out.end()
}

/// A list that was not planned has no verdicts.
fn row(row: &BatchRow) -> String {
    let (verdict, code, new_saga_id) = match &row.verdict {
        None => (None, None, None),
        Some(Verdict::Replay { new_saga_id }) => (Some("replay"), None, Some(new_saga_id.as_str())),
        Some(Verdict::Refuse { code, .. }) => (Some("refuse"), Some(code.as_str()), None),
    };
    let mut out = Writer::with_capacity(192);
    out.str("saga_id", row.saga_id.as_str());
    out.opt_str("verdict", verdict);
    out.opt_str("code", code);
    out.opt_str("new_saga_id", new_saga_id);
    out.end()
}
