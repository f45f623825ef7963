//! What each kind of event does to a state. Pure and total.
//!
//! Knows an admitted entry and the context after it; must not decide what becomes an entry ([`super::fold`]).

use super::entry::Entry;
use super::event::{ErrorInfo, Kind, StepEvent};
use super::json::Json;
use super::lineage::{Lineage, Mode};
use super::restored::RestoredSaga;
use super::state::{EntryRef, State, Status};

impl State {
    /// What there is before a saga's first entry.
    pub(super) fn before_first(entry: &Entry) -> Self {
        Self {
            saga_id: entry.event.saga_id.clone(),
            saga_name: entry.event.saga_name.clone(),
            saga_version: None,
            status: Status::Running,
            running_steps: Vec::new(),
            completed_steps: Vec::new(),
            skipped_steps: Vec::new(),
            compensated_steps: Vec::new(),
            failed_steps: Vec::new(),
            end_error: None,
            compensation_failed_step: None,
            compensation_error: None,
            attempts: Vec::new(),
            results: Vec::new(),
            context: Json::empty_object(),
            started_at: entry.effective_time,
            ended_at: None,
            tenant: None,
            region: None,
            labels: Vec::new(),
            lineage: None,
            anomalies: Vec::new(),
            snapshot: None,
            entry: EntryRef::of(entry),
        }
    }

    /// Applies one entry; `context` is the context after it, if it changes.
    pub(super) fn apply(&mut self, entry: &Entry, context: Option<Json>) {
        let event = &entry.event;
        let end = self.ended_at.map(|at| (self.status, at)).filter(|(status, _)| status.is_end());

        self.take_properties(event);
        if let Some(context) = context {
            self.context = context;
        }
        self.take_fact(entry);

        // What happened before the end but came after it changes facts, not how the saga ended.
        if let Some((status, at)) = end
            && entry.occurred_time <= at
        {
            self.status = status;
            self.ended_at = Some(at);
        }
        for anomaly in &entry.anomalies {
            if !self.anomalies.contains(anomaly) {
                self.anomalies.push(*anomaly);
            }
        }
        if entry.snapshot {
            self.snapshot = Some(entry.sequence);
        }
        self.entry.follow(entry);
    }

    /// The newest event that has one wins. The name is not among them: only SAGA_RESTORED gives another.
    fn take_properties(&mut self, event: &StepEvent) {
        take_if_given(&mut self.saga_version, &event.saga_version);
        take_if_given(&mut self.tenant, &event.tenant);
        take_if_given(&mut self.region, &event.region);
        if let Some(labels) = &event.labels {
            self.labels.clone_from(labels);
        }
    }

    fn take_fact(&mut self, entry: &Entry) {
        let event = &entry.event;
        // Present for every kind that uses it; the reader refuses events without.
        let step = event.step.as_deref().unwrap_or_default();
        match event.kind {
            Kind::SagaStarted => {
                // The engine starting a restored saga must not turn compensating into running.
                if self.lineage.is_none() {
                    self.set_going(Status::Running);
                }
                if event.lineage.is_some() {
                    self.lineage.clone_from(&event.lineage);
                }
            }
            Kind::StepStarted => {
                let going = if self.status == Status::Compensating { Status::Compensating } else { Status::Running };
                self.set_going(going);
                put_last(&mut self.running_steps, step, event.step_index);
                drop_key(&mut self.failed_steps, step);
                self.end_error = None;
                self.count_attempt(step, event.attempt);
            }
            Kind::StepCompleted => {
                drop_key(&mut self.running_steps, step);
                drop_key(&mut self.failed_steps, step);
                drop_item(&mut self.skipped_steps, step);
                drop_item(&mut self.compensated_steps, step);
                add_item(&mut self.completed_steps, step);
                let result = event.result.clone().unwrap_or_else(Json::null);
                match self.results.iter_mut().find(|(name, _)| name == step) {
                    Some((_, old)) => *old = result,
                    None => self.results.push((step.to_owned(), result)),
                }
            }
            Kind::StepSkipped => {
                drop_key(&mut self.running_steps, step);
                drop_key(&mut self.failed_steps, step);
                add_item(&mut self.skipped_steps, step);
            }
            Kind::StepFailed => {
                drop_key(&mut self.running_steps, step);
                put_last(&mut self.failed_steps, step, event.error.clone());
            }
            Kind::CompensationStarted => self.set_going(Status::Compensating),
            Kind::StepCompensated => {
                self.set_going(Status::Compensating);
                add_item(&mut self.compensated_steps, step);
            }
            Kind::CompensationFailed => {
                self.set_going(Status::Compensating);
                self.compensation_failed_step = Some(step.to_owned());
                self.compensation_error.clone_from(&event.error);
            }
            Kind::ContextUpdated | Kind::Checkpoint => {}
            Kind::SagaCompleted => self.end(Status::Completed, entry),
            Kind::SagaFailed => {
                if event.step.is_some() {
                    let known = drop_key(&mut self.failed_steps, step).flatten();
                    self.failed_steps.push((step.to_owned(), event.error.clone().or(known)));
                }
                self.end(Status::Failed, entry);
            }
            Kind::SagaCompensated => self.end(Status::Compensated, entry),
            Kind::SagaCancelled => self.end(Status::Cancelled, entry),
            Kind::SagaRestored => {
                // Never without `restored`: such an event is a dead letter.
                if let Some(restored) = &event.restored {
                    self.restore(restored);
                }
            }
        }
    }

