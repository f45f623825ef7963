//! Step events as a shop would send them: orders of four steps, by default ten events each, about 1.1 KB, the whole
//! context in every event and little of it changing. A pure function of the saga's number, so that readers know what to ask.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use resaga::kafka::registry::SchemaRegistry;
use resaga::wire::avro::{SchemaId, Schemas};
use resaga::wire::event::{decode_event, encode_event};

use crate::world::{World, now_micros};

pub const EVENTS_PER_SAGA: u64 = 10;
/// Microseconds between two events of a saga.
pub const STEP_MICROS: i64 = 250_000;
const STEPS: [&str; 4] = ["reserve_inventory", "price_order", "charge_payment", "ship_order"];

/// What happens: kind and step of each of a saga's events.
fn story(failing: bool) -> [(&'static str, Option<usize>); EVENTS_PER_SAGA as usize] {
    let (start, done, failed) = ("STEP_STARTED", "STEP_COMPLETED", "STEP_FAILED");
    let head = [("SAGA_STARTED", None), (start, Some(0)), (done, Some(0)), (start, Some(1)), (done, Some(1)), (start, Some(2))];
    let tail = if failing {
        [(failed, Some(2)), (start, Some(2)), (failed, Some(2)), ("SAGA_FAILED", None)]
    } else {
        [(done, Some(2)), (start, Some(3)), (done, Some(3)), ("SAGA_COMPLETED", None)]
    };
    std::array::from_fn(|at| if at < 6 { head[at] } else { tail[at - 6] })
}

/// How large contexts are, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 0.8 KB.
    Small,
    /// 5 KB.
    Large,
}

/// What the sagas of a run look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub per_saga: u64,
    /// Sagas whose events lie between each other in the log.
    pub in_flight: u64,
    pub size: Size,
    /// Half of the context is new in each event; otherwise two small members are.
    pub changes_much: bool,
    /// Merge patches after each saga's first event, instead of the whole context.
    pub patches: bool,
    /// Avro with a schema of the registry, instead of JSON.
    pub avro: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { per_saga: EVENTS_PER_SAGA, in_flight: 5_000, size: Size::Small, changes_much: false, patches: false, avro: false }
    }
}

pub struct Orders {
    pub sagas: u64,
    /// Every saga whose number it divides fails in `charge_payment`.
    pub failing_every: u64,
    /// When the first saga began, microseconds since 1970.
    pub began: i64,
    pub load: Load,
}

impl Orders {
    /// At least so many events, an hour ago.
    pub fn new(events: u64, failing_every: u64, load: Load) -> Self {
        Self { sagas: events.div_ceil(load.per_saga), failing_every, began: now_micros() - 3_600_000_000, load }
    }

    pub fn events(&self) -> u64 {
        self.sagas * self.load.per_saga
    }

    pub fn id(saga: u64) -> String {
        format!("order-{saga:010}")
    }

    pub fn fails(&self, saga: u64) -> bool {
        saga.is_multiple_of(self.failing_every)
    }

    /// When the event number `at` of a saga occurred.
    pub fn time(&self, saga: u64, at: u64) -> i64 {
        self.began + saga as i64 * 100 + at as i64 * STEP_MICROS
    }

    /// Kind and step of an event.
    fn story(&self, saga: u64, at: u64) -> (&'static str, Option<usize>) {
        let last = self.load.per_saga - 1;
        if last + 1 == EVENTS_PER_SAGA {
            return story(self.fails(saga))[at as usize];
        }
        match at {
            0 => ("SAGA_STARTED", None),
            at if at == last => ("SAGA_COMPLETED", None),
            at => {
                let kind = if at % 2 == 1 { "STEP_STARTED" } else { "STEP_COMPLETED" };
                (kind, Some((at - 1) as usize / 2 % STEPS.len()))
            }
        }
    }

