//! A partition that cannot go on for now: a store, the registry or a leader is away. What waits of it in memory would take
//! the room of those that can, so it is soon dropped, not read meanwhile, and read again from where the partition stands. Pure.

use std::time::{Duration, Instant};

/// A shorter wait costs no second reading.
const PATIENCE: Duration = Duration::from_millis(250);
/// First and longest time for which a partition is not read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Whether a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Active,
    /// Not at all: what still comes of it was read before.
    Suspended,
    /// From the answer with this ticket on.
    Resuming(u64),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Drop what waits, and tell the intake: then [`Suspension::suspended`].
    Suspend,
    /// Tell the intake: then [`Suspension::resume_asked`].
    Resume,
}

#[derive(Debug)]
pub struct Suspension {
    /// Since when it cannot go on.
    blocked_since: Option<Instant>,
    /// Suspended until then at least.
    resume_at: Instant,
    pause: Duration,
    reading: ReadState,
}

impl Suspension {
    pub fn new(now: Instant) -> Self {
        Self { blocked_since: None, resume_at: now, pause: FIRST_PAUSE, reading: ReadState::Active }
    }

    /// Does what comes of the partition follow what came before?
    pub fn is_active(&self) -> bool {
        self.reading == ReadState::Active
    }

    /// `blocked`: it cannot go on now.
    pub fn step(&mut self, blocked: bool, now: Instant) -> Step {
        match self.reading {
            ReadState::Active if blocked && now.duration_since(*self.blocked_since.get_or_insert(now)) >= PATIENCE => {
                Step::Suspend
            }
            ReadState::Suspended if !blocked && now >= self.resume_at => Step::Resume,
            _ => Step::Nothing,
        }
    }

    /// The intake reads it no more.
    pub fn suspended(&mut self, now: Instant) {
        self.reading = ReadState::Suspended;
        self.resume_at = now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    /// The intake was asked to read it again.
    pub fn resume_asked(&mut self, ticket: u64) {
        self.reading = ReadState::Resuming(ticket);
    }

    /// The intake's answer. `false`: to another question than the last.
    pub fn resume_answered(&mut self, ticket: u64, reads: bool, now: Instant) -> bool {
        let is_ours = self.reading == ReadState::Resuming(ticket);
        match (is_ours, reads) {
            (true, true) => self.reading = ReadState::Active,
            (true, false) => self.suspended(now),
            _ => {}
        }
        is_ours
    }

    /// Something of it was done.
    pub fn progressed(&mut self) {
        (self.blocked_since, self.pause) = (None, FIRST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_wait_changes_nothing_and_a_longer_one_suspends_until_it_may_be_over() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut suspension = Suspension::new(start);
        assert_eq!(
            [suspension.step(true, at(0)), suspension.step(true, at(200)), suspension.step(false, at(240))],
            [Step::Nothing; 3]
        );
        suspension.progressed();
        assert_eq!([suspension.step(true, at(250)), suspension.step(true, at(499))], [Step::Nothing; 2]);
        assert_eq!(suspension.step(true, at(500)), Step::Suspend);
        suspension.suspended(at(500));
        assert!(!suspension.is_active());
        assert_eq!([suspension.step(true, at(700)), suspension.step(false, at(599))], [Step::Nothing; 2]);
        assert_eq!(suspension.step(false, at(600)), Step::Resume);
        suspension.resume_asked(7);
        assert_eq!([suspension.step(false, at(601)), suspension.step(true, at(601))], [Step::Nothing; 2]);
        assert!(!suspension.resume_answered(6, true, at(602)) && !suspension.is_active(), "what was asked before is out of date");
        assert!(suspension.resume_answered(7, true, at(603)) && suspension.is_active());
    }

    #[test]
    fn a_wait_that_is_not_over_suspends_at_once_and_for_longer_each_time_up_to_a_bound() {
        let start = Instant::now();
        let (mut suspension, mut now, mut pauses) = (Suspension::new(start), start, Vec::new());
        suspension.step(true, now);
        now += PATIENCE;
        for ticket in 0..7 {
            assert_eq!(suspension.step(true, now), Step::Suspend);
            suspension.suspended(now);
            let paused = now;
            while suspension.step(false, now) == Step::Nothing {
                now += Duration::from_millis(100);
            }
            pauses.push(now.duration_since(paused).as_millis());
            suspension.resume_asked(ticket);
            assert!(suspension.resume_answered(ticket, true, now));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        suspension.progressed();
        assert_eq!(suspension.step(true, now), Step::Nothing);
    }

    #[test]
    fn what_the_intake_could_not_do_is_asked_again() {
        let start = Instant::now();
        let mut suspension = Suspension::new(start);
        suspension.suspended(start);
        suspension.resume_asked(1);
        assert!(suspension.resume_answered(1, false, start) && !suspension.is_active());
        assert_eq!(suspension.step(false, start + MAX_PAUSE), Step::Resume);
    }
}
