//! The members of a REPLAY, with their defaults.

use super::context_override::{OVERRIDES, read_override};
use super::hash::sha256_hex;
use super::member::{read_member, read_schedule};
use crate::saga::position::SagaId;
use crate::saga::request::{ForceFailure, From, IfCompensated, ReplayOrder};
use crate::wire::fields::{Checked, Fields};
use crate::wire::restored::read_mode;

pub fn read(fields: &Fields<'_>) -> Checked<ReplayOrder> {
    let flag = |name| -> Checked<bool> { Ok(fields.bool(name)?.unwrap_or(false)) };
    Ok(ReplayOrder {
        saga_id: read_saga_id(fields, "saga_id")?,
        from: read_from(fields)?,
        from_text: fields.required("from", fields.json("from"))?,
        override_: read_override(fields)?,
        override_sha256: fields.raw("override").map(|raw| sha256_hex(raw.text().as_bytes())),
        force_failure: read_force_failure(fields)?,
        mode: read_mode(fields, "mode")?.unwrap_or_default(),
        dry_run: flag("dry_run")?,
        allow_running: flag("allow_running")?,
        allow_repeat: flag("allow_repeat")?,
        allow_completed: flag("allow_completed")?,
        if_compensated: read_if_compensated(fields)?,
        saga_version: fields.string("saga_version")?,
        target: fields.string("target")?,
        new_saga_id: fields.str("new_saga_id")?.map(|id| SagaId::new(id.as_ref())),
        not_before: fields.time("not_before")?,
        expires_at: fields.time("expires_at")?,
        member: read_member(fields)?,
        schedule: read_schedule(fields)?,
    })
}

/// Every member of a REPLAY, in the order of its one text ([`super::canonical`]).
pub(super) const MEMBERS: [&str; 20] = [
    "request_id",
    "command",
    "saga_id",
    "from",
    "override",
    "force_failure",
    "mode",
    "dry_run",
    "allow_running",
    "allow_repeat",
    "allow_completed",
    "if_compensated",
    "saga_version",
    "target",
    "new_saga_id",
    "not_before",
    "expires_at",
    "requested_by",
    "reason",
    "labels",
];

/// Has it no members but those of a REPLAY, its `from` and its `override`? What is in an override belongs to the saga.
pub fn only_known(fields: &Fields<'_>) -> Checked<()> {
    fields.only(&MEMBERS)?;
    only_known_below(fields)
}

/// The same of its `from` and its `override` alone.
pub(super) fn only_known_below(fields: &Fields<'_>) -> Checked<()> {
    if let Ok(Some(from)) = fields.object("from") {
        from.only(&[&POINTS[..], &["attempt"]].concat())?;
    }
    if let Ok(Some(change)) = fields.object("override") {
        change.only(&OVERRIDES)?;
    }
    Ok(())
}

/// The ways to name a checkpoint.
const POINTS: [&str; 7] = ["step", "after_step", "at", "sequence", "checkpoint", "start", "latest"];

fn read_from(fields: &Fields<'_>) -> Checked<From> {
    let from = fields.required("from", fields.object("from")?)?;
    let mut given = POINTS.into_iter().filter(|name| from.raw(name).is_some());
    let (Some(name), None) = (given.next(), given.next()) else {
        return Err(fields.wrong("from", "must have one of step, after_step, at, sequence, checkpoint, start, latest"));
    };
    if name != "step" && from.raw("attempt").is_some() {
        return Err(from.wrong("attempt", "goes with step only"));
    }
    let marked = |name: &str, point| match from.bool(name)? {
        Some(true) => Ok(point),
        _ => Err(from.wrong(name, "is not true")),
    };
    Ok(match name {
        "step" => From::Step { step: from.needed("step")?, attempt: from.i64("attempt")? },
        "after_step" => From::AfterStep(from.needed("after_step")?),
        "at" => From::At(from.required("at", from.time("at")?)?),
        "sequence" => From::Sequence(from.required("sequence", from.u64("sequence")?)?),
        "checkpoint" => From::Checkpoint(from.needed("checkpoint")?),
        "start" => marked("start", From::Start)?,
        _ => marked("latest", From::Latest)?,
    })
}

fn read_force_failure(fields: &Fields<'_>) -> Checked<Option<ForceFailure>> {
    let Some(raw) = fields.raw("force_failure") else { return Ok(None) };
    match (raw.bool(), raw.string()) {
        (Some(true), _) => Ok(Some(ForceFailure::ResumeStep)),
        (Some(false), _) => Ok(None),
        (None, Some(step)) if !step.is_empty() => Ok(Some(ForceFailure::Step(step.into_owned()))),
        _ => Err(fields.wrong("force_failure", "is neither true nor the name of a step")),
    }
}

fn read_if_compensated(fields: &Fields<'_>) -> Checked<IfCompensated> {
    match fields.str("if_compensated")?.as_deref() {
        None | Some("refuse") => Ok(IfCompensated::Refuse),
        Some("keep") => Ok(IfCompensated::Keep),
        Some("rerun") => Ok(IfCompensated::Rerun),
        Some(_) => Err(fields.wrong("if_compensated", "is none of refuse, keep, rerun")),
    }
}

/// Required, 1 to 256 characters.
pub fn read_saga_id(fields: &Fields<'_>, name: &str) -> Checked<SagaId> {
    let id = fields.needed(name)?;
    if id.chars().count() > SagaId::MAX_CHARS {
        return Err(fields.wrong(name, "is longer than 256 characters"));
    }
    Ok(SagaId::new(id))
}
