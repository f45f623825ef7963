//! The member `override`: how a context is changed.

use crate::saga::request::Override;
use crate::wire::fields::{Checked, Fields};

/// The ways to change a context.
pub const OVERRIDES: [&str; 4] = ["merge", "shallow", "patch", "replace"];

/// What each member holds is judged when it is applied: `override_invalid`.
pub fn read_override(fields: &Fields<'_>) -> Checked<Option<Override>> {
    let Some(member) = fields.object("override")? else { return Ok(None) };
    let merge = member.json("merge").map(Override::Merge);
    let shallow = member.json("shallow").map(Override::Shallow);
    let patch = member.json("patch").map(Override::Patch);
    let replace = member.json("replace").map(Override::Replace);
    let mut given = [merge, shallow, patch, replace].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(change), None) => Ok(Some(change)),
        _ => Err(fields.wrong("override", "must have one of merge, shallow, patch, replace")),
    }
}
