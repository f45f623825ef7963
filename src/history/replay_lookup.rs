//! What a search asks the replay side about a saga; only where its filter does.

use async_trait::async_trait;

use crate::error::Result;
use crate::saga::position::SagaId;
use crate::saga::selector::ReplayStanding;

#[async_trait]
pub trait ReplayLookup: Send + Sync {
    /// How the newest replay of the saga stands.
    async fn standing(&self, saga: &SagaId) -> Result<ReplayStanding>;

    /// Did a saga of its lineage tree below it complete?
    async fn is_repaired(&self, saga: &SagaId) -> Result<bool>;
}

/// Of sagas that are never replayed.
pub struct NoReplays;

#[async_trait]
impl ReplayLookup for NoReplays {
    async fn standing(&self, _saga: &SagaId) -> Result<ReplayStanding> {
        Ok(ReplayStanding::None)
    }

    async fn is_repaired(&self, _saga: &SagaId) -> Result<bool> {
        Ok(false)
    }
}