    fn set_going(&mut self, status: Status) {
        self.status = status;
        self.ended_at = None;
    }

    fn end(&mut self, status: Status, entry: &Entry) {
        self.status = status;
        self.ended_at = Some(entry.effective_time);
        self.running_steps.clear();
        take_if_given(&mut self.end_error, &entry.event.error);
    }

    fn count_attempt(&mut self, step: &str, given: Option<i64>) {
        match self.attempts.iter_mut().find(|(name, _)| name == step) {
            Some((_, count)) => *count = given.unwrap_or(count.saturating_add(1)),
            None => self.attempts.push((step.to_owned(), given.unwrap_or(1))),
        }
    }

    fn restore(&mut self, restored: &RestoredSaga) {
        self.set_going(match restored.mode {
            Mode::Resume => Status::Running,
            Mode::Compensate => Status::Compensating,
        });
        self.saga_name.clone_from(&restored.saga_name);
        self.saga_version.clone_from(&restored.saga_version);
        self.tenant.clone_from(&restored.tenant);
        self.region.clone_from(&restored.region);
        self.labels.clone_from(&restored.labels);
        self.completed_steps.clone_from(&restored.completed_steps);
        if restored.mode == Mode::Compensate {
            // There they stand in the order to undo them, here in the order they were done.
            self.completed_steps.reverse();
        }
        self.skipped_steps.clone_from(&restored.skipped_steps);
        self.compensated_steps.clone_from(&restored.compensated_steps);
        self.attempts.clone_from(&restored.attempts);
        self.results.clone_from(&restored.results);
        self.running_steps.clear();
        self.failed_steps.clear();
        self.end_error = None;
        self.compensation_failed_step = None;
        self.compensation_error = None;
        self.lineage = Some(Box::new(Lineage {
            parent: restored.original_saga_id.clone(),
            root: restored.root_saga_id.clone(),
            depth: restored.depth,
            replay_id: restored.replay_id.clone(),
            resume_step: restored.resume_step.clone(),
            mode: restored.mode,
            force_failure: restored.force_failure.clone(),
            executes: None,
        }));
    }

    /// Is the event a second SAGA_RESTORED for this id, of another replay? A lineage that a SAGA_STARTED gave for a
    /// restored saga of another id is not one.
    pub(super) fn taken_by_another_replay(&self, event: &StepEvent) -> bool {
        let (Some(lineage), Some(restored)) = (&self.lineage, &event.restored) else { return false };
        let restored_here = lineage.executes.as_ref().is_none_or(|id| *id == self.saga_id);
        event.kind == Kind::SagaRestored && restored_here && lineage.replay_id != restored.replay_id
    }

    pub fn current_step(&self) -> Option<&str> {
        self.running_steps.last().map(|(step, _)| step.as_str())
    }
    pub fn failed_step(&self) -> Option<&str> {
        self.failed_steps.last().map(|(step, _)| step.as_str())
    }
    /// The last failed step's error, unless an end gave one.
    pub fn error(&self) -> Option<&ErrorInfo> {
        self.end_error.as_deref().or_else(|| self.failed_steps.last().and_then(|(_, error)| error.as_deref()))
    }
}

impl EntryRef {
    pub fn of(entry: &Entry) -> Self {
        Self {
            sequence: entry.sequence,
            event_id: entry.event.event_id.clone(),
            kind: entry.event.kind,
            effective_time: entry.effective_time,
            recorded_time: entry.recorded_time,
            position: entry.position.clone(),
        }
    }

    /// As [`EntryRef::of`], in the memory that is there.
    fn follow(&mut self, entry: &Entry) {
        self.sequence = entry.sequence;
        self.event_id.clone_from(&entry.event.event_id);
        self.kind = entry.event.kind;
        self.effective_time = entry.effective_time;
        self.recorded_time = entry.recorded_time;
        self.position.clone_from(&entry.position);
    }
}

fn take_if_given<T: Clone>(slot: &mut Option<T>, given: &Option<T>) {
    if given.is_some() {
        slot.clone_from(given);
    }
}

fn put_last<T>(map: &mut Vec<(String, T)>, key: &str, value: T) {
    drop_key(map, key);
    map.push((key.to_owned(), value));
}

fn drop_key<T>(map: &mut Vec<(String, T)>, key: &str) -> Option<T> {
    let at = map.iter().position(|(name, _)| name == key)?;
    Some(map.remove(at).1)
}

fn add_item(list: &mut Vec<String>, item: &str) {
    if !list.iter().any(|known| known == item) {
        list.push(item.to_owned());
    }
}

fn drop_item(list: &mut Vec<String>, item: &str) {
    list.retain(|known| known != item);
}
