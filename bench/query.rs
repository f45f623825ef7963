//! State of a saga at a time, from hot and from cold alone, over HTTP by 1 to 64 clients and in the library; history pages
//! and searches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use resaga::cold::reader::ColdReader;
use resaga::config::{self, Sources};
use resaga::history::answer::PointInTime;
use resaga::history::chains::{Chains, TopicLayout};
use resaga::history::{History, MAX_ENTRIES};
use resaga::saga::partitioner::Partitioner;
use resaga::saga::position::SagaId;
use resaga::saga::time::Micros;

use crate::http::Client;
use crate::ingest::ROLES;
use crate::orders::{EVENTS_PER_SAGA, Load, Orders, STEP_MICROS};
use crate::report::Report;
use crate::world::{PARTITIONS, Serve, World};

const HOT_QUESTIONS: u64 = 5_000;
const COLD_QUESTIONS: u64 = 1_000;
/// Of a segment, at once: about what a look-up reads.
const GET_BYTES: u64 = 64 << 10;
/// Asked before the clock counts.
const WARM_UP: u64 = 50;

/// Saga and time of question number `n`: spread over all sagas, times between two events.
fn question(orders: &Orders, n: u64) -> (u64, i64) {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
    let saga = mixed % orders.sagas;
    (saga, orders.time(saga, mixed / orders.sagas % EVENTS_PER_SAGA) + STEP_MICROS / 2)
}

pub fn measure(world: &World, events: u64, report: &mut Report) -> Result<()> {
    let orders = Orders::new(events, 20, Load::default());
    orders.send(world)?;
    let serve = [world.serve("query", ROLES, &[])?];
    world.wait_folded(&serve, orders.events())?;
    let [serve] = serve;
    world.wait_durable()?;
    // A process without a hot store of its own has cold alone.
    let cold = world.serve("query-cold", "api", &[("RESAGA__HOT__URL", "memory://")])?;

    let state = |n| state_path(&orders, n);
    for (clients, target) in [(1, Some(1.0)), (16, None), (64, None)] {
        let name = format!("hot state over HTTP, {clients} clients");
        ask(report, &name, &serve, clients, HOT_QUESTIONS, target, &state, Some("hot"))?;
    }
    report.latency("hot state in the library", in_library(world, &orders, &world.redis, HOT_QUESTIONS)?, None);
    for (clients, target) in [(1, Some(20.0)), (16, None), (64, None)] {
        let name = format!("cold state over HTTP, {clients} clients");
        ask(report, &name, &cold, clients, COLD_QUESTIONS, target, &state, Some("cold"))?;
    }
    report.latency("cold state in the library", in_library(world, &orders, "memory://", COLD_QUESTIONS)?, None);
    report.latency("baseline: one GET of 64 KiB of a segment", gets(world, COLD_QUESTIONS)?, None);
    let history = |n| Ok(format!("/v1/sagas/{}/history?limit=50", Orders::id(question(&orders, n).0)));
    ask(report, "history page, hot, 1 clients", &serve, 1, COLD_QUESTIONS, None, &history, None)?;
    let search = |n: u64| {
        let until = jiff::Timestamp::from_microsecond(orders.time(n.wrapping_mul(7_919) % orders.sagas, EVENTS_PER_SAGA))?;
        Ok(format!("/v1/sagas?failed_step=charge_payment&until={until}&limit=50"))
    };
    ask(report, "50 failed sagas found, hot, 1 clients", &serve, 1, COLD_QUESTIONS / 4, None, &search, None)?;
    report.add("RSS of the api alone, peak", cold.pid.peak_mib()?, "MiB");
    drop((serve, cold));
    world.clear()?;
    mixed(&World::new(&world.directory, PARTITIONS)?, events, report)
}

