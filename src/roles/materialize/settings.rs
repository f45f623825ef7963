//! The settings of the role, and what it works with.

use std::sync::Arc;
use std::time::Duration;

use crate::cold::object_store::ObjectStore;
use crate::cold::owner::Owners;
use crate::history::History;
use crate::history::chains::Chains;
use crate::hot::HotStore;
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::kafka::publisher::Publisher;
use crate::partitioning::Partitioning;
use crate::saga::fold_settings::FoldSettings;
use crate::saga::position::Topic;
use crate::saga::time::Micros;
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro::{SchemaId, Schemas};

/// What the role works with.
pub struct Dependencies {
    pub hot: Arc<dyn HotStore>,
    pub objects: Arc<dyn ObjectStore>,
    /// Of the step topics.
    pub history: History,
    /// Of the replay log.
    pub log_history: History,
    pub publisher: Publisher,
    pub ends: Ends,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<Schemas>,
    pub partitioning: Arc<Partitioning>,
    pub metrics: Arc<Metrics>,
    pub chains: Arc<Chains>,
    /// What time it is at the brokers.
    pub clock: Arc<BrokerClock>,
    /// Told when partitions were assigned for the first time.
    pub assigned: Arc<dyn Fn(bool) + Send + Sync>,
    /// What this machine takes for the time now; it can be wrong.
    pub now: fn() -> Micros,
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the archive.
    pub owners: Owners,
    pub log: Topic,
    pub requests: String,
    /// Of the requests topic; `None`: JSON.
    pub request_schema: Option<SchemaId>,
    pub dead_letters: String,
    pub max_record_bytes: u64,
    pub fold: FoldSettings,
    /// The fold settings as each segment names them.
    pub fold_text: String,
    pub flush_interval: Duration,
    pub flush_bytes: u64,
    pub buffer_bytes: u64,
    pub max_cached_sagas: usize,
    /// How long index facts are kept in hot.
    pub index_ttl: Duration,
}
