//! What a process has once and its roles share: adapters, readers, and what they know by now.

use std::sync::Arc;

use super::replay::ReplayTargets;
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::Owners;
use crate::config::Config;
use crate::expression::Evaluator;
use crate::history::History;
use crate::history::chains::Chains;
use crate::hot::HotStore;
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::kafka::intake::IntakeLimits;
use crate::partitioning::Partitioning;
use crate::replay_log::ReplayLog;
use crate::replay_log::partition_counts::LogPartitionCounts;
use crate::saga::fold_settings::FoldSettings;
use crate::saga::time::Micros;
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro;

/// Cheap to clone.
#[derive(Clone)]
pub struct Components {
    pub config: Arc<Config>,
    pub hot: Arc<dyn HotStore>,
    pub objects: Arc<dyn ObjectStore>,
    /// Of the archive.
    pub owners: Owners,
    /// Of the step topics.
    pub chains: Arc<Chains>,
    pub history: History,
    /// The replay log's.
    pub log_history: History,
    pub log_chains: Arc<Chains>,
    pub log: Arc<ReplayLog>,
    pub log_partition_counts: Arc<LogPartitionCounts>,
    pub partitioning: Arc<Partitioning>,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<avro::Schemas>,
    pub ends: Ends,
    /// The topics that replays are written to, with the schemas of their values.
    pub targets: ReplayTargets,
    pub request_partitions: i32,
    /// With their thread.
    pub expressions: Evaluator,
    /// The brokers' time.
    pub clock: Arc<BrokerClock>,
    /// This machine's.
    pub now: fn() -> Micros,
    pub metrics: Arc<Metrics>,
}

impl Components {
    pub fn intake_limits(&self) -> IntakeLimits {
        IntakeLimits { held_bytes: self.config.limits.intake_bytes(), ..IntakeLimits::default() }
    }
}

pub fn fold_settings(config: &Config) -> FoldSettings {
    let by_saga = config.snapshots.saga.iter().filter_map(|(name, own)| Some((name.clone(), own.policy?)));
    FoldSettings {
        max_clock_ahead_micros: i64::try_from(config.limits.max_clock_ahead.as_micros()).unwrap_or(i64::MAX),
        max_state_bytes: config.limits.max_state,
        policy: config.snapshots.policy,
        policy_by_saga: by_saga.collect(),
    }
}
