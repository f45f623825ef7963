//! Step events as a shop would send them: orders of four steps, by default ten events each, about 1.1 KB, the whole
//! context in every event and little of it changing. A pure function of the saga's number, so that readers know what to ask.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

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

    /// The value of an event, in JSON.
    pub fn event(&self, saga: u64, at: u64, out: &mut String) {
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
}

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
