//! The tree of a saga's replays, each with what became of it.

use super::parts::array;
use crate::history::answer::LineageNode;
use crate::wire::json::Writer;

/// The tree from its root.
pub fn lineage(root: &LineageNode) -> String {
    let replay = root.replay.as_deref();
    let mut out = Writer::with_capacity(512);
    out.str("saga_id", root.saga_id.as_str());
    out.opt_str("status", root.status.map(|status| status.as_str()));
    out.opt_str("replay_id", replay.map(|replay| replay.replay_id.as_str()));
    out.int("depth", Some(root.depth));
    out.opt_str("resume_step", replay.and_then(|replay| replay.resume_step.as_deref()));
    out.opt_str("mode", replay.and_then(|replay| replay.mode).map(|mode| mode.as_str()));
    out.opt_str("replay_status", replay.map(|replay| replay.status.as_str()));
    out.opt_str("outcome", replay.and_then(|replay| replay.outcome.as_deref()));
    out.opt_str("executed_as", replay.and_then(|replay| replay.executed_as.as_ref()).map(|saga| saga.as_str()));
    out.opt_str("undone_by", replay.and_then(|replay| replay.undone_by.as_deref()));
    out.opt_str("batch_id", replay.and_then(|replay| replay.batch_id.as_deref()));
    out.opt_str("schedule_id", replay.and_then(|replay| replay.schedule_id.as_deref()));
    out.opt_str("requested_by", replay.map(|replay| replay.requested_by.as_str()));
    out.opt_str("reason", replay.map(|replay| replay.reason.as_str()));
    out.raw("children", &array(root.children.iter().map(lineage)));
    out.end()
}
