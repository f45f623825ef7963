//! The servers of `tests/servers`, topics and names of this run, and `resaga serve` processes on them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::http;
use crate::orders::now_micros;
use crate::processes::Pid;

/// Of each topic, unless a run asks for more or fewer.
pub const PARTITIONS: i32 = 12;
const PATIENCE: Duration = Duration::from_secs(1_800);
const TOPICS: [&str; 5] = [
    "RESAGA__TOPICS__EVENTS",
    "RESAGA__TOPICS__REQUESTS",
    "RESAGA__TOPICS__RESTORED",
    "RESAGA__TOPICS__LOG",
    "RESAGA__TOPICS__DEAD_LETTERS",
];

pub struct World {
    pub directory: PathBuf,
    pub partitions: i32,
    pub brokers: String,
    pub redis: String,
    pub events: String,
    pub requests: String,
    pub restored: String,
    pub log: String,
    registry: Option<String>,
    settings: Vec<(String, String)>,
}

/// A `resaga serve` of ours; ended when dropped.
pub struct Serve {
    child: Child,
    name: String,
    pub address: String,
    pub pid: Pid,
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    pub fn new(directory: &Path, partitions: i32) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name}: source the servers' env first"));
        let run = format!("{:x}", now_micros());
        let name = |part: &str| format!("{part}.{run}");
        let (brokers, redis) = (variable("RESAGA_TEST_KAFKA")?, variable("RESAGA_TEST_REDIS")?);
        let pairs = [
            ("RESAGA__KAFKA__BROKERS", brokers.clone()),
            ("RESAGA__KAFKA__GROUP_ID", name("bench")),
            ("RESAGA__TOPICS__EVENTS", name("events")),
            ("RESAGA__TOPICS__REQUESTS", name("requests")),
            ("RESAGA__TOPICS__RESTORED", name("restored")),
            ("RESAGA__TOPICS__LOG", name("log")),
            ("RESAGA__TOPICS__DEAD_LETTERS", name("dead")),
            ("RESAGA__TOPICS__PARTITIONS", partitions.to_string()),
            ("RESAGA__HOT__URL", redis.clone()),
            ("RESAGA__COLD__URL", format!("s3://{}/{run}", variable("RESAGA_TEST_S3_BUCKET")?)),
            ("RESAGA__COLD__ENDPOINT", variable("RESAGA_TEST_S3_ENDPOINT")?),
            ("RESAGA__COLD__REGION", "us-east-1".into()),
            ("RESAGA__COLD__PATH_STYLE", "true".into()),
            ("RESAGA__SERVE__SHUTDOWN_TIMEOUT", "2m".into()),
        ];
        let mut settings: Vec<(String, String)> = pairs.map(|(key, value)| (key.to_owned(), value)).into();
        // What is given to the bench goes on to what it measures.
        settings.extend(std::env::vars().filter(|(key, _)| key.starts_with("RESAGA__")));
        let world = Self {
            directory: directory.to_owned(),
            partitions,
            brokers,
            redis,
            events: name("events"),
            requests: name("requests"),
            restored: name("restored"),
            log: name("log"),
            registry: std::env::var("RESAGA_TEST_REGISTRY").ok(),
            settings,
        };
        let applied = world.resaga(&[], None).args(["topic", "apply"]).stdout(Stdio::null()).status()?;
        if !applied.success() {
            bail!("resaga topic apply: {applied}");
        }
        // A run that ended early left its keys, which are another installation's now.
        world.wipe_redis()?;
        Ok(world)
    }

    /// Where the schema registry is, if there is one.
    pub fn registry(&self) -> Result<&str> {
        self.registry.as_deref().context("no schema registry: tests/servers/up DIR --registry")
    }

    /// Settings as `config` takes them.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// `core`: the only one that the process may use.
    fn resaga(&self, more: &[(&str, &str)], core: Option<usize>) -> Command {
        // target/release/examples/resaga-bench -> target/release/resaga
        let here = std::env::current_exe().unwrap_or_default();
        let built = || here.ancestors().nth(2).unwrap_or(Path::new(".")).join("resaga");
        // Another build, to compare with.
        let binary = std::env::var_os("RESAGA_BENCH_BINARY").map_or_else(built, PathBuf::from);
        let mut command = match core {
            None => Command::new(binary),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string()]).arg(binary);
                command
            }
        };
        command.env_remove("RESAGA_CONFIG").envs(self.settings.iter().cloned()).envs(more.iter().copied());
        command
    }

    /// Starts a process and waits until it is ready.
    pub fn serve(&self, name: &str, roles: &str, more: &[(&str, &str)]) -> Result<Serve> {
        self.ready(self.launch(name, roles, more, None)?)
    }

    /// Starts a process, on one core or on all.
    pub fn launch(&self, name: &str, roles: &str, more: &[(&str, &str)], core: Option<usize>) -> Result<Serve> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = File::create(self.directory.join(format!("{name}.log")))?;
        let mut command = self.resaga(more, core);
        command.env("RESAGA__API__LISTEN", &address).args(["serve", "--roles", roles]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Serve { pid: Pid(child.id()), child, address, name: name.to_owned() })
    }

    /// Waits until a process is ready.
    pub fn ready(&self, mut serve: Serve) -> Result<Serve> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = http::Client::connect(&serve.address).and_then(|mut client| client.get("/readyz"));
            if ready.is_ok_and(|(status, _)| status == 200) {
                return Ok(serve);
            }
            if let Some(ended) = serve.child.try_wait()? {
                let log = fs::read_to_string(self.directory.join(format!("{}.log", serve.name))).unwrap_or_default();
                bail!("resaga serve: {ended}\n{log}");
            }
            if Instant::now() > deadline {
                bail!("resaga serve: not ready");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn servers(&self) -> Result<Vec<(&'static str, Pid)>> {
        let of = |name, file: &str| Ok((name, Pid::of_file(&self.directory.join(file))?));
        [of("Kafka", "kafka/kafka.pid"), of("Redis", "redis/redis.pid"), of("S3", "s3/seaweedfs.pid")].into_iter().collect()
    }

    /// CPU time of all of them so far.
    pub fn servers_cpu(&self) -> Result<Duration> {
        self.servers()?.into_iter().map(|(_, pid)| pid.cpu()).sum()
    }

    /// Takes the topics of this run away, and everything out of Redis: the next run begins as this one did.
    pub fn clear(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        let names: Vec<&str> =
            self.settings.iter().filter(|(key, _)| TOPICS.contains(&key.as_str())).map(|(_, name)| name.as_str()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()))?;
        self.wipe_redis()
    }

    pub fn wipe_redis(&self) -> Result<()> {
        let mut connection = redis::Client::open(self.redis.as_str())?.get_connection()?;
        redis::cmd("FLUSHALL").query::<()>(&mut connection)?;
        Ok(())
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        Ok(ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "20")
            .create()?)
    }

    /// Each partition's end.
    pub fn ends(&self, topic: &str) -> Result<Vec<i64>> {
        let consumer = self.consumer("ends")?;
        (0..self.partitions).map(|p| Ok(consumer.fetch_watermarks(topic, p, Duration::from_secs(10))?.1)).collect()
    }

    /// A `read_committed` reader at the ends of all partitions.
    pub fn read_from_end(&self, topic: &str) -> Result<BaseConsumer> {
        self.read_from(topic, &self.ends(topic)?)
    }

    /// A `read_committed` reader at these offsets.
    pub fn read_from(&self, topic: &str, offsets: &[i64]) -> Result<BaseConsumer> {
        let consumer = self.consumer("reader")?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list)?;
        Ok(consumer)
    }

    /// Records of the events topic that a process has folded (`resaga_events_consumed_total`).
    pub fn folded(&self, client: &mut http::Client) -> Result<f64> {
        let prefix = format!("resaga_events_consumed_total{{topic=\"{}\"}} ", self.events);
        let (_, body) = client.get("/metrics")?;
        let text = String::from_utf8_lossy(&body);
        Ok(text.lines().find_map(|line| line.strip_prefix(&prefix)).map_or(0.0, |count| count.parse().unwrap_or(0.0)))
    }

    /// Waits until `events` records are folded by one process, or by several together.
    pub fn wait_folded(&self, serves: &[Serve], events: u64) -> Result<()> {
        let clients = serves.iter().map(|serve| http::Client::connect(&serve.address));
        let mut clients = clients.collect::<Result<Vec<_>>>()?;
        until("all events folded", || {
            let mut count = 0.0;
            for client in &mut clients {
                count += self.folded(client)?;
            }
            Ok(count >= events as f64)
        })
    }

    /// Waits until the group of materialize committed every partition's end: all is durable.
    pub fn wait_durable(&self) -> Result<()> {
        let group = self.settings.iter().find(|(key, _)| key == "RESAGA__KAFKA__GROUP_ID").map_or("", |(_, value)| value);
        let consumer = self.consumer(&format!("{group}-materialize"))?;
        let ends = self.ends(&self.events)?;
        until("all events durable", || {
            let mut list = TopicPartitionList::new();
            for partition in 0..self.partitions {
                list.add_partition(&self.events, partition);
            }
            let committed = consumer.committed_offsets(list, Duration::from_secs(20))?;
            let at = |partition, end: i64| {
                let found = committed.find_partition(&self.events, partition).map(|element| element.offset());
                end == 0 || matches!(found, Some(Offset::Offset(offset)) if offset >= end)
            };
            Ok((0..).zip(&ends).all(|(partition, end)| at(partition, *end)))
        })
    }
}

fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("{what}: not in {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
