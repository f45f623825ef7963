//! What is known of one partition of the requests topic: how far it is done, what waits of it, and why it is not read on.

use std::time::{Duration, Instant};

use super::parked::ParkedRequests;
use super::skipped::SkippedRequests;
use crate::roles::suspension::Suspension;
use crate::saga::position::Offset;
use crate::wire::avro::SchemaRef;

/// Between two looks at a log that is not known far enough.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// After a look-up that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// The materializer is a moment behind now and then; longer is an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(10);

/// The log of a partition is not known far enough: its requests cannot be told from ones seen before.
pub(super) struct LogNotKnown {
    since: Instant,
    again: Instant,
    alarmed: bool,
}

pub(super) struct PartitionQueue {
    /// Below this every record was decided: it is done with, or skipped. Committed is this, or the first that was
    /// skipped.
    pub next: Offset,
    pub parked: ParkedRequests,
    pub skipped: SkippedRequests,
    /// Records from `next` on were read and dropped, for there was no room to skip more.
    pub cut_off: bool,
    /// Its requests wait, unread.
    log_not_known: Option<LogNotKnown>,
    /// The next record cannot be decided now (its schema, or the leader of its home, is missing): neither it nor what comes behind
    /// it is read before this.
    pub head_rests: Instant,
    /// It needs this schema, which is asked for: the record at this offset.
    pub waits_for: Option<(SchemaRef, Offset)>,
    /// The schema of the record at this offset was looked up, and there is none.
    pub given_up: Option<Offset>,
    pub suspension: Suspension,
    /// A batch of this partition alone, to claim its log, is not tried before this.
    pub claim_rests: Instant,
}

impl PartitionQueue {
    pub fn new(next: Offset, now: Instant) -> Self {
        Self {
            next,
            parked: ParkedRequests::default(),
            skipped: SkippedRequests::default(),
            cut_off: false,
            log_not_known: None,
            head_rests: now,
            waits_for: None,
            given_up: None,
            suspension: Suspension::new(now),
            claim_rests: now,
        }
    }

    /// Is this record to be looked at now?
    pub fn wants(&self, offset: Offset) -> bool {
        self.skipped.is_next(offset) || (offset >= self.next && !self.skipped.is_full())
    }

    /// Does a record that comes now follow what came before?
    pub fn follows(&self, offset: Offset) -> bool {
        self.suspension.is_active() && (!self.cut_off || offset < self.next)
    }

    /// May its records be decided? Its log is known, and nothing holds the next one up.
    pub fn may_be_read(&self, now: Instant) -> bool {
        self.log_not_known.is_none() && self.head_rests <= now
    }

    /// Was its log not known a moment ago?
    pub fn log_rests(&self, now: Instant) -> bool {
        self.log_not_known.as_ref().is_some_and(|not_known| not_known.again > now)
    }

    /// `claimed`: its log is somebody's.
    pub fn rests(&self, claimed: bool, now: Instant) -> bool {
        self.head_rests > now || (!claimed && self.claim_rests > now) || self.log_rests(now) || self.waits_for.is_some()
    }

    /// Its log was looked at and is not known far enough. `true`: from now on that is an alarm.
    pub fn log_is_not_known(&mut self, now: Instant) -> bool {
        let not_known = self.log_not_known.get_or_insert(LogNotKnown { since: now, again: now, alarmed: false });
        not_known.again = now + LOOK_AGAIN;
        let is_new = !not_known.alarmed && now.duration_since(not_known.since) >= ALARM_AFTER;
        not_known.alarmed |= is_new;
        is_new
    }

    /// `true`: an alarm ends with that.
    pub fn log_is_known(&mut self) -> bool {
        self.log_not_known.take().is_some_and(|not_known| not_known.alarmed)
    }

    /// A look-up in its log failed: the others go on without it for a while.
    pub fn log_look_up_failed(&mut self, now: Instant) {
        let not_known = self.log_not_known.get_or_insert(LogNotKnown { since: now, again: now, alarmed: false });
        not_known.again = now + AFTER_FAILURE;
    }
}
