//! The members of a SCHEDULE, and the requests that one makes.

use std::time::Duration;

use super::batch::{read_members, read_selector};
use super::member::write_schedule;
use super::order;
use crate::saga::ids;
use crate::saga::json::Json;
use crate::saga::position::SagaId;
use crate::saga::request::CommandName;
use crate::saga::schedule::breaker::StopRule;
use crate::saga::schedule::cron::CronTime;
use crate::saga::schedule::member::ScheduleMember;
use crate::saga::schedule::policy::{DailyWindow, Policy, PolicyMatch};
use crate::saga::schedule::zone::Zone;
use crate::saga::schedule::{CatchUp, ScheduleOrder, ScheduledWork, Trigger};
use crate::saga::time::Micros;
use crate::wire::fields::{Checked, FieldError, Fields};
use crate::wire::json::{OWN_MAX_DEPTH, Writer, read_object};

/// The members of a REPLAY that a schedule may have.
const OF_REPLAY: [&str; 13] = [
    "saga_id",
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
    "expires_at",
    "labels",
];
const OWN: [&str; 7] = ["name", "at", "cron", "zone", "policy", "catch_up", "batch"];
const POLICY: [&str; 8] = ["on", "delay", "backoff", "max_delay", "max_replays", "window", "stop_ratio", "stop_after"];
const ON: [&str; 8] = ["saga_name", "failed_step", "error_code", "error_type", "tenant", "region", "label", "stuck"];
const WINDOW: [&str; 3] = ["from", "until", "zone"];
const DEFAULT_DELAY: Duration = Duration::from_secs(5 * 60);
const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(6 * 3_600);
const DEFAULT_BACKOFF: f64 = 2.0;
const DEFAULT_MAX_REPLAYS: u32 = 3;
const DEFAULT_STOP_AFTER: u64 = 20;

/// Reads the member `schedule`.
pub fn read(fields: &Fields<'_>) -> Checked<ScheduleOrder> {
    read_order(&fields.required("schedule", fields.object("schedule")?)?)
}

/// Reads a definition that was read before and kept.
pub fn read_definition(definition: &Json) -> Checked<ScheduleOrder> {
    let object = read_object(definition.as_str().as_bytes(), OWN_MAX_DEPTH).map_err(|e| FieldError(format!("schedule: {e}")))?;
    read_order(&Fields::new(object))
}

/// Has it no members but those of a schedule? For what a person sends.
pub(super) fn only_known(fields: &Fields<'_>) -> Checked<()> {
    let Some(schedule) = fields.object("schedule")? else { return Ok(()) };
    schedule.only(&[&OF_REPLAY[..], &OWN].concat())?;
    if let Some(policy) = schedule.object("policy")? {
        policy.only(&POLICY)?;
        if let Some(on) = policy.object("on")? {
            on.only(&ON)?;
        }
        if let Some(window) = policy.object("window")? {
            window.only(&WINDOW)?;
        }
    }
    super::batch::only_known_with(&schedule, &["last"])?;
    order::only_known_below(&schedule)
}

fn read_order(schedule: &Fields<'_>) -> Checked<ScheduleOrder> {
    let at = schedule.time("at")?;
    let cron = schedule.string("cron")?;
    let policy = schedule.object("policy")?;
    let zone = read_zone(schedule)?;
    let trigger = match (at, cron, policy) {
        (Some(at), None, None) => Trigger::At(at),
        (None, Some(text), None) => {
            let cron = CronTime::parse(&text, zone.unwrap_or_else(Zone::utc));
            Trigger::Cron(Box::new(cron.map_err(|problem| schedule.wrong("cron", &problem))?))
        }
        (None, None, Some(policy)) => Trigger::Policy(Box::new(read_policy(&policy)?)),
        _ => return Err(schedule.wrong("at", "or cron or policy must be there, and one of them only")),
    };
    let catch_up = match schedule.str("catch_up")?.as_deref() {
        None | Some("last") => CatchUp::Last,
        Some("none") => CatchUp::None,
        Some(_) => return Err(schedule.wrong("catch_up", "is neither last nor none")),
    };
    let work = read_work(schedule, matches!(trigger, Trigger::Policy(_)))?;
    Ok(ScheduleOrder { name: schedule.string("name")?, trigger, catch_up, work })
}

fn read_zone(fields: &Fields<'_>) -> Checked<Option<Zone>> {
    let zone = |name: String| Zone::named(&name).ok_or_else(|| fields.wrong("zone", "is not a time zone of the IANA database"));
    fields.string("zone")?.map(zone).transpose()
}

