//! How long a process that was killed takes from its start to its first event: with a static membership, so that the group
//! gives its partitions back at once. Beside it a plain consumer that does the same.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::http;
use crate::ingest::ROLES;
use crate::orders::{Load, Orders};
use crate::report::Report;
use crate::world::{Serve, World};

const INSTANCE: &[(&str, &str)] = &[("RESAGA__KAFKA__INSTANCE", "bench-recovery")];
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

pub fn measure(world: &World, events: u64, report: &mut Report) -> Result<()> {
    let orders = Orders::new(events, 20, Load::default());
    orders.send(world)?;
    let serve = [world.serve("recovery", ROLES, INSTANCE)?];
    world.wait_folded(&serve, orders.events() / 3)?;
    // Killed in the middle of it.
    drop(serve);
    let began = Instant::now();
    let serve = world.launch("recovery-again", ROLES, INSTANCE, None)?;
    first_event(world, &serve, began)?;
    report.aim("restart to first event", began.elapsed().as_secs_f64(), "s", 10.0);
    drop(serve);

    member(world)?;
    let began = Instant::now();
    member(world)?;
    report.add("baseline: a plain consumer, start to first record", began.elapsed().as_secs_f64(), "s");
    world.clear()
}

fn first_event(world: &World, serve: &Serve, began: Instant) -> Result<()> {
    loop {
        ensure!(began.elapsed() < PATIENCE, "no event in {} s", PATIENCE.as_secs());
        // Nobody listens for the first moments.
        let folded = http::Client::connect(&serve.address).and_then(|mut client| world.folded(&mut client));
        if folded.is_ok_and(|count| count > 0.0) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Joins a group as a static member and leaves the way a killed one does: without saying so.
fn member(world: &World) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("group.id", format!("baseline-{}", world.events))
        .set("group.instance.id", "baseline")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[&world.events])?;
    // A poll may come back with nothing after it has served a rebalance.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            message?;
            return Ok(());
        }
    }
    bail!("no record in {} s", PATIENCE.as_secs())
}
