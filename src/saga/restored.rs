//! The restored saga: what a replay publishes (docs/interface/restored-sagas.md). Field order here is the order written.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::labels::Labels;
use super::lineage::Mode;
use super::position::{Position, SagaId};
use super::time::Micros;

/// The entry a replay starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    pub sequence: u64,
    pub effective_time: Micros,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSaga {
    pub saga_id: SagaId,
    pub saga_name: String,
    pub saga_version: Option<String>,
    pub mode: Mode,
    pub resume_step: Option<String>,
    pub resume_step_index: Option<i64>,
    pub resume_steps: Vec<String>,
    pub completed_steps: Vec<String>,
    pub skipped_steps: Vec<String>,
    pub compensated_steps: Vec<String>,
    pub compensated_since: Vec<String>,
    pub attempts: Vec<(String, i64)>,
    pub results: Vec<(String, Json)>,
    /// `None` in the `restored` member of SAGA_RESTORED.
    pub context: Option<Json>,
    pub force_failure: Option<String>,
    pub original_saga_id: SagaId,
    pub root_saga_id: SagaId,
    pub depth: u32,
    pub replay_id: String,
    pub request_id: String,
    pub batch_id: Option<String>,
    pub checkpoint: CheckpointRef,
    pub requested_by: String,
    pub reason: String,
    pub restored_at: Micros,
    pub tenant: Option<String>,
    pub region: Option<String>,
    pub labels: Labels,
}