fn read_work(schedule: &Fields<'_>, is_policy: bool) -> Checked<ScheduledWork> {
    if let Some(batch) = schedule.object("batch")? {
        if let Some(other) = OF_REPLAY.iter().find(|name| schedule.raw(name).is_some()) {
            return Err(schedule.wrong(other, "does not go with batch: give it in the batch"));
        }
        if is_policy {
            return Err(schedule.wrong("batch", "does not go with policy: a policy replays one saga at a time"));
        }
        read_members(&batch)?;
        let selector = batch.object("selector")?;
        let last = selector.as_ref().map(|selector| read_duration(selector, "last")).transpose()?.flatten();
        if let Some(selector) = selector.filter(|selector| last.is_some() && selector.raw("since").is_some()) {
            return Err(selector.wrong("last", "does not go with since"));
        }
        let batch = schedule.required("batch", schedule.json("batch"))?;
        return Ok(ScheduledWork::Batch { batch, last: last.map(micros) });
    }
    let saga_id = schedule.string("saga_id")?;
    match (is_policy, &saga_id) {
        (true, Some(_)) => return Err(schedule.wrong("saga_id", "does not go with policy: it replays the sagas that fail")),
        (false, None) => return Err(schedule.wrong("saga_id", "or batch or policy must be there")),
        _ => {}
    }
    let mut out = Writer::with_capacity(256);
    for name in OF_REPLAY.into_iter().filter(|name| *name != "saga_id") {
        if let Some(raw) = schedule.raw(name) {
            out.raw(name, raw.text());
        }
    }
    let work = ScheduledWork::Replay { saga_id: saga_id.map(SagaId::new), members: Json::from_valid(out.end()) };
    check_as_request(schedule, &work)?;
    Ok(work)
}

/// What is wrong with a request of it is said at once.
fn check_as_request(schedule: &Fields<'_>, work: &ScheduledWork) -> Checked<()> {
    let ScheduledWork::Replay { saga_id, members } = work else { return Ok(()) };
    schedule.labels("labels")?;
    let mut sample = Writer::with_capacity(members.len() + 96);
    sample.str("saga_id", saga_id.as_ref().map_or("saga", SagaId::as_str));
    let is_policy = saga_id.is_none();
    add_members(&mut sample, members, is_policy.then_some(None))?;
    let sample = sample.end();
    let sample = read_object(sample.as_bytes(), OWN_MAX_DEPTH).map_err(|e| FieldError(format!("field \"schedule\": {e}")))?;
    order::read(&Fields::new(sample)).map_err(|wrong| FieldError(wrong.0.replacen("field \"", "field \"schedule.", 1)))?;
    Ok(())
}

fn read_policy(policy: &Fields<'_>) -> Checked<Policy> {
    let on = match policy.object("on")? {
        Some(on) => read_selector(&on)?,
        None => return Err(policy.wrong("on", "is missing: it says which sagas, {} for all")),
    };
    let number = |name: &str, most: f64, default| -> Checked<Option<f64>> {
        let Some(raw) = policy.raw(name) else { return Ok(default) };
        let value = raw.text().parse().ok().filter(|value: &f64| (0.0..=most).contains(value));
        value.map(Some).ok_or_else(|| policy.wrong(name, &format!("is not a number from 0 to {most}")))
    };
    let ratio = number("stop_ratio", 1.0, None)?;
    let after = policy.u64("stop_after")?.unwrap_or(DEFAULT_STOP_AFTER);
    let most = policy.u64("max_replays")?.unwrap_or(DEFAULT_MAX_REPLAYS.into());
    Ok(Policy {
        on,
        delay: micros(read_duration(policy, "delay")?.unwrap_or(DEFAULT_DELAY)),
        backoff: number("backoff", 1_000.0, None)?.unwrap_or(DEFAULT_BACKOFF),
        max_delay: micros(read_duration(policy, "max_delay")?.unwrap_or(DEFAULT_MAX_DELAY)),
        max_replays: u32::try_from(most).unwrap_or(u32::MAX),
        window: policy.object("window")?.map(|window| read_window(&window)).transpose()?,
        stop: ratio.map(|ratio| StopRule { ratio, after }),
    })
}

fn read_window(window: &Fields<'_>) -> Checked<DailyWindow> {
    let time = |name: &str| {
        let text = window.needed(name)?;
        let is_short = text.len() == 5 && text.as_bytes()[2] == b':';
        let time = text.parse().ok().filter(|_| is_short);
        time.ok_or_else(|| window.wrong(name, "is not a time of day such as 06:00"))
    };
    Ok(DailyWindow { from: time("from")?, until: time("until")?, zone: read_zone(window)?.unwrap_or_else(Zone::utc) })
}

fn read_duration(fields: &Fields<'_>, name: &str) -> Checked<Option<Duration>> {
    let wrong = || fields.wrong(name, "is not a duration with a unit, such as \"5m\"");
    let Some(text) = fields.raw(name) else { return Ok(None) };
    let text = text.string().ok_or_else(wrong)?;
    humantime::parse_duration(&text).map(Some).map_err(|_| wrong())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The request that a schedule makes: its record's key, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledRequest {
    pub key: String,
    pub value: String,
}

