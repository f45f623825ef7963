//! Step events: bytes to [`StepEvent`] with the rules of docs/interface/events.md on what is a dead letter, and back for SAGA_RESTORED.

use super::avro::{self, SchemaId, SchemaRef, Schemas, Shape};
use super::fields::{Checked, FieldError, Fields};
use super::json::{MAX_DEPTH, OWN_MAX_DEPTH, Writer, read_object};
use super::payload::open;
pub use super::payload::{NotDecoded, RecordHeaders};
use super::restored;
use crate::error::Result;
use crate::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use crate::saga::json::Json;
use crate::saga::lineage::Lineage;
use crate::saga::position::SagaId;

/// resaga's own records may be this many times `max_record`.
pub const OWN_RECORD_FACTOR: u64 = 4;

/// Reads a record of an events topic. `max_record` in bytes of key, value and headers. The first rule that applies, in
/// the order of docs/interface/events.md, "What is no entry", decides.
pub fn decode_event(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &RecordHeaders,
    max_record: u64,
    schemas: &Schemas,
) -> Result<StepEvent, NotDecoded> {
    let size = record_size(key, value, headers);
    let too_large = || {
        let (code, message) = too_large(size);
        NotDecoded::dead(code, message)
    };
    if size > max_record.saturating_mul(OWN_RECORD_FACTOR) {
        return Err(too_large());
    }
    let own = |error: NotDecoded| match error {
        NotDecoded::DeadLetter { .. } if size > max_record => too_large(),
        error => error,
    };
    let text = open(value, headers, schemas, Shape::step_event()).map_err(own)?;
    // SAGA_RESTORED carries values some levels deeper than they came in; others are held to the limit below.
    let object = read_object(&text.bytes, OWN_MAX_DEPTH).map_err(|e| own(NotDecoded::undecodable(e.to_string())))?;
    let depth = object.depth();
    let fields = Fields::new(object);
    if fields.str("kind").ok().flatten().as_deref() != Some(Kind::SagaRestored.as_str()) {
        if size > max_record {
            return Err(too_large());
        }
        if depth > MAX_DEPTH {
            return Err(NotDecoded::undecodable("nested too deep"));
        }
    }
    let invalid = |wrong: FieldError| NotDecoded::dead("invalid_event", wrong.to_string());
    if let Some(wrong) = text.wrong {
        return Err(invalid(wrong));
    }
    let event = read(&fields).map_err(invalid)?;
    if key != Some(event.saga_id.as_str().as_bytes()) {
        return Err(NotDecoded::dead("key_mismatch", "the record's key is not the value of field \"saga_id\""));
    }
    Ok(event)
}

/// Code and message of the dead letter of a record whose schema the registry does not have. `size` in bytes of key, value
/// and headers. A record over `max_record` may be a SAGA_RESTORED, so its schema is asked for before it is too large.
pub fn schema_missing(of: SchemaRef, size: u64, max_record: u64) -> (&'static str, String) {
    if size > max_record { too_large(size) } else { ("unknown_schema", format!("the registry has no Avro schema with {of}")) }
}

fn too_large(size: u64) -> (&'static str, String) {
    ("too_large", format!("{size} bytes are more than [limits] max_record allows"))
}

/// Bytes of key, value and headers.
pub fn record_size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &RecordHeaders) -> u64 {
    let header = |(name, value): &(String, Option<bytes::Bytes>)| name.len() + value.as_ref().map_or(0, bytes::Bytes::len);
    (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.iter().map(header).sum::<usize>()) as u64
}

/// An event as the value of a record: Avro with that schema id, else JSON.
pub fn encode_event(event: &StepEvent, schema: Option<SchemaId>) -> Result<Vec<u8>> {
    let context = match &event.context {
        ContextChange::Full(json) | ContextChange::Patch(json) | ContextChange::Set(json) => json.len(),
        ContextChange::None | ContextChange::Splice { .. } => 0,
    };
    let mut out = Writer::with_capacity(2_048 + context);
    write(&mut out, event);
    let json = out.end();
    match schema {
        Some(id) => avro::from_json(Shape::step_event(), id, &json),
        None => Ok(json.into_bytes()),
    }
}

fn read(fields: &Fields<'_>) -> Checked<StepEvent> {
    let event_id = fields.needed("event_id")?;
    let saga_id = fields.needed("saga_id")?;
    let saga_name = fields.needed("saga_name")?;
    let kind = fields.needed("kind")?;
    let kind = Kind::parse(&kind).ok_or_else(|| fields.wrong("kind", "is not a kind of step event"))?;
    if saga_id.chars().count() > SagaId::MAX_CHARS {
        return Err(fields.wrong("saga_id", "is longer than 256 characters"));
    }
    let step = if kind.needs_step() { Some(fields.needed("step")?) } else { fields.string("step")? };
    let saga_id = SagaId::new(saga_id);
    Ok(StepEvent {
        event_id,
        saga_name,
        kind,
        occurred_at: fields.time("occurred_at")?,
        step: step.filter(|step| !step.is_empty()),
        step_index: fields.i64("step_index")?,
        attempt: fields.i64("attempt")?,
        sequence: fields.u64("sequence")?,
        context: read_context(fields)?,
        result: fields.json("result"),
        error: read_error(fields)?,
        saga_version: fields.string("saga_version")?,
        tenant: fields.string("tenant")?,
        region: fields.string("region")?,
        labels: fields.labels("labels")?,
        lineage: if kind == Kind::SagaStarted { read_lineage(fields)?.map(Box::new) } else { None },
        restored: if kind == Kind::SagaRestored { Some(read_restored(fields, &saga_id)?) } else { None },
        saga_id,
    })
}

