//! What a frame in the cold store leaves out.

use crate::saga::position::{Position, SagaId};
use crate::saga::time::Micros;

/// What the cold store keeps of an entry in columns of their own, and a frame there does not repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryColumns {
    pub saga_id: SagaId,
    pub event_id: String,
    pub position: Position,
    pub occurred_at: Option<Micros>,
    pub recorded_time: Micros,
}
