//! What HTTP takes about schedules, read strictly, and the records that it makes of it.

use super::decode_json;
use super::schedule::{only_known, read};
use crate::error::{Error, Result};
use crate::saga::request::{Command, CommandName, ReplayRequest};
use crate::saga::schedule::ScheduleOrder;
use crate::saga::time::Micros;
use crate::wire::fields::{Checked, Fields};
use crate::wire::json::{MAX_DEPTH, Writer, read_object};

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("request_invalid", message)
}

/// The SCHEDULE of the body of `POST /v1/schedules`: without `request_id` it gets this one.
pub fn schedule_request(body: &[u8], request_id: &str) -> Result<ReplayRequest> {
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read schedule: {e}")))?;
    let fields = Fields::new(object);
    let text = schedule_text(&fields, body.len(), request_id).map_err(|e| invalid(e.to_string()))?;
    understood(&text)
}

fn schedule_text(fields: &Fields<'_>, len: usize, request_id: &str) -> Checked<String> {
    fields.only(&["request_id", "command", "schedule", "requested_by", "reason"])?;
    if fields.str("command")?.is_some_and(|command| command != CommandName::Schedule.as_str()) {
        return Err(fields.wrong("command", "must be SCHEDULE here, or absent"));
    }
    only_known(fields)?;
    let given = fields.string("request_id")?.filter(|id| !id.is_empty());
    let mut out = Writer::with_capacity(len + 128);
    out.str("request_id", given.as_deref().unwrap_or(request_id));
    out.str("command", CommandName::Schedule.as_str());
    for name in ["schedule", "requested_by", "reason"] {
        if let Some(raw) = fields.raw(name) {
            out.raw(name, raw.text());
        }
    }
    Ok(out.end())
}

/// What is asked of a schedule: who asks and why.
pub fn control_request(body: &[u8], command: CommandName, schedule_id: &str, request_id: &str) -> Result<ReplayRequest> {
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read body: {e}")))?;
    let fields = Fields::new(object);
    let text = (|| -> Checked<String> {
        fields.only(&["request_id", "requested_by", "reason"])?;
        let given = fields.string("request_id")?.filter(|id| !id.is_empty());
        let mut out = Writer::with_capacity(body.len() + 128);
        out.str("request_id", given.as_deref().unwrap_or(request_id));
        out.str("command", command.as_str());
        out.str("schedule_id", schedule_id);
        out.str("requested_by", &fields.needed("requested_by")?);
        out.str("reason", &fields.needed("reason")?);
        Ok(out.end())
    })();
    understood(&text.map_err(|e| invalid(e.to_string()))?)
}

/// The body of a preview.
#[derive(Debug)]
pub struct PreviewBody {
    pub order: ScheduleOrder,
    pub since: Micros,
    /// Exclusive.
    pub until: Micros,
}

pub fn preview(body: &[u8]) -> Result<PreviewBody> {
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read preview: {e}")))?;
    let fields = Fields::new(object);
    read_preview(&fields).map_err(|e| invalid(e.to_string()))
}

fn read_preview(fields: &Fields<'_>) -> Checked<PreviewBody> {
    fields.only(&["schedule", "since", "until", "requested_by", "reason"])?;
    only_known(fields)?;
    Ok(PreviewBody {
        order: read(fields)?,
        since: fields.required("since", fields.time("since")?)?,
        until: fields.required("until", fields.time("until")?)?,
    })
}

/// What is wrong with a member is said at once.
fn understood(text: &str) -> Result<ReplayRequest> {
    let request = decode_json(text.as_bytes())?;
    match request.command {
        Command::Invalid { message, .. } => Err(invalid(message)),
        _ => Ok(request),
    }
}
