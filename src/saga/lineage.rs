//! Where a restored saga came from.

use serde::{Deserialize, Serialize};

use super::position::SagaId;

/// What a replay does with the saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Carry on from the checkpoint.
    #[default]
    Resume,
    /// Undo what was completed and not compensated.
    Compensate,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Compensate => "compensate",
        }
    }
}

/// The lineage of a restored saga, as the state shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The saga that was replayed.
    pub parent: SagaId,
    /// The saga at the top of the tree.
    pub root: SagaId,
    /// 1 for a replay of an original.
    pub depth: u32,
    pub replay_id: String,
    pub resume_step: Option<String>,
    pub mode: Mode,
    pub force_failure: Option<String>,
    /// Of SAGA_STARTED only: the id of the restored saga that this one executes (`executed_as` of the log points
    /// back here). Not shown in the state.
    #[serde(skip)]
    pub executes: Option<SagaId>,
}
