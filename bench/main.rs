//! Measures the real binary against real servers: what an event costs, how fast questions and replays are answered.
//!
//! Started by `bench/run`, which brings the servers. Knows the outside of resaga and, for library figures, its readers.

mod baseline;
mod baseline_replay;
mod http;
mod ingest;
mod orders;
mod processes;
mod query;
mod recovery;
mod replay;
mod report;
mod runs;
mod send;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use report::Report;
use world::{PARTITIONS, World};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().context("which measurement; see bench/run")?;
    let (mut events, mut servers, mut repeat) = (None, None, None);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--events", Some(count)) => events = Some(count.parse::<u64>().context("--events")?),
            ("--repeat", Some(count)) => repeat = Some(count.parse::<u32>().context("--repeat")?.max(1)),
            ("--servers", Some(directory)) => servers = Some(PathBuf::from(directory)),
            (other, _) => bail!("{other}: not an option with a value"),
        }
    }
    let servers = servers.context("--servers: the directory that tests/servers/up was given")?;
    let of = |default: u64| events.unwrap_or(default);
    let times = |default: u32| repeat.unwrap_or(default);
    let report = |name, events, times, measure: fn(&World, u64, &mut Report) -> Result<()>| -> Result<()> {
        let mut report = Report::new(name, events);
        for _ in 0..times {
            measure(&World::new(&servers, PARTITIONS)?, events, &mut report)?;
        }
        report.publish()
    };
    match command.as_str() {
        "ingest" => report("ingest", of(1_000_000), times(3), ingest::measure),
        "query" => report("query", of(200_000), times(1), query::measure),
        "replay" => report("replay", of(125_000), times(3), replay::measure),
        "recovery" => report("recovery", of(300_000), times(3), recovery::measure),
        "kinds" => runs::kinds(&servers, of(300_000), times(1))?.publish(),
        "growth" => runs::growth(&servers, of(10_000_000), times(1))?.publish(),
        "in-flight" => runs::in_flight(&servers, of(3_000_000), times(1))?.publish(),
        "scale-out" => runs::scale_out(&servers, of(2_000_000), times(1))?.publish(),
        "peers" => runs::peers(&servers, of(1_500_000), times(1))?.publish(),
        other => bail!("{other}: not a measurement"),
    }
}
