//! Schedules as a file, for those who keep them under version control: what runs is compared with the file by name, and made as the
//! file says.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, Target};
use super::exit::Failure;
use super::order::{Attribution, file};
use super::output::Column;
use super::session::Session;

#[derive(Debug, Args)]
pub struct ScheduleFile {
    /// TOML with a table `[[schedule]]` for each: a name, and the members of a schedule.
    #[arg(long, short, value_name = "FILE")]
    file: String,
    /// Schedules that have a name and are not in the file end.
    #[arg(long)]
    prune: bool,
}

/// What is to be done about one schedule.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    name: String,
    action: Action,
    /// Of what runs.
    schedule_ids: Vec<String>,
    /// As the file has it.
    wanted: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Unchanged,
    Create,
    /// What runs ends, and what the file has begins.
    Replace,
    Delete,
    /// It runs, and is not in the file.
    Keep,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Keep => "keep",
        }
    }
}

const CHANGES: &[Column] = &[("name", "/name"), ("action", "/action"), ("schedules", "/schedule_ids")];

pub async fn plan(session: &Session, file: &ScheduleFile) -> Result<(), Failure> {
    let changes = changes(session, file).await?;
    session.output.list(&answer(&changes), "changes", CHANGES)
}

pub async fn apply(session: &Session, file: &ScheduleFile, asked: &Attribution) -> Result<(), Failure> {
    let client = session.client()?;
    let mut changes = changes(session, file).await?;
    let mut who = Map::new();
    asked.add_to(&mut who, &session.environment)?;
    for change in &mut changes {
        if matches!(change.action, Action::Replace | Action::Delete) {
            for schedule_id in &change.schedule_ids {
                client.delete(&schedules().segment(schedule_id), &Value::Object(who.clone())).await?;
            }
        }
        if let (Action::Create | Action::Replace, Some(wanted)) = (change.action, &change.wanted) {
            let mut body = who.clone();
            body.insert("schedule".into(), wanted.clone());
            let created = client.post(&schedules(), &Value::Object(body)).await?;
            change.schedule_ids = created["schedule_id"].as_str().map(str::to_owned).into_iter().collect();
        }
    }
    session.output.list(&answer(&changes), "changes", CHANGES)
}

fn schedules() -> Target {
    Target::new("/v1/schedules")
}

fn answer(changes: &[Change]) -> Value {
    let change =
        |change: &Change| json!({"name": change.name, "action": change.action.as_str(), "schedule_ids": change.schedule_ids});
    json!({"changes": changes.iter().map(change).collect::<Vec<_>>(), "next": null})
}

async fn changes(session: &Session, schedule_file: &ScheduleFile) -> Result<Vec<Change>, Failure> {
    let text = file(&schedule_file.file, "--file")?;
    let wanted = wanted_of(&text).map_err(|why| Failure::usage(format!("--file: {}: {why}", schedule_file.file)))?;
    Ok(compare(wanted, running(&session.client()?).await?, schedule_file.prune))
}

/// What runs and has a name: ids and definitions.
async fn running(client: &Client) -> Result<BTreeMap<String, Vec<(String, Value)>>, Failure> {
    let answer = client.get(&schedules()).await?;
    let mut running: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    for schedule in answer["schedules"].as_array().into_iter().flatten().filter(|schedule| schedule["status"] == "accepted") {
        if let (Some(name), Some(id)) = (schedule["name"].as_str(), schedule["schedule_id"].as_str()) {
            running.entry(name.to_owned()).or_default().push((id.to_owned(), schedule["schedule"].clone()));
        }
    }
    Ok(running)
}

/// The schedules of a file by name.
fn wanted_of(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let document: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    if let Some(other) = document.keys().find(|key| *key != "schedule") {
        return Err(format!("{other}: expected tables [[schedule]] alone"));
    }
    let mut wanted = BTreeMap::new();
    for (at, table) in document.get("schedule").and_then(toml::Value::as_array).into_iter().flatten().enumerate() {
        let place = at + 1;
        let name = table.get("name").and_then(toml::Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("[[schedule]] number {place}: name is missing"))?;
        if wanted.insert(name.to_owned(), json_of(table)).is_some() {
            return Err(format!("[[schedule]] number {place}: another one before has its name"));
        }
    }
    Ok(wanted)
}

fn json_of(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(is) => json!(is),
        toml::Value::Datetime(at) => json!(at.to_string()),
        toml::Value::Array(elements) => Value::Array(elements.iter().map(json_of).collect()),
        toml::Value::Table(members) => members.iter().map(|(name, member)| (name.clone(), json_of(member))).collect(),
    }
}

fn compare(wanted: BTreeMap<String, Value>, mut running: BTreeMap<String, Vec<(String, Value)>>, prunes: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, definition) in wanted {
        let known = running.remove(&name).unwrap_or_default();
        let action = match &known[..] {
            [] => Action::Create,
            [(_, one)] if *one == definition => Action::Unchanged,
            _ => Action::Replace,
        };
        let schedule_ids = known.into_iter().map(|(id, _)| id).collect();
        changes.push(Change { name, action, schedule_ids, wanted: Some(definition) });
    }
    let action = if prunes { Action::Delete } else { Action::Keep };
    changes.extend(running.into_iter().map(|(name, known)| Change {
        name,
        action,
        schedule_ids: known.into_iter().map(|(id, _)| id).collect(),
        wanted: None,
    }));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [[schedule]]
        name = "repair"
        policy = { on = { error_code = "TIMEOUT" }, delay = "5m", stop_ratio = 0.1 }
        override = { merge = { gateway = "b" } }

        [[schedule]]
        name = "once"
        at = 2026-07-01T06:00:00Z
        saga_id = "order-1"
        from = { step = "charge_payment" }
    "#;

    #[test]
    fn a_file_is_compared_with_what_runs_by_name() {
        let wanted = wanted_of(FILE).expect("a file");
        assert_eq!(wanted["once"]["at"], "2026-07-01T06:00:00Z");
        let same = wanted["repair"].clone();
        let running = |name: &str, ids: &[&str], definition: &Value| {
            (name.to_owned(), ids.iter().map(|id| ((*id).to_owned(), definition.clone())).collect::<Vec<_>>())
        };
        let actions = |running: BTreeMap<String, Vec<(String, Value)>>, prunes| {
            let changes = compare(wanted.clone(), running, prunes).into_iter();
            changes
                .map(|change| format!("{} {} {:?}", change.name, change.action.as_str(), change.schedule_ids))
                .collect::<Vec<_>>()
        };
        let known = BTreeMap::from([running("repair", &["r"], &same), running("old", &["o"], &json!({}))]);
        assert_eq!(actions(known.clone(), false), ["once create []", r#"repair unchanged ["r"]"#, r#"old keep ["o"]"#]);
        assert_eq!(actions(known, true)[2], r#"old delete ["o"]"#);
        let twice = BTreeMap::from([running("repair", &["r", "s"], &same), running("once", &["x"], &json!({"name": "once"}))]);
        assert_eq!(actions(twice, false), [r#"once replace ["x"]"#, r#"repair replace ["r", "s"]"#]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_by_place() {
        assert!(wanted_of("[[schedule]]\ncron = '* * * * *'").expect_err("no name").contains("number 1: name"));
        assert!(wanted_of("[[schedule]]\nname='a'\n[[schedule]]\nname='a'").expect_err("twice").contains("number 2"));
        assert!(wanted_of("[[schedules]]\nname='a'").expect_err("another table").contains("schedules"));
        assert!(wanted_of("x").is_err());
    }
}
