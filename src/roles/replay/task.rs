//! The role as the process runs it: one task.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::batches::{Freezer, SagaSelection};
use super::catch_up::CatchUpBarrier;
use super::planner::{ReplayPlanner, Rules};
use super::replay_records::ReplayRecords;
use super::{Dependencies, Replay, Settings};
use crate::cold::batch_lists::BatchLists;
use crate::error::Result;
use crate::kafka::intake::Intake;
use crate::roles::{Assigned, Components, RoleTask};
use crate::wire::event::OWN_RECORD_FACTOR;

struct ReplayTask {
    components: Components,
}

pub fn tasks(components: &Components) -> Vec<Arc<dyn RoleTask>> {
    vec![Arc::new(ReplayTask { components: components.clone() })]
}

#[async_trait]
impl RoleTask for ReplayTask {
    fn name(&self) -> &'static str {
        "replay"
    }

    async fn run(&self, assigned: Assigned, shutdown: watch::Receiver<bool>) -> Result<()> {
        let parts = &self.components;
        let config = &parts.config;
        let group = format!("{}-replay", config.kafka.group_id);
        let intake = Intake::start(&config.kafka, &group, &[config.topics.requests.as_str().into()], parts.intake_limits())?;
        let instance = match config.kafka.instance.as_str() {
            "" => Uuid::new_v4().to_string(),
            instance => instance.to_owned(),
        };
        let dependencies = Dependencies {
            kafka: config.kafka.clone(),
            transactional_id: format!("{group}-{instance}"),
            planner: planner(parts),
            catch_up: catch_up(parts),
            freezer: freezer(parts),
            ends: parts.ends.clone(),
            partitioning: parts.partitioning.clone(),
            registry: parts.registry.clone(),
            schemas: parts.schemas.clone(),
            metrics: parts.metrics.clone(),
            partition_counts: {
                let counts = parts.log_partition_counts.clone();
                Arc::new(move |requests, log| {
                    let counts = counts.clone();
                    Box::pin(async move { counts.record(requests, log).await })
                })
            },
            assigned,
            now: parts.now,
        };
        let settings = Settings {
            group: config.kafka.group_id.clone(),
            targets: parts.targets.clone(),
            request_partitions: parts.request_partitions,
            max_batch_requests: config.replay.max_batch_requests,
            max_parked_requests: config.replay.max_parked_requests,
            rate: config.replay.rate,
        };
        Replay::new(dependencies, settings, intake).run(shutdown).await
    }
}

/// Plans replays, for the role and for the HTTP api.
pub fn planner(components: &Components) -> ReplayPlanner {
    let config = &components.config;
    ReplayPlanner {
        history: components.history.clone(),
        records: ReplayRecords {
            log_history: components.log_history.clone(),
            log: components.log.clone(),
            homes: components.log_partition_counts.homes(),
        },
        rules: Rules {
            max_depth: config.replay.max_depth,
            max_replays: config.replay.max_replays,
            restored_allowed: config.topics.restored_allowed.clone(),
            max_restored_bytes: config.limits.max_record.saturating_mul(3),
            max_event_bytes: config.limits.max_record.saturating_mul(OWN_RECORD_FACTOR),
        },
        expressions: components.expressions.clone(),
    }
}

/// Freezes the lists of batches, for the role and for the HTTP api.
pub fn freezer(components: &Components) -> Freezer {
    Freezer {
        lists: BatchLists::new(components.objects.clone()),
        selection: SagaSelection { history: components.history.clone(), records: planner(components).records },
        max_request_bytes: components.config.limits.max_record,
    }
}

pub fn catch_up(components: &Components) -> CatchUpBarrier {
    CatchUpBarrier { ends: components.ends.clone(), history: components.history.clone(), chains: components.chains.clone() }
}
