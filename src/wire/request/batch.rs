//! The members of a BATCH and of what is asked of one, and the request of each of its replays.

use super::context_override::{is_override, read_override, read_own_override};
use super::member::{MEMBER, read_schedule, write_schedule};
use super::order;
use crate::saga::batch::{BatchControl, BatchOrder, BatchRetry, BatchRow, BatchSource, MAX_SAGAS, Verdict};
use crate::saga::json::Json;
use crate::saga::labels::parse_label;
use crate::saga::position::SagaId;
use crate::saga::request::{CommandName, Override};
use crate::saga::schedule::member::ScheduleMember;
use crate::saga::selector::{ReplayStanding, SagaFilter};
use crate::saga::state::Status;
use crate::saga::time::Micros;
use crate::wire::batch::read_limits;
use crate::wire::fields::{Checked, FieldError, Fields};
use crate::wire::json::{OWN_MAX_DEPTH, Raw, Writer, read_object};

/// The members of a REPLAY that all replays of a batch share.
const SHARED: [&str; 14] = [
    "from",
    "override",
    "force_failure",
    "mode",
    "allow_running",
    "allow_repeat",
    "allow_completed",
    "if_compensated",
    "saga_version",
    "target",
    "not_before",
    "expires_at",
    "labels",
    "new_saga_id",
];
/// Those of the batch itself.
const OWN: [&str; 10] = [
    "name",
    "selector",
    "saga_ids",
    "overrides",
    "rate_per_second",
    "max_failures",
    "max_in_flight",
    "plan_id",
    "digest",
    "dry_run",
];
const SELECTOR: [&str; 18] = [
    "saga_id",
    "status",
    "saga_name",
    "failed_step",
    "compensation_failed_step",
    "error_code",
    "error_type",
    "since",
    "until",
    "tenant",
    "region",
    "label",
    "depth",
    "replay",
    "repaired",
    "stuck",
    "forced",
    "limit",
];
/// Reads the member `batch`.
pub fn read(fields: &Fields<'_>) -> Checked<BatchOrder> {
    let batch = fields.required("batch", fields.object("batch")?)?;
    if batch.bool("dry_run")? == Some(true) {
        return Err(batch.wrong("dry_run", "is not for a record: plan a batch by POST /v1/batches"));
    }
    let schedule = read_schedule(fields)?.map(|member| *member);
    Ok(BatchOrder { schedule, ..read_members(&batch)? })
}

pub(super) fn read_members(batch: &Fields<'_>) -> Checked<BatchOrder> {
    let limits = read_limits(batch)?;
    let name = batch.string("name")?;
    if let Some(list_id) = batch.string("plan_id")? {
        if let Some(other) = SHARED.iter().chain(&["selector", "saga_ids", "overrides"]).find(|name| batch.raw(name).is_some()) {
            return Err(batch.wrong(other, "does not go with plan_id: the plan has it"));
        }
        let source = BatchSource::Frozen { list_id, digest: batch.string("digest")? };
        return Ok(BatchOrder { name, source, template: Json::empty_object(), overrides: None, limits, schedule: None });
    }
    let source = match (batch.object("selector")?, batch.strings("saga_ids")?) {
        (Some(selector), None) => BatchSource::Selector(Box::new(read_selector(&selector)?)),
        (None, Some(ids)) => BatchSource::Sagas(read_ids(batch, ids)?),
        _ => return Err(batch.wrong("selector", "or saga_ids or plan_id must be there, and one of them only")),
    };
    Ok(BatchOrder { name, source, template: template(batch)?, overrides: read_overrides(batch)?, limits, schedule: None })
}

/// Has it no members but those of a batch? For what a person sends.
pub(super) fn only_known(fields: &Fields<'_>) -> Checked<()> {
    only_known_with(fields, &[])
}

/// The same, where its selector may have these too.
pub(super) fn only_known_with(fields: &Fields<'_>, in_selector: &[&str]) -> Checked<()> {
    let Some(batch) = fields.object("batch")? else { return Ok(()) };
    batch.only(&[&SHARED[..], &OWN].concat())?;
    if let Some(selector) = batch.object("selector")? {
        selector.only(&[&SELECTOR[..], in_selector].concat())?;
    }
    order::only_known_below(&batch)
}

pub fn read_control(fields: &Fields<'_>, name: CommandName) -> Checked<BatchControl> {
    Ok(match name {
        CommandName::BatchPause => BatchControl::Pause,
        CommandName::BatchResume => BatchControl::Resume,
        CommandName::BatchCancel => BatchControl::Cancel,
        CommandName::BatchUndo => BatchControl::Undo,
        _ => BatchControl::RetryFailed(BatchRetry {
            override_: read_override(fields)?.and_then(|_| fields.json("override")),
            overrides: read_overrides(fields)?,
        }),
    })
}

