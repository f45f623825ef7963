//! The transaction of a batch, and what follows from its outcome: memory changes only after a commit; whatever is not
//! known to be committed is read again and found in the log, or not.

use std::time::{Duration, Instant};

use futures::FutureExt;

use super::batch_metrics::BatchMetrics;
use super::draft::{BatchDraft, DecidedBatch, PreparedBatch};
use super::log_overlay::{UnappliedLog, UnappliedRecords};
use super::outbox::TransactionOutbox;
use super::queue::item::NextOffsets;
use super::queue::parked::Parked;
use super::queue::skipped::SkippedChanges;
use super::runner::BatchRunner;
use crate::error::{Error, Result};
use crate::kafka::transaction::{PublishError, Transaction, TransactionalPublisher};
use crate::saga::position::TopicPartition;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};

/// Code of the refusal of a batch with a record that its topic does not take.
pub const RECORD_TOO_LARGE: &str = "record_too_large";

/// How long preparing the next batch may go on after a commit.
const PREPARE_ON: Duration = Duration::from_millis(250);

/// What became of a transaction, and how long it took.
pub struct CommitOutcome {
    pub outcome: Result<(), PublishError>,
    pub took: Duration,
}

/// What makes a saga: its history begins, or goes on, with this transaction.
fn restores(record: &LogRecord) -> bool {
    record.status == ReplayStatus::Published && record.command == CommandName::Replay
}

/// A batch whose transaction is under way. Its log records are in [`UnappliedLog`].
pub struct OpenCommit {
    pub producer: TransactionalPublisher,
    pub offsets: NextOffsets,
    claims: Option<TopicPartition>,
    changes: SkippedChanges,
    metrics: BatchMetrics,
    parked: Vec<Parked>,
}

impl BatchRunner {
    /// Takes the producer, and makes the transaction of a batch.
    pub async fn begin_commit(&mut self, prepared: PreparedBatch) -> Result<(OpenCommit, Transaction)> {
        let PreparedBatch { batch: DecidedBatch { draft, claims, .. }, group } = prepared;
        let BatchDraft { outbox, offsets, changes, parked, metrics, .. } = draft;
        let committed_offsets = self.queue.offsets_to_commit(&offsets, &changes);
        let TransactionOutbox { records, restored, log, .. } = outbox;
        let producer = match &claims {
            Some(partition) => self.claims.take(partition)?,
            None => self.committer.take().await?,
        };
        self.committing(log);
        let transaction = Transaction { records, last: restored, offsets: committed_offsets, group: Some(group) };
        Ok((OpenCommit { producer, offsets, claims, changes, metrics, parked }, transaction))
    }

    /// From now on these log records may be committed.
    pub fn committing(&mut self, log: UnappliedRecords) {
        // What this batch restores has no history before its end: whoever replays it asks for ends after that.
        self.queue.restored(log.records().filter(|record| restores(record)).filter_map(|record| record.new_saga_id.clone()));
        self.unapplied.committing = log;
    }

    /// What follows from the outcome. `Unavailable`: it is not known to be committed, try again. `Refused` [`RECORD_TOO_LARGE`]: a
    /// topic does not take one of the records; nothing is visible.
    pub async fn finish_commit(&mut self, open: OpenCommit, commit: CommitOutcome) -> Result<()> {
        let OpenCommit { producer, offsets, claims, changes, metrics, parked } = open;
        let result = match &commit.outcome {
            Ok(()) => "committed",
            Err(PublishError::Fenced(_)) => "fenced",
            Err(PublishError::Unknown(_)) => "unknown",
            Err(_) => "aborted",
        };
        self.metrics.transactions.with_label_values(&[result]).inc();
        if let Err(error) = commit.outcome {
            self.unapplied.committing = UnappliedRecords::default();
            if claims.is_none() && !error.is_closed() {
                self.committer.put_back(producer);
            }
            return self.not_committed(error, claims.as_ref()).await;
        }
        match claims {
            Some(partition) if self.unapplied.committing.records().next().is_some() => self.claims.claimed(&partition),
            Some(partition) => {
                self.queue.rest_claims_until(std::slice::from_ref(&partition), (self.instant)());
                self.claims.not_claimed(partition, producer);
            }
            None => self.committer.put_back(producer),
        }
        self.metrics.transaction_duration.observe(commit.took.as_secs_f64());
        metrics.publish(&self.metrics, (self.now)());
        self.committed(offsets, changes, parked);
        Ok(())
    }

