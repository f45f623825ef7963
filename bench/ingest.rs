//! From the topic to Redis and S3: CPU time per event of everyone involved, rate, memory, bytes kept.

use std::time::Instant;

use anyhow::{Context, Result};
use resaga::config::{self, Sources};

use crate::floor;
use crate::generate::{EVENTS_PER_SAGA, Orders};
use crate::report::Report;
use crate::world::{World, now_micros};

pub fn orders(events: u64, failing_every: u64) -> Orders {
    let sagas = events.div_ceil(EVENTS_PER_SAGA);
    Orders { sagas, failing_every, began: now_micros() - 3_600_000_000 }
}

pub fn measure(world: &World, events: u64) -> Result<Report> {
    let mut report = Report::new("ingest", events);
    let orders = orders(events, 20);
    let events = orders.sagas * EVENTS_PER_SAGA;
    let per_event = |time: std::time::Duration| time.as_secs_f64() * 1e6 / events as f64;
    let size = orders.send(world)?;
    report.add("event size", size, "B");

    let first = floor::read_all(world, events)?;
    let redis_before = redis_used(world)?;
    let servers = world.servers()?;
    let before = servers.iter().map(|(_, pid)| pid.cpu()).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let serve = world.serve("ingest", "materialize,replay,api", &[])?;
    world.wait_folded(&serve, events)?;
    let folded = began.elapsed();
    let folded_cpu = serve.pid.cpu()?;
    world.wait_durable()?;
    let durable = began.elapsed();
    let cpu = serve.pid.cpu()?;
    let peak = serve.pid.peak_mib()?;
    let after = servers.iter().map(|(_, pid)| pid.cpu()).collect::<Result<Vec<_>>>()?;
    let redis_after = redis_used(world)?;
    drop(serve);
    let second = floor::read_all(world, events)?;

    report.aim("resaga: CPU, until durable", per_event(cpu), "us/event", 25.0);
    report.add("resaga: CPU, until folded", per_event(folded_cpu), "us/event");
    report.add("resaga: rate until folded, start included", events as f64 / folded.as_secs_f64(), "events/s");
    report.add("resaga: seconds until durable (flush_interval 30 s)", durable.as_secs_f64(), "s");
    report.aim("resaga: RSS, peak", peak, "MiB", 256.0);
    for (((name, _), before), after) in servers.iter().zip(before).zip(after) {
        report.add(format!("{name}: CPU"), per_event(after.saturating_sub(before)), "us/event");
    }
    report.add("Redis: memory per entry", (redis_after - redis_before) as f64 / events as f64, "B");
    let (objects, segments, bytes) = objects(world)?;
    report.add("S3: bytes per entry", bytes as f64 / events as f64, "B");
    report.add("S3: segments", segments as f64, "");
    report.add("S3: objects, all kinds (= PUTs)", objects as f64, "");
    for (name, floor) in [("before", first), ("after", second)] {
        report.add(format!("floor, {name}: consume + typed JSON, CPU"), per_event(floor.cpu), "us/event");
        report.add(format!("floor, {name}: rate"), events as f64 / floor.wall.as_secs_f64(), "events/s");
    }
    Ok(report)
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
