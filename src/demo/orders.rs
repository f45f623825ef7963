//! The orders of the day: one every 0.8 s, and a few that fail for reasons of their own.

use std::time::Duration;

use serde_json::{Value, json};

use super::clock::{Day, Moment};
use super::gateways::PRIMARY;

/// Two orders in a row are this far apart: 1,500 in 20 minutes.
const EVERY: Duration = Duration::from_millis(800);
/// One in this many orders has a neighbour that fails for a reason of its own.
const UNLUCKY: u32 = 100;

pub const SOLD_OUT: &str = "sku-sold-out";

/// An order as a customer placed it.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: String,
    pub placed: Moment,
    pub context: Value,
}

/// All orders of a day, in the order in which they were placed. `prefix` begins every id.
pub fn of_the_day(day: &Day, prefix: &str) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    let mut place = |placed: Moment, sku: &str, card: &str| {
        let number = orders.len() + 1;
        orders.push(order(format!("{prefix}{number:04}"), number, placed, sku, card));
    };
    let mut placed = day.opens;
    let mut nth = 0_u32;
    while placed < day.closes {
        let sku = ["sku-lamp", "sku-chair", "sku-desk"][(nth % 3) as usize];
        place(placed, sku, "card-good");
        nth += 1;
        if nth.is_multiple_of(UNLUCKY) {
            let between = placed.after(EVERY / 2);
            // A declined card is told by the gateway, so not while it is away.
            let (sku, card) = if day.outage.to < placed { (sku, "card-declined") } else { (SOLD_OUT, "card-good") };
            place(between, sku, card);
        }
        placed = placed.after(EVERY);
    }
    orders
}

/// Orders of a second outage: as many as this, placed while the gateway was away.
pub fn of_a_second_outage(day: &Day, prefix: &str, count: u32) -> Vec<Order> {
    let order = |nth: u32| {
        let number = nth as usize + 1;
        order(format!("{prefix}second-{number:03}"), number, day.outage.from.after(EVERY * nth), "sku-lamp", "card-good")
    };
    (0..count).map(order).collect()
}

fn order(id: String, number: usize, placed: Moment, sku: &str, card: &str) -> Order {
    let country = ["DE", "FR", "IT", "AT"][number % 4];
    let context = json!({
        "order": {
            "id": id,
            "customer": format!("customer-{:03}", number * 37 % 1_000),
            "items": [{"sku": sku, "count": 1 + number % 3, "cents": 1_990 + number * 7 % 5_000}],
            "currency": "EUR",
        },
        "payment": {"gateway": PRIMARY, "card": card, "state": "open"},
        "shipping": {"method": "parcel", "country": country},
    });
    Order { id, placed, context }
}
