//! How far a partition is complete, in time: from the ends asked for and the position reached.

use std::collections::VecDeque;

use crate::saga::position::Offset;
use crate::saga::time::Micros;

/// Ends remembered while the position has not reached them. Asked about once a second: several minutes' worth.
const MAX_OPEN_ENDS: usize = 512;

/// Turns (time asked, partition's end then) and the position into `complete_through`.
#[derive(Debug, Default)]
pub struct CompletenessTracker {
    /// Ends not yet reached, oldest first.
    open: VecDeque<(Offset, Micros)>,
    reached: Option<Micros>,
}

impl CompletenessTracker {
    /// The partition's end was `end` when asked at `at`.
    pub fn asked(&mut self, end: Offset, at: Micros) {
        if self.open.len() == MAX_OPEN_ENDS {
            // Thin out: the newer half is reached later anyway, so answers only get coarser, never wrong.
            let mut keep = false;
            self.open.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.open.push_back((end, at));
    }

    /// Everything appended before the result is below `position`. `None`: not known yet.
    pub fn at(&mut self, position: Offset) -> Option<Micros> {
        while let Some((end, at)) = self.open.front().copied() {
            if end > position {
                break;
            }
            self.reached = Some(at);
            self.open.pop_front();
        }
        self.reached
    }
}

/// What a mark says: what was told before, or what is known here. Nothing that is ahead of `now` is carried over: whoever
/// wrote it had a wrong clock, and it would be told for as long as it is ahead.
pub fn carried(before: Option<Micros>, known: Option<Micros>, now: Micros) -> Micros {
    let believed = |time: &Micros| !time.is_ahead_of(now);
    before.filter(believed).max(known.filter(believed)).map(|time| time.min(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_once_the_end_asked_then_is_reached() {
        let mut through = CompletenessTracker::default();
        through.asked(Offset(10), Micros(1));
        through.asked(Offset(20), Micros(2));
        assert_eq!(through.at(Offset(9)), None);
        assert_eq!(through.at(Offset(10)), Some(Micros(1)));
        assert_eq!(through.at(Offset(19)), Some(Micros(1)));
        assert_eq!(through.at(Offset(25)), Some(Micros(2)));
    }

    #[test]
    fn what_is_ahead_of_now_is_not_carried_over() {
        let now = Micros(1_800_000_000_000_000);
        let (before, in_forty_days) = (now.saturating_add(-1), now.saturating_add(40 * 86_400_000_000));
        assert_eq!(carried(Some(before), None, now), before);
        assert_eq!(carried(Some(before), Some(now), now), now);
        assert_eq!(carried(Some(in_forty_days), Some(before), now), before);
        assert_eq!(carried(Some(in_forty_days), None, now), Micros(0));
        assert_eq!(carried(Some(now.saturating_add(5)), None, now), now, "another machine's clock is a little ahead");
    }

    #[test]
    fn a_long_backlog_is_thinned_and_stays_true() {
        let mut through = CompletenessTracker::default();
        for i in 0..10_000 {
            through.asked(Offset(i), Micros(i));
        }
        assert!(through.open.len() <= MAX_OPEN_ENDS);
        let at = through.at(Offset(5_000)).expect("reached some");
        assert!(at <= Micros(5_000));
    }
}
