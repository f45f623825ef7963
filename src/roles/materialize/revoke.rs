//! Letting partitions go: what was folded of them becomes durable first, for a while.

use std::time::Duration;

use super::{Materialize, OwnedPartition, flush, joined};
use crate::error::Result;
use crate::saga::position::TopicPartition;

/// Longest wait for a partition to become durable when it is taken away; the rest is folded again by the next owner.
const DRAIN: Duration = Duration::from_secs(20);

impl Materialize {
    /// Makes what these partitions have durable, for a while, and forgets them.
    pub(super) async fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) -> Result<()> {
        self.open_no_more(partitions);
        self.waiting.retain(|(records, _)| !partitions.contains(&records.partition));
        if !lost {
            let deadline = tokio::time::Instant::now() + DRAIN;
            if !matches!(tokio::time::timeout_at(deadline, self.drain(partitions)).await, Ok(Ok(()))) {
                tracing::warn!("partitions given up before all was durable; the next owner folds it again");
            }
        }
        for partition in partitions {
            self.owned.remove(partition);
            self.is_clear(partition);
            self.refusals.forget(partition);
            let labels = [&*partition.topic, &partition.partition.to_string()];
            // A series of a partition that somebody else has would stand still and mislead.
            let _ = self.deps.metrics.consumer_lag_records.remove_label_values(&labels);
            let _ = self.deps.metrics.last_stable_offset_stuck_seconds.remove_label_values(&labels);
        }
        self.share_cache();
        Ok(())
    }

    async fn drain(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        loop {
            for partition in partitions {
                self.start_flush(partition);
            }
            let busy = |owned: &OwnedPartition| owned.flush.is_some() || !owned.partition.active.is_empty();
            let cold_busy = partitions.iter().filter_map(|partition| self.owned.get(partition)).any(busy);
            if !cold_busy && self.hot.is_empty() && self.commits.is_empty() {
                break;
            }
            tokio::select! {
                Some(done) = self.flushes.join_next(), if !self.flushes.is_empty() => self.flush_ended(done)?,
                Some(done) = self.hot.join_next(), if !self.hot.is_empty() => self.hot_written(joined(done)??)?,
                Some(done) = self.commits.join_next(), if !self.commits.is_empty() => self.committed(joined(done)?),
                else => break,
            }
        }
        // The last moment to tell the group: once more for what was refused.
        let due = self.due_commits();
        if !due.is_empty() {
            let committed = flush::commit(&self.intake, due.clone()).await;
            self.committed((due, committed));
        }
        Ok(())
    }
}
