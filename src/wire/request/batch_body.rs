//! What HTTP takes about batches, read strictly, and the records that it makes of it.

use super::batch::{only_known, read_members};
use super::decode_json;
use crate::error::{Error, Result};
use crate::saga::batch::{BatchOrder, BatchSource};
use crate::saga::batch_progress::{BatchLimits, ListRef};
use crate::saga::json::Json;
use crate::saga::request::{Command, CommandName, ReplayRequest};
use crate::wire::batch::write_limits;
use crate::wire::fields::{Checked, Fields};
use crate::wire::json::{MAX_DEPTH, Writer, read_object};

/// What the body of a batch has besides the member `batch`.
const BODY: [&str; 7] = ["request_id", "command", "batch", "plan_id", "dry_run", "requested_by", "reason"];

/// The body of `POST /v1/batches`.
#[derive(Debug)]
pub struct BatchBody {
    /// `None`: to be made.
    pub request_id: Option<String>,
    pub order: BatchOrder,
    /// Only a plan is asked for.
    pub dry_run: bool,
    pub requested_by: String,
    pub reason: String,
    /// The member `batch` as it came; of a plan: none.
    pub batch: Option<Json>,
}

/// A member that no batch has is an error: it was meant for something.
pub fn read_body(body: &[u8]) -> Result<BatchBody> {
    let invalid = |message: String| Error::invalid("request_invalid", message);
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read batch: {e}")))?;
    read_body_fields(&Fields::new(object)).map_err(|e| invalid(e.to_string()))
}

fn read_body_fields(fields: &Fields<'_>) -> Checked<BatchBody> {
    fields.only(&BODY)?;
    if fields.str("command")?.is_some_and(|command| command != CommandName::Batch.as_str()) {
        return Err(fields.wrong("command", "must be BATCH here, or absent"));
    }
    only_known(fields)?;
    let plan_id = fields.string("plan_id")?;
    let batch = fields.object("batch")?;
    let order = match (plan_id, &batch) {
        (Some(list_id), None) => BatchOrder {
            name: None,
            source: BatchSource::Frozen { list_id, digest: None },
            template: Json::empty_object(),
            overrides: None,
            limits: BatchLimits::default(),
            schedule: None,
        },
        (None, Some(batch)) => read_members(batch)?,
        _ => return Err(fields.wrong("batch", "or plan_id must be there, and one of them only")),
    };
    let dry_run = match &batch {
        Some(batch) => batch.bool("dry_run")?.unwrap_or(false),
        None => false,
    };
    Ok(BatchBody {
        request_id: fields.string("request_id")?.filter(|id| !id.is_empty()),
        order,
        dry_run: dry_run || fields.bool("dry_run")?.unwrap_or(false),
        requested_by: fields.needed("requested_by")?,
        reason: fields.needed("reason")?,
        batch: fields.json("batch"),
    })
}

/// The body of what is asked of a batch: who asks and why, and of a retry what is to be changed.
pub fn control_request(body: &[u8], command: CommandName, batch_id: &str, request_id: &str) -> Result<ReplayRequest> {
    let invalid = |message: String| Error::invalid("request_invalid", message);
    let object = read_object(body, MAX_DEPTH).map_err(|e| invalid(format!("read body: {e}")))?;
    let fields = Fields::new(object);
    let known: &[&str] = match command {
        CommandName::BatchRetryFailed => &["request_id", "requested_by", "reason", "override", "overrides"],
        _ => &["request_id", "requested_by", "reason"],
    };
    fields.only(known).map_err(|e| invalid(e.to_string()))?;
    let given = fields.string("request_id").map_err(|e| invalid(e.to_string()))?;
    let mut out = Writer::with_capacity(body.len() + 128);
    out.str("request_id", given.as_deref().filter(|id| !id.is_empty()).unwrap_or(request_id));
    out.str("command", command.as_str());
    out.str("batch_id", batch_id);
    for name in &known[1..] {
        if let Some(raw) = fields.raw(name) {
            out.raw(name, raw.text());
        }
    }
    understood(&out.end())
}

/// The BATCH of a list that is frozen.
pub fn frozen_batch(request_id: &str, list: &ListRef, order: &BatchOrder, (by, reason): (&str, &str)) -> Result<ReplayRequest> {
    let mut out = Writer::with_capacity(512);
    out.str("request_id", request_id);
    out.str("command", CommandName::Batch.as_str());
    out.object("batch", |out| {
        out.opt_str("name", order.name.as_deref());
        out.str("plan_id", &list.list_id);
        out.str("digest", &list.digest);
        write_limits(out, order.limits);
    });
    out.str("requested_by", by);
    out.str("reason", reason);
    understood(&out.end())
}

/// The BATCH that has its members with it, as they came.
pub fn batch_request(request_id: &str, batch: &Json, (by, reason): (&str, &str)) -> Result<ReplayRequest> {
    let mut out = Writer::with_capacity(512 + batch.len());
    out.str("request_id", request_id);
    out.str("command", CommandName::Batch.as_str());
    out.json("batch", Some(batch));
    out.str("requested_by", by);
    out.str("reason", reason);
    understood(&out.end())
}

/// What is wrong with a member is said at once.
fn understood(text: &str) -> Result<ReplayRequest> {
    let request = decode_json(text.as_bytes())?;
    match request.command {
        Command::Invalid { message, .. } => Err(Error::invalid("request_invalid", message)),
        _ => Ok(request),
    }
}
