//! Where the sagas of a batch are, what its status is by that, and how many more of its replays may be requested now. Pure.

use super::batch_progress::BatchProgress;
use super::log_record::ReplayStatus;

/// How many sagas of a batch are where, each by its newest replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchCounts {
    pub accepted: u64,
    pub published: u64,
    pub refused: u64,
    pub completed: u64,
    pub failed: u64,
    pub compensated: u64,
    pub cancelled: u64,
    pub saga_cancelled: u64,
    pub undoing: u64,
    pub undone: u64,
    pub undo_failed: u64,
    /// Of those that are `compensated` or `saga_cancelled`: where that is what was asked for.
    pub ended_as_asked: u64,
}

impl BatchCounts {
    /// The count of a status; `None`: replays of batches have none such.
    pub fn of_mut(&mut self, status: ReplayStatus) -> Option<&mut u64> {
        Some(match status {
            ReplayStatus::Accepted => &mut self.accepted,
            ReplayStatus::Published => &mut self.published,
            ReplayStatus::Refused => &mut self.refused,
            ReplayStatus::Completed => &mut self.completed,
            ReplayStatus::Failed => &mut self.failed,
            ReplayStatus::Compensated => &mut self.compensated,
            ReplayStatus::Cancelled => &mut self.cancelled,
            ReplayStatus::SagaCancelled => &mut self.saga_cancelled,
            ReplayStatus::Undoing => &mut self.undoing,
            ReplayStatus::Undone => &mut self.undone,
            ReplayStatus::UndoFailed => &mut self.undo_failed,
            ReplayStatus::DryRun => return None,
        })
    }

    /// Every count with its name, in the order of answers.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("accepted", self.accepted),
            ("published", self.published),
            ("refused", self.refused),
            ("completed", self.completed),
            ("failed", self.failed),
            ("compensated", self.compensated),
            ("cancelled", self.cancelled),
            ("saga_cancelled", self.saga_cancelled),
            ("undoing", self.undoing),
            ("undone", self.undone),
            ("undo_failed", self.undo_failed),
        ]
    }

    pub fn sum(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    pub fn failures(&self) -> u64 {
        self.refused + self.failed + (self.compensated + self.saga_cancelled).saturating_sub(self.ended_as_asked)
    }

    /// Requested and not ended.
    pub fn in_flight(&self) -> u64 {
        self.accepted + self.published + self.undoing
    }

    /// With those that have no record yet: of a batch that goes on they wait, of a cancelled one they never will.
    pub fn completed_to(mut self, total: u64, is_cancelled: bool) -> Self {
        let missing = total.saturating_sub(self.sum());
        *(if is_cancelled { &mut self.cancelled } else { &mut self.accepted }) += missing;
        self
    }
}

/// Is this end of a replay a failure of its batch, or what was asked for? A forced failure and mode compensate want none other.
pub fn ends_as_asked(status: ReplayStatus, wants_no_success: bool) -> bool {
    wants_no_success && matches!(status, ReplayStatus::Compensated | ReplayStatus::SagaCancelled)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// Its list is not frozen yet.
    Expanding,
    /// Sagas of it wait for their turn.
    Running,
    Paused,
    /// Each saga was published or refused, and not all have ended.
    Published,
    Done,
    Cancelled,
}

impl BatchStatus {
    pub const ALL: [Self; 6] = [Self::Expanding, Self::Running, Self::Paused, Self::Published, Self::Done, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expanding => "expanding",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Published => "published",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// `counts`: completed to the total.
    pub fn of(progress: &BatchProgress, counts: &BatchCounts) -> Self {
        if progress.is_cancelled {
            Self::Cancelled
        } else if progress.paused.is_some() {
            Self::Paused
        } else if progress.list.is_none() {
            Self::Expanding
        } else if counts.accepted > 0 {
            Self::Running
        } else if counts.in_flight() > 0 {
            Self::Published
        } else {
            Self::Done
        }
    }
}

/// Whether a batch may request more replays now, besides its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// At most so many; 0: not now.
    Requests(u64),
    /// Too many failed: it is to pause.
    Pause,
}

/// Requests written whose replays have no record in the log yet.
const MAX_UNSEEN: u64 = 4_000;
/// The same where failures stop the batch: those under way cannot be stopped any more.
const MAX_UNSEEN_WATCHED: u64 = 200;

