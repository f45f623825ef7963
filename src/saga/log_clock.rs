//! When the log recorded a record, where the record's own timestamp cannot be true: a producer may put any number there
//! (topics with CreateTime), and one in the year 57,000 would be the effective time of all that follows in its saga.
//!
//! Decided by the broker's clock where it gave the timestamp, else by the partition's records before. A function of the
//! log alone, so that two owners fold the same; each segment keeps it for the owner that goes on there.

use super::time::Micros;

/// 2000-01-01: before it there was no log, nor is there a clock that is set.
const FIRST: Micros = Micros(946_684_800_000_000);
/// 2200-01-01: what is not before it was counted in another unit.
const LAST: Micros = Micros(7_258_118_400_000_000);
const DAY: i64 = 86_400_000_000;
/// A producer's timestamp this far after the record before is doubted.
const LONGEST_SILENCE: i64 = 366 * DAY;
/// Unless the record before was doubted and is as near as this to it: then the partition was silent that long.
const NEAR: i64 = DAY;

/// What the records of a partition so far say of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogClock {
    /// Of the newest record whose timestamp was believed.
    pub believed: Option<Micros>,
    /// Of the newest record, if its timestamp was doubted and would be possible.
    pub doubted: Option<Micros>,
}

impl LogClock {
    /// The recorded time of the partition's next record, in microseconds; `Err`: its timestamp is doubted, and this counts
    /// in its place, if a record before it tells. `by_broker`: the topic has LogAppendTime.
    pub fn read(&mut self, timestamp: Micros, by_broker: bool) -> Result<Micros, Option<Micros>> {
        let is_possible = FIRST <= timestamp && timestamp < LAST;
        let follows = |before: Micros, within: i64| timestamp.0 <= before.0.saturating_add(within);
        let is_near = |doubted: Micros| timestamp.0.abs_diff(doubted.0) <= NEAR as u64;
        let fits = self.believed.is_none_or(|before| follows(before, LONGEST_SILENCE)) || self.doubted.is_some_and(is_near);
        if is_possible && (by_broker || fits) {
            *self = Self { believed: Some(timestamp), doubted: None };
            return Ok(timestamp);
        }
        self.doubted = Some(timestamp).filter(|_| is_possible);
        Err(self.believed)
    }

    /// The recorded time of a record that is doubted where no record before it tells: when its event says it occurred, if
    /// that is possible.
    pub fn of_event(occurred_at: Option<Micros>) -> Micros {
        occurred_at.filter(|at| FIRST <= *at && *at < LAST).unwrap_or(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Micros = Micros(1_768_039_200_000_000);

    fn read(stamps: &[(Micros, bool)]) -> Vec<Result<Micros, Option<Micros>>> {
        let mut clock = LogClock::default();
        stamps.iter().map(|(stamp, by_broker)| clock.read(*stamp, *by_broker)).collect()
    }

    #[test]
    fn a_timestamp_in_another_unit_or_none_counts_as_the_one_before() {
        let lies = [Micros(NOW.0 * 1_000), Micros::MAX, Micros(-1_000), Micros(0), Micros(NOW.0 / 1_000)];
        for lie in lies {
            assert_eq!(read(&[(NOW, false), (lie, false), (lie, false)])[1..], [Err(Some(NOW)), Err(Some(NOW))], "{lie}");
            assert_eq!(read(&[(lie, false), (NOW, false)]), [Err(None), Ok(NOW)], "{lie}");
        }
    }

    #[test]
    fn a_clock_that_runs_years_ahead_is_doubted_until_a_second_record_agrees() {
        let later = NOW.saturating_add(2 * LONGEST_SILENCE);
        assert_eq!(read(&[(NOW, false), (later, false), (NOW, false)]), [Ok(NOW), Err(Some(NOW)), Ok(NOW)]);
        let silence = read(&[(NOW, false), (later, false), (later.saturating_add(DAY), false)]);
        assert_eq!(silence, [Ok(NOW), Err(Some(NOW)), Ok(later.saturating_add(DAY))], "the partition was silent for two years");
        assert_eq!(read(&[(NOW, true), (later, true)]), [Ok(NOW), Ok(later)], "the broker's clock is believed");
    }

    #[test]
    fn times_go_back_as_producers_do() {
        let earlier = Micros(NOW.0 - 40 * DAY);
        assert_eq!(read(&[(NOW, false), (earlier, false)]), [Ok(NOW), Ok(earlier)]);
    }

    #[test]
    fn without_a_record_before_it_the_event_tells() {
        assert_eq!(LogClock::of_event(Some(NOW)), NOW);
        assert_eq!([LogClock::of_event(None), LogClock::of_event(Some(Micros::MAX))], [FIRST, FIRST]);
    }

    proptest! {
        /// An owner that goes on from what a segment kept gives the same as one that read everything.
        #[test]
        fn two_owners_give_the_same(stamps in proptest::collection::vec((any::<i64>(), any::<bool>(), 0..3), 1..30), cut: usize) {
            let of = |(number, by_broker, kind): &(i64, bool, i32)| match kind {
                0 => (Micros(*number), *by_broker),
                _ => (Micros(NOW.0 + number % (3 * LONGEST_SILENCE)), *by_broker),
            };
            let stamps: Vec<_> = stamps.iter().map(of).collect();
            let whole = read(&stamps);
            let (before, after) = stamps.split_at(cut % stamps.len());
            let mut clock = LogClock::default();
            for (stamp, by_broker) in before {
                let _ = clock.read(*stamp, *by_broker);
            }
            let kept = LogClock { ..clock };
            let mut next = kept;
            let rest: Vec<_> = after.iter().map(|(stamp, by_broker)| next.read(*stamp, *by_broker)).collect();
            prop_assert_eq!(&rest[..], &whole[before.len()..]);
        }
    }
}
