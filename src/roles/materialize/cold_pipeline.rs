//! What goes to the cold store: segments, one flush per partition at a time, and then the group's offsets.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinError;

use super::flush::{self, Commit, Flush, Flushed, Stored};
use super::refold::Why;
use super::{Materialize, completeness, joined, settle, split};
use crate::cold::chain::Appended;
use crate::cold::segment::NewSegment;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

impl Materialize {
    pub(super) fn flush_due(&mut self, now: Instant) {
        let mut due: Vec<TopicPartition> = Vec::new();
        for (partition, owned) in &self.owned {
            let active = &owned.partition.active;
            let old = active.oldest().is_some_and(|at| now.duration_since(at) >= self.settings.flush_interval);
            if old || active.bytes() >= self.settings.flush_bytes {
                due.push(partition.clone());
            }
        }
        if self.backlog_bytes() >= self.settings.buffer_bytes {
            // Memory is short: the largest first.
            let largest = self.owned.iter().filter(|(_, owned)| owned.writer.is_some());
            due.extend(largest.max_by_key(|(_, owned)| owned.partition.active.held()).map(|(partition, _)| partition.clone()));
        }
        for partition in due {
            self.start_flush(&partition);
        }
    }

    /// Seals what a partition has and appends it to the chain, unless a flush runs or there is nothing.
    pub(super) fn start_flush(&mut self, partition: &TopicPartition) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if owned.partition.active.is_empty() || owned.partition.position <= owned.partition.durable {
            return;
        }
        let Some(writer) = owned.writer.take() else { return };
        let sealed = Arc::new(std::mem::take(&mut owned.partition.active));
        owned.partition.sealed = Some(sealed.clone());
        let position = owned.partition.position;
        let segment = NewSegment {
            start: owned.partition.durable,
            end: Offset(position.0 - 1),
            rows: Arc::new(sealed.segment_rows()),
            complete_through: completeness::carried(None, owned.partition.through.at(position), (self.deps.now)()),
            leader_epoch: owned.leader_epoch,
            topic_id: owned.topic_id.clone(),
            clock: owned.partition.clock,
            installation: self.settings.owners.now().cloned().unwrap_or_default(),
            fold_settings: self.settings.fold_text.clone(),
            gap: false,
        };
        let flush = Flush {
            partition: partition.clone(),
            generation: owned.generation,
            writer,
            segment,
            history: self.deps.history_of(owned.partition.content).clone(),
            sends: std::mem::take(&mut owned.sends),
        };
        owned.flush = Some(self.flushes.spawn(flush::flush(flush)));
    }

    pub(super) fn flush_ended(&mut self, done: std::result::Result<Flushed, JoinError>) -> Result<()> {
        match done {
            // Of a partition that was disowned.
            Err(error) if error.is_cancelled() => Ok(()),
            done => self.flushed(joined(done)?),
        }
    }

    fn flushed(&mut self, done: Flushed) -> Result<()> {
        let Some(owned) = self.owned.get_mut(&done.partition).filter(|owned| owned.generation == done.generation) else {
            return Ok(());
        };
        if owned.partition.disowned {
            return Ok(());
        }
        let stored = match done.stored {
            Err(Error::Corrupt(reason)) => return self.flush_refused(&done.partition, &reason),
            other => other?,
        };
        let durable = done.writer.next();
        let appended = match stored {
            Stored::Appended(appended) => appended,
            Stored::Already(sequence) => return self.refold(&done.partition, durable, Why::Already(sequence)),
        };
        (owned.writer, owned.flush) = (Some(done.writer), None);
        owned.uncommitted = true;
        if let Appended::Exists { stored, agrees } = &appended {
            self.settings.owners.check_segment(stored)?;
            tracing::warn!(
                chain = %owned.partition.chain, start = stored.start.0, end = stored.end.0, agrees,
                "another owner's segment is stored"
            );
            if *agrees != Some(true) {
                return self.refold(&done.partition, durable, Why::Stored { agrees: *agrees });
            }
        }
        let sealed = owned.partition.sealed.take();
        let long = sealed.iter().flat_map(|sealed| settle::long_sagas(sealed, durable)).collect();
        if let Appended::Exists { .. } = appended {
            owned.partition.adopt_foreign_segment(sealed, durable, Instant::now());
        } else if let Some(oldest) = sealed.as_ref().and_then(|sealed| sealed.rows().first()) {
            let delay = (self.deps.now)().0 - oldest.entry.recorded_time.0;
            self.deps.metrics.snapshot_durability_delay.observe(delay.max(0) as f64 / 1e6);
        }
        let start = std::mem::replace(&mut owned.partition.durable, durable);
        split::look(&self.deps, &owned.partition.chain, std::mem::take(&mut owned.partition.suspects));
        let at_rest = owned.partition.cache.unpin_through(Offset(durable.0 - 1));
        owned.partition.cache.trim();
        self.settle_flushed(&done.partition, start, long, at_rest);
        self.commit_durable_offsets();
        Ok(())
    }

    /// Commits where the chains of these partitions end, if the group's offset is elsewhere.
    pub(super) fn due_commits(&self) -> Vec<Commit> {
        let due = self.owned.iter().filter(|(_, owned)| owned.uncommitted);
        due.filter_map(|(partition, owned)| Some(flush::commit_of(partition, owned.writer.as_ref()?))).collect()
    }

    /// One try at a time; what is refused is tried again with the next heartbeat.
    pub(super) fn commit_durable_offsets(&mut self) {
        let due = self.due_commits();
        if self.commits.is_empty() && !due.is_empty() {
            let intake = self.intake.clone();
            self.commits.spawn(async move { (due.clone(), flush::commit(&intake, due).await) });
        }
    }

    pub(super) fn committed(&mut self, (commits, committed): (Vec<Commit>, bool)) {
        if !committed {
            return;
        }
        for (partition, next, _) in commits {
            if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.partition.durable == next) {
                owned.uncommitted = false;
            }
        }
        // Of flushes that ended meanwhile.
        self.commit_durable_offsets();
    }
}
