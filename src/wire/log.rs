//! Records of the replay log as JSON and Avro (docs/INTERFACE.md, Topics): the form on the topic, and the form of answers, which
//! leaves out what is for resaga alone.

use super::avro::{self, SchemaId, Schemas, Shape};
use super::batch::{BATCH_PROGRESS, progress_json, read_progress};
use super::fields::{Checked, Fields};
use super::json::{OWN_MAX_DEPTH, Writer, read_object};
use super::payload::{NotDecoded, RecordHeaders, open};
use super::restored::{read_checkpoint, read_mode, read_position, write_checkpoint, write_position};
use super::schedule;
use crate::error::Result;
use crate::saga::lineage::Mode;
use crate::saga::position::SagaId;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};

/// Header of a log record: the entry sequence of the end that its outcome came from.
pub const OUTCOME_SEQUENCE: &str = "resaga-outcome-sequence";

/// The value on the topic: Avro with that schema id, else JSON.
pub fn encode_log(record: &LogRecord, schema: Option<SchemaId>) -> Result<Vec<u8>> {
    let json = write(record, Form::Topic);
    match schema {
        Some(id) => avro::from_json(Shape::replay_log_entry(), id, &json),
        None => Ok(json.into_bytes()),
    }
}

/// What the stores keep as context of the replay: the value on the topic as JSON, and what stands beside it there.
pub fn log_json(record: &LogRecord) -> String {
    write(record, Form::Stored)
}

/// As answers show it: without `request` and `outcome_sequence`.
pub fn log_answer(record: &LogRecord) -> String {
    write(record, Form::Answer)
}

/// Reads a record of the log topic.
pub fn decode_log(value: Option<&[u8]>, headers: &RecordHeaders, schemas: &Schemas) -> Result<LogRecord, NotDecoded> {
    let text = open(value, headers, schemas, Shape::replay_log_entry())?;
    if let Some(wrong) = text.wrong {
        return Err(NotDecoded::undecodable(wrong.to_string()));
    }
    let mut record = decode_log_json(&text.bytes).map_err(|e| NotDecoded::dead("undecodable", e.to_string()))?;
    record.outcome_sequence = outcome_sequence(headers).or(record.outcome_sequence);
    if let Some(progress) = header(headers, BATCH_PROGRESS) {
        let progress = read_progress(progress).map_err(|e| NotDecoded::dead("undecodable", e.to_string()))?;
        record.batch_progress = Some(Box::new(progress));
    }
    if let Some(progress) = header(headers, schedule::SCHEDULE_PROGRESS) {
        let progress = schedule::read_progress(progress).map_err(|e| NotDecoded::dead("undecodable", e.to_string()))?;
        record.schedule_progress = Some(Box::new(progress));
    }
    Ok(record)
}

/// `resaga-outcome-sequence`: the value is as the interface has it, so this stands beside it.
fn outcome_sequence(headers: &RecordHeaders) -> Option<u64> {
    std::str::from_utf8(header(headers, OUTCOME_SEQUENCE)?).ok()?.parse().ok()
}

fn header<'h>(headers: &'h RecordHeaders, wanted: &str) -> Option<&'h [u8]> {
    let (_, value) = headers.iter().rfind(|(name, _)| name == wanted)?;
    value.as_deref()
}

/// Reads what [`log_json`] wrote.
pub fn decode_log_json(text: &[u8]) -> Checked<LogRecord> {
    let object = read_object(text, OWN_MAX_DEPTH).map_err(|e| super::fields::FieldError(e.to_string()))?;
    read(&Fields::new(object))
}

/// For whom a record is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Topic,
    Stored,
    Answer,
}

