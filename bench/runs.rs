//! The same ingest many times over: kinds of events, sizes, sagas in flight, processes, and beside the peers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::baseline;
use crate::ingest::{Ingested, Process, ingest};
use crate::orders::{Load, Orders, Size};
use crate::report::Grid;
use crate::world::{PARTITIONS, World};

/// Settings that differ from those of the world.
type Settings<'a> = &'a [(&'a str, &'a str)];

const COLUMNS: [&str; 9] = [
    "CPU us/event",
    "baseline us/event",
    "x baseline",
    "events/s",
    "peak RSS MiB",
    "Redis B/entry",
    "S3 B/entry",
    "PUTs",
    "Redis+S3+Kafka us/event",
];

fn row(grid: &mut Grid, name: String, got: &Ingested, baseline: &baseline::Baseline) {
    let events = got.events as f64;
    let servers: Duration = got.servers.iter().map(|(_, cpu)| *cpu).sum();
    let figures = [
        got.per_event(got.cpu),
        got.per_event(baseline.cpu),
        got.cpu.as_secs_f64() / baseline.cpu.as_secs_f64(),
        events / got.folded.as_secs_f64(),
        got.peak_mib,
        got.redis_bytes as f64 / events,
        got.s3_bytes as f64 / events,
        got.objects as f64,
        got.per_event(servers),
    ];
    grid.row(name, &figures);
}

/// One load on topics of its own, with the baseline beside it.
fn one(
    grid: &mut Grid,
    name: String,
    servers: &Path,
    (events, partitions): (u64, i32),
    load: Load,
    more: Settings<'_>,
) -> Result<()> {
    let world = World::new(servers, partitions)?;
    let orders = Orders::new(events, 20, load);
    orders.send(&world)?;
    let baseline = if load.avro { baseline::consume } else { baseline::read_all }(&world, orders.events())?;
    let got = ingest(&world, orders.events(), &[(more, None)])?;
    row(grid, name, &got, &baseline);
    world.clear()
}

/// Contexts, changes, forms, lengths, partitions, stores.
pub fn kinds(servers: &Path, events: u64, times: u32) -> Result<Grid> {
    let mut grid = Grid::new("kinds", events, &COLUMNS);
    let base = Load::default();
    let directory = servers.join("archive");
    let directory = format!("file://{}", directory.display());
    let in_directory: [(&str, &str); 1] = [("RESAGA__COLD__URL", &directory)];
    let in_memory: [(&str, &str); 1] = [("RESAGA__HOT__URL", "memory://")];
    let large = Load { size: Size::Large, in_flight: 1_000, ..base };
    let registry = std::env::var("RESAGA_TEST_REGISTRY").context("no schema registry: tests/servers/up DIR --registry")?;
    let with_registry: [(&str, &str); 1] = [("RESAGA__REGISTRY__URL", &registry)];
    let kinds: [(&str, i32, Load, Settings<'_>); 14] = [
        ("0.8 KB contexts, little changes, 10 events a saga", PARTITIONS, base, &[]),
        ("S3 alone (hot store in memory)", PARTITIONS, base, &in_memory),
        ("Redis alone (archive in a directory)", PARTITIONS, base, &in_directory),
        ("0.8 KB, half changes", PARTITIONS, Load { changes_much: true, ..base }, &[]),
        ("5 KB, little changes", PARTITIONS, large, &[]),
        ("5 KB, half changes", PARTITIONS, Load { changes_much: true, ..large }, &[]),
        ("0.8 KB, merge patches", PARTITIONS, Load { patches: true, ..base }, &[]),
        ("5 KB, merge patches", PARTITIONS, Load { patches: true, ..large }, &[]),
        ("300 events a saga", PARTITIONS, Load { per_saga: 300, in_flight: 500, ..base }, &[]),
        ("300 events a saga, merge patches", PARTITIONS, Load { per_saga: 300, in_flight: 500, patches: true, ..base }, &[]),
        ("Avro, 0.8 KB (baseline: consume alone)", PARTITIONS, Load { avro: true, ..base }, &with_registry),
        ("Avro, 5 KB (baseline: consume alone)", PARTITIONS, Load { avro: true, ..large }, &with_registry),
        ("1 partition", 1, base, &[]),
        ("64 partitions", 64, base, &[]),
    ];
    for _ in 0..times {
        for (name, partitions, load, more) in kinds {
            one(&mut grid, name.to_owned(), servers, (events, partitions), load, more)?;
        }
    }
    let _ = std::fs::remove_dir_all(servers.join("archive"));
    Ok(grid)
}

/// More and more events. `events`: the most.
pub fn growth(servers: &Path, events: u64, times: u32) -> Result<Grid> {
    let mut grid = Grid::new("growth", events, &COLUMNS);
    for _ in 0..times {
        for part in [10, 3, 1] {
            let count = events / part;
            one(&mut grid, format!("{count} events"), servers, (count, PARTITIONS), Load::default(), &[])?;
        }
    }
    Ok(grid)
}

/// More and more sagas at once. `events`: of the largest run, three a saga; the others have ten.
pub fn in_flight(servers: &Path, events: u64, times: u32) -> Result<Grid> {
    let mut grid = Grid::new("in-flight", events, &COLUMNS);
    for _ in 0..times {
        for (part, per_saga) in [(300, 10), (30, 10), (3, 3)] {
            let load = Load { in_flight: (events / part).max(1), per_saga, ..Load::default() };
            let count = (load.in_flight * per_saga).max(events / 3);
            let name = format!("{count} events, {} sagas in flight", load.in_flight);
            one(&mut grid, name, servers, (count, PARTITIONS), load, &[])?;
        }
    }
    Ok(grid)
}

/// One, two and four processes in a group, each on one core, at two sizes: the difference between the two leaves starts and
/// the waiting for the last flush out.
pub fn scale_out(servers: &Path, events: u64, times: u32) -> Result<Grid> {
    let columns = ["CPU us/event", "steady us/event", "baseline us/event", "events/s", "peak RSS MiB"];
    let mut grid = Grid::new("scale-out", events, &columns);
    for processes in std::iter::repeat_n([1, 2, 4], times as usize).flatten() {
        let (small, _) = in_group(servers, events / 3, processes)?;
        let (large, baseline) = in_group(servers, events, processes)?;
        let micros = |got: &Ingested| got.cpu.as_secs_f64() * 1e6;
        let steady = (micros(&large) - micros(&small)) / (large.events - small.events) as f64;
        let rate = large.events as f64 / large.folded.as_secs_f64();
        let figures = [large.per_event(large.cpu), steady, large.per_event(baseline.cpu), rate, large.peak_mib];
        grid.row(format!("{processes} processes"), &figures);
    }
    Ok(grid)
}

/// The same topics read by so many processes.
fn in_group(servers: &Path, events: u64, processes: usize) -> Result<(Ingested, baseline::Baseline)> {
    let names: Vec<String> = (0..processes).map(|number| format!("bench-{number}")).collect();
    let settings: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("RESAGA__KAFKA__INSTANCE", name.as_str())]).collect();
    let cores = std::thread::available_parallelism()?.get();
    let more: Vec<Process<'_>> =
        settings.iter().enumerate().map(|(number, settings)| (&settings[..], Some(number % cores))).collect();
    let world = World::new(servers, PARTITIONS)?;
    let orders = Orders::new(events, 20, Load::default());
    orders.send(&world)?;
    let baseline = baseline::read_all(&world, orders.events())?;
    let got = ingest(&world, orders.events(), &more)?;
    world.clear()?;
    Ok((got, baseline))
}

