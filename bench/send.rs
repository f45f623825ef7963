//! Orders on their way to the topic of a world.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use resaga::schema_registry::SchemaRegistry;
use resaga::wire::avro::{SchemaId, Schemas};
use resaga::wire::event::{decode_event, encode_event};

use crate::orders::Orders;
use crate::world::World;

impl Orders {
    /// Sends them all; gives the mean size of a value.
    pub fn send(&self, world: &World) -> Result<f64> {
        let size = self.send_part(world, 0..self.load.per_saga)?;
        if world.ends(&world.events)?.iter().sum::<i64>() != self.events() as i64 {
            bail!("the broker does not have all events");
        }
        Ok(size)
    }

    /// Those events of each saga; gives the mean size of a value.
    pub fn send_part(&self, world: &World, part: Range<u64>) -> Result<f64> {
        let avro = if self.load.avro { Some(Avro::new(world)?) } else { None };
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &world.brokers)
            .set("compression.type", "zstd")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "50")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let (mut value, mut bytes) = (String::new(), 0_u64);
        for first in (0..self.sagas).step_by(self.load.in_flight as usize) {
            for at in part.clone() {
                for saga in first..(first + self.load.in_flight).min(self.sagas) {
                    self.event(saga, at, &mut value);
                    let key = Self::id(saga);
                    let coded = avro.as_ref().map(|avro| avro.encode(&key, &value)).transpose()?;
                    let payload = coded.as_deref().unwrap_or(value.as_bytes());
                    bytes += payload.len() as u64;
                    while let Err((error, _)) = producer.send(BaseRecord::to(&world.events).key(&key).payload(payload)) {
                        match error {
                            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                                producer.poll(Duration::from_millis(20));
                            }
                            other => return Err(other.into()),
                        }
                    }
                }
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(120))?;
        Ok(bytes as f64 / (self.sagas * (part.end - part.start)) as f64)
    }
}

/// Writes events as Avro, under a schema that the registry knows.
struct Avro {
    schema: SchemaId,
    schemas: Schemas,
}

impl Avro {
    fn new(world: &World) -> Result<Self> {
        let registry = SchemaRegistry::new(world.registry()?)?;
        let text = include_str!("../schemas/StepEvent.avsc");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let schema = runtime.block_on(registry.register(&world.events, text))?;
        Ok(Self { schema, schemas: Schemas::new(false) })
    }

    fn encode(&self, key: &str, json: &str) -> Result<Vec<u8>> {
        let decoded = decode_event(Some(key.as_bytes()), Some(json.as_bytes()), &Vec::new(), u64::MAX, &self.schemas);
        let event = decoded.map_err(|_| anyhow!("an event that resaga does not take"))?;
        Ok(encode_event(&event, Some(self.schema))?)
    }
}
