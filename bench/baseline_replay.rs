//! The baseline of replays: a plain loop that takes requests, writes for each the three records that resaga wrote (restored
//! saga, step event, log record) and the offsets in one transaction, and looks nothing up.
//!
//! It produces and waits for acknowledgements before it sends offsets: otherwise librdkafka waits 100 ms twice in each
//! transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::replay::{Round, many, request, seen};
use crate::world::World;

/// Requests of one transaction, as resaga takes them.
const MOST: usize = 500;
const WAIT: Duration = Duration::from_secs(20);

pub struct Transactions {
    pub rounds: Vec<Round>,
    pub singles: Vec<Duration>,
}

/// Writes requests, each at once.
pub fn producer(world: &World) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers).set("partitioner", "murmur2_random").set("linger.ms", "0");
    Ok(config.create()?)
}

/// `records`: what is written, by topic, over and over. So many rounds of so many requests at once, after so many one by one
/// with a pause before each.
pub fn transactions(
    world: &World,
    records: &[Vec<OwnedMessage>],
    all: (u64, u64),
    singles: (u64, Duration),
) -> Result<Transactions> {
    let reader = world.read_from_end(&world.restored)?;
    let producer = producer(world)?;
    let consumer = world.read_from_end(&world.requests)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(world, records, &consumer, &stop));
        let asked = ask(world, &producer, &reader, all, singles);
        stop.store(true, Ordering::Release);
        worker.join().expect("the loop does not panic")?;
        asked
    })
}

fn ask(
    world: &World,
    producer: &BaseProducer,
    reader: &BaseConsumer,
    (rounds, requests): (u64, u64),
    (one_by_one, pause): (u64, Duration),
) -> Result<Transactions> {
    let mut singles = Vec::new();
    for saga in 0..one_by_one {
        std::thread::sleep(pause);
        let began = Instant::now();
        request(world, producer, saga)?;
        seen(reader, 1)?;
        singles.push(began.elapsed());
    }
    let mut done = Vec::new();
    for _ in 0..rounds {
        done.push(many(world, producer, reader, 0..requests)?);
        std::thread::sleep(pause);
    }
    Ok(Transactions { rounds: done, singles })
}

fn work(world: &World, records: &[Vec<OwnedMessage>], consumer: &BaseConsumer, stop: &AtomicBool) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("transactional.id", format!("baseline-{}", world.restored))
        .set("compression.type", "zstd")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .set("retry.backoff.ms", "10")
        .create()?;
    producer.init_transactions(WAIT)?;
    let group = consumer.group_metadata().expect("a consumer with a group");
    let mut of_topics: Vec<_> = records.iter().map(|records| records.iter().cycle()).collect();
    while !stop.load(Ordering::Acquire) {
        let Some(first) = consumer.poll(Duration::from_millis(50)) else { continue };
        let mut batch = vec![first?.detach()];
        while batch.len() < MOST
            && let Some(more) = consumer.poll(Duration::ZERO)
        {
            batch.push(more?.detach());
        }
        producer.begin_transaction()?;
        let mut offsets = TopicPartitionList::new();
        for message in &batch {
            for written in of_topics.iter_mut().filter_map(Iterator::next) {
                let mut record = BaseRecord::to(written.topic())
                    .key(written.key().unwrap_or_default())
                    .payload(written.payload().unwrap_or_default());
                if let Some(headers) = written.headers() {
                    record = record.headers(headers.clone());
                }
                producer.send(record).map_err(|(error, _)| error)?;
            }
            if offsets.find_partition(message.topic(), message.partition()).is_none() {
                offsets.add_partition(message.topic(), message.partition());
            }
            let mut place = offsets.find_partition(message.topic(), message.partition()).expect("it was added");
            place.set_offset(Offset::Offset(message.offset() + 1))?;
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer.send_offsets_to_transaction(&offsets, &group, WAIT)?;
        producer.commit_transaction(WAIT)?;
    }
    Ok(())
}
