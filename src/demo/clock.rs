//! The virtual clock: moments of the story's day, and how they are written. Reads no clock.

use std::fmt;
use std::time::Duration;

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// The full minute at or before it.
    pub fn minute(self) -> Self {
        Self(self.0 - self.0.rem_euclid(60_000_000))
    }

    /// `None`: not a time that resaga writes.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|at| Self(at.as_microsecond()))
    }

    /// `hh:mm`, for people.
    pub fn time_of_day(self) -> String {
        self.to_string().get(11..16).unwrap_or_default().to_owned()
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Moment {
    /// As resaga writes times (docs/INTERFACE.md, Common rules).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{}", at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    }
}

/// From (included) to (not included).
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Moment,
    pub to: Moment,
}

impl Window {
    pub fn contains(&self, at: Moment) -> bool {
        self.from <= at && at < self.to
    }
}

/// The times of the story: all of them over before it is told.
#[derive(Debug, Clone, Copy)]
pub struct Day {
    pub opens: Moment,
    /// A short one, long before the outage.
    pub hiccup: Window,
    pub outage: Window,
    pub closes: Moment,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Day {
    /// The hour before `now`.
    pub fn before(now: Moment) -> Self {
        let opens = now.before(60 * MINUTE).minute();
        let window = |from: Moment, length| Window { from, to: from.after(length) };
        Self {
            opens,
            hiccup: window(opens.after(4 * MINUTE), Duration::from_secs(4)),
            outage: window(opens.after(10 * MINUTE), 20 * MINUTE),
            closes: opens.after(40 * MINUTE),
        }
    }

    /// The moment at which somebody wants to know how things stood.
    pub fn middle_of_the_outage(&self) -> Moment {
        self.outage.from.after(10 * MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_with_six_decimals_and_reads_back() {
        let at = Moment(1_768_039_200_000_001);
        assert_eq!(at.to_string(), "2026-01-10T10:00:00.000001Z");
        assert_eq!(Moment::parse(&at.to_string()), Some(at));
        assert_eq!(at.time_of_day(), "10:00");
    }

    #[test]
    fn the_whole_day_is_over_before_it_is_told() {
        let now = Moment(1_768_039_200_000_001);
        let day = Day::before(now);
        assert!(day.opens < day.hiccup.from && day.hiccup.to < day.outage.from && day.outage.to < day.closes);
        assert!(day.closes.after(2 * MINUTE) < now);
        assert!(day.outage.contains(day.middle_of_the_outage()));
    }
}