/// What every replay of the batch has, checked as one of them would be.
fn template(batch: &Fields<'_>) -> Checked<Json> {
    if batch.raw("new_saga_id").is_some() {
        return Err(batch.wrong("new_saga_id", "is of one replay, not of a batch"));
    }
    let mut out = Writer::with_capacity(512);
    for name in SHARED {
        if let Some(raw) = batch.raw(name) {
            out.raw(name, raw.text());
        }
    }
    let template = Json::from_valid(out.end());
    batch.labels("labels")?;
    let mut sample = Writer::with_capacity(template.len() + 64);
    sample.str("saga_id", "saga");
    add_members(&mut sample, &template)?;
    let sample = sample.end();
    let sample = read_object(sample.as_bytes(), OWN_MAX_DEPTH).map_err(|e| FieldError(format!("field \"batch\": {e}")))?;
    order::read(&Fields::new(sample)).map_err(|wrong| FieldError(wrong.0.replacen("field \"", "field \"batch.", 1)))?;
    Ok(template)
}

fn add_members(out: &mut Writer, template: &Json) -> Checked<()> {
    let object = read_object(template.as_str().as_bytes(), OWN_MAX_DEPTH);
    let object = object.map_err(|e| FieldError(format!("members of a batch: {e}")))?;
    object.members().into_iter().for_each(|(name, raw)| out.raw(name, raw.text()));
    Ok(())
}

fn read_ids(batch: &Fields<'_>, ids: Vec<String>) -> Checked<Vec<SagaId>> {
    if ids.len() as u64 > MAX_SAGAS {
        return Err(batch.wrong("saga_ids", &format!("has {} elements, at most {MAX_SAGAS} are taken", ids.len())));
    }
    let is_id = |id: &str| !id.is_empty() && id.chars().count() <= SagaId::MAX_CHARS;
    if let Some(at) = ids.iter().position(|id| !is_id(id)) {
        return Err(batch.wrong("saga_ids", &format!("has no saga id of 1 to 256 characters as element {}", at + 1)));
    }
    Ok(ids.into_iter().map(SagaId::new).collect())
}

/// Each an override as a request has it. With an expression for all they are whatever it is to see as `$item`.
fn read_overrides(fields: &Fields<'_>) -> Checked<Option<Vec<(SagaId, Json)>>> {
    let takes_any = matches!(read_override(fields)?, Some(Override::Jq(_)));
    let overrides = fields.map("overrides", "an object of overrides by saga id", |raw| Some(raw.json()))?;
    let Some(overrides) = overrides else { return Ok(None) };
    for (at, (_, change)) in overrides.iter().enumerate() {
        if takes_any && change.is_null() {
            return Err(fields.wrong("overrides", &format!("must hold a value for each saga; member {} is null", at + 1)));
        }
        if !takes_any && read_own_override(change).is_none() {
            let problem =
                format!("must hold one of merge, shallow, patch, replace, jq for each saga; member {} does not", at + 1);
            return Err(fields.wrong("overrides", &problem));
        }
    }
    Ok(Some(overrides.into_iter().map(|(id, change)| (SagaId::new(id), change)).collect()))
}

/// The filters of `GET /v1/sagas`; those that may repeat as one text or several.
pub(super) fn read_selector(fields: &Fields<'_>) -> Checked<SagaFilter> {
    let texts = |name: &str| -> Checked<Vec<String>> {
        match fields.raw(name).and_then(Raw::string) {
            Some(one) => Ok(vec![one.into_owned()]),
            None => Ok(fields.strings(name)?.unwrap_or_default()),
        }
    };
    if fields.raw("limit").is_some() {
        return Err(fields.wrong("limit", "is not for a batch: name the sagas or narrow since and until"));
    }
    let status = |text: String| Status::parse(&text).ok_or_else(|| fields.wrong("status", "is not a status of sagas"));
    let label = |text: String| parse_label(&text).ok_or_else(|| fields.wrong("label", "is not name:value"));
    let standing = |text: String| {
        ReplayStanding::parse(&text).ok_or_else(|| fields.wrong("replay", "is none of none, open, completed, failed"))
    };
    let repaired = |text: &str| match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(fields.wrong("repaired", "is neither yes nor no")),
    };
    let depth = fields.u64("depth")?.map(|depth| u32::try_from(depth).map_err(|_| fields.wrong("depth", "is too large")));
    Ok(SagaFilter {
        saga_id: fields.string("saga_id")?.map(SagaId::new),
        statuses: texts("status")?.into_iter().map(status).collect::<Checked<_>>()?,
        saga_name: fields.string("saga_name")?,
        failed_step: fields.string("failed_step")?,
        compensation_failed_step: fields.string("compensation_failed_step")?,
        error_code: fields.string("error_code")?,
        error_type: fields.string("error_type")?,
        since: fields.time("since")?,
        until: fields.time("until")?,
        tenant: fields.string("tenant")?,
        region: fields.string("region")?,
        labels: texts("label")?.into_iter().map(label).collect::<Checked<_>>()?,
        depth: depth.transpose()?,
        replay: fields.string("replay")?.map(standing).transpose()?,
        repaired: fields.str("repaired")?.map(|text| repaired(&text)).transpose()?,
        stuck: fields.bool("stuck")?.unwrap_or(false),
        forced: fields.bool("forced")?.unwrap_or(false),
    })
}

