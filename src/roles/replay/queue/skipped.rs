//! Requests that cannot go now and find no room among the parked ones: they are skipped. They stay in the topic, the committed
//! offset before them, and what comes behind them is read all the same. Pure; bounded per partition.
//!
//! They are read again when there is room, or when their time has come; a new owner reads them as if they were new. What was
//! replayed behind them is read once more then, and is a duplicate by the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::time::Micros;

/// Most skipped requests of one partition, some 200 bytes each. At this limit no more is read of it.
pub const MAX_SKIPPED: usize = 50_000;
/// First and longest pause between two reads of what was skipped: longer each time that nothing of it could go.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Pause between two reads for each record read: to read them all again for every free place is mostly for nothing.
const PAUSE_EACH: Duration = Duration::from_micros(500);
/// Most requests whose time has come, and most cancels, that are read together.
const MAX_DUE: usize = 1_000;
/// Longest time that one read of them may take, before it is started again.
const MAX_READ: Duration = Duration::from_secs(60);

/// A request that stays in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRequest {
    pub offset: Offset,
    pub replay_id: String,
    /// Its saga and when it may go; `None`: it is the cancel of another skipped one.
    pub order: Option<(SagaId, Micros)>,
}

/// What a batch says of requests that stay in the topic.
#[derive(Default)]
pub struct SkippedChanges {
    /// Those that stay, by partition.
    pub skipped: Vec<(TopicPartition, SkippedRequest)>,
    /// Of those that were skipped before: what was read again.
    pub looked_again: HashMap<TopicPartition, HashSet<Offset>>,
    /// Those for which a cancel was read.
    pub wanted: Vec<(TopicPartition, String)>,
}

impl SkippedChanges {
    /// This record was not looked at after all, in this batch.
    pub fn look_again_at(&mut self, partition: &TopicPartition, offset: Offset) {
        if let Some(looked) = self.looked_again.get_mut(partition) {
            looked.remove(&offset);
        }
    }
}

/// Those of one partition.
#[derive(Default)]
pub struct SkippedRequests {
    by_offset: BTreeMap<Offset, SkippedRequest>,
    by_id: HashMap<String, Offset>,
    of_saga: HashMap<SagaId, BTreeMap<Offset, Micros>>,
    /// To be parked whether there is room or not: a cancel for them was read.
    wanted: HashSet<String>,
    /// They are being read again, for these.
    again: BTreeSet<Offset>,
    next_look: Option<(Instant, Duration)>,
    last_look: Option<Instant>,
}

impl SkippedRequests {
    pub fn is_empty(&self) -> bool {
        self.by_offset.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= MAX_SKIPPED
    }

    /// The first of those that would be left without `done`.
    pub fn first_without(&self, done: &HashSet<Offset>) -> Option<Offset> {
        self.by_offset.keys().find(|offset| !done.contains(offset)).copied()
    }

    pub fn has(&self, replay_id: &str) -> bool {
        self.by_id.contains_key(replay_id)
    }

    pub fn is_wanted(&self, replay_id: &str) -> bool {
        self.wanted.contains(replay_id)
    }

    /// Is it to be looked at again, being read again?
    pub fn is_next(&self, offset: Offset) -> bool {
        self.again.contains(&offset) && self.by_offset.contains_key(&offset)
    }

    pub fn is_read_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Was an earlier request of the saga skipped whose time has come? Then none that comes later may overtake it.
    pub fn precedes(&self, saga: &SagaId, offset: Offset, now: Micros, done: &HashSet<Offset>) -> bool {
        let Some(of_saga) = self.of_saga.get(saga) else { return false };
        of_saga.range(..offset).any(|(earlier, go)| *go <= now && !done.contains(earlier))
    }

    pub fn insert(&mut self, one: SkippedRequest, now: Instant) {
        self.by_id.entry(one.replay_id.clone()).or_insert(one.offset);
        if let Some((saga, go)) = &one.order {
            self.of_saga.entry(saga.clone()).or_default().insert(one.offset, *go);
        }
        self.by_offset.insert(one.offset, one);
        self.next_look.get_or_insert((now + FIRST_PAUSE, FIRST_PAUSE));
    }

