//! Instants in microseconds since the Unix epoch, UTC, and their text form (RFC 3339).
//!
//! Read with a zone, to the microsecond (finer digits are cut off); written in UTC with `Z` and six decimals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Micros(pub i64);

impl Micros {
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);
    /// 0000-01-01T00:00:00Z: before it no RFC 3339 text exists.
    pub const FIRST_WRITABLE: Self = Self(-719_528 * 86_400_000_000);
    /// 9999-12-31T23:59:59.999999Z: after it neither.
    pub const LAST_WRITABLE: Self = Self(2_932_897 * 86_400_000_000 - 1);

    pub fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000))
    }
    pub fn saturating_add(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
    /// Is it beyond what a right clock can have written by `now`, however much machines' clocks differ (a minute)?
    pub fn is_ahead_of(self, now: Self) -> bool {
        self > now.saturating_add(60_000_000)
    }
}

/// Why a text is not a time; names the remedy, never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time with a zone, such as 2026-01-10T10:00:00Z")]
pub struct InvalidTime;

impl FromStr for Micros {
    type Err = InvalidTime;

    /// RFC 3339 `date-time`: `T` (or `t`), seconds and a zone (`Z`, `z` or `+hh:mm`) are required. What would be before
    /// year 0 or after year 9999 in UTC is none. A leap second is the last microsecond of its minute.
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        read(text.as_bytes()).ok_or(InvalidTime)
    }
}

fn read(text: &[u8]) -> Option<Micros> {
    let (clock, rest) = text.split_first_chunk::<19>()?;
    let shape = (clock[4], clock[7], clock[10] | 0x20, clock[13], clock[16]) == (b'-', b'-', b't', b':', b':');
    if !shape {
        return None;
    }
    let (year, month, day) = (two(clock, 0)? * 100 + two(clock, 2)?, two(clock, 5)?, two(clock, 8)?);
    let (hour, minute, second) = (two(clock, 11)?, two(clock, 14)?, two(clock, 17)?);
    let (micros, zone) = match rest {
        [b'.', rest @ ..] => fraction(rest)?,
        zone => (0, zone),
    };
    let offset = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (h, m) = (two(zone, 1)?, two(zone, 4)?);
            if h > 23 || m > 59 {
                return None;
            }
            (h * 60 + m) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    // A leap second is a valid RFC 3339 time. It is the last microsecond of its minute, whatever its fraction: not before
    // what happened in the second before it, and not after what happens in the next minute.
    let is_leap = second == 60 && (hour * 60 + minute - offset).rem_euclid(1_440) == 1_439;
    let (second, micros) = if is_leap { (59, 999_999) } else { (second, micros) };
    let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !valid {
        return None;
    }
    let seconds = days_to(year, month, day) * 86_400 + (hour * 60 + minute - offset) * 60 + second;
    let at = Micros(seconds * 1_000_000 + micros);
    (Micros::FIRST_WRITABLE..=Micros::LAST_WRITABLE).contains(&at).then_some(at)
}

/// Two digits.
fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if tens < 10 && ones < 10 { Some(i64::from(tens * 10 + ones)) } else { None }
}

/// What stands after the point: microseconds, and the rest. At least one digit.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let length = text.iter().position(|b| !b.is_ascii_digit())?;
    let (digits, rest) = text.split_at(length);
    let (mut micros, mut place) = (0, 100_000);
    for digit in digits.iter().take(6) {
        micros += i64::from(digit - b'0') * place;
        place /= 10;
    }
    if length == 0 { None } else { Some((micros, rest)) }
}