/// What the requests of a batch have in common.
#[derive(Debug, Clone, Copy)]
pub struct MemberRequests<'a> {
    /// Of the BATCH or the retry.
    pub request_id: &'a str,
    pub requested_by: &'a str,
    pub reason: &'a str,
    pub batch_id: &'a str,
    pub accepted_at: Micros,
    pub template: &'a Json,
    /// A saga without an override of its own is refused.
    pub needs_override: bool,
    /// Of a batch that a schedule asked for.
    pub schedule: Option<&'a ScheduleMember>,
}

impl MemberRequests<'_> {
    /// The UNDO of a row's replay.
    fn undo_of(&self, row: &BatchRow, replay_id: &str) -> String {
        let mut out = Writer::with_capacity(512);
        out.str("request_id", self.request_id);
        out.str("command", CommandName::Undo.as_str());
        out.str("saga_id", row.saga_id.as_str());
        out.str("replay_id", replay_id);
        out.str("requested_by", self.requested_by);
        out.str("reason", self.reason);
        out.object(MEMBER, |out| out.str("batch_id", self.batch_id));
        out.end()
    }

    /// Is a saga's member of `overrides` only a value for the batch's expression? A retry may have taken that away.
    fn is_item(&self, own: &Json) -> bool {
        !is_override(own) && (read_own_override(own).is_none() || matches!(override_of(self.template), Some(Override::Jq(_))))
    }

    /// The REPLAY of one row, or its UNDO.
    pub fn of(&self, row: &BatchRow) -> Checked<String> {
        if let Some(replay_id) = &row.replay_id {
            return Ok(self.undo_of(row, replay_id));
        }
        let mut out = Writer::with_capacity(512 + self.template.len());
        out.str("request_id", self.request_id);
        out.str("command", CommandName::Replay.as_str());
        out.str("saga_id", row.saga_id.as_str());
        add_members(&mut out, self.template)?;
        out.str("requested_by", self.requested_by);
        out.str("reason", self.reason);
        if let Some(schedule) = self.schedule {
            write_schedule(&mut out, schedule);
        }
        let refusal = match &row.verdict {
            Some(Verdict::Refuse { code, message }) => Some((code.as_str(), message.as_str())),
            _ if self.needs_override && row.own_override.is_none() => {
                Some(("override_missing", "overrides: there is none for this saga"))
            }
            _ => None,
        };
        out.object(MEMBER, |out| {
            out.str("batch_id", self.batch_id);
            out.text("accepted_at", Some(self.accepted_at));
            if let Some(own) = &row.own_override {
                out.json(if self.is_item(own) { "item" } else { "override" }, Some(own));
            }
            if let Some((code, message)) = refusal {
                out.str("code", code);
                out.str("message", message);
            }
        });
        Ok(out.end())
    }
}

/// That of all replays of a batch.
fn override_of(template: &Json) -> Option<Override> {
    let object = read_object(template.as_str().as_bytes(), OWN_MAX_DEPTH).ok()?;
    read_override(&Fields::new(object)).ok().flatten()
}

/// The members with this override instead of theirs.
pub fn with_override(template: &Json, change: &Json) -> Checked<Json> {
    let object = read_object(template.as_str().as_bytes(), OWN_MAX_DEPTH);
    let object = object.map_err(|e| FieldError(format!("members of a batch: {e}")))?;
    let mut out = Writer::with_capacity(template.len() + change.len());
    object.members().into_iter().filter(|(name, _)| *name != "override").for_each(|(name, raw)| out.raw(name, raw.text()));
    out.json("override", Some(change));
    Ok(Json::from_valid(out.end()))
}
