//! The payment gateways: which of them answers when, and what each has charged. The ledger is the judge of "not twice".

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::clock::{Day, Moment};

pub const PRIMARY: &str = "primary";
pub const BACKUP: &str = "backup";
/// The `type` of the error while a gateway is away.
pub const TIMED_OUT: &str = "GatewayTimeout";
pub const DECLINED: &str = "CardDeclined";

pub struct Gateways {
    day: Day,
    /// Gateway and order of every charge made, and how often.
    ledger: BTreeMap<(String, String), u32>,
    refunds: Vec<(String, String)>,
}

impl Gateways {
    pub fn new(day: Day) -> Self {
        Self { day, ledger: BTreeMap::new(), refunds: Vec::new() }
    }

    /// The charge's id, or an error as step events carry it.
    pub fn charge(&mut self, gateway: &str, order: &str, card: &str, at: Moment) -> Result<String, Value> {
        if gateway == PRIMARY && (self.day.outage.contains(at) || self.day.hiccup.contains(at)) {
            let details = json!({"gateway": gateway, "waited_seconds": 30});
            return Err(json!({"code": "504", "type": TIMED_OUT, "message": "no answer from the gateway", "details": details}));
        }
        if card == "card-declined" {
            return Err(json!({"code": "402", "type": DECLINED, "message": "the card was declined", "details": null}));
        }
        *self.ledger.entry((gateway.to_owned(), order.to_owned())).or_default() += 1;
        Ok(format!("charge-{gateway}-{order}"))
    }

    pub fn refund(&mut self, gateway: &str, order: &str) {
        self.refunds.push((gateway.to_owned(), order.to_owned()));
    }

    /// Gateway and order of every refund.
    pub fn refunds(&self) -> &[(String, String)] {
        &self.refunds
    }

    /// Orders charged by a gateway.
    pub fn charged(&self, gateway: &str) -> usize {
        self.ledger.keys().filter(|(by, _)| by == gateway).count()
    }

    /// Orders charged more than once, by whichever gateway.
    pub fn charged_twice(&self) -> usize {
        let mut by_order: BTreeMap<&str, u32> = BTreeMap::new();
        for ((_, order), times) in &self.ledger {
            *by_order.entry(order).or_default() += times;
        }
        by_order.values().filter(|times| **times > 1).count()
    }
}
