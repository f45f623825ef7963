//! One request on its way through a batch, read from the topic or parked before.

use std::collections::HashMap;

use super::parked::Parked;
use crate::roles::replay::catch_up::EndOffsets;
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::{LogRecord, ReplayRequest};

/// The next offset of every partition that gave something to a batch.
pub type NextOffsets = HashMap<TopicPartition, Offset>;

/// One request to decide.
#[derive(Debug, Clone)]
pub struct RequestItem {
    pub request: ReplayRequest,
    pub partition: TopicPartition,
    /// The log record so far.
    pub record: LogRecord,
    /// W3C `traceparent` of the request's record.
    pub trace: Option<String>,
    /// The ends of the events topics at a moment after it was read, or woke; if known.
    pub ends: Option<EndOffsets>,
    /// Of an UNDO: the saga whose history says what there is to compensate, if the log tells it.
    pub undoes: Option<SagaId>,
    /// It was parked before.
    pub parked: Option<Parked>,
}