    /// It went, or is parked.
    pub fn remove(&mut self, offset: Offset) {
        let Some(one) = self.by_offset.remove(&offset) else { return };
        if self.by_id.get(&one.replay_id) == Some(&offset) {
            self.by_id.remove(&one.replay_id);
        }
        self.wanted.remove(&one.replay_id);
        if let Some((saga, _)) = &one.order
            && let Some(of_saga) = self.of_saga.get_mut(saga)
        {
            of_saga.remove(&offset);
            if of_saga.is_empty() {
                self.of_saga.remove(saga);
            }
        }
    }

    pub fn want(&mut self, replay_id: String, now: Instant) {
        if self.has(&replay_id) && self.wanted.insert(replay_id) {
            self.next_look = Some((now, FIRST_PAUSE));
        }
    }

    /// Where to read from again, if it is time. `room`: how many more can be parked. `end`: where the read ends.
    pub fn look_again(&mut self, room: usize, now: Micros, end: Offset, instant: Instant) -> Option<Offset> {
        let (at, pause) = self.next_look?;
        // What is read again and does not come was deleted, or its reading failed.
        let at = if self.is_read_again() { at + MAX_READ } else { at };
        let records = self.by_offset.first_key_value().map_or(0, |(first, _)| end.0.saturating_sub(first.0));
        let rests = PAUSE_EACH * u32::try_from(records).unwrap_or(u32::MAX);
        if instant < at || self.last_look.is_some_and(|last| instant < last + rests) {
            return None;
        }
        if self.is_empty() {
            self.next_look = None;
            return None;
        }
        self.next_look = Some((instant + pause, (pause * 2).min(MAX_PAUSE)));
        self.again = self.worth_a_look(room, now);
        let first = self.again.first().copied()?;
        self.last_look = Some(instant);
        Some(first)
    }

    /// Those that may go now, for which a cancel was read, or that there is room for; and with any of these the cancels, which
    /// may be theirs.
    fn worth_a_look(&self, room: usize, now: Micros) -> BTreeSet<Offset> {
        let (mut chosen, mut cancels) = (BTreeSet::new(), BTreeSet::new());
        let (mut room, mut due) = (room, MAX_DUE);
        for (offset, one) in &self.by_offset {
            let Some((_, go)) = &one.order else {
                if cancels.len() < MAX_DUE {
                    cancels.insert(*offset);
                }
                continue;
            };
            let counted = if *go <= now { &mut due } else { &mut room };
            if self.wanted.contains(&one.replay_id) {
                chosen.insert(*offset);
            } else if *counted > 0 {
                *counted -= 1;
                chosen.insert(*offset);
            }
        }
        if room > 0 || !chosen.is_empty() {
            chosen.append(&mut cancels);
        }
        chosen
    }

