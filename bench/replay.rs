//! From replay requests on the topic to restored sagas as a `read_committed` reader sees them: many at once, one at a time, and
//! as one batch.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::baseline_replay as baseline;
use crate::ingest::ROLES;
use crate::orders::{EVENTS_PER_SAGA, Load, Orders};
use crate::processes::Pid;
use crate::report::Report;
use crate::world::World;

const REQUESTS: u64 = 1_500;
/// So often: a broker that has just started, and each coordinator, get faster with use.
const ROUNDS: u64 = 5;
/// Batches of as many sagas, by their ids.
const BATCHES: u64 = 3;
const ONE_BY_ONE: u64 = 50;
const PAUSE: Duration = Duration::from_millis(300);

pub fn measure(world: &World, events: u64, report: &mut Report) -> Result<()> {
    let sagas = (ROUNDS + BATCHES) * REQUESTS + 2 * ONE_BY_ONE;
    ensure!(events / EVENTS_PER_SAGA >= sagas, "{sagas} failed sagas take {} events", sagas * EVENTS_PER_SAGA);
    let orders = Orders::new(events, 1, Load::default());
    orders.send(world)?;
    let serve = [world.serve("replay", ROLES, &[])?];
    world.wait_folded(&serve, orders.events())?;
    world.wait_durable()?;
    let [serve] = serve;

    let reader = world.read_from_end(&world.restored)?;
    let producer = baseline::producer(world)?;
    // No flush in between: it waits 100 ms in rdkafka. librdkafka sends without it.
    // The first transactions of a process and of its coordinator are not like the others.
    let mut singles = Vec::new();
    for saga in 0..ONE_BY_ONE {
        // Idle: what the one before left behind (control records, a long poll) is over.
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        request(world, &producer, saga)?;
        seen(&reader, 1)?;
        singles.push(began.elapsed());
    }
    let mut in_a_row = Vec::new();
    for saga in ONE_BY_ONE..2 * ONE_BY_ONE {
        let began = Instant::now();
        request(world, &producer, saga)?;
        seen(&reader, 1)?;
        in_a_row.push(began.elapsed());
    }
    let topics = [&world.events, &world.restored, &world.log];
    let ends = topics.map(|topic| world.ends(topic));
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let cpu = serve.pid.cpu()?;
        let first = 2 * ONE_BY_ONE + round * REQUESTS;
        let got = many(world, &producer, &reader, first..first + REQUESTS)?;
        report.aim(format!("{REQUESTS} requests to restored sagas committed"), got.took.as_secs_f64(), "s", 5.0);
        report.add("rate", REQUESTS as f64 / got.took.as_secs_f64(), "replays/s");
        report.add("CPU", per_replay(serve.pid.cpu()? - cpu), "us/replay");
        report.add("Kafka, Redis, S3: CPU", per_replay(got.servers), "us/replay");
        rounds.push(got.took);
        std::thread::sleep(PAUSE);
    }
    let mut batches = Vec::new();
    for number in 0..BATCHES {
        let cpu = serve.pid.cpu()?;
        let first = 2 * ONE_BY_ONE + (ROUNDS + number) * REQUESTS;
        let began = Instant::now();
        batch(world, &producer, number, first..first + REQUESTS)?;
        seen(&reader, REQUESTS)?;
        let took = began.elapsed();
        report.aim(format!("one batch of {REQUESTS} sagas to restored sagas committed"), took.as_secs_f64(), "s", 2.0);
        report.add("batch: CPU", per_replay(serve.pid.cpu()? - cpu), "us/replay");
        batches.push(took);
        std::thread::sleep(PAUSE);
    }
    report.latency("one request, nothing else to do", singles, None);
    report.latency("one request after the other", in_a_row, None);
    drop(serve);

    let mut written = Vec::new();
    for (topic, ends) in topics.into_iter().zip(ends) {
        let reader = world.read_from(topic, &ends?)?;
        written.push(read(&reader, REQUESTS)?);
    }
    let plain = baseline::transactions(world, &written, (ROUNDS, REQUESTS), (ONE_BY_ONE, PAUSE))?;
    for (plain, took) in plain.rounds.iter().zip(rounds) {
        report.add("baseline: the same records in a plain loop of transactions", plain.took.as_secs_f64(), "s");
        report.add("baseline: CPU, with who asks and reads", per_replay(plain.own), "us/replay");
        report.add("baseline: CPU of Kafka, Redis, S3", per_replay(plain.servers), "us/replay");
        report.add("resaga / baseline, rate", plain.took.as_secs_f64() / took.as_secs_f64(), "x");
    }
    let plain_round = plain.rounds.iter().map(|plain| plain.took).sum::<Duration>() / ROUNDS as u32;
    for took in batches {
        report.add("batch / baseline, rate", plain_round.as_secs_f64() / took.as_secs_f64(), "x");
    }
    report.latency("baseline: one at a time", plain.singles, None);
    world.clear()
}

