//! Schemas that the registry did not have: when to ask again, and when to give up the records that need them. Pure.
//!
//! A record may be read before its schema is seen everywhere, as the replicas of a registry lag. So one that is missing is
//! asked for again for a while, unless too many were waited for of late: ids that somebody makes up must not hold up what
//! is behind them for long.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::wire::avro::SchemaRef;

/// How long a schema that is not there is asked for.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Between two questions for the same one.
const PAUSE: Duration = Duration::from_millis(200);
/// Asked for longer ago than this, a schema is waited for again.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Schemas waited for in [`FORGOTTEN`].
const MAX_WAITS: usize = 4;
/// Missing schemas remembered.
const MAX_MISSING: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// What to do before a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Now,
    /// It was asked for a moment ago and may still come.
    Later,
    /// It was asked for a moment ago and was given up.
    NoMore,
}

#[derive(Debug)]
struct Absent {
    first: Instant,
    asked: Instant,
    is_waited_for: bool,
}

#[derive(Debug)]
pub(super) struct Missing {
    absent: LruCache<SchemaRef, Absent>,
    /// When a wait began, oldest first.
    waits: VecDeque<Instant>,
}

impl Default for Missing {
    fn default() -> Self {
        Self { absent: LruCache::new(MAX_MISSING), waits: VecDeque::with_capacity(MAX_WAITS) }
    }
}

impl Absent {
    fn may_come(&self, now: Instant) -> bool {
        self.is_waited_for && now.duration_since(self.first) < GRACE
    }
}

impl Missing {
    pub fn before(&mut self, of: SchemaRef, now: Instant) -> Ask {
        match self.absent.get(&of) {
            Some(absent) if now.duration_since(absent.asked) < PAUSE => {
                if absent.may_come(now) {
                    Ask::Later
                } else {
                    Ask::NoMore
                }
            }
            _ => Ask::Now,
        }
    }

    /// The registry does not have it. `true`: the records that need it are given up.
    pub fn not_found(&mut self, of: SchemaRef, now: Instant) -> bool {
        match self.absent.get_mut(&of).filter(|absent| now.duration_since(absent.asked) < FORGOTTEN) {
            Some(absent) => {
                absent.asked = now;
                !absent.may_come(now)
            }
            None => {
                while self.waits.front().is_some_and(|began| now.duration_since(*began) >= FORGOTTEN) {
                    self.waits.pop_front();
                }
                let is_waited_for = self.waits.len() < MAX_WAITS;
                if is_waited_for {
                    self.waits.push_back(now);
                }
                self.absent.put(of, Absent { first: now, asked: now, is_waited_for });
                !is_waited_for
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::avro::SchemaId;

    fn id(n: u32) -> SchemaRef {
        SchemaRef::Id(SchemaId(n))
    }

    #[test]
    fn a_schema_is_asked_for_again_before_its_records_are_given_up() {
        let (mut missing, began) = (Missing::default(), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        assert_eq!(missing.before(id(1), began), Ask::Now);
        assert!(!missing.not_found(id(1), began));
        assert_eq!([missing.before(id(1), at(100)), missing.before(id(1), at(300))], [Ask::Later, Ask::Now]);
        assert!(!missing.not_found(id(1), at(4_900)));
        assert!(missing.not_found(id(1), at(5_200)));
        // Given up; each record still has it asked for, if not more often than so.
        assert_eq!([missing.before(id(1), at(5_300)), missing.before(id(1), at(5_500))], [Ask::NoMore, Ask::Now]);
        assert!(missing.not_found(id(1), at(64_000)), "asked for all the time");
        assert!(!missing.not_found(id(1), at(130_000)), "after a minute it is new");
    }

    #[test]
    fn made_up_ids_are_waited_for_only_so_often() {
        let (mut missing, began) = (Missing::default(), Instant::now());
        let given_up: Vec<bool> = (0..6).map(|n| missing.not_found(id(n), began)).collect();
        assert_eq!(given_up, [false, false, false, false, true, true]);
        assert_eq!(missing.before(id(5), began), Ask::NoMore);
        assert!(!missing.not_found(id(7), began + FORGOTTEN));
    }
}
