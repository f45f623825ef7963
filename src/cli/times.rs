//! Times as a person writes them: RFC 3339 with a zone, or relative to now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::saga::time::Micros;

/// `2026-01-10T10:00:00Z`, `now`, `-2h`, `+5m`, `90m ago`. A time without zone is refused: an auditor's 14:30 must not
/// become the operator's.
pub fn parse(text: &str) -> Result<Micros, String> {
    resolve(text, now())
}

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn resolve(text: &str, now: Micros) -> Result<Micros, String> {
    let text = text.trim();
    let (sign, span) = match text.split_at_checked(1) {
        _ if text == "now" => return Ok(now),
        Some(("-", span)) => (-1, span),
        Some(("+", span)) => (1, span),
        _ => match text.strip_suffix("ago") {
            Some(span) => (-1, span.trim_end()),
            None => {
                return text.parse().map_err(|e| format!("{e}, or relative to now, such as -2h or \"90m ago\""));
            }
        },
    };
    let span = duration(span)?;
    let micros = i64::try_from(span.as_micros()).map_err(|_| "too long a time".to_owned())?;
    Ok(now.saturating_add(sign * micros))
}

/// A length of time with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration with its unit, such as 30s, 90m or 2h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_relative_times_are_read_and_zoneless_ones_refused() {
        let now: Micros = "2026-01-10T10:00:00Z".parse().expect("time");
        let at = |text: &str| resolve(text, now).map(|at| at.to_string());
        assert_eq!(at("2024-07-15T14:30:00+02:00"), Ok("2024-07-15T12:30:00.000000Z".into()));
        assert_eq!(at("-2h"), Ok("2026-01-10T08:00:00.000000Z".into()));
        assert_eq!(at("+5m"), Ok("2026-01-10T10:05:00.000000Z".into()));
        assert_eq!(at("90m ago"), Ok("2026-01-10T08:30:00.000000Z".into()));
        assert_eq!(at("now"), Ok("2026-01-10T10:00:00.000000Z".into()));
        for text in ["2024-07-15T14:30:00", "2024-07-15", "", "-", "-2", "yesterday", "ago", "é"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
