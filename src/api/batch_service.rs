//! What the routes need of batches.

use async_trait::async_trait;

use crate::error::Result;
use crate::saga::batch::BatchRow;
use crate::saga::batch_counts::{BatchCounts, BatchStatus};
use crate::saga::effects::Effect;
use crate::saga::request::{CommandName, LogRecord};
use crate::saga::time::Micros;

/// How far a batch is.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchAnswer {
    pub record: LogRecord,
    pub status: BatchStatus,
    /// They add up to `total`.
    pub counts: BatchCounts,
    pub total: u64,
    /// When the last of its sagas will have been requested, at the speed of now.
    pub eta: Option<Micros>,
}

/// A page of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanAnswer {
    pub plan_id: String,
    pub digest: String,
    pub rows: Vec<BatchRow>,
    pub next: Option<String>,
    pub total: u64,
    /// By verdict or code.
    pub counts: Vec<(String, u64)>,
    /// Declared effects of the replays.
    pub effects: Vec<EffectCount>,
}

/// An effect, and of how many sagas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectCount {
    pub effect: Effect,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum BatchSubmitted {
    OnItsWay { batch_id: String },
    Planned(PlanAnswer),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchFilter {
    /// Any of these.
    pub statuses: Vec<BatchStatus>,
    pub requested_by: Option<String>,
}

/// Newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchPage {
    pub batches: Vec<BatchAnswer>,
    pub next: Option<String>,
}

#[async_trait]
pub trait BatchService: Send + Sync {
    /// Plans a body with `dry_run`, publishes any other. `idempotency_key`: the request id where the body has none. Refused with
    /// `plan_not_found`, `plan_expired`, `id_taken`, `behind`.
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<BatchSubmitted>;

    /// Refused: `plan_not_found`, `plan_expired`.
    async fn plan(&self, plan_id: &str, after: Option<&str>, limit: usize) -> Result<PlanAnswer>;

    /// Refused: `batch_not_found`.
    async fn get(&self, batch_id: &str) -> Result<BatchAnswer>;

    async fn list(&self, filter: &BatchFilter, after: Option<&str>, limit: usize) -> Result<BatchPage>;

    /// Refused: `batch_not_found`; `request_invalid`: the batch is not such that it could be done.
    async fn control(&self, batch_id: &str, command: CommandName, body: &[u8]) -> Result<BatchAnswer>;
}
