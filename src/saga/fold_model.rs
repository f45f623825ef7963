//! The fold of docs/interface/events.md once more, as naively as it can be written from that page, on plain JSON trees: the judge of
//! the real one. Shares its input types and nothing else.

use serde_json::{Map, Value, json};

use super::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use super::fold::RecordMeta;
use super::labels::Labels;
use super::lineage::Mode;
use super::restored::RestoredSaga;

pub enum Verdict {
    Entry { anomalies: Vec<&'static str>, effective: i64 },
    Duplicate,
    DeadLetter(&'static str),
}

/// One saga as the page describes it.
pub struct Model {
    pub max_clock_ahead: i64,
    pub max_state: usize,
    /// (event id, sequence) of all entries.
    seen: Vec<(String, Option<u64>)>,
    last_effective: Option<i64>,
    last_partition: Option<i32>,
    restored_by: Option<String>,
    pub state: Map<String, Value>,
}

impl Model {
    pub fn new(max_clock_ahead: i64, max_state: usize) -> Self {
        let state = json!({
            "saga_name": null, "saga_version": null, "status": "running", "running_steps": {}, "completed_steps": [],
            "skipped_steps": [], "compensated_steps": [], "failed_steps": {}, "end_error": null,
            "compensation_failed_step": null, "compensation_error": null, "attempts": {}, "results": {}, "context": {},
            "started_at": null, "updated_at": null, "ended_at": null, "tenant": null, "region": null, "labels": {},
            "lineage": null, "anomalies": [],
        });
        let Value::Object(state) = state else { unreachable!() };
        Self {
            max_clock_ahead,
            max_state,
            seen: Vec::new(),
            last_effective: None,
            last_partition: None,
            restored_by: None,
            state,
        }
    }

    pub fn read(&mut self, event: &StepEvent, record: &RecordMeta, across_gap: bool) -> Verdict {
        let window = &self.seen[self.seen.len().saturating_sub(64)..];
        if window.iter().any(|(id, _)| *id == event.event_id) {
            return Verdict::Duplicate;
        }
        let mut anomalies = Vec::new();
        if let Some(sequence) = event.sequence {
            let known: Vec<u64> = window.iter().filter_map(|(_, sequence)| *sequence).collect();
            if known.contains(&sequence) {
                return Verdict::Duplicate;
            }
            if window.len() == 64 && !known.is_empty() && known.iter().all(|other| sequence < *other) {
                return Verdict::DeadLetter("stale_sequence");
            }
            if let Some(highest) = self.seen.iter().filter_map(|(_, sequence)| *sequence).max() {
                if sequence <= highest {
                    anomalies.push("out_of_order");
                } else if sequence > highest + 1 {
                    anomalies.push("gap");
                }
            }
        }
        if let Some(restored) = &event.restored {
            if self.restored_by.as_ref().is_some_and(|other| *other != restored.replay_id) {
                return Verdict::DeadLetter("id_taken");
            }
            self.restored_by = Some(restored.replay_id.clone());
        }

        let timestamp = record.timestamp.0;
        let mut occurred = event.occurred_at.map_or(timestamp, |at| at.0);
        let ahead = occurred > timestamp + self.max_clock_ahead;
        if ahead {
            occurred = timestamp;
            anomalies.push("clock_ahead");
        }
        let effective = self.last_effective.map_or(occurred, |last| last.max(occurred));
        if event.occurred_at.is_some() && !ahead && effective > occurred {
            anomalies.push("late");
        }
        let first = self.seen.is_empty();
        if first && event.kind != Kind::SagaStarted && event.kind != Kind::SagaRestored {
            anomalies.push("no_start");
        }
        let ended = ["completed", "failed", "compensated", "cancelled"].contains(&self.state["status"].as_str().unwrap());
        if ended {
            anomalies.push("after_end");
        }
        if across_gap {
            anomalies.push("log_gap");
        }
        if self.last_partition.is_some_and(|last| last != record.position.partition) {
            anomalies.push("moved");
        }
        if first {
            self.set("saga_name", json!(event.saga_name));
            self.set("started_at", json!(effective));
        }
        let (status, ended_at) = (self.state["status"].clone(), self.state["ended_at"].clone());
        let context = self.state["context"].clone();
        self.fold(event, effective);
        if ended && occurred <= ended_at.as_i64().unwrap() {
            self.set("status", status);
            self.set("ended_at", ended_at);
        }
        let adds = event.kind == Kind::StepCompleted || event.error.is_some() || event.labels.is_some();
        if (!matches!(event.context, ContextChange::None) || adds || event.restored.is_some()) && self.size() > self.max_state {
            self.set("context", context);
            anomalies.push("state_too_large");
        }
        self.set("updated_at", json!(effective));
        let Some(Value::Array(all)) = self.state.get_mut("anomalies") else { unreachable!() };
        for name in &anomalies {
            if !all.iter().any(|known| known == name) {
                all.push(json!(name));
            }
        }
        self.seen.push((event.event_id.clone(), event.sequence));
        self.last_effective = Some(effective);
        self.last_partition = Some(record.position.partition);
        Verdict::Entry { anomalies, effective }
    }

    fn size(&self) -> usize {
        let pairs = |name: &str, size: fn(&Value) -> usize| {
            self.state[name].as_object().unwrap().iter().map(|(key, value)| key.len() + size(value)).sum::<usize>()
        };
        let text = |value: &Value| value.as_str().map_or(0, str::len);
        let error = |error: &Value| {
            let details =
                error.get("details").filter(|details| !details.is_null()).map_or(0, |details| details.to_string().len());
            ["code", "type", "message"]
                .iter()
                .map(|name| error.get(name).map_or(0, |text| text.as_str().map_or(0, str::len)))
                .sum::<usize>()
                + details
        };
        self.state["context"].to_string().len()
            + pairs("results", |result| result.to_string().len())
            + pairs("failed_steps", error)
            + error(&self.state["end_error"])
            + error(&self.state["compensation_error"])
            + pairs("labels", text)
    }

    fn set(&mut self, name: &str, value: Value) {
        self.state.insert(name.into(), value);
    }
    fn map(&mut self, name: &str) -> &mut Map<String, Value> {
        self.state.get_mut(name).unwrap().as_object_mut().unwrap()
    }
    fn list(&mut self, name: &str) -> &mut Vec<Value> {
        self.state.get_mut(name).unwrap().as_array_mut().unwrap()
    }
    fn leave(&mut self, names: &[&str], step: &str) {
        for name in names {
            match self.state.get_mut(*name).unwrap() {
                Value::Object(map) => drop(map.shift_remove(step)),
                Value::Array(list) => list.retain(|known| known != step),
                _ => unreachable!(),
            }
        }
    }
    fn join(&mut self, name: &str, step: &str) {
        if !self.list(name).iter().any(|known| known == step) {
            self.list(name).push(json!(step));
        }
    }

    fn fold(&mut self, event: &StepEvent, effective: i64) {
        for (name, given) in [("saga_version", &event.saga_version), ("tenant", &event.tenant), ("region", &event.region)] {
            if let Some(given) = given {
                self.set(name, json!(given));
            }
        }
        if let Some(labels) = &event.labels {
            self.set("labels", labels_value(labels));
        }
        let context = match &event.context {
            ContextChange::None => self.state["context"].clone(),
            ContextChange::Full(context) => context.to_value(),
            ContextChange::Patch(patch) => merge(&self.state["context"], &patch.to_value()),
            ContextChange::Set(keys) => {
                let mut context = self.state["context"].as_object().unwrap().clone();
                context.extend(keys.to_value().as_object().unwrap().clone());
                Value::Object(context)
            }
            ContextChange::Splice { .. } => unreachable!("a storage form"),
        };
        self.set("context", context);
        let step = event.step.clone().unwrap_or_default();
        match event.kind {
            Kind::SagaStarted => {
                if self.state["lineage"].is_null() {
                    self.going("running");
                }
                if let Some(lineage) = &event.lineage {
                    let value = json!({"parent": lineage.parent, "root": lineage.root, "depth": lineage.depth,
                        "replay_id": lineage.replay_id, "resume_step": lineage.resume_step,
                        "mode": lineage.mode.as_str(), "force_failure": lineage.force_failure});
                    self.set("lineage", value);
                    // The page does not say; see `State::taken_by_another_replay`.
                    self.restored_by = None;
                }
            }
            Kind::StepStarted => {
                if self.state["status"] != "compensating" {
                    self.going("running");
                }
                self.leave(&["running_steps", "failed_steps"], &step);
                self.map("running_steps").insert(step.clone(), json!(event.step_index));
                let before = self.state["attempts"].get(&step).and_then(Value::as_i64).unwrap_or(0);
                self.map("attempts").insert(step, json!(event.attempt.unwrap_or(before + 1)));
                self.set("end_error", Value::Null);
            }
            Kind::StepCompleted => {
                self.leave(&["running_steps", "failed_steps", "skipped_steps", "compensated_steps"], &step);
                self.join("completed_steps", &step);
                let result = event.result.as_ref().map_or(Value::Null, |result| result.to_value());
                self.map("results").insert(step, result);
            }
            Kind::StepSkipped => {
                self.leave(&["running_steps", "failed_steps"], &step);
                self.join("skipped_steps", &step);
            }
            Kind::StepFailed => {
                self.leave(&["running_steps", "failed_steps"], &step);
                self.map("failed_steps").insert(step, error_value(event.error.as_deref()));
            }
            Kind::CompensationStarted => self.going("compensating"),
            Kind::StepCompensated => {
                self.going("compensating");
                self.join("compensated_steps", &step);
            }
            Kind::CompensationFailed => {
                self.going("compensating");
                self.set("compensation_failed_step", json!(step));
                self.set("compensation_error", error_value(event.error.as_deref()));
            }
            Kind::ContextUpdated | Kind::Checkpoint => {}
            Kind::SagaCompleted => self.end("completed", event, effective),
            Kind::SagaFailed => {
                if event.step.is_some() {
                    let had = self.map("failed_steps").shift_remove(&step).unwrap_or(Value::Null);
                    let value = if event.error.is_some() { error_value(event.error.as_deref()) } else { had };
                    self.map("failed_steps").insert(step, value);
                }
                self.end("failed", event, effective);
            }
            Kind::SagaCompensated => self.end("compensated", event, effective),
            Kind::SagaCancelled => self.end("cancelled", event, effective),
            Kind::SagaRestored => self.restore(event.restored.as_ref().unwrap()),
        }
    }

    fn going(&mut self, status: &str) {
        self.set("status", json!(status));
        self.set("ended_at", Value::Null);
    }

    fn end(&mut self, status: &str, event: &StepEvent, effective: i64) {
        self.set("status", json!(status));
        self.set("ended_at", json!(effective));
        self.set("running_steps", json!({}));
        if event.error.is_some() {
            self.set("end_error", error_value(event.error.as_deref()));
        }
    }

    fn restore(&mut self, restored: &RestoredSaga) {
        let compensate = restored.mode == Mode::Compensate;
        self.going(if compensate { "compensating" } else { "running" });
        let mut completed = restored.completed_steps.clone();
        if compensate {
            completed.reverse();
        }
        self.set("saga_name", json!(restored.saga_name));
        self.set("saga_version", json!(restored.saga_version));
        self.set("tenant", json!(restored.tenant));
        self.set("region", json!(restored.region));
        self.set("labels", labels_value(&restored.labels));
        self.set("completed_steps", json!(completed));
        self.set("skipped_steps", json!(restored.skipped_steps));
        self.set("compensated_steps", json!(restored.compensated_steps));
        self.set("attempts", restored.attempts.iter().map(|(step, n)| (step.clone(), json!(n))).collect());
        self.set("results", restored.results.iter().map(|(step, r)| (step.clone(), r.to_value())).collect());
        for (name, empty) in [("running_steps", json!({})), ("failed_steps", json!({}))] {
            self.set(name, empty);
        }
        for name in ["end_error", "compensation_failed_step", "compensation_error"] {
            self.set(name, Value::Null);
        }
        let lineage = json!({"parent": restored.original_saga_id, "root": restored.root_saga_id, "depth": restored.depth,
            "replay_id": restored.replay_id, "resume_step": restored.resume_step,
            "mode": restored.mode.as_str(), "force_failure": restored.force_failure});
        self.set("lineage", lineage);
    }

    /// `error` as the page derives it.
    pub fn error(&self) -> Value {
        let last = self.state["failed_steps"].as_object().unwrap().values().next_back().cloned();
        Some(self.state["end_error"].clone()).filter(|error| !error.is_null()).or(last).unwrap_or(Value::Null)
    }
}

pub fn error_value(error: Option<&ErrorInfo>) -> Value {
    error.map_or(Value::Null, |error| {
        let details = error.details.as_ref().map_or(Value::Null, |details| details.to_value());
        json!({"code": error.code, "type": error.kind, "message": error.message, "details": details})
    })
}

pub fn labels_value(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

fn merge(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            merged.shift_remove(name);
        } else {
            let value = merge(merged.get(name).unwrap_or(&Value::Null), value);
            merged.insert(name.clone(), value);
        }
    }
    Value::Object(merged)
}
