//! Whether a partition's records are folded now: not while a store or the schema registry is away, and no more once what is stored
//! of it cannot be read. Pure.

use std::time::Instant;

use crate::retry::Backoff;
use crate::roles::suspension::Suspension;
use crate::saga::position::Offset;
use crate::wire::avro::SchemaRef;

/// What a partition waits for that goes on beside the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldWait {
    /// Of the record at this offset, the next.
    Schema(SchemaRef, Offset),
    /// The states of sagas.
    Sagas,
}

pub struct FoldGate {
    /// Folded no further.
    stopped: bool,
    /// No folding before this: a store or the schema registry did not answer for its records.
    not_before: Instant,
    backoff: Backoff,
    /// No folding until this is there.
    wait: Option<FoldWait>,
    /// The schema of the record at this offset was asked for, and is nowhere.
    missing_schema_at: Option<Offset>,
    pub suspension: Suspension,
}

impl FoldGate {
    pub fn new(now: Instant) -> Self {
        Self {
            stopped: false,
            not_before: now,
            backoff: Backoff::new("fold records of a partition"),
            wait: None,
            missing_schema_at: None,
            suspension: Suspension::new(now),
        }
    }

    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Do records that come now follow those before?
    pub fn takes_records(&self) -> bool {
        !self.stopped && self.suspension.is_active()
    }

    /// It waits for something that has nothing to do with the other partitions.
    pub fn is_waiting(&self, now: Instant) -> bool {
        now < self.not_before || self.wait.is_some()
    }

    pub fn missing_schema_at(&self) -> Option<Offset> {
        self.missing_schema_at
    }

    pub fn folded(&mut self) {
        self.backoff.succeeded();
        self.suspension.progressed();
    }

    /// Tried again after a pause.
    pub fn failed(&mut self, reason: &str, now: Instant) {
        self.not_before = now + self.backoff.failed(reason);
    }

    pub fn wait_for(&mut self, wait: FoldWait) {
        self.wait = Some(wait);
    }

    /// A load of sagas ended.
    pub fn sagas_came(&mut self) {
        if self.wait == Some(FoldWait::Sagas) {
            self.wait = None;
        }
    }

    pub fn waits_for_schema(&self, of: SchemaRef) -> bool {
        matches!(self.wait, Some(FoldWait::Schema(schema, _)) if schema == of)
    }

    /// A look-up of the schema that it waits for ended. `exists`: `None` if the registry did not answer.
    pub fn schema_looked_up(&mut self, exists: Option<bool>) {
        if let (Some(false), Some(FoldWait::Schema(_, offset))) = (exists, self.wait.take()) {
            self.missing_schema_at = Some(offset);
        }
    }
}
