//! What the orchestrator wrote down of its own: every order's run and every restored saga it took up.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Day, Moment};
use super::engine::{CHARGE, Event, Picture, compensate, resume, run};
use super::gateways::{Gateways, TIMED_OUT};
use super::orders::Order;
use super::restored::Restored;
use serde_json::Value;

/// How an order went.
pub struct Page {
    pub picture: Picture,
    /// In the middle of the outage, if it ran then.
    pub noted: Option<Picture>,
    /// When its last step began.
    pub context_at_step: Value,
}

/// A restored saga and how it went.
pub struct Resumed {
    pub restored: Restored,
    pub picture: Picture,
    pub ended: Moment,
}

pub struct Book {
    pub day: Day,
    pub gateways: Gateways,
    /// By saga id.
    pub orders: BTreeMap<String, Page>,
    /// By replay id: what consumers of restored sagas deduplicate by.
    pub resumed: BTreeMap<String, Resumed>,
    /// The same of those that were asked to take back what they did; by the replay id of that.
    pub undone: BTreeMap<String, Resumed>,
    /// Records of restored sagas that were there before.
    pub repeated: u64,
}

impl Book {
    pub fn new(day: Day) -> Self {
        let (orders, resumed, undone) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { day, gateways: Gateways::new(day), orders, resumed, undone, repeated: 0 }
    }

    /// Runs all orders; gives their events in the order in which they happened.
    pub fn run_orders(&mut self, orders: &[Order]) -> Vec<Event> {
        let note_at = self.day.middle_of_the_outage();
        let mut events = Vec::new();
        for order in orders {
            let run = run(order, &mut self.gateways, note_at);
            events.extend(run.events);
            let page = Page { picture: run.picture, noted: run.noted, context_at_step: run.context_at_step };
            self.orders.insert(run.saga_id, page);
        }
        // Stable: the events of one saga stay in their order.
        events.sort_by_key(|event| event.at);
        events
    }

    /// Takes up what a record of the restored sagas' topic asks for, once.
    pub fn resume(&mut self, restored: Restored) -> Vec<Event> {
        if self.resumed.contains_key(&restored.replay_id) || self.undone.contains_key(&restored.replay_id) {
            self.repeated += 1;
            return Vec::new();
        }
        if restored.mode == "compensate" {
            return self.compensate(restored);
        }
        let run = resume(&restored, &mut self.gateways, Moment(i64::MIN));
        self.resumed.insert(restored.replay_id.clone(), Resumed { restored, picture: run.picture, ended: run.ended });
        run.events
    }

    fn compensate(&mut self, asked: Restored) -> Vec<Event> {
        let Some(before) = self.resumed.values().find(|resumed| resumed.restored.saga_id == asked.saga_id) else {
            return Vec::new();
        };
        let run = compensate(&asked, (&before.picture, before.ended), &mut self.gateways);
        self.undone.insert(asked.replay_id.clone(), Resumed { restored: asked, picture: run.picture, ended: run.ended });
        run.events
    }

    /// Orders whose charge timed out with the gateway: of the outage, not of the hiccup before it.
    pub fn lost_to_the_outage(&self, orders: &[Order]) -> BTreeSet<String> {
        let from = self.day.hiccup.to;
        let lost = |order: &&Order| {
            let picture = &self.orders[&order.id].picture;
            picture.failed_step.as_deref() == Some(CHARGE) && picture.error["type"] == TIMED_OUT && order.placed > from
        };
        orders.iter().filter(lost).map(|order| order.id.clone()).collect()
    }

    /// Orders of one kind of failure, at whatever time.
    pub fn failed_with(&self, kind: &str) -> BTreeSet<String> {
        self.orders.iter().filter(|(_, page)| page.picture.error["type"] == kind).map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::orders::of_the_day;
    use super::*;

    #[test]
    fn the_outage_costs_exactly_1500_orders_and_others_fail_beside_it() {
        let day = Day::before(Moment(1_768_039_200_000_001));
        let orders = of_the_day(&day, "order-");
        let mut book = Book::new(day);
        let events = book.run_orders(&orders);
        assert!(events.is_sorted_by_key(|event| event.at));
        assert_eq!(book.lost_to_the_outage(&orders).len(), 1_500);
        assert_eq!(book.failed_with(TIMED_OUT).len(), 1_505);
        assert!(book.failed_with("OutOfStock").len() > 10);
        assert!(book.failed_with("CardDeclined").len() > 3);
        assert_eq!(
            book.orders.values().filter(|page| page.picture.status == "completed").count(),
            book.gateways.charged("primary")
        );
        assert_eq!(book.gateways.charged_twice(), 0);
    }

    #[test]
    fn at_the_middle_of_the_outage_some_orders_wait_for_the_gateway() {
        let day = Day::before(Moment(1_768_039_200_000_001));
        let mut book = Book::new(day);
        book.run_orders(&of_the_day(&day, "order-"));
        let noted: Vec<_> = book.orders.values().filter_map(|page| page.noted.as_ref()).collect();
        assert!(noted.len() > 30, "{}", noted.len());
        assert!(noted.iter().any(|picture| picture.current_step.as_deref() == Some(CHARGE)));
    }
}
