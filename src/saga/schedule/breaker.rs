//! The circuit breaker of a policy, and how many requests of a schedule are where. Pure.

use crate::saga::batch_counts::BatchCounts;
use crate::saga::time::Micros;

/// How the replays of a policy ended since it was last enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndedReplays {
    pub ended: u64,
    pub not_completed: u64,
}

/// When it opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// Share of replays that did not complete, 0 to 1.
    pub ratio: f64,
    /// Replays that must have ended before it is looked at.
    pub after: u64,
}

impl StopRule {
    pub fn is_met(self, ended: EndedReplays) -> bool {
        ended.ended >= self.after.max(1) && ended.not_completed as f64 > self.ratio * ended.ended as f64
    }
}

/// What the log has of a schedule's requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScheduleTally {
    pub counts: BatchCounts,
    /// When each ended, and whether its restored saga completed.
    pub ends: Vec<(Micros, bool)>,
}

impl ScheduleTally {
    pub fn ended_since(&self, since: Micros) -> EndedReplays {
        let since = self.ends.iter().filter(|(at, _)| *at > since);
        since.fold(EndedReplays::default(), |all, (_, completed)| EndedReplays {
            ended: all.ended + 1,
            not_completed: all.not_completed + u64::from(!completed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_once_enough_have_ended_and_more_than_the_ratio_did_not_complete() {
        let rule = StopRule { ratio: 0.1, after: 20 };
        let met = |ended, not_completed| rule.is_met(EndedReplays { ended, not_completed });
        assert!(!met(19, 19) && !met(20, 2) && met(20, 3) && !met(30, 3));
        assert!(StopRule { ratio: 0.0, after: 1 }.is_met(EndedReplays { ended: 1, not_completed: 1 }));
        assert!(!StopRule { ratio: 0.0, after: 0 }.is_met(EndedReplays::default()));
    }

    #[test]
    fn what_ended_before_it_was_enabled_does_not_count() {
        let ends = vec![(Micros(1), false), (Micros(5), false), (Micros(6), true)];
        let tally = ScheduleTally { ends, ..ScheduleTally::default() };
        assert_eq!(tally.ended_since(Micros(1)), EndedReplays { ended: 2, not_completed: 1 });
        assert_eq!(tally.ended_since(Micros(9)), EndedReplays::default());
    }
}
