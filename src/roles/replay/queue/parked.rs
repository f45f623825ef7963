//! Requests that wait: for their time, or for their saga's partition to be materialized. Pure; bounded per partition.
//!
//! Each has an `accepted` record in the replay log with the whole request inside, so a new owner finds it there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use crate::roles::replay::catch_up::EndOffsets;
use crate::saga::position::{Offset, SagaId};
use crate::saga::request::{Command, LogRecord, ReplayRequest};
use crate::saga::time::Micros;

#[derive(Debug, Clone)]
pub struct Parked {
    pub request: ReplayRequest,
    /// The saga whose requests keep their order: the original.
    pub saga_id: SagaId,
    /// When it may go.
    pub due: Micros,
    /// As written when it was parked.
    pub record: LogRecord,
    /// W3C `traceparent` of the request's record; a later owner does not know it.
    pub trace: Option<String>,
    /// The ends that it must see, asked after it was read or woke; `None`: not looked at yet (its time has not come, or another process parked it).
    pub ends: Option<EndOffsets>,
}

impl Parked {
    /// `None`: it is of a command that does not wait.
    pub fn of(request: ReplayRequest, record: LogRecord, trace: Option<String>, ends: Option<EndOffsets>) -> Option<Self> {
        let (saga_id, due) = waits(&request.command)?;
        Some(Self { saga_id: saga_id.clone(), due, request, record, trace, ends })
    }
}

/// The saga among whose requests a command keeps its place, and the time before which it may not go; `None`: it waits for nothing.
pub fn waits(command: &Command) -> Option<(&SagaId, Micros)> {
    match command {
        Command::Replay(order) => Some((&order.saga_id, order.not_before.unwrap_or(Micros::MIN).max(Micros::MIN))),
        Command::Undo { saga_id, .. } => Some((saga_id, Micros::MIN)),
        _ => None,
    }
}

/// When its request was recorded, and where: the order that requests of one saga keep once their time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RecordedOrder {
    accepted_at: Micros,
    offset: Offset,
    replay_id: String,
}

/// The order in which requests go: earlier due first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DueOrder {
    /// When it may go.
    due: Micros,
    recorded: RecordedOrder,
}

/// The parked requests of one partition of the requests topic.
#[derive(Default)]
pub struct ParkedRequests {
    by_due: BTreeMap<DueOrder, Parked>,
    due_of: HashMap<String, DueOrder>,
    /// With the time each may go.
    of_saga: HashMap<SagaId, BTreeMap<RecordedOrder, Micros>>,
    /// The last one that was given out as due: the next look goes on behind it.
    looked_at: Option<DueOrder>,
}

impl ParkedRequests {
    pub fn len(&self) -> usize {
        self.by_due.len()
    }

    pub fn contains(&self, replay_id: &str) -> bool {
        self.due_of.contains_key(replay_id)
    }

    pub fn insert(&mut self, parked: Parked) {
        let record = &parked.record;
        let due = parked.due;
        let (accepted_at, offset, replay_id) = (record.accepted_at, record.position.offset, record.replay_id.clone());
        self.remove(&replay_id);
        let recorded = RecordedOrder { accepted_at, offset, replay_id: replay_id.clone() };
        self.of_saga.entry(parked.saga_id.clone()).or_default().insert(recorded.clone(), due);
        let order = DueOrder { due, recorded };
        self.due_of.insert(replay_id, order.clone());
        self.by_due.insert(order, parked);
    }

    pub fn remove(&mut self, replay_id: &str) -> Option<Parked> {
        let order = self.due_of.remove(replay_id)?;
        let parked = self.by_due.remove(&order)?;
        if let Some(of_saga) = self.of_saga.get_mut(&parked.saga_id) {
            of_saga.remove(&order.recorded);
            if of_saga.is_empty() {
                self.of_saga.remove(&parked.saga_id);
            }
        }
        Some(parked)
    }

    pub fn is_due(&self, now: Micros) -> bool {
        self.by_due.first_key_value().is_some_and(|(order, _)| order.due <= now)
    }

    /// Those whose time has come, in turn; at most `limit`. The next call goes on behind them, so that what cannot go yet
    /// does not keep the rest from being looked at; at the end nothing more is given, once. One is given only after
    /// the earlier ones of its saga.
    pub fn due(&mut self, now: Micros, limit: usize) -> Vec<Parked> {
        let from = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut led: HashSet<&SagaId> = HashSet::new();
        let mut given = Vec::new();
        for (order, parked) in self.by_due.range((from, Bound::Unbounded)).take_while(|(order, _)| order.due <= now) {
            if given.len() == limit {
                break;
            }
            let saga = &parked.saga_id;
            let leads = first_due(&self.of_saga, saga, now).is_some_and(|first| *first == order.recorded);
            if leads {
                led.insert(saga);
            }
            if led.contains(saga) {
                given.push(parked.clone());
                self.looked_at = Some(order.clone());
            }
        }
        given
    }

