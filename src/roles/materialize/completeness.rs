//! How far a partition is complete, in time: from the ends that brokers tell and the position reached.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::background::joined;
use super::clocks::Clocks;
use crate::error::Result;
use crate::kafka::ends::{EachEnd, Ends, PartitionEnd};
use crate::saga::position::{Offset, TopicPartition};
use crate::saga::time::Micros;

/// Ends remembered while the position has not reached them. Asked about once a second: several minutes' worth.
const MAX_OPEN_ENDS: usize = 512;

/// Where a partition ended at some time at the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndAt {
    pub end: Offset,
    pub at: Micros,
}

/// Turns ends and the position into `complete_through`.
#[derive(Debug, Default)]
pub struct CompletenessTracker {
    /// Ends not yet reached, oldest first.
    open: VecDeque<EndAt>,
    reached: Option<Micros>,
}

impl CompletenessTracker {
    /// A partition's end and the time at which it was asked for.
    pub fn note(&mut self, EndAt { end, at }: EndAt) {
        if self.open.len() == MAX_OPEN_ENDS {
            // Thin out: the newer half is reached later anyway, so answers only get coarser, never wrong.
            let mut keep = false;
            self.open.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.open.push_back(EndAt { end, at });
    }

    /// Everything appended before the result is below `position`. `None`: not known yet.
    pub fn at(&mut self, position: Offset) -> Option<Micros> {
        while let Some(EndAt { end, at }) = self.open.front().copied() {
            if end > position {
                break;
            }
            self.reached = Some(at);
            self.open.pop_front();
        }
        self.reached
    }
}

/// What is known of the time up to which a partition is complete.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompleteThrough {
    /// What the mark before says.
    pub stored: Option<Micros>,
    /// What was reached here.
    pub reached: Option<Micros>,
}

impl CompleteThrough {
    /// As it is stored. Nothing that is ahead of `now` is believed: whoever wrote it had a wrong clock, and it would be
    /// stored again for as long as it is ahead.
    pub fn at(self, now: Micros) -> Micros {
        let believed = |time: &Micros| !time.is_ahead_of(now);
        self.stored.filter(believed).max(self.reached.filter(believed)).map(|time| time.min(now)).unwrap_or_default()
    }
}

/// How often ends are asked for.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Asks the brokers where partitions end, one question at a time.
pub struct EndOffsetPolls {
    ends: Ends,
    clocks: Clocks,
    running: JoinSet<PolledEnds>,
    /// `None`: never.
    every: Option<Duration>,
    /// `None`: ask with the next look.
    asked_at: Option<Instant>,
}

/// What brokers tell of ends, and a time that was past there when they were asked.
pub struct PolledEnds {
    pub at: Option<Micros>,
    pub ends: Result<EachEnd>,
}

impl EndOffsetPolls {
    pub fn new(ends: Ends, clocks: Clocks) -> Self {
        Self { ends, clocks, running: JoinSet::new(), every: Some(POLL_EVERY), asked_at: None }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        let is_time = |every| self.asked_at.is_none_or(|asked| now.duration_since(asked) >= every);
        self.running.is_empty() && self.every.is_some_and(is_time)
    }

    #[cfg(test)]
    pub fn never(&mut self) {
        self.every = None;
    }

    /// A partition is new: what time its end holds for, only asking tells.
    pub fn ask_soon(&mut self) {
        self.asked_at = None;
    }

    pub fn ask(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
        self.asked_at = Some(now);
        let ends = self.ends.clone();
        // Before asking: what is appended while the answer is on its way may be missing from it.
        let at = self.clocks.past();
        self.running.spawn(async move { PolledEnds { at, ends: ends.each_end(&partitions).await } });
    }

    /// `None`: nothing was asked. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<PolledEnds>> {
        self.running.join_next().await.map(joined)
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

impl PolledEnds {
    /// Those that are known: one without a leader keeps its time, the others go on.
    pub fn known(self) -> Vec<PartitionEnd> {
        match self.ends {
            Ok(ends) => ends.into_iter().filter_map(|(_, end)| end.ok()).collect(),
            Err(reason) => {
                tracing::debug!(%reason, "ends of partitions not known");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(end: i64, at: i64) -> EndAt {
        EndAt { end: Offset(end), at: Micros(at) }
    }

    fn at(stored: Option<Micros>, reached: Option<Micros>, now: Micros) -> Micros {
        CompleteThrough { stored, reached }.at(now)
    }

    #[test]
    fn a_time_counts_once_the_end_asked_then_is_reached() {
        let mut completeness = CompletenessTracker::default();
        completeness.note(end(10, 1));
        completeness.note(end(20, 2));
        assert_eq!(completeness.at(Offset(9)), None);
        assert_eq!(completeness.at(Offset(10)), Some(Micros(1)));
        assert_eq!(completeness.at(Offset(19)), Some(Micros(1)));
        assert_eq!(completeness.at(Offset(25)), Some(Micros(2)));
    }

    #[test]
    fn a_time_ahead_of_now_is_not_stored_again() {
        let now = Micros(1_800_000_000_000_000);
        let (before, in_forty_days) = (now.saturating_add(-1), now.saturating_add(40 * 86_400_000_000));
        assert_eq!(at(Some(before), None, now), before);
        assert_eq!(at(Some(before), Some(now), now), now);
        assert_eq!(at(Some(in_forty_days), Some(before), now), before);
        assert_eq!(at(Some(in_forty_days), None, now), Micros(0));
        assert_eq!(at(Some(now.saturating_add(5)), None, now), now, "another machine's clock is a little ahead");
    }

    #[test]
    fn a_long_backlog_is_thinned_and_stays_true() {
        let mut completeness = CompletenessTracker::default();
        for i in 0..10_000 {
            completeness.note(end(i, i));
        }
        assert!(completeness.open.len() <= MAX_OPEN_ENDS);
        let reached = completeness.at(Offset(5_000)).expect("reached some");
        assert!(reached <= Micros(5_000));
    }
}
