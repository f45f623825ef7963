//! Cron expressions of five fields, in a zone. Which minutes an expression means is `croner`'s work, on the wall clock; when a wall
//! clock shows them is [`Zone`]'s.

use chrono::Datelike;
use chrono::{DateTime as Chrono, NaiveDate, Timelike, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;

use super::zone::Zone;
use crate::saga::time::Micros;

/// An expression and its zone.
#[derive(Debug, Clone)]
pub struct CronTime {
    cron: Cron,
    text: String,
    zone: Zone,
}

impl PartialEq for CronTime {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.zone) == (&other.text, &other.zone)
    }
}

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;
/// How far back the last due time is looked for, in turn. The last covers a 29 February on a certain day of the week.
const LOOK_BACK: [i64; 5] = [60 * MINUTE, DAY, 32 * DAY, 400 * DAY, 29 * 366 * DAY];

impl CronTime {
    /// `Err`: what is wrong with the text.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, String> {
        if text.split_whitespace().count() != 5 {
            return Err("has not five fields: minute, hour, day of month, month, day of week".into());
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| format!("is no cron expression: {e}"))?;
        let cron = Self { cron, text: text.to_owned(), zone };
        if cron.next_after(Micros(0)).is_none() {
            return Err("names a time that never comes".into());
        }
        Ok(cron)
    }

    /// The first due time after this; `None`: none comes.
    pub fn next_after(&self, after: Micros) -> Option<Micros> {
        let mut civil = self.zone.civil(after)?;
        loop {
            civil = from_chrono(self.cron.find_next_occurrence(&to_chrono(civil)?, false).ok()?)?;
            let at = self.zone.instant(civil)?;
            // The second time that a clock shows it is not due again.
            if at > after {
                return Some(at);
            }
        }
    }

    /// The last due time in after < t <= until.
    pub fn last_in(&self, after: Micros, until: Micros) -> Option<Micros> {
        for back in LOOK_BACK {
            let from = after.max(until.saturating_add(-back));
            let mut last = None;
            let mut at = from;
            while let Some(next) = self.next_after(at).filter(|next| *next <= until) {
                (last, at) = (Some(next), next);
            }
            if last.is_some() || from == after {
                return last;
            }
        }
        None
    }
}

fn to_chrono(civil: DateTime) -> Option<Chrono<Utc>> {
    let date = NaiveDate::from_ymd_opt(civil.year().into(), civil.month().try_into().ok()?, civil.day().try_into().ok()?)?;
    let (hour, minute, second) =
        (civil.hour().try_into().ok()?, civil.minute().try_into().ok()?, civil.second().try_into().ok()?);
    Some(date.and_hms_opt(hour, minute, second)?.and_utc())
}

fn from_chrono(at: Chrono<Utc>) -> Option<DateTime> {
    let (year, month, day) = (at.year().try_into().ok()?, at.month().try_into().ok()?, at.day().try_into().ok()?);
    DateTime::new(year, month, day, at.hour().try_into().ok()?, at.minute().try_into().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
        let cron = CronTime::parse(text, Zone::named(zone).expect("a zone")).expect("an expression");
        let (mut at, until): (Micros, Micros) = (after.parse().expect("a time"), until.parse().expect("a time"));
        let mut found = Vec::new();
        while let Some(next) = cron.next_after(at).filter(|next| *next < until) {
            found.push(next.to_string().replace(":00.000000Z", "Z"));
            at = next;
        }
        found
    }

    #[test]
    fn a_day_that_loses_an_hour_and_one_that_has_it_twice_run_once() {
        let spring = times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(spring, ["2026-03-29T01:00Z", "2026-03-30T00:30Z"], "03:00 there, the next minute that exists");
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-27T00:00:00Z");
        assert_eq!(autumn, ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
        // Several that do not exist are one run.
        let quarters = times("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z");
        assert_eq!(quarters, ["2026-03-29T01:00Z"]);
        // The hour that comes twice has its quarters once.
        let quarters = times("*/15 * * * *", "America/New_York", "2026-11-01T05:29:00Z", "2026-11-01T07:16:00Z");
        assert_eq!(quarters, ["2026-11-01T05:30Z", "2026-11-01T05:45Z", "2026-11-01T07:00Z", "2026-11-01T07:15Z"]);
    }

    #[test]
    fn fields_mean_what_cron_means() {
        // Day of month or day of week, where both are given.
        let days = times("0 6 13 * 5", "UTC", "2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z");
        assert_eq!(days, ["2026-11-06T06:00Z", "2026-11-13T06:00Z"]);
        assert_eq!(times("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2029-01-01T00:00:00Z"), ["2028-02-29T00:00Z"]);
        for wrong in ["", "* * * *", "0 * * * * *", "61 * * * *", "0 0 31 2 *", "@hourly"] {
            assert!(CronTime::parse(wrong, Zone::utc()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_of_those_that_were_missed_is_found_however_long_ago() {
        let last = |text: &str, after: &str, until: &str| {
            let cron = CronTime::parse(text, Zone::utc()).expect("an expression");
            cron.last_in(after.parse().expect("a time"), until.parse().expect("a time")).map(|at| at.to_string())
        };
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(last("* * * * *", "2020-01-01T00:00:00Z", "2026-01-01T00:00:30Z"), found("2026-01-01T00:00:00.000000Z"));
        assert_eq!(last("0 0 29 2 *", "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), found("2024-02-29T00:00:00.000000Z"));
        assert_eq!(last("0 0 1 * *", "2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z"), None, "not that of the time before");
        assert_eq!(last("0 0 1 * *", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"), found("2026-01-01T00:00:00.000000Z"));
    }
}