/// The older half of each saga is in cold alone, the newer half in hot.
fn mixed(world: &World, events: u64, report: &mut Report) -> Result<()> {
    let orders = Orders::new(events, 20, Load::default());
    orders.send_part(world, 0..EVENTS_PER_SAGA / 2)?;
    let serve = [world.serve("query-mixed", ROLES, &[("RESAGA__COLD__FLUSH_INTERVAL", "5s")])?];
    world.wait_durable()?;
    world.wipe_redis()?;
    orders.send_part(world, EVENTS_PER_SAGA / 2..EVENTS_PER_SAGA)?;
    world.wait_folded(&serve, orders.events())?;
    world.wait_durable()?;
    let [serve] = serve;
    let state = |n| state_path(&orders, n);
    ask(report, "state over HTTP, older half cold, 1 clients", &serve, 1, COLD_QUESTIONS, None, &state, None)?;
    ask(report, "state over HTTP, older half cold, 16 clients", &serve, 16, COLD_QUESTIONS, None, &state, None)?;
    let history = |n| Ok(format!("/v1/sagas/{}/history?limit=50", Orders::id(question(&orders, n).0)));
    ask(report, "history page from cold and hot, 1 clients", &serve, 1, COLD_QUESTIONS, None, &history, None)?;
    drop(serve);
    world.clear()
}

fn state_path(orders: &Orders, n: u64) -> Result<String> {
    let (saga, at) = question(orders, n);
    Ok(format!("/v1/sagas/{}?at={}", Orders::id(saga), jiff::Timestamp::from_microsecond(at)?))
}

/// What a question number is as a path.
type Path<'a> = &'a (dyn Fn(u64) -> Result<String> + Sync);

/// `count` questions in all, by N clients: latency, rate, and what one costs the process.
#[expect(clippy::too_many_arguments, reason = "one line for each row of the table")]
fn ask(
    report: &mut Report,
    name: &str,
    serve: &Serve,
    clients: u64,
    count: u64,
    target: Option<f64>,
    path: Path<'_>,
    source: Option<&str>,
) -> Result<()> {
    let one = |client: u64, from: u64, count: u64| -> Result<Vec<Duration>> {
        let mut connection = Client::connect(&serve.address)?;
        let mut samples = Vec::new();
        for n in (from..from + count).map(|n| n * clients + client) {
            let path = path(n)?;
            let began = Instant::now();
            let (status, body) = connection.get(&path)?;
            samples.push(began.elapsed());
            let text = String::from_utf8_lossy(&body);
            let right = source.is_none_or(|source| text.contains(&format!(r#""source":"{source}""#)));
            ensure!(status == 200 && right, "{path}: {status} {text}");
        }
        Ok(samples)
    };
    one(0, 0, WARM_UP)?;
    let (cpu, began) = (serve.pid.cpu()?, Instant::now());
    let each = count / clients;
    let samples = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(move || one(client, WARM_UP, each))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let (took, cpu) = (began.elapsed(), serve.pid.cpu()? - cpu);
    report.latency(name, samples.into_iter().flatten().collect(), target);
    let asked = (each * clients) as f64;
    report.add(format!("{name}, rate on this machine"), asked / took.as_secs_f64(), "/s");
    report.add(format!("{name}, rate per core of the process"), asked / cpu.as_secs_f64(), "/s");
    Ok(())
}

/// Ranges of segments, with the client that resaga has.
fn gets(world: &World, count: u64) -> Result<Vec<Duration>> {
    let config = config::load(&Sources { file: None, environment: world.settings(), flags: Vec::new() })?.config;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let store = resaga::cold::open(&config.cold).await?;
        let segments = store.list(&format!("l0/{}/", world.events), None, 1_000).await?;
        let mut samples = Vec::new();
        for (n, key) in (0..count + WARM_UP).zip(segments.iter().cycle()) {
            let began = Instant::now();
            ensure!(store.get_range(key, 0, GET_BYTES).await?.is_some(), "{key}: gone");
            if n >= WARM_UP {
                samples.push(began.elapsed());
            }
        }
        Ok(samples)
    })
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
            history.state(&saga, PointInTime::At(Micros(at))).await?;
            if n >= WARM_UP {
                samples.push(began.elapsed());
            }
        }
        Ok(samples)
    })
}