    /// Everything below was looked at again; `end`: where what is new begins. `something`: some of it is no longer here.
    pub fn looked(&mut self, to: Offset, end: Offset, something: bool) {
        if something {
            self.next_look = self.next_look.map(|(at, _)| (at, FIRST_PAUSE));
        }
        self.again = if to >= end { BTreeSet::new() } else { self.again.split_off(&to) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(offset: i64, saga: &str, go: i64) -> SkippedRequest {
        SkippedRequest { offset: Offset(offset), replay_id: format!("r{offset}"), order: Some((saga.into(), Micros(go))) }
    }

    fn none() -> HashSet<Offset> {
        HashSet::new()
    }

    #[test]
    fn the_committed_offset_stays_before_the_first_and_moves_as_they_go() {
        let (mut skipped, now) = (SkippedRequests::default(), Instant::now());
        for offset in [5, 7, 9] {
            skipped.insert(one(offset, "a", 0), now);
        }
        assert_eq!(skipped.first_without(&none()), Some(Offset(5)));
        assert_eq!(skipped.first_without(&[Offset(5), Offset(9)].into()), Some(Offset(7)));
        skipped.remove(Offset(5));
        assert_eq!(
            (skipped.first_without(&none()), skipped.has("r5"), skipped.has("r7"), skipped.len()),
            (Some(Offset(7)), false, true, 2)
        );
    }

    #[test]
    fn a_later_request_does_not_overtake_an_earlier_one_of_its_saga_whose_time_has_come() {
        let (mut skipped, now) = (SkippedRequests::default(), Instant::now());
        skipped.insert(one(5, "a", 100), now);
        let precedes = |saga: &str, offset, at| skipped.precedes(&saga.into(), Offset(offset), Micros(at), &none());
        assert!(precedes("a", 6, 100) && !precedes("a", 6, 99), "before its time it holds nobody up");
        assert!(!precedes("b", 6, 100) && !precedes("a", 5, 100));
        assert!(!skipped.precedes(&"a".into(), Offset(6), Micros(100), &[Offset(5)].into()), "it goes in this batch");
    }

    #[test]
    fn they_are_read_again_when_there_is_room_or_their_time_has_come_ever_more_rarely_while_nothing_comes_of_it() {
        let (mut skipped, start) = (SkippedRequests::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        skipped.insert(one(5, "a", 100), start);
        assert_eq!(skipped.look_again(1, Micros(0), Offset(10), after(499)), None);
        assert_eq!(skipped.look_again(1, Micros(0), Offset(10), after(500)), Some(Offset(5)));
        assert!(skipped.is_next(Offset(5)) && !skipped.is_next(Offset(6)));
        assert_eq!(skipped.look_again(1, Micros(0), Offset(10), after(9_000)), None, "one at a time");
        skipped.looked(Offset(6), Offset(10), false);
        assert!(!skipped.is_next(Offset(5)));
        assert_eq!(skipped.look_again(0, Micros(99), Offset(10), after(1_000)), None, "no room, and not its time");
        assert_eq!(skipped.look_again(0, Micros(100), Offset(10), after(1_500)), None, "later each time");
        assert_eq!(skipped.look_again(0, Micros(100), Offset(10), after(2_000)), Some(Offset(5)));
        skipped.remove(Offset(5));
        skipped.looked(Offset(6), Offset(10), true);
        assert_eq!(skipped.look_again(1, Micros(100), Offset(10), after(99_000)), None, "nothing is left");
    }

    #[test]
    fn one_that_is_to_be_cancelled_is_read_again_at_once() {
        let (mut skipped, now) = (SkippedRequests::default(), Instant::now());
        skipped.insert(one(5, "a", 100), now);
        skipped.insert(SkippedRequest { offset: Offset(8), replay_id: "c".into(), order: None }, now);
        skipped.want("nobody".into(), now);
        assert_eq!(skipped.look_again(0, Micros(0), Offset(10), now), None);
        skipped.want("r5".into(), now);
        assert_eq!((skipped.look_again(0, Micros(0), Offset(10), now), skipped.is_wanted("r5")), (Some(Offset(5)), true));
        skipped.remove(Offset(5));
        assert!(!skipped.is_wanted("r5"));
    }

    #[test]
    fn no_more_are_looked_at_than_there_is_room_for_and_of_many_the_looks_are_rare() {
        let (mut skipped, start) = (SkippedRequests::default(), Instant::now());
        for offset in 0..10_000 {
            skipped.insert(one(offset, &format!("s{offset}"), 100), start);
        }
        let mut looked = 0;
        let mut taken = 0;
        for millis in (500..60_500).step_by(50) {
            let now = start + Duration::from_millis(millis);
            if skipped.look_again(1, Micros(0), Offset(10_000), now).is_some() {
                looked += 1;
                let chosen: Vec<i64> = (0..10_000).filter(|offset| skipped.is_next(Offset(*offset))).collect();
                assert_eq!(chosen, [taken], "one place is free, for the first");
                skipped.remove(Offset(taken));
                skipped.looked(Offset(taken + 1), Offset(10_000), true);
                taken += 1;
            }
        }
        assert!((10..=13).contains(&looked), "{looked} looks in a minute, each of which reads 10,000 records");
    }
}
