//! The store's connections, settings and scripts. What it does with them is in the files beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::Pipeline;

use super::keys::RedisKeys;
use super::link::Link;
use super::scripts::{DROP_LABELS, MOVE_MARKS, SETTLE};
use super::url::{RedisUrl, Server};
use crate::config;
use crate::error::Result;

/// Enough to spread over the servers of a cluster; a mark is kept per partition and bucket.
const CLUSTER_BUCKETS: u16 = 16;
/// Pipelines sent before the first is answered.
pub(super) const IN_FLIGHT: usize = 4;
/// Redis's default for the largest argument of a command.
const MAX_BULK: u64 = 512 << 20;
pub struct RedisHot {
    pub(super) keys: RedisKeys,
    pub(super) ttl: Duration,
    pub(super) pipeline_bytes: u64,
    /// Reads do not queue behind pipelines of writes.
    pub(super) reads: Link,
    pub(super) writes: Link,
    pub(super) move_marks: redis::Script,
    pub(super) drop_labels: redis::Script,
    /// What the servers say of `proto-max-bulk-len`.
    pub(super) max_bulk: AtomicU64,
    pub(super) settle: redis::Script,
}

impl RedisHot {
    /// Reads the URL; connects with the first call.
    pub fn open(config: &config::HotConfig) -> Result<Self> {
        let RedisUrl { server, address, prefix } = RedisUrl::parse(&config.url, config.timeout)?;
        let buckets = match &server {
            Server::Single(_) => 1,
            Server::Cluster(_) => CLUSTER_BUCKETS,
        };
        let (server, address) = (Arc::new(server), Arc::<str>::from(address));
        let link = || Link::new(server.clone(), address.clone(), config.timeout);
        Ok(Self {
            keys: RedisKeys::new(&prefix, buckets)?,
            ttl: config.ttl,
            pipeline_bytes: config.pipeline_bytes,
            reads: link(),
            writes: link(),
            move_marks: redis::Script::new(MOVE_MARKS),
            drop_labels: redis::Script::new(DROP_LABELS),
            max_bulk: AtomicU64::new(MAX_BULK),
            settle: redis::Script::new(SETTLE),
        })
    }

    /// Managed servers forbid CONFIG; they have what Redis has unless it is changed.
    pub(super) async fn learn_limits(&self) {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("proto-max-bulk-len");
        if let Ok(servers) = self.reads.each_server::<Vec<(String, String)>>(&config).await {
            let told = servers.iter().flatten().filter_map(|(_, value)| value.parse::<u64>().ok());
            self.max_bulk.store(told.min().unwrap_or(MAX_BULK), Ordering::Relaxed);
        }
    }

    pub(super) async fn send(&self, pipelines: Vec<Pipeline>) -> Result<()> {
        let sent = stream::iter(pipelines).map(async |pipeline| self.writes.pipeline::<()>(&pipeline).await);
        sent.buffer_unordered(IN_FLIGHT).try_collect().await
    }
}
