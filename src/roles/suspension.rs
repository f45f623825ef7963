//! A partition that cannot go on for now: a store, the registry or a leader is away. What waits of it in memory would take
//! the room of those that can, so it is let go of soon, not read meanwhile, and read again from where it stands. Pure.

use std::time::{Duration, Instant};

/// A rest that is shorter costs no second reading.
const KEPT: Duration = Duration::from_millis(250);
/// First and longest time for which it is not read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    /// Not at all: what still comes of it was read before.
    LetGo,
    /// From the answer with this ticket on.
    Again(u64),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Drop what waits, and tell the intake: then [`Suspension::let_go`].
    LetGo,
    /// Tell the intake: then [`Suspension::asked`].
    ReadAgain,
}

#[derive(Debug)]
pub struct Suspension {
    /// When it could not go on first, without having gone on since.
    since: Option<Instant>,
    again: Instant,
    pause: Duration,
    reading: Reading,
}

impl Suspension {
    pub fn new(now: Instant) -> Self {
        Self { since: None, again: now, pause: FIRST_PAUSE, reading: Reading::On }
    }

    /// Does what comes of the partition follow what came before?
    pub fn is_read(&self) -> bool {
        self.reading == Reading::On
    }

    /// `rests`: it cannot go on now.
    pub fn step(&mut self, rests: bool, now: Instant) -> Step {
        match self.reading {
            Reading::On if rests && now.duration_since(*self.since.get_or_insert(now)) >= KEPT => Step::LetGo,
            Reading::LetGo if !rests && now >= self.again => Step::ReadAgain,
            _ => Step::Nothing,
        }
    }

    pub fn let_go(&mut self, now: Instant) {
        self.reading = Reading::LetGo;
        self.again = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The intake was asked to read it again.
    pub fn asked(&mut self, ticket: u64) {
        self.reading = Reading::Again(ticket);
    }

    /// The intake's answer. `false`: to another question than the last.
    pub fn answered(&mut self, ticket: u64, reads: bool, now: Instant) -> bool {
        let is_ours = self.reading == Reading::Again(ticket);
        match (is_ours, reads) {
            (true, true) => self.reading = Reading::On,
            (true, false) => self.let_go(now),
            _ => {}
        }
        is_ours
    }

    /// Something of it was done.
    pub fn went_on(&mut self) {
        (self.since, self.pause) = (None, FIRST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_rest_changes_nothing_and_a_longer_one_lets_go_until_it_may_be_over() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rest = Suspension::new(start);
        assert_eq!([rest.step(true, at(0)), rest.step(true, at(200)), rest.step(false, at(240))], [Step::Nothing; 3]);
        rest.went_on();
        assert_eq!([rest.step(true, at(250)), rest.step(true, at(499))], [Step::Nothing; 2]);
        assert_eq!(rest.step(true, at(500)), Step::LetGo);
        rest.let_go(at(500));
        assert!(!rest.is_read());
        assert_eq!([rest.step(true, at(700)), rest.step(false, at(599))], [Step::Nothing; 2]);
        assert_eq!(rest.step(false, at(600)), Step::ReadAgain);
        rest.asked(7);
        assert_eq!([rest.step(false, at(601)), rest.step(true, at(601))], [Step::Nothing; 2]);
        assert!(!rest.answered(6, true, at(602)) && !rest.is_read(), "what was asked before is out of date");
        assert!(rest.answered(7, true, at(603)) && rest.is_read());
    }

    #[test]
    fn a_rest_that_is_not_over_lets_go_at_once_and_for_longer_each_time_up_to_a_bound() {
        let start = Instant::now();
        let (mut rest, mut now, mut pauses) = (Suspension::new(start), start, Vec::new());
        rest.step(true, now);
        now += KEPT;
        for ticket in 0..7 {
            assert_eq!(rest.step(true, now), Step::LetGo);
            rest.let_go(now);
            let paused = now;
            while rest.step(false, now) == Step::Nothing {
                now += Duration::from_millis(100);
            }
            pauses.push(now.duration_since(paused).as_millis());
            rest.asked(ticket);
            assert!(rest.answered(ticket, true, now));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        rest.went_on();
        assert_eq!(rest.step(true, now), Step::Nothing);
    }

    #[test]
    fn what_the_intake_could_not_do_is_asked_again() {
        let start = Instant::now();
        let mut rest = Suspension::new(start);
        rest.let_go(start);
        rest.asked(1);
        assert!(rest.answered(1, false, start) && !rest.is_read());
        assert_eq!(rest.step(false, start + LONGEST_PAUSE), Step::ReadAgain);
    }
}
