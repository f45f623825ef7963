//! What the request of one replay of a batch, or of a schedule, has besides the members of a REPLAY.

use super::context_override::read_override;
use super::hash::sha256_hex;
use crate::saga::plan::REFUSALS;
use crate::saga::request::{BatchMember, Refusal};
use crate::saga::schedule::member::ScheduleMember;
use crate::wire::fields::{Checked, Fields};
use crate::wire::json::Writer;

/// What a replay of a batch has besides: resaga alone writes it.
pub const MEMBER: &str = "batch_member";
/// The same of what a schedule asked for.
const SCHEDULE_MEMBER: &str = "schedule_member";

/// Of an UNDO: the batch that is undone.
pub fn read_batch_id(fields: &Fields<'_>) -> Checked<Option<String>> {
    fields.object(MEMBER)?.map(|member| member.needed("batch_id")).transpose()
}

/// `None`: it is not of a batch.
pub fn read_member(fields: &Fields<'_>) -> Checked<Option<Box<BatchMember>>> {
    let Some(member) = fields.object(MEMBER)? else { return Ok(None) };
    let own_override = read_override(&member)?;
    let refusal = match member.string("code")? {
        None => None,
        Some(code) => {
            let code = REFUSALS.into_iter().find(|known| *known == code);
            let code = code.ok_or_else(|| member.wrong("code", "is not one of a refusal"))?;
            Some(Refusal::new(code, member.string("message")?.unwrap_or_default()))
        }
    };
    let item = if own_override.is_some() { member.json("override") } else { member.json("item") };
    Ok(Some(Box::new(BatchMember {
        item,
        batch_id: member.needed("batch_id")?,
        accepted_at: member.required("accepted_at", member.time("accepted_at")?)?,
        own_override_sha256: own_override
            .as_ref()
            .and_then(|_| member.raw("override"))
            .map(|raw| sha256_hex(raw.text().as_bytes())),
        own_override,
        refusal,
    })))
}

/// `None`: no schedule made the request.
pub fn read_schedule(fields: &Fields<'_>) -> Checked<Option<Box<ScheduleMember>>> {
    let Some(member) = fields.object(SCHEDULE_MEMBER)? else { return Ok(None) };
    let due = member.required("due", member.time("due")?)?;
    Ok(Some(Box::new(ScheduleMember { schedule_id: member.needed("schedule_id")?, due })))
}

pub fn write_schedule(out: &mut Writer, member: &ScheduleMember) {
    out.object(SCHEDULE_MEMBER, |out| {
        out.str("schedule_id", &member.schedule_id);
        out.text("due", Some(member.due));
    });
}
