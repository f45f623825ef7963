//! Replay requests: records of the requests topic and HTTP bodies to [`ReplayRequest`], and back (docs/interface/requests.md).
//!
//! What names a request id and a command is a request, however wrong the rest: it becomes [`Command::Invalid`], to be
//! refused and logged. From anything else no request can be read: a dead letter `invalid_request`.

pub mod batch;
pub mod batch_body;
mod canonical;
mod context_override;
pub mod hash;
mod member;
mod order;
pub mod schedule;
pub mod schedule_body;
#[cfg(test)]
mod tests;

use super::avro::{self, SchemaId, Schemas, Shape};
use super::fields::{Checked, FieldError, Fields};
use super::json::{MAX_DEPTH, OWN_MAX_DEPTH, Raw, Writer, read_object, read_value};
use super::payload::{NotDecoded, RecordHeaders, open};
use crate::error::{Error, Result};
use crate::saga::ids::request_uuid;
use crate::saga::position::SagaId;
use crate::saga::request::{Command, CommandName, Outcome, ReplayRequest, ScheduleControl};
use crate::saga::state::Status;

/// Who asks for what resaga writes to its own requests topic.
const OURSELVES: &str = "resaga";

/// Reads a record of the requests topic.
pub fn decode_request(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &RecordHeaders,
    schemas: &Schemas,
) -> Result<ReplayRequest, NotDecoded> {
    let dead = |message: String| NotDecoded::dead("invalid_request", message);
    let text = open(value, headers, schemas, Shape::replay_request()).map_err(|e| match e {
        NotDecoded::DeadLetter { message, .. } => dead(message),
        need => need,
    })?;
    let raw = read_value(&text.bytes, MAX_DEPTH).map_err(|e| dead(e.to_string()))?;
    read(raw, Some(key.unwrap_or_default()), text.wrong).map_err(|e| dead(e.to_string()))
}

/// Reads the body of `POST /v1/replays`: without `request_id` it gets this one, without `command` it is a REPLAY. A member
/// that no REPLAY has is `Invalid`: `"dryrun": true` must not replay for real.
pub fn decode_body(body: &[u8], request_id: &str) -> Result<ReplayRequest> {
    let invalid = |message: String| Error::invalid("request_invalid", message);
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read request: {e}")))?;
    let mut out = Writer::with_capacity(body.len() + 64);
    for (name, default) in [("request_id", request_id), ("command", CommandName::Replay.as_str())] {
        if object.get(name).is_none() {
            out.str(name, default);
        }
    }
    for (name, member) in object.members() {
        // A null of these two is absent, and was written above.
        if !(member.is_null() && matches!(name, "request_id" | "command")) {
            out.raw(name, member.text());
        }
    }
    let request = decode_json(out.end().as_bytes()).map_err(|e| invalid(e.to_string()))?;
    if object.get("command").is_none_or(|command| command.string().as_deref() == Some(CommandName::Replay.as_str())) {
        order::only_known(&Fields::new(object)).map_err(|e| invalid(e.to_string()))?;
    }
    Ok(request)
}

/// Reads a request that was read before and kept, such as `request` of a log record.
pub fn decode_json(text: &[u8]) -> Result<ReplayRequest> {
    let raw = read_value(text, OWN_MAX_DEPTH).map_err(|e| Error::corrupt(format!("read request: {e}")))?;
    read(raw, None, None).map_err(|e| Error::corrupt(format!("read request: {e}")))
}

/// The value of a request's record. `Invalid`: it has a member that its command does not read and Avro cannot hold.
pub fn encode_request(request: &ReplayRequest, schema: Option<SchemaId>) -> Result<Vec<u8>> {
    match schema {
        Some(id) => avro::from_given_json(Shape::replay_request(), id, request.json.as_str())
            .map_err(|wrong| Error::invalid("request_invalid", wrong.to_string())),
        None => Ok(request.json.as_str().as_bytes().to_vec()),
    }
}

/// A CANCEL or an UNDO, as HTTP makes it.
pub fn about_replay(
    command: CommandName,
    request_id: &str,
    (saga_id, replay_id): (&SagaId, &str),
    (requested_by, reason): (&str, &str),
) -> Result<ReplayRequest> {
    let mut out = Writer::with_capacity(256);
    out.str("request_id", request_id);
    out.str("command", command.as_str());
    out.str("saga_id", saga_id.as_str());
    out.str("replay_id", replay_id);
    out.str("requested_by", requested_by);
    out.str("reason", reason);
    decode_json(out.end().as_bytes())
}

/// The internal record that tells the owner of a request how its restored saga ended.
pub fn outcome(request_id: &str, outcome: &Outcome) -> Result<ReplayRequest> {
    let mut out = Writer::with_capacity(512);
    out.str("request_id", request_id);
    out.str("command", CommandName::Outcome.as_str());
    out.str("saga_id", outcome.original_saga_id.as_str());
    out.str("requested_by", OURSELVES);
    out.str("reason", "the restored saga ended");
    out.str("replay_id", &outcome.replay_id);
    out.object("outcome", |o| {
        o.str("saga_id", outcome.ended_saga_id.as_str());
        o.str("status", outcome.status.as_str());
        o.int("sequence", Some(outcome.sequence));
        o.text("ended_at", Some(outcome.ended_at));
    });
    decode_json(out.end().as_bytes())
}

