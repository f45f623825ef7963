//! Where the demo takes place: a mock cluster, memory and a directory, or real servers, with names that nobody else uses.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use uuid::Uuid;

use super::summary::say;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::mock::MockKafka;
use crate::kafka::topics::{Topics, wanted};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DemoOptions {
    pub serve: bool,
    /// Real servers, where given; else a mock cluster, memory, a directory.
    pub brokers: Option<String>,
    pub redis: Option<String>,
    pub s3: Option<String>,
}

/// How long what a demo left in a real Redis stays there.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);

/// What lives as long as the demo.
pub struct DemoEnvironment {
    pub config: Config,
    /// Distinguishes what this demo makes on servers that others use too.
    pub suffix: String,
    _cluster: Option<MockKafka>,
    _directory: Option<Directory>,
}

/// `base`: settings for real servers.
pub async fn prepare(base: Config, options: &DemoOptions) -> anyhow::Result<DemoEnvironment> {
    let suffix = Uuid::new_v4().simple().to_string()[..8].to_owned();
    let mut config = Config { api: base.api.clone(), log: base.log.clone(), ..Config::default() };
    let cluster = match &options.brokers {
        None => {
            let cluster = MockKafka::start()?;
            for topic in wanted(&config) {
                cluster.create_topic(&topic.name, topic.partitions)?;
            }
            config.kafka.brokers = cluster.brokers();
            Some(cluster)
        }
        Some(brokers) => {
            config.kafka = base.kafka;
            config.kafka.brokers.clone_from(brokers);
            config.kafka.group_id = format!("resaga-demo-{suffix}");
            config.kafka.instance.clear();
            let names = &mut config.topics;
            names.replication = base.topics.replication;
            for name in
                names.events.iter_mut().chain([&mut names.requests, &mut names.restored, &mut names.log, &mut names.dead_letters])
            {
                *name = format!("{name}.demo-{suffix}");
            }
            Topics::new(&config.kafka)?.create(&wanted(&config)).await?;
            say(&format!("topics: {} and four more, made for this demo and left there", config.topics.events[0]));
            None
        }
    };
    config.hot.url = match &options.redis {
        None => "memory://".into(),
        Some(url) => format!("{url}{}prefix=demo-{suffix}", if url.contains('?') { '&' } else { '?' }),
    };
    config.hot.ttl = LEFT_BEHIND;
    let directory = match &options.s3 {
        None => {
            let directory = Directory::make(&suffix)?;
            config.cold.url = format!("file://{}", directory.0.display());
            Some(directory)
        }
        Some(url) => {
            config.cold = base.cold;
            config.cold.url = format!("{}/demo-{suffix}", url.trim_end_matches('/'));
            None
        }
    };
    // So that the cold store is written while the story runs.
    config.cold.flush_interval = Duration::from_secs(2);
    Ok(DemoEnvironment { config, suffix, _cluster: cluster, _directory: directory })
}

/// The address that the configuration says if others shall ask there and it is free, else any port.
pub async fn listen(configured: &str, serve: bool) -> anyhow::Result<TcpListener> {
    if serve {
        match TcpListener::bind(configured).await {
            Ok(listener) => return Ok(listener),
            Err(e) => say(&format!("{configured} cannot be listened on ({e}): another port is taken")),
        }
    }
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

/// A directory of our own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn make(suffix: &str) -> Result<Self> {
        let path = crate::config::temporary_directory().join(format!("resaga-demo-{suffix}"));
        std::fs::create_dir_all(&path).map_err(|e| Error::unavailable(format!("make a temporary directory: {e}")))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nobody is left to tell; what stays is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
