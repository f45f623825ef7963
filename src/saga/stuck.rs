//! Which sagas are stuck: they run or compensate, and nothing was recorded of them for longer than their name allows. Pure.

use super::state::{State, Status};
use super::time::Micros;

/// How long a saga may rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckLimits {
    pub after_micros: i64,
    /// By saga name.
    pub by_name: Vec<(String, i64)>,
}

impl StuckLimits {
    /// Microseconds that sagas of this name may rest.
    pub fn of(&self, name: &str) -> i64 {
        self.by_name.iter().find(|(known, _)| known == name).map_or(self.after_micros, |(_, after)| *after)
    }

    /// Has the name a limit of its own?
    pub fn has_own(&self, name: &str) -> bool {
        self.by_name.iter().any(|(known, _)| known == name)
    }

    /// Did a saga whose newest entry was recorded at `recorded` rest longer than `after` microseconds?
    pub fn rests_longer(after: i64, recorded: Micros, read_through: Micros) -> bool {
        read_through.0.saturating_sub(recorded.0) > after
    }

    /// `read_through`: everything that was appended to the saga's partition before this is in `newest`. Where the partition is not
    /// read on, no saga of it gets stuck by that.
    pub fn is_stuck(&self, newest: &State, read_through: Micros) -> bool {
        let is_open = matches!(newest.status, Status::Running | Status::Compensating);
        is_open && Self::rests_longer(self.of(&newest.saga_name), newest.entry.recorded_time, read_through)
    }
}

impl Default for StuckLimits {
    fn default() -> Self {
        Self { after_micros: 3_600_000_000, by_name: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::event::Kind;
    use crate::saga::testing::{Log, SECOND, event};

    #[test]
    fn a_saga_is_stuck_once_it_rests_longer_than_its_name_allows_and_not_before() {
        let limits = StuckLimits { after_micros: 60 * SECOND, by_name: vec![("slow".into(), 90 * SECOND)] };
        // Recorded at 1 s.
        let log = Log::of([event(Kind::SagaStarted)]);
        let state = log.state();
        let at = |seconds: i64| Micros(seconds * SECOND);
        assert!(!limits.is_stuck(state, at(61)) && limits.is_stuck(state, Micros(61 * SECOND + 1)));
        let slow = State { saga_name: "slow".into(), ..state.clone() };
        assert!(!limits.is_stuck(&slow, at(91)) && limits.is_stuck(&slow, at(92)));
        for (status, may) in [(Status::Compensating, true), (Status::Failed, false), (Status::Completed, false)] {
            assert_eq!(limits.is_stuck(&State { status, ..state.clone() }, at(1_000)), may);
        }
        assert!(!limits.is_stuck(state, Micros::MIN), "of a partition that was never read nothing is known");
    }
}
