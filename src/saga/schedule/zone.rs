//! Wall-clock time of a place, and back: what is asked for in a time that does not exist that day counts from the next minute that
//! does, and of a time that comes twice the first counts.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::saga::time::Micros;

/// A zone of the IANA database.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// `None`: there is none of this name.
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("UTC") { Some(Self::utc()) } else { TimeZone::get(name).ok().map(Self) }
    }

    /// What a clock there shows. `None`: no clock shows such a time.
    pub fn civil(&self, at: Micros) -> Option<DateTime> {
        Some(self.0.to_datetime(Timestamp::from_microsecond(at.0).ok()?))
    }

    /// When a clock there shows this for the first time, or if it never does, the first moment after.
    pub fn instant(&self, civil: DateTime) -> Option<Micros> {
        let ambiguous = self.0.to_ambiguous_timestamp(civil);
        let at = match ambiguous.offset() {
            AmbiguousOffset::Gap { before, .. } => {
                let as_before = before.to_timestamp(civil).ok()?;
                // It is the change itself, or after it.
                let after = as_before.checked_add(SignedDuration::from_micros(1)).ok()?;
                self.0.preceding(after).next()?.timestamp()
            }
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok()?,
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok()?,
        };
        Some(Micros(at.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_does_not_exist_counts_from_the_next_and_one_that_comes_twice_from_the_first() {
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        let instant = |text: &str| zone.instant(text.parse().expect("civil")).map(|at| at.to_string());
        assert_eq!(instant("2026-03-29T02:30:00").as_deref(), Some("2026-03-29T01:00:00.000000Z"), "skipped: 03:00 there");
        assert_eq!(instant("2026-03-29T02:00:00").as_deref(), Some("2026-03-29T01:00:00.000000Z"));
        assert_eq!(instant("2026-10-25T02:30:00").as_deref(), Some("2026-10-25T00:30:00.000000Z"), "summer time first");
        assert_eq!(instant("2026-07-01T12:00:00").as_deref(), Some("2026-07-01T10:00:00.000000Z"));
        assert_eq!(zone.civil(Micros(0)).map(|civil| civil.to_string()).as_deref(), Some("1970-01-01T01:00:00"));
        assert!(Zone::named("Europe/Nowhere").is_none() && Zone::named("UTC") == Some(Zone::utc()));
        // Half an hour, in the south.
        let howe = Zone::named("Australia/Lord_Howe").expect("a zone");
        let instant = howe.instant("2026-10-04T02:10:00".parse().expect("civil"));
        assert_eq!(instant.map(|at| at.to_string()).as_deref(), Some("2026-10-03T15:30:00.000000Z"));
    }
}
