//! What the routes need of the replay side: planning and publishing a request, and the log.

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::history::answer::Child;
use crate::history::replay_lookup::ReplayLookup;
use crate::saga::effects::Effect;
use crate::saga::position::SagaId;
use crate::saga::replay_filter::ReplayFilter;
use crate::saga::request::LogRecord;
use crate::saga::restored::RestoredSaga;

/// Newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplayPage {
    pub records: Vec<LogRecord>,
    pub next: Option<String>,
}

/// What became of a request that was not refused.
#[derive(Debug, Clone, PartialEq)]
pub enum SubmitAnswer {
    Accepted {
        request_id: String,
        replay_id: String,
        new_saga_id: SagaId,
        /// Of the request as it was understood: the log's record has that of the one that counts.
        request_sha256: String,
    },
    /// A dry run: the plan, RFC 6902 over the context, and the steps that the history has after the checkpoint.
    Planned {
        plan: Box<RestoredSaga>,
        diff: Value,
        runs: Vec<String>,
        /// The refusal that the real run would meet now.
        would_refuse: Option<&'static str>,
        /// Declared effects of the steps that run again, or are to be compensated.
        effects: Vec<Effect>,
    },
}

/// A CANCEL or UNDO that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedCancel {
    pub request_id: String,
    pub replay_id: String,
}

/// The replay side.
#[async_trait]
pub trait ReplayService: ReplayLookup {
    /// Plans a request body and publishes it. `idempotency_key`: the request id where the body has none. Refused with the
    /// codes of docs/interface/requests.md, Refusals; `behind` when its saga is not caught up in time.
    async fn submit(&self, body: &[u8], idempotency_key: Option<&str>) -> Result<SubmitAnswer>;

    /// Refused: `replay_not_found`, and `request_invalid` when it is too late to cancel it.
    async fn cancel(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel>;

    /// Refused: `replay_not_found`, `saga_running`, `behind`, and `request_invalid` when it cannot be undone.
    async fn undo(&self, replay_id: &str, requested_by: &str, reason: &str) -> Result<AcceptedCancel>;

    async fn get(&self, replay_id: &str) -> Result<Option<LogRecord>>;

    async fn list(&self, filter: &ReplayFilter, after: Option<&str>, limit: usize) -> Result<ReplayPage>;

    /// The restored sagas made of this one.
    async fn children(&self, saga: &SagaId) -> Result<Vec<Child>>;
}
