//! librdkafka's mock cluster, for `demo` and for tests without servers: a broker in the process, on loopback.
//!
//! It has no transaction isolation (aborted records are seen), no topic administration, no topic ids, and keeps at most
//! 5 MiB a partition: good for showing, never for proving.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::failure;
use crate::error::Result;

pub struct MockKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockKafka {
    /// Starts one broker on a port of its own choice; it ends with the value.
    pub fn start() -> Result<Self> {
        Ok(Self { cluster: MockCluster::new(1).map_err(|e| failure::of("start mock cluster", &e))? })
    }

    /// `host:port`, for `kafka.brokers`.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.cluster.create_topic(topic, partitions, 1).map_err(|e| failure::of("create topic", &e))
    }
}

/// Whether a client talks to a mock cluster, which names a controller that does not exist: questions for the controller
/// are never answered there.
pub(super) fn is_mock<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    client.fetch_cluster_id(timeout).is_some_and(|id| id.starts_with("mockCluster"))
}
