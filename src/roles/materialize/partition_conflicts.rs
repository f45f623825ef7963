//! Sagas with events in two partitions: looked for among those whose first event here is no start, for a saga starts once. Beside
//! other work, when that event is durable: by then the other partition's owner has had time to write its own.

use std::sync::Arc;
use std::time::Duration;

use crate::history::History;
use crate::saga::position::{ChainId, SagaId};
use crate::telemetry::Metrics;

/// Sagas of one partition that are checked after one flush.
pub const MAX_SUSPECTS: usize = 100;
/// Of the checks after one flush.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// `suspects`: sagas without a start, whose entries are durable.
pub fn check(history: &History, metrics: &Arc<Metrics>, chain: &ChainId, suspects: Vec<SagaId>) {
    if suspects.is_empty() {
        return;
    }
    let (history, metrics, chain) = (history.clone(), metrics.clone(), chain.clone());
    let check = async move {
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
    tokio::spawn(tokio::time::timeout(CHECK_TIMEOUT, check));
}
