//! Sagas with events in two partitions: looked for among those whose first event here begins nothing, for a saga begins once. Beside
//! other work, when that event is durable: by then the other partition's owner has had time to write its own.

use std::time::Duration;

use super::Dependencies;
use crate::saga::position::{ChainId, SagaId};

/// Most sagas of one partition that are looked at after one flush.
pub const MAX_SUSPECTS: usize = 100;
/// Longest look after one flush.
const LOOK: Duration = Duration::from_secs(30);

pub fn look(deps: &Dependencies, chain: &ChainId, suspects: Vec<SagaId>) {
    if suspects.is_empty() {
        return;
    }
    let (history, metrics, chain) = (deps.history.clone(), deps.metrics.clone(), chain.clone());
    let look = async move {
        for saga in suspects {
            match history.is_split(&saga).await {
                Ok(true) => {
                    metrics.saga_partition_conflicts.inc();
                    tracing::warn!(
                        %chain, "a saga that goes on here has events in another partition, too: its replays are refused; \
                        `resaga doctor` names such sagas"
                    );
                }
                Ok(false) => {}
                Err(reason) => tracing::debug!(%reason, "not known whether a saga has events in another partition"),
            }
        }
    };
    tokio::spawn(tokio::time::timeout(LOOK, look));
}
