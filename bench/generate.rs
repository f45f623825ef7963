//! Step events as a shop would send them: orders of four steps, ten events each, about 1.1 KB, the whole context in
//! every event and little of it changing. A pure function of the saga's number, so that readers know what to ask.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::world::{PARTITIONS, World};

pub const EVENTS_PER_SAGA: u64 = 10;
/// Sagas whose events lie between each other in the log.
const SIDE_BY_SIDE: u64 = 5_000;
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

pub struct Orders {
    pub sagas: u64,
    /// Every saga whose number it divides fails in `charge_payment`.
    pub failing_every: u64,
    /// When the first saga began, microseconds since 1970.
    pub began: i64,
}

impl Orders {
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

    fn event(&self, saga: u64, at: u64, out: &mut String) {
        let (kind, step) = story(self.fails(saga))[at as usize];
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
            r#"],"currency":"EUR","shipping":{{"street":"{} Main Street","city":"Springfield","zip":"{:05}","method":"standard"}},"billing":{{"name":"Customer {}","street":"{} Side Street","city":"Shelbyville","zip":"{:05}","vat":"DE{:09}"}},"payment_token":"tok_{:012x}","fraud_score":0.{:04},"trace":"{:012x}{:012x}","warehouse":"w-{}","session":"{:012x}{:012x}","consents":["terms","newsletter"],"note":"leave at the door","updated_by_step":{at},"progress":{}}}}}"#,
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
    }

    /// Sends them all; gives the mean size of a value.
    pub fn send(&self, world: &World) -> Result<f64> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &world.brokers)
            .set("compression.type", "zstd")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "50")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let (mut value, mut bytes) = (String::new(), 0_u64);
        for first in (0..self.sagas).step_by(SIDE_BY_SIDE as usize) {
            for at in 0..EVENTS_PER_SAGA {
                for saga in first..(first + SIDE_BY_SIDE).min(self.sagas) {
                    self.event(saga, at, &mut value);
                    bytes += value.len() as u64;
                    let key = Self::id(saga);
                    while let Err((error, _)) = producer.send(BaseRecord::to(&world.events).key(&key).payload(&value)) {
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
        let events = self.sagas * EVENTS_PER_SAGA;
        if world.ends(&world.events, PARTITIONS)?.iter().sum::<i64>() != events as i64 {
            bail!("the broker does not have all events");
        }
        Ok(bytes as f64 / events as f64)
    }
}
