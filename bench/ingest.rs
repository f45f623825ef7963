//! From the topic to Redis and S3: CPU time per event of everyone involved, rate, memory, bytes kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use resaga::config::{self, Sources};

use crate::baseline;
use crate::orders::{Load, Orders};
use crate::processes::Pid;
use crate::report::Report;
use crate::world::{Serve, World};

pub const ROLES: &str = "materialize,replay,api";

/// What the events of one topic cost resaga and the servers.
pub struct Ingested {
    pub events: u64,
    /// Of all processes of resaga, until everything was folded and until it was durable.
    pub cpu_folded: Duration,
    pub cpu: Duration,
    /// Until everything was folded, the start included.
    pub folded: Duration,
    pub durable: Duration,
    /// The greatest of a process.
    pub peak_mib: f64,
    pub servers: Vec<(&'static str, Duration)>,
    pub redis_bytes: i64,
    pub objects: usize,
    pub segments: usize,
    pub s3_bytes: u64,
}

impl Ingested {
    pub fn per_event(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.events as f64
    }
}

/// A process to be started: settings that differ from those of the world, and the only core it may use.
pub type Process<'a> = (&'a [(&'a str, &'a str)], Option<usize>);

/// Starts resaga on a topic that holds all of its events, and waits until they are durable.
pub fn ingest(world: &World, events: u64, processes: &[Process<'_>]) -> Result<Ingested> {
    let redis_before = redis_used(world)?;
    let servers = world.servers()?;
    let before = servers.iter().map(|(_, pid)| pid.cpu()).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let launch = |(number, (more, core)): (usize, &Process<'_>)| world.launch(&format!("ingest-{number}"), ROLES, more, *core);
    let serves = processes.iter().enumerate().map(launch).collect::<Result<Vec<Serve>>>()?;
    let serves = serves.into_iter().map(|serve| world.ready(serve)).collect::<Result<Vec<_>>>()?;
    world.wait_folded(&serves, events)?;
    let folded = began.elapsed();
    let sum = |of: &dyn Fn(Pid) -> Result<Duration>| serves.iter().map(|serve| of(serve.pid)).sum::<Result<Duration>>();
    let cpu_folded = sum(&Pid::cpu)?;
    world.wait_durable()?;
    let durable = began.elapsed();
    let cpu = sum(&Pid::cpu)?;
    let peaks = serves.iter().map(|serve| serve.pid.peak_mib()).collect::<Result<Vec<_>>>()?;
    let after = servers.iter().map(|(_, pid)| pid.cpu()).collect::<Result<Vec<_>>>()?;
    let redis_bytes = redis_used(world)? - redis_before;
    drop(serves);
    let cost = |((name, _), (before, after)): (&(&'static str, Pid), (Duration, Duration))| (*name, after.saturating_sub(before));
    let servers = servers.iter().zip(before.into_iter().zip(after)).map(cost).collect();
    let (objects, segments, s3_bytes) = objects(world)?;
    let peak_mib = peaks.into_iter().fold(0.0, f64::max);
    Ok(Ingested { events, cpu_folded, cpu, folded, durable, peak_mib, servers, redis_bytes, objects, segments, s3_bytes })
}

pub fn measure(world: &World, events: u64, report: &mut Report) -> Result<()> {
    let orders = Orders::new(events, 20, Load::default());
    let events = orders.events();
    let size = orders.send(world)?;
    report.add("event size", size, "B");
    let first = baseline::read_all(world, events)?;
    let got = ingest(world, events, &[(&[], None)])?;
    let second = baseline::read_all(world, events)?;

    report.aim("resaga: CPU, until durable", got.per_event(got.cpu), "us/event", 25.0);
    report.add("resaga: CPU, until folded", got.per_event(got.cpu_folded), "us/event");
    report.add("resaga: rate until folded, start included", events as f64 / got.folded.as_secs_f64(), "events/s");
    report.add("resaga: seconds until durable (flush_interval 30 s)", got.durable.as_secs_f64(), "s");
    report.aim("resaga: RSS, peak", got.peak_mib, "MiB", 256.0);
    for (name, cpu) in &got.servers {
        report.add(format!("{name}: CPU"), got.per_event(*cpu), "us/event");
    }
    report.aim("Redis: memory per entry", got.redis_bytes as f64 / events as f64, "B", 400.0);
    report.aim("S3: bytes per entry", got.s3_bytes as f64 / events as f64, "B", 150.0);
    report.add("S3: segments", got.segments as f64, "");
    report.add("S3: objects, all kinds (= PUTs)", got.objects as f64, "");
    for (name, baseline) in [("before", &first), ("after", &second)] {
        report.add(format!("baseline, {name}: consume + typed JSON, CPU"), got.per_event(baseline.cpu), "us/event");
        report.add(format!("baseline, {name}: rate"), events as f64 / baseline.wall.as_secs_f64(), "events/s");
    }
    report.add("resaga / baseline, CPU", got.cpu.as_secs_f64() * 2.0 / (first.cpu + second.cpu).as_secs_f64(), "x");
    let bare = baseline::consume(world, events)?;
    report.add("baseline: consume alone, CPU", got.per_event(bare.cpu), "us/event");
    let zadd = baseline::zadd(world, events)?;
    report.add("baseline: consume + pipelined ZADD of the values, CPU", got.per_event(zadd.cpu), "us/event");
    let parquet = baseline::parquet(world, events)?;
    report.add("baseline: consume + Parquet with zstd, CPU", got.per_event(parquet.cpu), "us/event");
    world.clear()
}

fn redis_used(world: &World) -> Result<i64> {
    let mut connection = redis::Client::open(world.redis.as_str())?.get_connection()?;
    let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query(&mut connection)?;
    info.get("used_memory").context("INFO memory")
}

/// Objects, segments among them, and the bytes of all.
fn objects(world: &World) -> Result<(usize, usize, u64)> {
    let config = config::load(&Sources { file: None, environment: world.settings(), flags: Vec::new() })?.config;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let store = resaga::cold::open(&config.cold).await?;
        let keys = store.list("", None, 1_000_000).await?;
        let segments = keys.iter().filter(|key| key.ends_with(".parquet")).count();
        let mut bytes = 0;
        for key in &keys {
            bytes += store.head(key).await?.map_or(0, |info| info.len);
        }
        Ok((keys.len(), segments, bytes))
    })
}