    fn event(&self, saga: u64, at: u64, out: &mut String) {
        let (kind, step) = self.story(saga, at);
        out.clear();
        let mut noise = saga;
        let mut more = || {
            // SplitMix64.
            noise = noise.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = noise;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        let event_id = format!("{:016x}-{at}", more());
        let occurred = jiff::Timestamp::from_microsecond(self.time(saga, at)).map(|t| t.to_string()).unwrap_or_default();
        let id = Self::id(saga);
        let _ = write!(
            out,
            r#"{{"event_id":"{event_id}","saga_id":"{id}","saga_name":"order-processing","kind":"{kind}","occurred_at":"{occurred}","sequence":{},"tenant":"eu-shop""#,
            at + 1
        );
        if let Some(step) = step {
            let _ = write!(out, r#","step":"{}","step_index":{step}"#, STEPS[step]);
        }
        if kind == "STEP_COMPLETED" {
            let _ = write!(out, r#","result":{{"ref":"r-{:x}"}}"#, more() >> 24);
        }
        if kind == "STEP_FAILED" || kind == "SAGA_FAILED" {
            out.push_str(r#","error":{"code":"GATEWAY_TIMEOUT","type":"timeout","message":"payment gateway did not answer"}"#);
        }
        if self.load.patches && at > 0 {
            let _ = write!(out, r#","context_patch":{{"updated_by_step":{at},"progress":{}"#, at * 10);
            self.documents(saga, at, out);
            out.push_str("}}");
            return;
        }
        let mut noise = saga ^ 0xABCD;
        let mut more = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise >> 16
        };
        let _ = write!(
            out,
            r#","context":{{"order_id":"{id}","customer":{{"id":"c-{:x}","segment":"retail","email_hash":"{:012x}{:012x}"}},"items":["#,
            more(),
            more(),
            more()
        );
        for item in 0..4 {
            let _ = write!(
                out,
                r#"{}{{"sku":"SKU-{:06}","quantity":{},"unit_price":{}.{:02}}}"#,
                if item > 0 { "," } else { "" },
                more() % 1_000_000,
                more() % 9 + 1,
                more() % 500,
                more() % 100
            );
        }
        let _ = write!(
            out,
            r#"],"currency":"EUR","shipping":{{"street":"{} Main Street","city":"Springfield","zip":"{:05}","method":"standard"}},"billing":{{"name":"Customer {}","street":"{} Side Street","city":"Shelbyville","zip":"{:05}","vat":"DE{:09}"}},"payment_token":"tok_{:012x}","fraud_score":0.{:04},"trace":"{:012x}{:012x}","warehouse":"w-{}","session":"{:012x}{:012x}","consents":["terms","newsletter"],"note":"leave at the door","updated_by_step":{at},"progress":{}"#,
            more() % 900,
            more() % 100_000,
            more() % 100_000,
            more() % 900,
            more() % 100_000,
            more() % 1_000_000_000,
            more(),
            more() % 10_000,
            more(),
            more(),
            more() % 12,
            more(),
            more(),
            at * 10
        );
        self.documents(saga, at, out);
        out.push_str("}}");
    }

    /// What makes a context large, or changes much of it: hexadecimal text, new with each saga or with each event.
    fn documents(&self, saga: u64, at: u64, out: &mut String) {
        let kept = if self.load.size == Size::Large { 2_100 } else { 0 };
        let changed = match (self.load.changes_much, self.load.size) {
            (false, _) => 0,
            (true, Size::Small) => 400,
            (true, Size::Large) => 2_500,
        };
        let whole = !self.load.patches || at == 0;
        let kept = if self.load.size == Size::Large && changed == 0 { 4_200 } else { kept };
        for (name, seed, length) in [("archive", saga, if whole { kept } else { 0 }), ("scan", saga ^ (at + 1) << 40, changed)] {
            if length == 0 {
                continue;
            }
            let _ = write!(out, r#","{name}":""#);
            let mut noise = seed;
            for _ in 0..length / 16 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let _ = write!(out, "{:016x}", noise ^ noise >> 29);
            }
            out.push('"');
        }
    }

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
