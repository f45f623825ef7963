//! The member `override`: how a context is changed.

use crate::saga::json::Json;
use crate::saga::request::Override;
use crate::wire::fields::{Checked, Fields};
use crate::wire::json::{OWN_MAX_DEPTH, Writer, read_object, read_value};

/// The ways to change a context.
pub const OVERRIDES: [&str; 5] = ["merge", "shallow", "patch", "replace", "jq"];

/// What each member holds is judged when it is applied: `override_invalid`.
pub fn read_override(fields: &Fields<'_>) -> Checked<Option<Override>> {
    let Some(member) = fields.object("override")? else { return Ok(None) };
    let merge = member.json("merge").map(Override::Merge);
    let shallow = member.json("shallow").map(Override::Shallow);
    let patch = member.json("patch").map(Override::Patch);
    let replace = member.json("replace").map(Override::Replace);
    let jq = member.json("jq").map(Override::Jq);
    let mut given = [merge, shallow, patch, replace, jq].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(change), None) => Ok(Some(change)),
        _ => Err(fields.wrong("override", "must have one of merge, shallow, patch, replace, jq")),
    }
}

/// The same from an override alone; `None`: it is none.
pub fn read_own_override(change: &Json) -> Option<Override> {
    let mut out = Writer::with_capacity(change.len() + 16);
    out.json("override", Some(change));
    let text = out.end();
    let object = read_object(text.as_bytes(), OWN_MAX_DEPTH).ok()?;
    read_override(&Fields::new(object)).ok().flatten()
}

/// Has it the form of an override and nothing else? So a member of `overrides` is told from a value for an expression.
pub fn is_override(value: &Json) -> bool {
    let object = read_value(value.as_str().as_bytes(), OWN_MAX_DEPTH).ok().and_then(|raw| raw.object());
    object.is_some_and(|object| object.members().len() == 1) && read_own_override(value).is_some()
}
