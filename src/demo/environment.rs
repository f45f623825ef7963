//! `demo`: a whole resaga in this process, on a mock cluster, memory and a directory or on real servers, and the story
//! played against it from outside.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::clock::Moment;
use super::story::{Played, Story, play, search};
use super::summary::say;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::mock::MockKafka;
use crate::kafka::topics::{Topics, wanted};
use crate::serve::{self, Process, Role, drain, ended_role, now, partition_counts, signal};

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
struct DemoEnvironment {
    config: Config,
    /// Distinguishes what this demo makes on servers that others use too.
    suffix: String,
    _cluster: Option<MockKafka>,
    _directory: Option<Directory>,
}

/// Plays the story; with `serve` stays up after it until a signal. `base`: settings for real servers.
pub async fn demo(base: Config, options: DemoOptions) -> anyhow::Result<ExitCode> {
    let ground = ground(base, &options).await?;
    let listener = listen(&ground.config.api.listen, options.serve).await?;
    let address = listener.local_addr()?;
    let counts = partition_counts(&ground.config).await?;
    let stores = serve::open(&ground.config, &counts).await?;
    let (stop, shutdown) = watch::channel(false);
    let (process, log_task) = Process::prepare(ground.config.clone(), stores, &counts, shutdown).await?;
    let mut running = process.start(&[Role::Materialize, Role::Replay], log_task).await?;
    running.spawn(process.api(listener));
    let story = Story {
        kafka: ground.config.kafka.clone(),
        topics: ground.config.topics.clone(),
        server: format!("http://{address}"),
        prefix: if options.brokers.is_some() { format!("order-{}-", ground.suffix) } else { "order-".into() },
        now: || Moment(now().0),
    };
    let told = tokio::select! {
        played = play(&story) => played,
        ended = running.join_next() => Err(early(ended)),
        () = signal() => Err(anyhow::anyhow!("interrupted")),
    };
    let outcome = match told {
        Ok(mut played) if options.serve => {
            invite(&story, &played);
            tokio::select! {
                ended = &mut played.orchestrator => Err(anyhow::anyhow!("the orchestrator ended: {ended:?}")),
                ended = running.join_next() => Err(early(ended)),
                () = signal() => Ok(played),
            }
        }
        told => told,
    };
    if let Ok(played) = &outcome {
        played.orchestrator.abort();
    }
    let _ = stop.send(true);
    let drained = tokio::time::timeout(ground.config.serve.shutdown_timeout, drain(running)).await;
    let played = outcome?;
    drained.map_err(|_| anyhow::anyhow!("not drained within serve.shutdown_timeout"))??;
    Ok(if played.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A role that ended before it was told to.
fn early(ended: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    ended_role(ended).err().unwrap_or_else(|| Error::bug("a role ended early")).into()
}

async fn ground(base: Config, options: &DemoOptions) -> anyhow::Result<DemoEnvironment> {
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
async fn listen(configured: &str, serve: bool) -> anyhow::Result<TcpListener> {
    if serve {
        match TcpListener::bind(configured).await {
            Ok(listener) => return Ok(listener),
            Err(e) => say(&format!("{configured} cannot be listened on ({e}): another port is taken")),
        }
    }
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

/// What to try next.
fn invite(story: &Story, played: &Played) {
    let (one, at) = (&played.one, played.day.middle_of_the_outage());
    let server = if story.server.ends_with(":8080") { String::new() } else { format!(" --server {}", story.server) };
    say(&format!("\nHTTP is at {}; interrupt to end. The orchestrator goes on: what you replay is resumed.", story.server));
    for command in [
        "saga list --failed-step charge_payment --error-type CardDeclined".into(),
        format!("saga get {one} --at {at}"),
        format!("saga history {one}"),
        format!("saga diff {one} --from 3 --to 6"),
        format!("saga lineage {one}"),
        "saga list --error-type OutOfStock --replay none".into(),
        "replay list --status completed --limit 5".into(),
        format!(
            "replay run {} --from-step charge_payment --merge '{{\"payment\":{{\"gateway\":\"backup\"}}}}' --reason demo --wait",
            played.spare
        ),
    ] {
        say(&format!("  resaga{server} {command}"));
    }
    say(&format!("  curl '{}{}&limit=3'", story.server, search(played.day.outage)));
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
