//! Measures the real binary against real servers: what an event costs, how fast questions and replays are answered.
//!
//! Started by `bench/run`, which brings the servers. Knows the outside of resaga and, for library figures, its readers.

mod floor;
mod generate;
mod http;
mod ingest;
mod processes;
mod query;
mod replay;
mod report;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context("which measurement: ingest, query or replay")?;
    let (mut events, mut servers) = (None, None);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--events", Some(count)) => events = Some(count.parse::<u64>().context("--events")?),
            ("--servers", Some(directory)) => servers = Some(PathBuf::from(directory)),
            (other, _) => bail!("{other}: not an option with a value"),
        }
    }
    let world = world::World::new(servers.context("--servers: the directory that tests/servers/up was given")?)?;
    let report = match command.as_str() {
        "ingest" => ingest::measure(&world, events.unwrap_or(1_000_000))?,
        "query" => query::measure(&world, events.unwrap_or(200_000))?,
        "replay" => replay::measure(&world, events.unwrap_or(20_000))?,
        other => bail!("{other}: not a measurement"),
    };
    report.publish()
}
