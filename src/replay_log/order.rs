//! The order in which records of the log are answered. Pure.

use std::sync::Arc;

use crate::saga::request::LogRecord;
use crate::saga::time::Micros;

/// A place in the order of answers: newest `accepted_at` first, then by replay id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub accepted_at: Micros,
    pub replay_id: Arc<str>,
}

pub fn place(record: &LogRecord) -> Place {
    Place { accepted_at: record.accepted_at, replay_id: record.replay_id.as_str().into() }
}
