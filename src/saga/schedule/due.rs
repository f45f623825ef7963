//! When a schedule is due next. Pure.

use super::progress::ScheduleProgress;
use super::{CatchUp, ScheduleOrder, Trigger};
use crate::saga::time::Micros;

/// A run that begins later than this after its due time was missed, microseconds.
const LATE: i64 = 60_000_000;

/// A due time that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Micros,
    /// It was missed, and is not made up for.
    pub is_skipped: bool,
}

impl ScheduleOrder {
    /// The next due time; `None`: there is none.
    pub fn next_due(&self, progress: &ScheduleProgress) -> Option<Micros> {
        if !progress.enabled {
            return None;
        }
        match &self.trigger {
            Trigger::At(at) => progress.last_due.is_none().then_some(*at),
            Trigger::Cron(cron) => cron.next_after(progress.due_after()),
            Trigger::Policy(_) => None,
        }
    }

    /// What is due by now; of several that passed the last.
    pub fn due(&self, progress: &ScheduleProgress, now: Micros) -> Option<Due> {
        let first = self.next_due(progress).filter(|first| *first <= now)?;
        let at = match &self.trigger {
            Trigger::Cron(cron) => cron.last_in(progress.due_after(), now).unwrap_or(first),
            _ => first,
        };
        Some(Due { at, is_skipped: self.catch_up == CatchUp::None && now.0.saturating_sub(at.0) > LATE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::json::Json;
    use crate::saga::schedule::ScheduledWork;
    use crate::saga::schedule::cron::CronTime;
    use crate::saga::schedule::zone::Zone;

    const MINUTE: i64 = 60_000_000;

    fn order(trigger: Trigger, catch_up: CatchUp) -> ScheduleOrder {
        let work = ScheduledWork::Replay { saga_id: Some("a".into()), members: Json::empty_object() };
        ScheduleOrder { name: None, trigger, catch_up, work }
    }

    #[test]
    fn of_runs_that_were_missed_the_last_is_made_up_for_or_none() {
        let every_minute = || Trigger::Cron(Box::new(CronTime::parse("* * * * *", Zone::utc()).expect("an expression")));
        let progress = ScheduleProgress::new(Json::empty_object(), Micros(10 * MINUTE));
        let now = Micros(20 * MINUTE + MINUTE / 2);
        let last = order(every_minute(), CatchUp::Last);
        assert_eq!(last.next_due(&progress), Some(Micros(11 * MINUTE)));
        assert_eq!(last.due(&progress, now), Some(Due { at: Micros(20 * MINUTE), is_skipped: false }));
        let ran = ScheduleProgress { last_due: Some(Micros(20 * MINUTE)), ..progress.clone() };
        assert_eq!(last.due(&ran, now), None, "it runs once");
        // Another worker's clock is behind.
        assert_eq!(last.due(&ran, Micros(19 * MINUTE)), None);
        let off = ScheduleProgress { enabled: false, ..progress.clone() };
        assert_eq!((last.next_due(&off), last.due(&off, now)), (None, None));

        let hourly = Trigger::Cron(Box::new(CronTime::parse("0 * * * *", Zone::utc()).expect("an expression")));
        let none = order(hourly, CatchUp::None);
        let missed = none.due(&progress, Micros(61 * MINUTE + 1));
        assert_eq!(missed, Some(Due { at: Micros(60 * MINUTE), is_skipped: true }));
        assert_eq!(none.due(&progress, Micros(61 * MINUTE)).map(|due| due.is_skipped), Some(false));
    }

    #[test]
    fn a_single_time_comes_once() {
        let once = order(Trigger::At(Micros(5)), CatchUp::Last);
        let progress = ScheduleProgress::new(Json::empty_object(), Micros(10));
        assert_eq!(once.due(&progress, Micros(4)), None);
        assert_eq!(once.due(&progress, Micros(10)), Some(Due { at: Micros(5), is_skipped: false }), "also one that has passed");
        let ran = ScheduleProgress { last_due: Some(Micros(5)), ..progress };
        assert_eq!(once.due(&ran, Micros(20)), None);
    }
}