/// Days of 400 years, after which the calendar repeats itself.
const CYCLE: i64 = 146_097;
/// Days from 1 March of year -400 to 1970-01-01: counting from there keeps all numbers positive, and a leap day is the
/// last of its year.
const EPOCH: i64 = 719_468 + CYCLE;

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of years 0 to 9999.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    // Years and months that begin in March: 0 is March, 11 February.
    let (year, month) = if month > 2 { (year + 400, month - 3) } else { (year + 399, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + days_before(month) + day - 1 - EPOCH
}

/// Days of the months since March; from there on they are 31, 30, 31, 30, 31, over and over.
fn days_before(month: i64) -> i64 {
    (month * 153 + 2) / 5
}

/// The date this many days after 1970-01-01, of years 0 to 9999.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (cycle, days) = (days / CYCLE, days % CYCLE);
    // Without the leap days before it a day's year is a division: one every 4 years, but not every 100, but every 400.
    let year = (days - days / 1_460 + days / 36_524 - days / (CYCLE - 1)) / 365;
    let days = days - (year * 365 + year / 4 - year / 100);
    let month = (days * 5 + 2) / 153;
    let day = days - days_before(month) + 1;
    let year = cycle * 400 + year - 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

impl fmt::Display for Micros {
    /// An instant that no RFC 3339 text can give is written as the nearest that one can.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = (*self).clamp(Self::FIRST_WRITABLE, Self::LAST_WRITABLE).0;
        let (seconds, micros) = (at.div_euclid(1_000_000), at.rem_euclid(1_000_000));
        let (days, seconds) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = date_of(days);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |at: usize, number: i64| {
            // Below 100 by how it was divided.
            text[at] += (number / 10) as u8;
            text[at + 1] += (number % 10) as u8;
        };
        put(0, year / 100);
        put(2, year % 100);
        put(5, month);
        put(8, day);
        put(11, seconds / 3_600);
        put(14, seconds / 60 % 60);
        put(17, seconds % 60);
        put(20, micros / 10_000);
        put(22, micros / 100 % 100);
        put(24, micros % 100);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}
impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Micros>().expect("valid").0
    }

    #[test]
    fn reads_to_the_microsecond_and_cuts_finer_digits() {
        assert_eq!(at("1970-01-01T00:00:01.0000019Z"), 1_000_001);
        assert_eq!(at("1970-01-01T00:00:01.5Z"), 1_500_000);
        assert_eq!(at("1970-01-01t01:00:00+01:00"), 0);
        assert_eq!(at("1969-12-31T23:59:59.999999-00:00"), -1);
    }

    #[test]
    fn writes_utc_with_six_decimals() {
        assert_eq!(Micros(1_768_039_200_000_001).to_string(), "2026-01-10T10:00:00.000001Z");
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn refuses_what_has_no_zone_or_is_no_date() {
        for text in [
            "2026-01-10T10:00:00",
            "2026-01-10",
            "2026-02-30T00:00:00Z",
            "2026-01-10T24:00:00Z",
            "2026-01-10T10:00:00.Z",
            "2026-01-10 10:00:00Z",
            "2026-01-10T10:00:60Z",
            "x",
        ] {
            assert_eq!(text.parse::<Micros>(), Err(InvalidTime), "{text}");
        }
    }

    #[test]
    fn text_and_number_are_the_same_instant() {
        for micros in [0, 1, -1, 1_768_039_200_123_456, 253_402_207_200_999_999] {
            assert_eq!(at(&Micros(micros).to_string()), micros);
        }
    }

    #[test]
    fn the_first_and_the_last_instant_are_written_and_read() {
        let (first, last) = ("0000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z");
        assert_eq!((Micros(at(first)), Micros(at(last))), (Micros::FIRST_WRITABLE, Micros::LAST_WRITABLE));
        assert_eq!(Micros(at("9999-12-31T23:59:59Z")).to_string(), "9999-12-31T23:59:59.000000Z");
        assert_eq!(Micros::FIRST_WRITABLE.to_string(), first);
        assert_eq!(Micros::MIN.to_string(), first, "the nearest that can be written");
        assert_eq!(Micros::MAX.to_string(), last);
        assert_eq!(at("0000-01-01T00:30:00-00:30"), at("0000-01-01T01:00:00Z"));
    }

    #[test]
    fn a_leap_second_is_the_last_microsecond_of_its_minute() {
        let last = at("2016-12-31T23:59:59.999999Z");
        let texts = ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.5Z", "2017-01-01T05:29:60+05:30", "2016-12-31T18:59:60-05:00"];
        assert_eq!(texts.map(at), [last; 4]);
        assert_eq!(at("9999-12-31T23:59:60Z"), Micros::LAST_WRITABLE.0);
        assert_eq!(at("2017-01-01T00:00:00Z"), last + 1);
    }

    #[test]
    fn a_time_that_its_zone_puts_out_of_range_is_refused() {
        for text in ["0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60-23:59"] {
            assert_eq!(text.parse::<Micros>(), Err(InvalidTime), "{text}");
        }
    }

    #[test]
    fn every_day_of_the_calendar_is_where_jiff_has_it() {
        let first = Micros::FIRST_WRITABLE.0 / 86_400_000_000;
        let epoch = jiff::civil::date(1970, 1, 1);
        for days in (first..=2_932_896).step_by(13).chain(-800_i64.max(first)..800) {
            let date = epoch.checked_add(jiff::Span::new().days(days)).unwrap();
            let ours = date_of(days);
            assert_eq!(ours, (date.year().into(), date.month().into(), date.day().into()));
            assert_eq!(days_to(ours.0, ours.1, ours.2), days);
        }
    }

    proptest! {
        #[test]
        fn texts_are_those_of_jiff(micros in Micros::FIRST_WRITABLE.0..253_402_207_200_999_999) {
            let text = Micros(micros).to_string();
            prop_assert_eq!(at(&text), micros);
            let theirs = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(&text, &format!("{theirs:.6}"));
        }

        #[test]
        fn what_is_read_is_what_jiff_reads(
            year in 0..=9_999, month in 0..14, day in 0..33, hour in 0..26, minute in 0..62, second in 0..61,
            fraction in "(\\.[0-9]{1,9})?", zone in "Z|[+-][01][0-9]:[0-6][0-9]",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            let theirs = text.parse::<jiff::Timestamp>();
            // What the two differ in is tested above: leap seconds, and the last day, which jiff lacks.
            prop_assume!(second < 60 && !text.starts_with("9999-12-3") && !text.starts_with("0000-01-01"));
            match theirs {
                Ok(theirs) => {
                    let seconds = theirs.as_second() * 1_000_000;
                    let below = i64::from(theirs.subsec_nanosecond()).div_euclid(1_000);
                    prop_assert_eq!(text.parse::<Micros>(), Ok(Micros(seconds + below)), "{}", text);
                }
                Err(_) => prop_assert!(text.parse::<Micros>().is_err(), "{}", text),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text: String, near in "[0-9tTzZ:.+é-]{0,40}") {
            let _either = (text.parse::<Micros>(), near.parse::<Micros>());
        }
    }
}