/// resaga and the peers on the same topics, at two sizes: the difference between the two leaves each one's start out.
pub fn peers(servers: &Path, events: u64, times: u32) -> Result<Grid> {
    let columns = ["CPU us/event", "steady us/event", "events/s", "peak RSS MiB", "stored B/event", "Redis+S3+Kafka us/event"];
    let mut grid = Grid::new("peers", events, &columns);
    let streams = |guarantee: &'static str| vec!["streams", "--guarantee", guarantee];
    let benthos = |store: &'static str| vec!["benthos", "--store", store];
    let peers = [streams("exactly_once_v2"), streams("at_least_once"), benthos("s3"), benthos("redis"), benthos("both")];
    for _ in 0..times {
        beside_peers(&mut grid, servers, events, &peers)?;
    }
    Ok(grid)
}

/// All of them once, at both sizes.
fn beside_peers(grid: &mut Grid, servers: &Path, events: u64, peers: &[Vec<&str>]) -> Result<()> {
    // Name, then of each size: events, CPU seconds, events/s, MiB, bytes, the servers' CPU seconds.
    let mut found: Vec<(String, Vec<[f64; 6]>)> = Vec::new();
    for (number, count) in [events / 3, events].into_iter().enumerate() {
        let world = World::new(servers, PARTITIONS)?;
        let orders = Orders::new(count, 20, Load::default());
        orders.send(&world)?;
        let count = orders.events() as f64;
        let mut add = |name: &str, figures: [f64; 6]| match found.iter_mut().find(|(known, _)| known == name) {
            Some((_, sizes)) => sizes.push(figures),
            None => found.push((name.to_owned(), vec![figures])),
        };
        let baseline = baseline::read_all(&world, orders.events())?;
        add(
            "baseline: consume + typed JSON",
            [count, baseline.cpu.as_secs_f64(), count / baseline.wall.as_secs_f64(), 0.0, 0.0, 0.0],
        );
        let got = ingest(&world, orders.events(), &[(&[], None)])?;
        let stored = got.redis_bytes as f64 + got.s3_bytes as f64;
        let servers_cpu: Duration = got.servers.iter().map(|(_, cpu)| *cpu).sum();
        let rate = count / got.folded.as_secs_f64();
        add("resaga", [count, got.cpu.as_secs_f64(), rate, got.peak_mib, stored, servers_cpu.as_secs_f64()]);
        for peer in peers {
            let before = world.servers_cpu()?;
            let line = run_peer(servers, &world.events, orders.events(), peer)
                .with_context(|| format!("bench/peers/run {} ({} of 2)", peer.join(" "), number + 1))?;
            let figure = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
            let cpu = figure("cpu_us_per_event") * count / 1e6;
            let name = line["peer"].as_str().unwrap_or("a peer without a name");
            let servers_cpu = (world.servers_cpu()? - before).as_secs_f64();
            add(name, [count, cpu, figure("events_per_s"), figure("rss_mib"), figure("stored_bytes"), servers_cpu]);
        }
        world.clear()?;
    }
    for (name, sizes) in found {
        let [small, large] = sizes[..] else { continue };
        let steady = (large[1] - small[1]) * 1e6 / (large[0] - small[0]);
        let of_servers = large[5] * 1e6 / large[0];
        grid.row(name, &[large[1] * 1e6 / large[0], steady, large[2], large[3], large[4] / large[0], of_servers]);
    }
    Ok(())
}

fn run_peer(servers: &Path, topic: &str, events: u64, peer: &[&str]) -> Result<Value> {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/run");
    let mut command = Command::new(run);
    command.arg(peer[0]).arg("--servers").arg(servers).args(["--topic", topic, "--events", &events.to_string()]).args(&peer[1..]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
