//! What the role is made of, and how it is set.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::batches::Freezer;
use super::catch_up::CatchUpBarrier;
use super::outbox::ReplayTargets;
use super::planner::ReplayPlanner;
use crate::config;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::partitioning::Partitioning;
use crate::saga::time::Micros;
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro;

pub struct Dependencies {
    pub kafka: config::KafkaConfig,
    pub transactional_id: String,
    pub planner: ReplayPlanner,
    pub catch_up: CatchUpBarrier,
    /// Of the lists of batches.
    pub freezer: Freezer,
    pub ends: Ends,
    pub partitioning: Arc<Partitioning>,
    /// Told how many partitions the requests topic and the log have, before anything is published under that.
    pub partition_counts: RecordPartitionCounts,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<avro::Schemas>,
    pub metrics: Arc<Metrics>,
    /// Told when partitions were assigned for the first time.
    pub assigned: Arc<dyn Fn(bool) + Send + Sync>,
    pub now: fn() -> Micros,
}

/// Takes the partition counts of the requests topic and of the log; done once they are on record.
pub type RecordPartitionCounts = Arc<dyn Fn(i32, i32) -> BoxFuture<'static, Result<()>> + Send + Sync>;

#[derive(Debug, Clone)]
pub struct Settings {
    /// As which the log is written.
    pub group: String,
    pub targets: ReplayTargets,
    /// Partitions of the requests topic, and of the log.
    pub request_partitions: i32,
    pub max_batch_requests: usize,
    pub max_parked_requests: usize,
    /// Replays a second; `None`: no limit.
    pub rate: Option<f64>,
}