fn read_context(fields: &Fields<'_>) -> Checked<ContextChange> {
    let full = fields.json_object("context")?.map(ContextChange::Full);
    let patch = fields.json_object("context_patch")?.map(ContextChange::Patch);
    let set = fields.json_object("context_set")?.map(ContextChange::Set);
    let mut given = [full, patch, set].into_iter().flatten();
    let change = given.next().unwrap_or_default();
    if given.next().is_some() {
        return Err(fields.wrong("context", "is given with context_patch or context_set: at most one of the three"));
    }
    Ok(change)
}

fn read_error(fields: &Fields<'_>) -> Checked<Option<Box<ErrorInfo>>> {
    let Some(error) = fields.object("error")? else { return Ok(None) };
    Ok(Some(Box::new(ErrorInfo {
        code: error.string("code")?,
        kind: error.string("type")?,
        message: error.string("message")?,
        details: error.json("details"),
    })))
}

fn read_lineage(fields: &Fields<'_>) -> Checked<Option<Lineage>> {
    let Some(lineage) = fields.object("lineage")? else { return Ok(None) };
    Ok(Some(Lineage {
        parent: SagaId::new(lineage.needed("original_saga_id")?),
        root: SagaId::new(lineage.needed("root_saga_id")?),
        depth: restored::read_depth(&lineage)?,
        replay_id: lineage.needed("replay_id")?,
        resume_step: lineage.string("resume_step")?,
        mode: restored::read_mode(&lineage, "mode")?.unwrap_or_default(),
        force_failure: lineage.string("force_failure")?,
        executes: Some(SagaId::new(lineage.needed("restored_saga_id")?)),
    }))
}

fn read_restored(fields: &Fields<'_>, saga_id: &SagaId) -> Checked<Box<crate::saga::restored::RestoredSaga>> {
    let member = fields.required("restored", fields.object("restored")?)?;
    let mut restored = restored::read(&member)?;
    if restored.saga_id != *saga_id {
        return Err(fields.wrong("restored.saga_id", "is not this saga"));
    }
    restored.context = None;
    Ok(Box::new(restored))
}

fn write(out: &mut Writer, event: &StepEvent) {
    out.str("event_id", &event.event_id);
    out.str("saga_id", event.saga_id.as_str());
    out.str("saga_name", &event.saga_name);
    out.str("kind", event.kind.as_str());
    out.text("occurred_at", event.occurred_at);
    out.opt_str("step", event.step.as_deref());
    out.int("step_index", event.step_index);
    out.int("attempt", event.attempt);
    out.int("sequence", event.sequence);
    match &event.context {
        // A splice stands for a whole context; only stores have it, and they never write events.
        ContextChange::None | ContextChange::Splice { .. } => {}
        ContextChange::Full(full) => out.raw("context", full.as_str()),
        ContextChange::Patch(patch) => out.raw("context_patch", patch.as_str()),
        ContextChange::Set(set) => out.raw("context_set", set.as_str()),
    }
    out.json("result", event.result.as_ref());
    write_error(out, "error", event.error.as_deref());
    out.opt_str("saga_version", event.saga_version.as_deref());
    out.opt_str("tenant", event.tenant.as_deref());
    out.opt_str("region", event.region.as_deref());
    match &event.labels {
        Some(labels) => out.map("labels", labels, |o, name, value| o.str(name, value)),
        None => out.null("labels"),
    }
    if let Some(lineage) = &event.lineage {
        out.object("lineage", |o| {
            o.str("replay_id", &lineage.replay_id);
            o.str("original_saga_id", lineage.parent.as_str());
            o.opt_str("restored_saga_id", lineage.executes.as_ref().map(SagaId::as_str));
            o.str("root_saga_id", lineage.root.as_str());
            o.int("depth", Some(lineage.depth));
            o.opt_str("resume_step", lineage.resume_step.as_deref());
            o.str("mode", lineage.mode.as_str());
            o.opt_str("force_failure", lineage.force_failure.as_deref());
        });
    }
    if let Some(saga) = &event.restored {
        out.object("restored", |o| restored::write(o, saga));
    }
}

/// All four members, or null.
pub(crate) fn write_error(out: &mut Writer, name: &str, error: Option<&ErrorInfo>) {
    let Some(error) = error else { return out.null(name) };
    out.object(name, |o| {
        o.opt_str("code", error.code.as_deref());
        o.opt_str("type", error.kind.as_deref());
        o.opt_str("message", error.message.as_deref());
        o.raw("details", error.details.as_ref().map_or("null", Json::as_str));
    });
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