/// Who made the schedule, and why.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleAuthor<'a> {
    pub schedule_id: &'a str,
    pub requested_by: &'a str,
    pub reason: &'a str,
}

/// The request of a due time.
pub fn run_of(work: &ScheduledWork, author: ScheduleAuthor<'_>, due: Micros) -> Checked<ScheduledRequest> {
    let request_id = ids::run_request_id(author.schedule_id, due).to_string();
    match work {
        ScheduledWork::Replay { saga_id, members } => {
            let saga_id = saga_id.as_ref().ok_or_else(|| FieldError("field \"schedule.saga_id\" is missing".into()))?;
            replay(author, (&request_id, saga_id, due), members, None, None)
        }
        ScheduledWork::Batch { batch, last } => {
            let mut out = Writer::with_capacity(256 + batch.len());
            out.str("request_id", &request_id);
            out.str("command", CommandName::Batch.as_str());
            out.raw("batch", &batch_at(batch, *last, due)?);
            finish(&mut out, author, due);
            Ok(ScheduledRequest { key: ids::request_uuid(&request_id).to_string(), value: out.end() })
        }
    }
}

/// The request that a policy makes for an entry, to be carried out at `not_before`.
pub fn policy_request(
    members: &Json,
    author: ScheduleAuthor<'_>,
    found: &PolicyMatch,
    not_before: Micros,
    allow_running: bool,
) -> Checked<ScheduledRequest> {
    let request_id = ids::policy_request_id(author.schedule_id, &found.saga_id, found.sequence).to_string();
    let of = (request_id.as_str(), &found.saga_id, found.recorded_time);
    replay(author, of, members, Some(found.step.as_deref()), Some((not_before, allow_running)))
}

fn replay(
    author: ScheduleAuthor<'_>,
    (request_id, saga_id, due): (&str, &SagaId, Micros),
    members: &Json,
    step: Option<Option<&str>>,
    policy: Option<(Micros, bool)>,
) -> Checked<ScheduledRequest> {
    let mut out = Writer::with_capacity(512 + members.len());
    out.str("request_id", request_id);
    out.str("command", CommandName::Replay.as_str());
    out.str("saga_id", saga_id.as_str());
    add_members(&mut out, members, step)?;
    if let Some((not_before, allow_running)) = policy {
        out.text("not_before", Some(not_before));
        if allow_running {
            out.bool("allow_running", true);
        }
    }
    finish(&mut out, author, due);
    Ok(ScheduledRequest { key: saga_id.as_str().to_owned(), value: out.end() })
}

fn finish(out: &mut Writer, author: ScheduleAuthor<'_>, due: Micros) {
    out.str("requested_by", author.requested_by);
    out.str("reason", author.reason);
    write_schedule(out, &ScheduleMember { schedule_id: author.schedule_id.to_owned(), due });
}

/// `step`: where a policy's replay begins if its members do not say; `Some(None)`: after the newest entry, as no step is known.
fn add_members(out: &mut Writer, members: &Json, step: Option<Option<&str>>) -> Checked<()> {
    let object = read_object(members.as_str().as_bytes(), OWN_MAX_DEPTH);
    let object = object.map_err(|e| FieldError(format!("members of a schedule: {e}")))?;
    if let (Some(step), None) = (step, object.get("from")) {
        out.object("from", |out| match step {
            Some(step) => out.str("step", step),
            None => out.bool("latest", true),
        });
    }
    object.members().into_iter().for_each(|(name, raw)| out.raw(name, raw.text()));
    Ok(())
}

/// The member `batch` of a run: a selector with `last` looks from that long before the due time to it.
fn batch_at(batch: &Json, last: Option<i64>, due: Micros) -> Checked<String> {
    let Some(last) = last else { return Ok(batch.as_str().to_owned()) };
    let object = read_object(batch.as_str().as_bytes(), OWN_MAX_DEPTH).map_err(|e| FieldError(format!("batch: {e}")))?;
    let mut out = Writer::with_capacity(batch.len() + 96);
    for (name, raw) in object.members() {
        match raw.object().filter(|_| name == "selector") {
            Some(selector) => out.object("selector", |out| {
                for (name, raw) in selector.members().into_iter().filter(|(name, _)| *name != "last") {
                    out.raw(name, raw.text());
                }
                out.text("since", Some(due.saturating_add(-last)));
                if selector.get("until").is_none() {
                    out.text("until", Some(due));
                }
            }),
            None => out.raw(name, raw.text()),
        }
    }
    Ok(out.end())
}

#[cfg(test)]
#[path = "tests/schedule.rs"]
mod tests;
