//! Answers about one replay: what became of a request, of a cancel, and the log's record.

use super::parts::array;
use crate::api::replay_service::{AcceptedCancel, SubmitAnswer};
use crate::saga::effects::Effect;
use crate::wire;
use crate::wire::json::Writer;
pub use crate::wire::log::log_answer as record;

/// What became of a request that was not refused.
pub fn submitted(answer: &SubmitAnswer) -> String {
    match answer {
        SubmitAnswer::Accepted { request_id, replay_id, new_saga_id, request_sha256: _ } => {
            let mut out = Writer::with_capacity(256);
            out.str("request_id", request_id);
            out.str("replay_id", replay_id);
            out.str("new_saga_id", new_saga_id.as_str());
            out.end()
        }
        SubmitAnswer::Planned { plan, diff, runs, would_refuse, effects } => {
            let mut out = Writer::with_capacity(4_096);
            out.raw("plan", &wire::restored::encode_json(plan));
            out.raw("diff", &diff.to_string());
            out.strings("runs", runs);
            out.opt_str("would_refuse", *would_refuse);
            out.raw("effects", &array(effects.iter().map(effect)));
            out.end()
        }
    }
}

fn effect(effect: &Effect) -> String {
    let mut out = Writer::with_capacity(96);
    out.str("step", &effect.step);
    out.str("effect", &effect.effect);
    out.end()
}

pub fn cancelled(cancel: &AcceptedCancel) -> String {
    let mut out = Writer::with_capacity(128);
    out.str("request_id", &cancel.request_id);
    out.str("replay_id", &cancel.replay_id);
    out.end()
}
