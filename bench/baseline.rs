//! Baselines: a plain librdkafka consumer of the same topic that does one of the things that resaga must do, and stops.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::processes::Pid;
use crate::world::World;

/// Commands of one round trip.
const PIPELINE: u64 = 500;
/// Rows of one file.
const FILE_ROWS: u64 = 50_000;

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
    context: Option<&'a RawValue>,
    #[serde(borrow)]
    context_patch: Option<&'a RawValue>,
}

pub struct Baseline {
    pub cpu: Duration,
    pub wall: Duration,
}

/// Reads all of the events topic and checks each value as typed JSON.
pub fn read_all(world: &World, events: u64) -> Result<Baseline> {
    over_all(world, events, |_, value| {
        let _: Event<'_> = serde_json::from_slice(value).context("an event")?;
        Ok(())
    })
}

/// Reads all of it and looks at nothing.
pub fn consume(world: &World, events: u64) -> Result<Baseline> {
    over_all(world, events, |_, _| Ok(()))
}

/// Reads all of it and adds each value to a sorted set of its saga, in pipelines. Redis is emptied afterwards.
pub fn zadd(world: &World, events: u64) -> Result<Baseline> {
    let mut connection = redis::Client::open(world.redis.as_str())?.get_connection()?;
    let (mut pipeline, mut number) = (redis::pipe(), 0_u64);
    let baseline = over_all(world, events, |key, value| {
        number += 1;
        pipeline.cmd("ZADD").arg(key).arg(number).arg(value).ignore();
        if number.is_multiple_of(PIPELINE) || number == events {
            pipeline.query::<()>(&mut connection)?;
            pipeline.clear();
        }
        Ok(())
    });
    redis::cmd("FLUSHALL").query::<()>(&mut connection)?;
    baseline
}

/// Reads all of it and writes keys and values as Parquet with zstd, level 1; the files are thrown away.
pub fn parquet(world: &World, events: u64) -> Result<Baseline> {
    let schema = Arc::new(parse_message_type("message e { required binary saga_id (STRING); required binary event (STRING); }")?);
    let compression = Compression::ZSTD(ZstdLevel::try_new(1)?);
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).set_dictionary_enabled(false).build());
    let (mut keys, mut values, mut seen) = (Vec::new(), Vec::new(), 0_u64);
    over_all(world, events, |key, value| {
        keys.push(ByteArray::from(key.to_vec()));
        values.push(ByteArray::from(value.to_vec()));
        seen += 1;
        if keys.len() as u64 == FILE_ROWS || seen == events {
            let mut writer = SerializedFileWriter::new(Vec::new(), schema.clone(), properties.clone())?;
            let mut group = writer.next_row_group()?;
            for column in [&mut keys, &mut values] {
                let mut to = group.next_column()?.context("a column")?;
                to.typed::<ByteArrayType>().write_batch(column, None, None)?;
                to.close()?;
                column.clear();
            }
            group.close()?;
            writer.close()?;
        }
        Ok(())
    })
}

fn over_all(world: &World, events: u64, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<Baseline> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("group.id", "baseline")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "20")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..world.partitions {
        list.add_partition_offset(&world.events, partition, Offset::Beginning)?;
    }
    let (began, cpu) = (Instant::now(), Pid::own().cpu()?);
    consumer.assign(&list)?;
    for seen in 0..events {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { bail!("the broker went quiet after {seen} records") };
        let message = message?;
        each(message.key().unwrap_or_default(), message.payload().unwrap_or_default())?;
    }
    Ok(Baseline { cpu: Pid::own().cpu()? - cpu, wall: began.elapsed() })
}