    /// Those that this schedule asked for may go now; gives how many.
    pub fn hasten(&mut self, schedule_id: &str) -> usize {
        let asked = |parked: &&Parked| match &parked.request.command {
            Command::Replay(order) => order.schedule.as_ref().is_some_and(|member| member.schedule_id == schedule_id),
            _ => false,
        };
        let asked: Vec<Parked> = self.by_due.values().filter(asked).cloned().collect();
        for parked in &asked {
            self.insert(Parked { due: Micros::MIN, ..parked.clone() });
        }
        asked.len()
    }

    /// The next look begins with the first again.
    pub fn look_from_the_first(&mut self) {
        self.looked_at = None;
    }

    /// Does an earlier request of the saga wait for its partition? Then a later one must not overtake it.
    pub fn blocks(&self, saga: &SagaId, now: Micros) -> bool {
        first_due(&self.of_saga, saga, now).is_some()
    }

    /// Keeps the ends of a take-up, so that later events do not make it wait longer.
    pub fn keep_ends(&mut self, replay_id: &str, ends: &EndOffsets) {
        let Some(order) = self.due_of.get(replay_id) else { return };
        if let Some(parked) = self.by_due.get_mut(order) {
            parked.ends.get_or_insert_with(|| ends.clone());
        }
    }
}

/// The first recorded of a saga's requests whose time has come.
fn first_due<'w>(
    of_saga: &'w HashMap<SagaId, BTreeMap<RecordedOrder, Micros>>,
    saga: &SagaId,
    now: Micros,
) -> Option<&'w RecordedOrder> {
    of_saga.get(saga)?.iter().find(|(_, due)| **due <= now).map(|(recorded, _)| recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::replay::log_record::{accepted, record_of};
    use crate::saga::position::Position;
    use crate::wire::request::decode_json;

    fn parked(id: &str, saga: &str, offset: i64) -> Parked {
        let text = format!(
            r#"{{"request_id": "{id}", "command": "REPLAY", "saga_id": "{saga}", "from": {{"latest": true}}, "requested_by": "ops", "reason": "test"}}"#
        );
        let request = decode_json(text.as_bytes()).expect("a request");
        let record = accepted(record_of(&request, Position::new("requests", 0, offset), Micros(offset)), &request);
        Parked::of(request, record, None, None).expect("it may wait")
    }

    fn due(waiting: &mut ParkedRequests, limit: usize) -> Vec<String> {
        waiting.due(Micros(1_000), limit).into_iter().map(|parked| parked.request.request_id).collect()
    }

    #[test]
    fn each_look_goes_on_behind_the_last() {
        let mut waiting = ParkedRequests::default();
        for n in 0..5 {
            waiting.insert(parked(&format!("r{n}"), &format!("s{n}"), n));
        }
        assert_eq!(due(&mut waiting, 2), ["r0", "r1"]);
        assert_eq!(due(&mut waiting, 2), ["r2", "r3"]);
        assert_eq!(due(&mut waiting, 2), ["r4"]);
        assert!(due(&mut waiting, 2).is_empty(), "a turn for what was just read");
        assert_eq!(due(&mut waiting, 9).len(), 5);
    }

    #[test]
    fn a_request_never_goes_before_an_earlier_one_of_its_saga() {
        let mut waiting = ParkedRequests::default();
        for (n, saga) in ["a", "b", "a", "b"].into_iter().enumerate() {
            waiting.insert(parked(&format!("r{n}"), saga, n as i64));
        }
        assert_eq!(due(&mut waiting, 1), ["r0"]);
        // r2 would go before r0, which this look does not have.
        assert_eq!(due(&mut waiting, 9), ["r1", "r3"]);
        let first = waiting.by_due.values().next().map(|parked| parked.record.replay_id.clone()).expect("r0");
        waiting.remove(&first);
        assert!(waiting.blocks(&"a".into(), Micros(1_000)), "r2 still waits");
        assert!(due(&mut waiting, 9).is_empty());
        assert_eq!(due(&mut waiting, 9), ["r1", "r2", "r3"]);
    }

    #[test]
    fn one_that_was_recorded_later_does_not_overtake_one_whose_time_came() {
        let mut waiting = ParkedRequests::default();
        let mut first = parked("r0", "a", 0);
        first.due = Micros(500);
        waiting.insert(first);
        waiting.insert(parked("r1", "a", 1));
        assert_eq!(waiting.due(Micros(100), 9).len(), 1, "before its time it holds nobody up");
        waiting.due(Micros(100), 9);
        assert_eq!(due(&mut waiting, 9), ["r0"]);
    }
}