/// Many requests at once.
pub struct Round {
    /// From the first request sent to the last restored saga seen.
    pub took: Duration,
    /// CPU of this process meanwhile, and of the servers.
    pub own: Duration,
    pub servers: Duration,
}

fn per_replay(cpu: Duration) -> f64 {
    cpu.as_secs_f64() * 1e6 / REQUESTS as f64
}

pub fn many(world: &World, producer: &BaseProducer, reader: &BaseConsumer, sagas: Range<u64>) -> Result<Round> {
    let (own, servers) = (Pid::own().cpu()?, world.servers_cpu()?);
    let (began, count) = (Instant::now(), sagas.end - sagas.start);
    for saga in sagas {
        request(world, producer, saga)?;
    }
    producer.flush(Duration::from_secs(30))?;
    seen(reader, count)?;
    Ok(Round { took: began.elapsed(), own: Pid::own().cpu()? - own, servers: world.servers_cpu()? - servers })
}

/// Asks for a replay.
pub fn request(world: &World, producer: &BaseProducer, saga: u64) -> Result<()> {
    let id = Orders::id(saga);
    let value = format!(
        r#"{{"request_id":"bench-{saga}","command":"REPLAY","saga_id":"{id}","from":{{"step":"charge_payment"}},"override":{{"merge":{{"payment_token":"tok_backup"}}}},"requested_by":"bench","reason":"measure"}}"#
    );
    producer.send(BaseRecord::to(&world.requests).key(&id).payload(&value)).map_err(|(error, _)| error)?;
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Asks for a batch of these sagas.
fn batch(world: &World, producer: &BaseProducer, number: u64, sagas: Range<u64>) -> Result<()> {
    // U of the request id, which is a UUID: the batch id, and the record's key.
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let sagas: Vec<String> = sagas.map(|saga| format!("\"{}\"", Orders::id(saga))).collect();
    let value = format!(
        r#"{{"request_id":"{id}","command":"BATCH","batch":{{"saga_ids":[{}],"from":{{"step":"charge_payment"}},"override":{{"merge":{{"payment_token":"tok_backup"}}}}}},"requested_by":"bench","reason":"measure"}}"#,
        sagas.join(",")
    );
    producer.send(BaseRecord::to(&world.requests).key(&id).payload(&value)).map_err(|(error, _)| error)?;
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Waits for so many more restored sagas.
pub fn seen(reader: &BaseConsumer, count: u64) -> Result<()> {
    read(reader, count).map(drop)
}

/// Waits for so many more records.
fn read(reader: &BaseConsumer, count: u64) -> Result<Vec<OwnedMessage>> {
    let mut records = Vec::new();
    for got in 0..count {
        match reader.poll(Duration::from_secs(60)) {
            Some(message) => records.push(message?.detach()),
            None => bail!("{got} of {count} records, then none for a minute"),
        }
    }
    Ok(records)
}
