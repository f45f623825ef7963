//! Partitions that are read no further until they are assigned anew: why, and what becomes of what was folded.

use super::assign::HISTORY_CORRUPT;
use super::hot_writer::HotWork;
use super::partition::Content;
use super::{Dependencies, Materialize};
use crate::error::Result;
use crate::history::History;
use crate::saga::position::{Offset, TopicPartition};

/// Why an offset that was to be read is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// It was deleted. What was folded before it is true, and perhaps nowhere else.
    Deleted,
    /// The log was cut back and may have gone on otherwise: what was folded may never have happened. What did happen is
    /// in the log, or is lost with it.
    Replaced,
}

/// `earliest`: the oldest offset in the log; `None`: it is not known, and what is doubtful must not become durable.
fn gone(position: Offset, earliest: Option<Offset>) -> Gone {
    if earliest.is_some_and(|earliest| position < earliest) { Gone::Deleted } else { Gone::Replaced }
}

impl Materialize {
    pub(super) async fn offsets_gone(&mut self, partition: &TopicPartition, position: Offset, reason: &str) {
        // Waits for the answer: rare, and what follows depends on it.
        let earliest = self.deps.ends.earliest(std::slice::from_ref(partition)).await.ok();
        let earliest = earliest.and_then(|found| found.first().map(|(_, earliest)| *earliest));
        let reason = format!("offset {position}: {reason}");
        match gone(position, earliest) {
            Gone::Deleted => self.give_up(partition, "offsets_gone", &reason),
            Gone::Replaced => {
                self.give_up(partition, "offsets_replaced", &reason);
                self.disown(partition);
            }
        }
    }

    /// Reads a partition no further; what was folded of it becomes durable.
    pub(super) fn give_up(&mut self, partition: &TopicPartition, code: &str, reason: &str) {
        self.alarm(partition, code, reason);
        self.stop_reading(partition);
    }

    pub(super) fn stop_reading(&mut self, partition: &TopicPartition) {
        self.waiting.retain(|(records, _)| records.partition != *partition);
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.stopped = true;
        }
        if let Err(reason) = self.intake.let_go(partition.clone()) {
            tracing::debug!(%reason, "a stopped partition is not paused");
        }
    }

    /// What was folded and is not durable is not to be believed: it is not flushed, and hot neither keeps it nor vouches
    /// for it. What cold has of its sagas is read there.
    fn disown(&mut self, partition: &TopicPartition) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if let Some(flush) = owned.flush.take() {
            flush.abort();
        }
        let forget = owned.partition.disown();
        owned.mark_is_to_be_checked();
        self.queue_hot(HotWork { forget, ..HotWork::default() });
    }

    /// A flush that found what is stored to disagree with what was folded.
    pub(super) fn flush_refused(&mut self, partition: &TopicPartition, reason: &str) -> Result<()> {
        self.give_up(partition, HISTORY_CORRUPT, reason);
        self.disown(partition);
        Ok(())
    }
}

impl Dependencies {
    pub(super) fn history_of(&self, content: Content) -> &History {
        match content {
            Content::StepEvents => &self.history,
            Content::ReplayLog => &self.log_history,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_folded_is_kept_only_if_the_log_was_not_cut_back() {
        assert_eq!(gone(Offset(5), Some(Offset(7))), Gone::Deleted);
        // An unclean election: it ends below, or goes on with other records.
        assert_eq!(gone(Offset(5), Some(Offset(0))), Gone::Replaced);
        assert_eq!(gone(Offset(5), Some(Offset(5))), Gone::Replaced);
        assert_eq!(gone(Offset(5), None), Gone::Replaced);
    }
}
