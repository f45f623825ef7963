//! The wiring: from the configuration and open stores to what the roles share. Begins to read the replay log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::clock::now;
use super::schemas;
use super::stores::Stores;
use crate::config::Config;
use crate::error::Result;
use crate::expression::{Bounds, Evaluator};
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::replay_log::ReplayLog;
use crate::replay_log::follow;
use crate::replay_log::partition_counts::{CountedTopics, LogPartitionCounts};
use crate::retry::until_available;
use crate::roles::Components;
use crate::roles::replay::{ReplayTargets, SchemaIds};
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro;
use crate::wire::event::OWN_RECORD_FACTOR;

/// Longest wait at the start for what the newest keys say.
const SEED_WITHIN: Duration = Duration::from_secs(10);

/// `counts`: the partitions of each topic. Gives the task that reads the replay log, too.
pub async fn components(
    config: Config,
    stores: &Stores,
    counts: &[(String, i32)],
) -> Result<(Components, JoinHandle<Result<()>>)> {
    let count = |topic: &str| counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
    let topics = config.topics.clone();
    let registry = match config.registry.url.as_str() {
        "" => None,
        url => Some(Arc::new(SchemaRegistry::new(url)?)),
    };
    let schemas = Arc::new(avro::Schemas::new(registry.is_some()));
    let ids = match &registry {
        None => SchemaIds::default(),
        Some(registry) => schemas::register(registry, &topics, &schemas).await?,
    };
    let log = Arc::new(ReplayLog::new(config.replay.max_log_records));
    let request_partitions = count(&topics.requests);
    let ends = Ends::new(&config.kafka)?;
    let counted = CountedTopics { requests: topics.requests.clone(), log: topics.log.clone() };
    let (objects, log_chains) = (stores.objects.clone(), stores.log_chains.clone());
    let log_partition_counts = LogPartitionCounts::new(counted, objects, ends.clone(), log_chains, request_partitions);
    let log_topic = follow::LogTopic {
        kafka: config.kafka.clone(),
        topic: topics.log.clone(),
        ends: ends.clone(),
        view: log.clone(),
        schemas: schemas.clone(),
        registry: registry.clone(),
    };
    let log_task = follow::follow(log_topic, log_partition_counts.partitions());
    log_partition_counts.load(count(&topics.log)).await?;
    // Topics that were just made have no leaders for a moment. What the keys say is worth a look, not a start that fails:
    // the look is repeated while they tell nothing.
    let seed = || stores.seed_partitioner(&config, &ends, registry.as_deref(), &schemas);
    let seeded = tokio::time::timeout(SEED_WITHIN, until_available("read newest keys", seed)).await;
    seeded.unwrap_or_else(|_| {
        tracing::warn!("newest keys of the events topics not read yet, trying again later");
        Ok(())
    })?;
    let components = Components {
        hot: stores.hot.clone(),
        objects: stores.objects.clone(),
        owners: stores.owners.clone(),
        chains: stores.chains.clone(),
        history: stores.history.clone(),
        log_history: stores.log_history.clone(),
        log_chains: stores.log_chains.clone(),
        log,
        log_partition_counts: Arc::new(log_partition_counts),
        partitioning: stores.partitioning.clone(),
        registry,
        schemas,
        ends,
        targets: ReplayTargets {
            restored: topics.restored,
            log: topics.log,
            dead_letters: topics.dead_letters,
            requests: topics.requests,
            schemas: ids,
        },
        request_partitions,
        expressions: Evaluator::new(Bounds {
            time: config.limits.max_expression,
            max_bytes: usize::try_from(config.limits.max_record.saturating_mul(OWN_RECORD_FACTOR)).unwrap_or(usize::MAX),
        }),
        clock: Arc::new(BrokerClock::new(Instant::now())),
        now,
        metrics: Metrics::new(),
        config: Arc::new(config),
    };
    Ok((components, log_task))
}