fn write(record: &LogRecord, form: Form) -> String {
    let id = |id: &Option<SagaId>| id.as_ref().map(|id| id.as_str().to_owned());
    let mut out = Writer::with_capacity(2_048);
    out.str("replay_id", &record.replay_id);
    out.str("request_id", &record.request_id);
    out.str("request_sha256", &record.request_sha256);
    out.opt_str("batch_id", record.batch_id.as_deref());
    out.opt_str("schedule_id", record.schedule_id.as_deref());
    out.str("command", record.command.as_str());
    out.opt_str("original_saga_id", id(&record.original_saga_id).as_deref());
    out.opt_str("new_saga_id", id(&record.new_saga_id).as_deref());
    out.json("from", record.from.as_ref());
    out.opt_str("override_sha256", record.override_sha256.as_deref());
    out.opt_str("force_failure", record.force_failure.as_deref());
    out.opt_str("mode", record.mode.map(Mode::as_str));
    out.bool("dry_run", record.dry_run);
    out.str("requested_by", &record.requested_by);
    out.str("reason", &record.reason);
    write_checkpoint(&mut out, record.checkpoint.as_ref());
    out.opt_str("resume_step", record.resume_step.as_deref());
    out.strings("compensated_since", &record.compensated_since);
    out.strings("changed", &record.changed);
    out.opt_str("executed_as", id(&record.executed_as).as_deref());
    out.str("status", record.status.as_str());
    out.opt_str("code", record.code.as_deref());
    out.opt_str("message", record.message.as_deref());
    out.text("accepted_at", Some(record.accepted_at));
    out.text("published_at", record.published_at);
    out.text("ended_at", record.ended_at);
    out.opt_str("outcome", record.outcome.as_deref());
    if form == Form::Stored {
        out.int("outcome_sequence", record.outcome_sequence);
        if let Some(progress) = &record.batch_progress {
            out.raw("batch_progress", &progress_json(progress));
        }
        if let Some(progress) = &record.schedule_progress {
            out.raw("schedule_progress", &schedule::progress_json(progress));
        }
    }
    out.opt_str("undone_by", record.undone_by.as_deref());
    write_position(&mut out, &record.position);
    if form != Form::Answer {
        out.json("request", record.request.as_ref());
    }
    out.end()
}

fn read(fields: &Fields<'_>) -> Checked<LogRecord> {
    let id = |name| -> Checked<Option<SagaId>> { Ok(fields.str(name)?.map(|id| SagaId::new(id.as_ref()))) };
    let text = |name| -> Checked<String> { fields.required(name, fields.string(name)?) };
    let command = CommandName::parse(&text("command")?).ok_or_else(|| fields.wrong("command", "is not a command"))?;
    let status = ReplayStatus::parse(&text("status")?).ok_or_else(|| fields.wrong("status", "is not a status"))?;
    Ok(LogRecord {
        replay_id: text("replay_id")?,
        request_id: text("request_id")?,
        request_sha256: text("request_sha256")?,
        batch_id: fields.string("batch_id")?,
        schedule_id: fields.string("schedule_id")?,
        command,
        original_saga_id: id("original_saga_id")?,
        new_saga_id: id("new_saga_id")?,
        from: fields.json("from"),
        override_sha256: fields.string("override_sha256")?,
        force_failure: fields.string("force_failure")?,
        mode: read_mode(fields, "mode")?,
        dry_run: fields.bool("dry_run")?.unwrap_or(false),
        requested_by: text("requested_by")?,
        reason: text("reason")?,
        checkpoint: read_checkpoint(fields)?,
        resume_step: fields.string("resume_step")?,
        compensated_since: fields.strings("compensated_since")?.unwrap_or_default(),
        changed: fields.strings("changed")?.unwrap_or_default(),
        executed_as: id("executed_as")?,
        status,
        code: fields.string("code")?,
        message: fields.string("message")?,
        accepted_at: fields.required("accepted_at", fields.time("accepted_at")?)?,
        published_at: fields.time("published_at")?,
        ended_at: fields.time("ended_at")?,
        outcome: fields.string("outcome")?,
        outcome_sequence: fields.u64("outcome_sequence")?,
        undone_by: fields.string("undone_by")?,
        position: fields.required("position", read_position(fields)?)?,
        request: fields.json("request"),
        batch_progress: fields
            .json("batch_progress")
            .map(|text| read_progress(text.as_str().as_bytes()))
            .transpose()?
            .map(Box::new),
        schedule_progress: fields
            .json("schedule_progress")
            .map(|text| schedule::read_progress(text.as_str().as_bytes()))
            .transpose()?
            .map(Box::new),
    })
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
