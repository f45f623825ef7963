//! How many replays may go now, with `[replay] rate`. Pure: the time comes in.

use std::time::Instant;

/// Replays a second, with a burst of one second.
pub struct RateLimiter {
    /// `None`: no limit.
    per_second: Option<f64>,
    allowance: f64,
    refilled_at: Instant,
}

impl RateLimiter {
    pub fn new(per_second: Option<f64>, now: Instant) -> Self {
        Self { per_second, allowance: burst(per_second), refilled_at: now }
    }

    /// From now on.
    pub fn set(&mut self, per_second: Option<f64>, now: Instant) {
        if self.per_second != per_second {
            *self = Self::new(per_second, now);
        }
    }

    pub fn is_limited(&self) -> bool {
        self.per_second.is_some()
    }

    /// Replays that may go now: no more histories need be read.
    pub fn allows(&mut self, now: Instant) -> usize {
        let Some(per_second) = self.per_second else { return usize::MAX };
        let gained = now.duration_since(self.refilled_at).as_secs_f64() * per_second;
        self.allowance = (self.allowance + gained).min(burst(self.per_second));
        self.refilled_at = now;
        self.allowance as usize
    }

    /// One goes, if one may.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = self.allows(now) > 0;
        if may && self.per_second.is_some() {
            self.allowance -= 1.0;
        }
        may
    }
}

fn burst(per_second: Option<f64>) -> f64 {
    per_second.unwrap_or_default().max(1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_a_second_then_the_rate() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut rate = RateLimiter::new(Some(4.0), start);
        assert_eq!((rate.allows(start), (0..9).filter(|_| rate.take(start)).count()), (4, 4));
        assert_eq!((rate.allows(after(100)), rate.take(after(100))), (0, false));
        assert_eq!((rate.allows(after(600)), rate.take(after(600))), (2, true));
        assert_eq!(rate.allows(after(60_000)), 4);
    }

    #[test]
    fn a_slow_rate_lets_one_go_at_once_and_no_rate_lets_all() {
        let start = Instant::now();
        let mut slow = RateLimiter::new(Some(0.1), start);
        assert!(slow.take(start) && !slow.take(start + Duration::from_secs(9)) && slow.take(start + Duration::from_secs(11)));
        let mut free = RateLimiter::new(None, start);
        assert!((0..1_000).all(|_| free.take(start)) && !free.is_limited());
    }
}
