//! Batches: many replays under one request (docs/interface/requests.md, Batches of replays). What one asks for. Pure.
//!
//! A *list* names the sagas of a batch, one row each; it is frozen before the first of them is replayed. *Expanding* a batch means
//! to put a request for each row on the requests topic.

use super::batch_progress::BatchLimits;
use super::json::Json;
use super::position::SagaId;
use super::schedule::member::ScheduleMember;
use super::selector::SagaFilter;

/// Most sagas of one batch.
pub const MAX_SAGAS: u64 = 1_000_000;

/// What a BATCH asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOrder {
    pub name: Option<String>,
    pub source: BatchSource,
    /// The members that every replay of it has, as an object in the form of a request: `from`, `override`, `mode` and so on.
    pub template: Json,
    /// By saga id: a saga without one is refused.
    pub overrides: Option<Vec<(SagaId, Json)>>,
    pub limits: BatchLimits,
    /// Of one that a schedule asked for.
    pub schedule: Option<ScheduleMember>,
}

/// Where the sagas of a batch come from.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchSource {
    /// Those that match when the batch is taken up.
    Selector(Box<SagaFilter>),
    /// Named one by one.
    Sagas(Vec<SagaId>),
    /// A list that was frozen before: exactly this one.
    Frozen { list_id: String, digest: Option<String> },
}

/// One saga of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    pub saga_id: SagaId,
    /// Its own override, applied after that of the whole batch.
    pub own_override: Option<Json>,
    /// What planning it gave; `None`: it was not planned.
    pub verdict: Option<Verdict>,
    /// Of an undo of a batch: the replay that is undone.
    pub replay_id: Option<String>,
}

impl BatchRow {
    pub fn of(saga_id: SagaId) -> Self {
        Self { saga_id, own_override: None, verdict: None, replay_id: None }
    }
}

/// What a plan says of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Replay { new_saga_id: SagaId },
    Refuse { code: String, message: String },
}

/// What is asked of a batch that there is.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchControl {
    Pause,
    Resume,
    Cancel,
    /// Replays once more the sagas whose newest replay failed.
    RetryFailed(BatchRetry),
    /// Undoes every replay of it that was published.
    Undo,
}

/// Given: instead of the batch's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchRetry {
    pub override_: Option<Json>,
    /// By saga id.
    pub overrides: Option<Vec<(SagaId, Json)>>,
}
