//! Why an offset that was to be read is not in the log, and so what becomes of what was folded before it. Pure.

use crate::saga::position::Offset;
use crate::telemetry::Alarm;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostOffsets {
    /// They were deleted. What was folded before them is true, and perhaps nowhere else.
    Deleted,
    /// The log was cut back and may have gone on otherwise: what was folded may never have happened. What did happen is
    /// in the log, or is lost with it.
    Replaced,
}

/// What Kafka says of the offset that was to be read.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub position: Offset,
    /// The oldest offset in the log; `None`: it is not known, and what is doubtful must not become durable.
    pub earliest: Option<Offset>,
}

impl LostOffsets {
    pub fn of(lost: Lost) -> Self {
        if lost.earliest.is_some_and(|earliest| lost.position < earliest) { Self::Deleted } else { Self::Replaced }
    }

    /// The partition's.
    pub fn alarm(self) -> Alarm {
        match self {
            Self::Deleted => Alarm::OffsetsGone,
            Self::Replaced => Alarm::OffsetsReplaced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_folded_is_kept_only_if_the_log_was_not_cut_back() {
        let lost = |position, earliest: Option<i64>| {
            LostOffsets::of(Lost { position: Offset(position), earliest: earliest.map(Offset) })
        };
        assert_eq!(lost(5, Some(7)), LostOffsets::Deleted);
        // An unclean election: it ends below, or goes on with other records.
        assert_eq!(lost(5, Some(0)), LostOffsets::Replaced);
        assert_eq!(lost(5, Some(5)), LostOffsets::Replaced);
        assert_eq!(lost(5, None), LostOffsets::Replaced);
    }
}
