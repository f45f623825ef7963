//! Measures the real binary against real servers: what an event costs, how fast questions and replays are answered.
//!
//! Started by `bench/run`, which brings the servers. Knows the outside of resaga and, for library figures, its readers.

mod floor;
mod floor_replay;
mod generate;
mod http;
mod ingest;
mod processes;
mod query;
mod replay;
mod report;
mod runs;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use world::{PARTITIONS, World};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context("which measurement; see bench/run")?;
    let (mut events, mut servers) = (None, None);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--events", Some(count)) => events = Some(count.parse::<u64>().context("--events")?),
            ("--servers", Some(directory)) => servers = Some(PathBuf::from(directory)),
            (other, _) => bail!("{other}: not an option with a value"),
        }
    }
    let servers = servers.context("--servers: the directory that tests/servers/up was given")?;
    let world = || World::new(&servers, PARTITIONS);
    let of = |default: u64| events.unwrap_or(default);
    match command.as_str() {
        "ingest" => ingest::measure(&world()?, of(1_000_000))?.publish(),
        "query" => query::measure(&world()?, of(200_000))?.publish(),
        "replay" => replay::measure(&world()?, of(20_000))?.publish(),
        "kinds" => runs::kinds(&servers, of(300_000))?.publish(),
        "growth" => runs::growth(&servers, of(10_000_000))?.publish(),
        "scale-out" => runs::scale_out(&servers, of(1_000_000))?.publish(),
        "peers" => runs::peers(&servers, of(1_500_000))?.publish(),
        other => bail!("{other}: not a measurement"),
    }
}
