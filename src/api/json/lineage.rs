//! The tree of a saga's replays.

use super::parts::array;
use crate::history::answer::LineageNode;
use crate::wire::json::Writer;

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