/// An error: no request. `key`: of the record, if it is one. `wrong`: a field that could not become JSON.
fn read(raw: Raw<'_>, key: Option<&[u8]>, wrong: Option<FieldError>) -> Checked<ReplayRequest> {
    let object = raw.object().ok_or_else(|| FieldError("not a JSON object".into()))?;
    let fields = Fields::new(object);
    let request_id = fields.needed("request_id")?;
    let name = fields.needed("command")?;
    let name = CommandName::parse(&name).ok_or_else(|| fields.wrong("command", "is not a command"))?;
    let saga_id = read_key(&fields, name, &request_id, key)?;
    let (mut requested_by, mut reason, mut labels) = (String::new(), String::new(), Vec::new());
    let command = (|| {
        requested_by = fields.needed("requested_by")?;
        reason = fields.needed("reason")?;
        labels = fields.labels("labels")?.unwrap_or_default();
        wrong.map_or(Ok(()), Err)?;
        read_command(&fields, name, saga_id.as_ref())
    })();
    let command = command.unwrap_or_else(|wrong: FieldError| Command::Invalid {
        command: name,
        saga_id,
        replay_id: fields.string("replay_id").ok().flatten(),
        message: wrong.to_string(),
    });
    // What was wrong may have come before these.
    let known =
        |value: String, name| if value.is_empty() { fields.string(name).ok().flatten().unwrap_or_default() } else { value };
    Ok(ReplayRequest {
        request_id,
        command,
        requested_by: known(requested_by, "requested_by"),
        reason: known(reason, "reason"),
        labels,
        sha256: hash::sha256_hex(canonical::canonical(&fields).as_bytes()),
        json: raw.json(),
    })
}

/// The saga the request is about, where its command has one; an error if the record's key is another.
fn read_key(fields: &Fields<'_>, name: CommandName, request_id: &str, key: Option<&[u8]>) -> Checked<Option<SagaId>> {
    use CommandName as C;
    let by_saga = matches!(name, C::Replay | C::Undo | C::Cancel | C::Outcome);
    let member = match name {
        C::Replay | C::Undo | C::Cancel | C::Outcome => "saga_id",
        C::Batch | C::Schedule => "request_id",
        C::BatchPause | C::BatchResume | C::BatchCancel | C::BatchRetryFailed | C::BatchUndo => "batch_id",
        C::ScheduleCancel | C::ScheduleEnable | C::ScheduleDisable => "schedule_id",
    };
    let named = match member {
        "request_id" => Some(request_uuid(request_id).to_string()),
        // Of the wrong type: the request is refused for that.
        member => fields.string(member).ok().flatten().filter(|id| !id.is_empty()),
    };
    if let (Some(key), Some(named)) = (key, &named)
        && key != named.as_bytes()
    {
        return Err(FieldError(format!("the record's key does not agree with field \"{member}\"")));
    }
    let from_key = || key.and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.is_empty()).map(str::to_owned);
    if !by_saga {
        return Ok(None);
    }
    match (named.or_else(from_key), key) {
        (None, Some(_)) => Err(FieldError(format!("neither the record's key nor field \"{member}\" names a saga"))),
        (id, _) => Ok(id.map(SagaId::new)),
    }
}

fn read_command(fields: &Fields<'_>, name: CommandName, saga_id: Option<&SagaId>) -> Checked<Command> {
    use CommandName as C;
    match name {
        C::Replay => Ok(Command::Replay(Box::new(order::read(fields)?))),
        C::Cancel => {
            Ok(Command::Cancel { saga_id: order::read_saga_id(fields, "saga_id")?, replay_id: fields.needed("replay_id")? })
        }
        C::Outcome => read_outcome(fields, saga_id),
        C::Undo => Ok(Command::Undo {
            saga_id: order::read_saga_id(fields, "saga_id")?,
            replay_id: fields.needed("replay_id")?,
            batch_id: member::read_batch_id(fields)?,
        }),
        C::Batch => Ok(Command::Batch(Box::new(batch::read(fields)?))),
        C::BatchPause | C::BatchResume | C::BatchCancel | C::BatchRetryFailed | C::BatchUndo => {
            let control = Box::new(batch::read_control(fields, name)?);
            Ok(Command::BatchControl { batch_id: fields.needed("batch_id")?, control })
        }
        C::Schedule => Ok(Command::Schedule(Box::new(schedule::read(fields)?))),
        C::ScheduleCancel | C::ScheduleEnable | C::ScheduleDisable => {
            let control = match name {
                C::ScheduleCancel => ScheduleControl::Cancel,
                C::ScheduleEnable => ScheduleControl::Enable,
                _ => ScheduleControl::Disable,
            };
            Ok(Command::ScheduleControl { schedule_id: fields.needed("schedule_id")?, control })
        }
    }
}

fn read_outcome(fields: &Fields<'_>, saga_id: Option<&SagaId>) -> Checked<Command> {
    let member = fields.required("outcome", fields.object("outcome")?)?;
    let status = Status::parse(&member.needed("status")?).filter(|status| status.is_end());
    Ok(Command::Outcome(Outcome {
        replay_id: fields.needed("replay_id")?,
        original_saga_id: fields.required("saga_id", saga_id.cloned())?,
        ended_saga_id: order::read_saga_id(&member, "saga_id")?,
        status: status.ok_or_else(|| member.wrong("status", "is not an end"))?,
        sequence: member.required("sequence", member.u64("sequence")?)?,
        ended_at: member.required("ended_at", member.time("ended_at")?)?,
    }))
}