/// `batch`: of the batch itself, also where a retry of it is to go on. `counts`: of the records that the log has of it. `unseen`:
/// requests that are written and have no record there yet.
pub fn allowance(batch: &BatchProgress, counts: &BatchCounts, unseen: u64) -> Allowance {
    if batch.is_cancelled || batch.paused.is_some() {
        return Allowance::Requests(0);
    }
    let limits = batch.limits;
    let failures = counts.failures().saturating_sub(batch.failures_before);
    if limits.max_failures.is_some_and(|most| most.is_exceeded(failures, batch.total())) {
        return Allowance::Pause;
    }
    let may_be_unseen = if limits.max_failures.is_some() { MAX_UNSEEN_WATCHED } else { MAX_UNSEEN };
    let in_flight = unseen + counts.in_flight();
    let free = limits.max_in_flight.map_or(u64::MAX, |most| most.saturating_sub(in_flight));
    Allowance::Requests(free.min(may_be_unseen.saturating_sub(unseen)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::batch_progress::{BatchLimits, ListRef, MaxFailures, PauseReason};

    fn progress() -> BatchProgress {
        let mut progress = BatchProgress::new("b", None, BatchLimits::default());
        progress.list = Some(ListRef { list_id: "b".into(), digest: String::new(), total: 1_000 });
        progress
    }

    #[test]
    fn counts_add_up_to_the_total_whatever_the_log_has() {
        let mut counts = BatchCounts { published: 3, completed: 4, refused: 1, ..BatchCounts::default() };
        for (cancelled, accepted, other) in [(false, 2, 0), (true, 0, 2)] {
            let all = counts.completed_to(10, cancelled);
            assert_eq!((all.sum(), all.accepted, all.cancelled), (10, accepted, other));
        }
        for status in ReplayStatus::ALL {
            if let Some(count) = counts.of_mut(status) {
                *count += 1;
            }
        }
        assert_eq!(counts.sum(), 8 + 11, "each status but dry_run counts once");
    }

    #[test]
    fn a_batch_asks_for_no_more_than_its_limits_allow() {
        let counts = BatchCounts { published: 5, completed: 10, ..BatchCounts::default() };
        let of = |limits: BatchLimits, unseen| allowance(&BatchProgress { limits, ..progress() }, &counts, unseen);
        assert_eq!(of(BatchLimits::default(), 0), Allowance::Requests(MAX_UNSEEN));
        let limits = BatchLimits { max_in_flight: Some(8), ..BatchLimits::default() };
        assert_eq!(of(limits, 0), Allowance::Requests(3));
        assert_eq!(of(limits, 2), Allowance::Requests(1), "two are on their way");
        assert_eq!(of(limits, 40), Allowance::Requests(0));
    }

    #[test]
    fn a_batch_pauses_with_more_failures_than_it_may_have_and_counts_anew_once_resumed() {
        let failed = BatchCounts { failed: 2, refused: 1, compensated: 3, ended_as_asked: 1, ..BatchCounts::default() };
        assert_eq!(failed.failures(), 5);
        let may = |most, before| {
            let limits = BatchLimits { max_failures: Some(most), ..BatchLimits::default() };
            let progress = BatchProgress { failures_before: before, limits, ..progress() };
            allowance(&progress, &failed, 0) != Allowance::Pause
        };
        assert!(may(MaxFailures::Count(5), 0) && !may(MaxFailures::Count(4), 0) && may(MaxFailures::Count(4), 1));
        assert!(may(MaxFailures::Percent(0.5), 0) && !may(MaxFailures::Percent(0.4), 0));
    }

    #[test]
    fn the_status_follows_from_progress_and_counts() {
        let counts = |accepted, published| BatchCounts { accepted, published, completed: 1, ..BatchCounts::default() };
        let status = |progress: &BatchProgress, counts| BatchStatus::of(progress, &counts);
        assert_eq!(status(&BatchProgress { list: None, ..progress() }, counts(0, 0)), BatchStatus::Expanding);
        assert_eq!(status(&progress(), counts(1, 0)), BatchStatus::Running);
        assert_eq!(status(&progress(), counts(0, 1)), BatchStatus::Published);
        assert_eq!(status(&progress(), counts(0, 0)), BatchStatus::Done);
        let paused = BatchProgress { paused: Some(PauseReason::Requested), ..progress() };
        assert_eq!(status(&paused, counts(0, 0)), BatchStatus::Paused);
        assert_eq!(status(&BatchProgress { is_cancelled: true, ..paused }, counts(5, 0)), BatchStatus::Cancelled);
    }
}