    /// Memory follows what was committed.
    pub fn committed(&mut self, offsets: NextOffsets, changes: SkippedChanges, parked: Vec<Parked>) {
        self.queue.committed(offsets, changes, (self.instant)());
        let log = std::mem::take(&mut self.unapplied.committing);
        self.remember(log);
        parked.into_iter().for_each(|parked| self.queue.park(parked));
    }

    /// It may have been committed all the same: then what it parked or published is only known from the log, which was read to its
    /// end.
    pub fn forget_unapplied(&mut self) {
        self.unapplied = UnappliedLog::default();
        self.queue.forget_ends();
        self.batches.clear();
        self.schedules.clear();
        self.park_waiting();
    }

    /// After a commit: what is parked and what is not follows the log records.
    fn remember(&mut self, log: UnappliedRecords) {
        for record in log.into_records() {
            self.queue.apply(&record);
            let partition = self.queue.partition_of_number(record.position.partition);
            self.batches.apply(partition.clone(), &record, (self.instant)());
            self.schedules.apply(partition, &record, (self.instant)());
            self.unapplied.committed.insert(record);
        }
        // The view has the newest of most; what it has need not be kept twice.
        let view = &self.facts.planner.records.log;
        self.unapplied.committed.retain(|record| view.get(&record.replay_id).is_none_or(|seen| *seen != *record));
    }

    /// Nothing is known to be visible. The requests are still in memory and come again with the next batch; what was
    /// committed after all is found in the log, which is read to its end first.
    async fn not_committed(&mut self, error: PublishError, claims: Option<&TopicPartition>) -> Result<()> {
        if let (PublishError::Fenced(_), None) = (&error, claims) {
            self.committer.was_fenced().await?;
        }
        if let Some(partition) = claims {
            // As below; where that fails the log shows it later.
            drop(self.claims.open(partition).await);
        }
        // Opening settles what was left open, and the log shows it from then on.
        self.committer.open().await?;
        self.writable.suspect();
        let partitions: Vec<TopicPartition> = self.queue.partitions().cloned().collect();
        let known = self.log_end.reached(&partitions, !partitions.is_empty()).await?;
        self.give_back(partitions.into_iter().filter(|of| !known.contains(&of.partition)).collect()).await;
        self.forget_unapplied();
        match error {
            PublishError::TooLarge => Err(Error::refused(RECORD_TOO_LARGE, error.to_string())),
            error => Err(Error::unavailable(format!("publish replays: {error}"))),
        }
    }

    /// Partitions of which nothing can be replayed now: they are assigned again later.
    pub async fn give_back(&mut self, partitions: Vec<TopicPartition>) {
        let Some(first) = partitions.first() else { return };
        tracing::warn!(partitions = partitions.len(), %first, "requests of these partitions wait");
        self.queue.remove(&partitions);
        self.batches.remove(&partitions);
        self.schedules.remove(&partitions);
        self.reassignment.add(partitions);
        self.reassignment.tell_intake().await;
    }
}

/// Commits, and prepares the next batch at the same time. That is given up at once where nothing was committed, and else soon
/// after.
pub async fn commit_beside<T>(
    producer: &TransactionalPublisher,
    transaction: Transaction,
    prepare: impl Future<Output = Option<T>>,
) -> (CommitOutcome, Option<T>) {
    let started = Instant::now();
    let commit = producer.publish(transaction).map(|outcome| CommitOutcome { outcome, took: started.elapsed() });
    let (mut commit, mut prepare) = (std::pin::pin!(commit), std::pin::pin!(prepare));
    tokio::select! {
        biased;
        commit = &mut commit => match commit.outcome {
            Ok(()) => (commit, tokio::time::timeout(PREPARE_ON, prepare).await.unwrap_or_default()),
            Err(_) => (commit, None),
        },
        next = &mut prepare => (commit.await, next),
    }
}
