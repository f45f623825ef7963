//! One text for one request, in whatever format and layout it came: what we know of it, in our order, without what is
//! at its default, objects sorted by name, times in UTC. Its hash tells a repeat from another request of the same id.

use serde_json::Value;

use super::order;
use crate::wire::fields::Fields;

/// What other commands have besides the members of a REPLAY, behind them.
const OTHERS: [&str; 7] = ["replay_id", "batch", "batch_id", "overrides", "schedule", "schedule_id", "outcome"];

pub fn canonical(fields: &Fields<'_>) -> String {
    let mut out = String::with_capacity(512);
    for name in order::MEMBERS.into_iter().chain(OTHERS) {
        let Some(raw) = fields.raw(name) else { continue };
        let mut value = raw.json().to_value();
        if matches!(name, "not_before" | "expires_at") {
            in_utc(&mut value);
        }
        if let ("from" | "outcome", Value::Object(members)) = (name, &mut value) {
            members.retain(|_, member| !member.is_null());
            members.iter_mut().filter(|(name, _)| matches!(name.as_str(), "at" | "ended_at")).for_each(|(_, at)| in_utc(at));
        }
        if !is_default(name, &value) {
            write(&Value::from(name), &mut out);
            out.push(':');
            write(&value, &mut out);
            out.push('\n');
        }
    }
    out
}

fn in_utc(value: &mut Value) {
    if let Some(at) = value.as_str().and_then(|text| text.parse::<crate::saga::time::Micros>().ok()) {
        *value = Value::from(at.to_string());
    }
}

fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "mode" => value == "resume",
        "if_compensated" => value == "refuse",
        "dry_run" | "allow_running" | "allow_repeat" | "allow_completed" | "force_failure" => *value == Value::Bool(false),
        "labels" => value.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, member)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(&Value::from(name.as_str()), out);
                out.push(':');
                write(member, out);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(element, out);
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}
