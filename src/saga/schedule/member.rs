//! What the request of a schedule says about it.

use crate::saga::time::Micros;

/// Of a request that a schedule made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleMember {
    pub schedule_id: String,
    /// Counts as the time of the request: the due time, of a policy the recorded time of the entry.
    pub due: Micros,
}
