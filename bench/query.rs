//! State of a saga at a time, one client: over HTTP and in the library, from hot and from cold alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use resaga::cold::reader::ColdReader;
use resaga::config::{self, Sources};
use resaga::history::answer::When;
use resaga::history::chains::{Chains, TopicLayout};
use resaga::history::{History, MAX_ENTRIES};
use resaga::saga::partitioner::Partitioner;
use resaga::saga::position::SagaId;
use resaga::saga::time::Micros;

use crate::generate::{EVENTS_PER_SAGA, Orders, STEP_MICROS};
use crate::http::Client;
use crate::ingest::orders;
use crate::report::Report;
use crate::world::{PARTITIONS, World};

const HOT_QUESTIONS: u64 = 5_000;
const COLD_QUESTIONS: u64 = 1_000;
/// Asked before the clock counts.
const WARM_UP: u64 = 50;

/// Saga and time of question number `n`: spread over all sagas, times between two events.
fn question(orders: &Orders, n: u64) -> (u64, i64) {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
    let saga = mixed % orders.sagas;
    (saga, orders.time(saga, mixed / orders.sagas % EVENTS_PER_SAGA) + STEP_MICROS / 2)
}

pub fn measure(world: &World, events: u64) -> Result<Report> {
    let mut report = Report::new("query", events);
    let orders = orders(events, 20);
    orders.send(world)?;
    let serve = world.serve("query", "materialize,replay,api", &[])?;
    world.wait_folded(&serve, orders.sagas * EVENTS_PER_SAGA)?;
    world.wait_durable()?;
    // A process without a hot store of its own has cold alone.
    let cold = world.serve("query-cold", "api", &[("RESAGA__HOT__URL", "memory://")])?;

    report.latency("hot over HTTP", over_http(&serve.address, &orders, "hot", HOT_QUESTIONS)?, Some(1.0));
    report.latency("hot in the library", in_library(world, &orders, &world.redis, HOT_QUESTIONS)?, None);
    report.latency("cold over HTTP", over_http(&cold.address, &orders, "cold", COLD_QUESTIONS)?, Some(20.0));
    report.latency("cold in the library", in_library(world, &orders, "memory://", COLD_QUESTIONS)?, None);
    report.add("RSS of the api alone, peak", cold.pid.peak_mib()?, "MiB");
    Ok(report)
}

fn over_http(address: &str, orders: &Orders, source: &str, count: u64) -> Result<Vec<Duration>> {
    let mut client = Client::connect(address)?;
    let mut samples = Vec::new();
    for n in 0..count + WARM_UP {
        let (saga, at) = question(orders, n);
        let time = jiff::Timestamp::from_microsecond(at)?;
        let path = format!("/v1/sagas/{}?at={time}", Orders::id(saga));
        let began = Instant::now();
        let (status, body) = client.get(&path)?;
        let took = began.elapsed();
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        ensure!(status == 200 && answer["source"] == source, "{path}: {status} {}", answer["source"]);
        if n >= WARM_UP {
            samples.push(took);
        }
    }
    Ok(samples)
}

fn in_library(world: &World, orders: &Orders, hot: &str, count: u64) -> Result<Vec<Duration>> {
    let mut config = config::load(&Sources { file: None, environment: world.settings(), flags: Vec::new() })?.config;
    config.hot.url = hot.to_owned();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let cold = ColdReader::new(resaga::cold::open(&config.cold).await?, config.cold.cache_bytes);
        let layout = TopicLayout {
            topic: world.events.as_str().into(),
            incarnations: Vec::new(),
            partition_counts: vec![PARTITIONS],
            partitioner: Some(|key, of| Partitioner::Murmur2.partition(key, of)),
        };
        let chains = Arc::new(Chains::new(vec![layout]));
        let history = History::new(resaga::hot::open(&config.hot)?, Arc::new(cold), chains, MAX_ENTRIES);
        let mut samples = Vec::new();
        for n in 0..count + WARM_UP {
            let (saga, at) = question(orders, n);
            let saga = SagaId::new(Orders::id(saga));
            let began = Instant::now();
            history.state(&saga, When::At(Micros(at))).await?;
            if n >= WARM_UP {
                samples.push(began.elapsed());
            }
        }
        Ok(samples)
    })
}
