//! The floor: a plain librdkafka consumer of the same topic that checks each value as a typed JSON record, and stops.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::processes::Pid;
use crate::world::{PARTITIONS, World};

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to check the types, as every consumer must")]
struct Event<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    saga_id: Cow<'a, str>,
    #[serde(borrow)]
    saga_name: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    sequence: u64,
    #[serde(borrow)]
    step: Option<Cow<'a, str>>,
    step_index: Option<i64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    context: &'a RawValue,
}

pub struct Floor {
    pub cpu: Duration,
    pub wall: Duration,
}

/// Reads all of the events topic.
pub fn read_all(world: &World, events: u64) -> Result<Floor> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "20")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&world.events, partition, Offset::Beginning)?;
    }
    let (began, cpu) = (Instant::now(), Pid::own().cpu()?);
    consumer.assign(&list)?;
    for seen in 0..events {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { bail!("the broker went quiet after {seen} records") };
        let message = message?;
        let _: Event<'_> = serde_json::from_slice(message.payload().unwrap_or_default()).context("an event")?;
    }
    Ok(Floor { cpu: Pid::own().cpu()? - cpu, wall: began.elapsed() })
}
