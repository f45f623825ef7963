//! The sections of the configuration, their units and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::saga::fold_settings::SnapshotPolicy;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub kafka: KafkaConfig,
    pub topics: TopicsConfig,
    pub hot: HotConfig,
    pub cold: ColdConfig,
    pub snapshots: SnapshotsConfig,
    pub stuck: StuckConfig,
    /// By saga name.
    pub saga: BTreeMap<String, SagaConfig>,
    pub limits: LimitsConfig,
    pub replay: ReplayConfig,
    pub registry: RegistryConfig,
    pub api: ApiConfig,
    pub log: LogConfig,
    pub serve: ServeConfig,
}

#[derive(Clone, PartialEq)]
pub struct KafkaConfig {
    pub brokers: String,
    pub group_id: String,
    /// Stable name of this process (static membership, transactional id); empty: dynamic member, random id.
    pub instance: String,
    /// Any librdkafka key.
    pub properties: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionerSetting {
    #[default]
    Auto,
    Murmur2,
    Crc32,
    Fnv1a,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TopicsConfig {
    pub events: Vec<String>,
    pub requests: String,
    pub restored: String,
    pub log: String,
    pub dead_letters: String,
    pub restored_allowed: Vec<String>,
    /// For `topic apply`.
    pub partitions: i32,
    /// For `topic apply`; -1: the broker's.
    pub replication: i32,
    pub partitioner: PartitionerSetting,
}

#[derive(Clone, PartialEq)]
pub struct HotConfig {
    /// Of a scheme in [`HotScheme`](super::HotScheme).
    pub url: String,
    pub ttl: Duration,
    /// Bytes of commands sent in one pipeline.
    pub pipeline_bytes: u64,
    /// One operation's time limit.
    pub timeout: Duration,
}

#[derive(Clone, PartialEq)]
pub struct ColdConfig {
    /// `s3://bucket/prefix` or `file:///path`.
    pub url: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: bool,
    /// Oldest age of what is not yet durable, of a partition, before it is flushed.
    pub flush_interval: Duration,
    /// Raw bytes buffered for one partition before it is flushed.
    pub flush_bytes: u64,
    /// Bytes in memory of what is not yet durable, over all partitions; over it the largest is flushed first.
    pub buffer_bytes: u64,
    /// Bytes of segment indexes and filters kept in memory by readers.
    pub cache_bytes: u64,
    /// One operation's time limit.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotsConfig {
    pub policy: SnapshotPolicy,
    pub retention: Duration,
    pub saga: BTreeMap<String, SnapshotOverride>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StuckConfig {
    pub after: Duration,
    /// By saga name.
    pub saga: BTreeMap<String, Duration>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SagaConfig {
    /// By step, in words: what it does outside.
    pub effects: BTreeMap<String, String>,
}

impl Default for StuckConfig {
    fn default() -> Self {
        Self { after: Duration::from_secs(3_600), saga: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SnapshotOverride {
    pub policy: Option<SnapshotPolicy>,
    pub retention: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LimitsConfig {
    pub max_clock_ahead: Duration,
    /// Bytes of a record others write; resaga's own may be four times that.
    pub max_record: u64,
    /// Bytes of a state.
    pub max_state: u64,
    /// Sagas whose state is kept in memory, over all partitions.
    pub max_cached_sagas: u64,
    /// Bytes of records in the hands of a role at once; see [`LimitsConfig::intake_bytes`].
    pub max_intake_bytes: u64,
    /// One evaluation of an expression.
    pub max_expression: Duration,
}

impl LimitsConfig {
    /// `max_intake_bytes`, or what one record of resaga's own may have, four times `max_record`, where that is more.
    pub fn intake_bytes(&self) -> u64 {
        self.max_intake_bytes.max(self.max_record.saturating_mul(4))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    pub max_depth: u32,
    /// Of one lineage; `None`: unlimited.
    pub max_replays: Option<u32>,
    /// Replays a second; `None`: unlimited.
    pub rate: Option<f64>,
    /// Requests in one transaction.
    pub max_batch_requests: usize,
    /// Requests waiting (`not_before`, or their saga is behind) per partition; over it the partition pauses.
    pub max_parked_requests: usize,
    /// Replay log records in memory besides those that wait; older ones are looked up in history.
    pub max_log_records: usize,
    /// How long the plan of a batch may be run.
    pub keep_plans: Duration,
}

#[derive(Clone, PartialEq, Default)]
pub struct RegistryConfig {
    /// Empty: JSON.
    pub url: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiConfig {
    pub listen: String,
    /// Further names by which browsers may reach it, each with its port or for every port.
    pub hosts: Vec<String>,
    /// Connections open at once.
    pub max_connections: usize,
    /// For a request's headers, for its body, for an answer that is not taken, and between two requests of a connection.
    pub peer_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A tracing filter, such as `info` or `resaga=debug`.
    pub level: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServeConfig {
    pub shutdown_timeout: Duration,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self { brokers: "127.0.0.1:9092".into(), group_id: "resaga".into(), instance: String::new(), properties: BTreeMap::new() }
    }
}
impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            events: vec!["saga.events.v1".into()],
            requests: "saga.replay.requests.v1".into(),
            restored: "saga.restored.v1".into(),
            log: "saga.replay.log.v1".into(),
            dead_letters: "saga.dead-letters.v1".into(),
            restored_allowed: Vec::new(),
            partitions: 12,
            replication: -1,
            partitioner: PartitionerSetting::Auto,
        }
    }
}
impl Default for HotConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            ttl: Duration::from_secs(30 * 86_400),
            pipeline_bytes: 1 << 20,
            timeout: Duration::from_secs(5),
        }
    }
}
impl Default for ColdConfig {
    fn default() -> Self {
        Self {
            url: "s3://bucket/prefix".into(),
            endpoint: None,
            region: None,
            path_style: false,
            flush_interval: Duration::from_secs(30),
            flush_bytes: 64 << 20,
            buffer_bytes: 56 << 20,
            cache_bytes: 64 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}
impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self { policy: SnapshotPolicy::default(), retention: Duration::from_secs(2_555 * 86_400), saga: BTreeMap::new() }
    }
}
impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_clock_ahead: Duration::from_secs(3_600),
            max_record: 1 << 20,
            max_state: 4 << 20,
            max_cached_sagas: 100_000,
            max_intake_bytes: 8 << 20,
            max_expression: Duration::from_secs(1),
        }
    }
}
impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            max_depth: 10,
            max_replays: None,
            rate: None,
            max_batch_requests: 500,
            max_parked_requests: 10_000,
            max_log_records: 200_000,
            keep_plans: Duration::from_secs(7 * 86_400),
        }
    }
}
impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into(), hosts: Vec::new(), max_connections: 1_000, peer_timeout: Duration::from_secs(30) }
    }
}
impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}
impl Default for ServeConfig {
    fn default() -> Self {
        Self { shutdown_timeout: Duration::from_secs(30) }
    }
}
