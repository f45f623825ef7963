//! When the marks of a partition in the hot store move, and to what.

use std::time::Duration;
use std::time::Instant;

use super::completeness::CompleteThrough;
use super::hot_writer::MarkRequest;
use super::ownership::Generation;
use super::partition::Partition;
use crate::hot::{Mark, MarkMove};
use crate::saga::time::Micros;

/// How often marks are checked when nothing is read.
const CHECK_EVERY: Duration = Duration::from_secs(1);

impl Partition {
    /// With the next write.
    pub fn check_marks_soon(&mut self) {
        self.marks_checked_at = self.marks_checked_at.checked_sub(CHECK_EVERY).unwrap_or(self.marks_checked_at);
    }

    /// Did the position move, may more keys expire, or is it time to look whether the mark is still there?
    pub fn marks_are_due(&self) -> bool {
        // One that is disowned gives its marks back at once, in the write that forgets what they vouched for.
        let moves = |mark: &Mark| match self.disowned {
            true => mark.to > self.durable,
            false => mark.settled < self.settled,
        };
        self.marks_checked_at.elapsed() >= CHECK_EVERY || self.position > self.written || self.marks.iter().flatten().any(moves)
    }

    /// Moves every bucket's mark to the position. Only called when everything folded so far is in the same write.
    pub fn mark_requests(&mut self, generation: Generation, now: Micros) -> Vec<MarkRequest> {
        self.marks_checked_at = Instant::now();
        let (position, complete_through) = (self.position, self.completeness.at(self.position));
        if self.disowned {
            return self.requests_to_move_back(generation);
        }
        let requests = self.marks.iter().enumerate().map(|(bucket, known)| {
            // A mark that stops below the chain's end vouches for what this owner never saw: it begins at the chain's end.
            let kept = known.filter(|mark| mark.to >= self.base);
            let through = CompleteThrough { stored: kept.map(|mark| mark.complete_through), reached: complete_through };
            let new = Mark {
                from: kept.map_or(self.base, |mark| mark.from),
                to: kept.map_or(position, |mark| mark.to.max(position)),
                complete_through: through.at(now),
                settled: self.settled,
            };
            let mark = MarkMove { chain: self.chain.clone(), bucket: bucket as u16, expect: *known, new };
            MarkRequest { mark, generation, position, complete_through }
        });
        requests.collect()
    }

    /// Back to what is durable, and to no time: cold has that.
    fn requests_to_move_back(&self, generation: Generation) -> Vec<MarkRequest> {
        let known = self.marks.iter().enumerate().filter_map(|(bucket, known)| Some((bucket, (*known)?)));
        let requests = known.map(|(bucket, known)| {
            let (from, to) = (known.from.min(self.durable), known.to.min(self.durable));
            let new = Mark { from, to, complete_through: Micros::MIN, settled: known.settled.min(self.durable) };
            let mark = MarkMove { chain: self.chain.clone(), bucket: bucket as u16, expect: Some(known), new };
            MarkRequest { mark, generation, position: self.durable, complete_through: None }
        });
        requests.collect()
    }
}
