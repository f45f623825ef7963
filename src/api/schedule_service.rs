//! What the routes need of schedules.

use async_trait::async_trait;

use crate::error::Result;
use crate::saga::batch_counts::BatchCounts;
use crate::saga::request::{CommandName, LogRecord};
use crate::saga::schedule::would::WouldReplay;
use crate::saga::time::Micros;

/// How far a schedule is.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleAnswer {
    pub record: LogRecord,
    pub next_due: Option<Micros>,
    /// Of the replays that it asked for.
    pub counts: BatchCounts,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WouldPage {
    pub would: Vec<WouldReplay>,
    pub total: usize,
    pub next: Option<String>,
}

#[async_trait]
pub trait ScheduleService: Send + Sync {
    /// Gives the schedule's id. `idempotency_key`: the request id where the body has none. Refused with `id_taken`.
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<String>;

    /// Refused: `schedule_not_found`.
    async fn get(&self, schedule_id: &str) -> Result<ScheduleAnswer>;

    /// Newest first.
    async fn list(&self) -> Result<Vec<ScheduleAnswer>>;

    /// Refused: `schedule_not_found`; `request_invalid`: the schedule is not such that it could be done.
    async fn control(&self, schedule_id: &str, command: CommandName, body: &[u8]) -> Result<ScheduleAnswer>;

    /// Refused: `too_large`.
    async fn preview(&self, body: &[u8], after: Option<&str>, limit: usize) -> Result<WouldPage>;
}
