//! The transaction of a batch, and what follows from its outcome: memory changes only after a commit; whatever is not
//! known to be committed is read again and found in the log, or not.

use std::time::{Duration, Instant};

use futures::FutureExt;

use super::batch::Prepared;
use super::log_overlay::UnappliedRecords;
use super::outbox::TransactionOutbox;
use super::{RECORD_TOO_LARGE, Replay};
use crate::error::{Error, Result};
use crate::kafka::transaction::{PublishError, Transaction, TransactionalPublisher};
use crate::retry::until_available;
use crate::saga::position::TopicPartition;
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};

/// Pause after being fenced: another instance of the same name may be starting or going.
const FENCED_PAUSE: Duration = Duration::from_secs(1);
const FENCED_WINDOW: Duration = Duration::from_secs(60);

/// How long preparing may go on after a commit.
const PREPARE_ON: Duration = Duration::from_millis(250);

/// What makes a saga: its history begins, or goes on, with this transaction.
fn restores(record: &LogRecord) -> bool {
    record.status == ReplayStatus::Published && record.command == CommandName::Replay
}

impl Replay {
    pub(super) async fn open_publisher(&self) -> Result<TransactionalPublisher> {
        let open = || TransactionalPublisher::open(&self.deps.kafka, &self.deps.transactional_id);
        until_available("open transactional producer", open).await
    }

    /// Commits a batch; the next one is prepared meanwhile. `Unavailable`: it is not known to be committed, try again.
    /// `Refused` [`RECORD_TOO_LARGE`]: a topic does not take one of the records; nothing is visible.
    pub(super) async fn publish(&mut self, batch: Prepared) -> Result<()> {
        let may_prepare = self.may_prepare_behind(&batch);
        let committing = self.offsets_to_commit(&batch);
        let Prepared { draft, offsets, group, again, claims, .. } = batch;
        let TransactionOutbox { records, restored, log, tally, passed, looked_again, wanted, .. } = draft;
        let started = Instant::now();
        let publisher = match (&claims, self.publisher.take_if(|_| claims.is_none())) {
            (Some(partition), _) => {
                self.claimers.remove(partition).ok_or_else(|| Error::bug("claim the replay log: no producer for it"))?
            }
            (None, Some(publisher)) => publisher,
            (None, None) => self.open_publisher().await?,
        };
        let transaction = Transaction { records, last: restored, offsets: committing, group: Some(group) };
        // What this batch restores has no history before its end: whoever replays it asks for ends after that.
        self.just_restored
            .extend(log.records().filter(|record| restores(record)).filter_map(|record| record.new_saga_id.clone()));
        self.publishing = log;
        let publish = publisher.publish(transaction).map(|outcome| (outcome, started.elapsed()));
        let prepare = async { if may_prepare { self.prepare_behind(&offsets).await } else { None } };
        let ((outcome, took), next) = with_the_next(publish, prepare).await;
        let log = std::mem::take(&mut self.publishing);
        let result = match &outcome {
            Ok(()) => "committed",
            Err(PublishError::Fenced(_)) => "fenced",
            Err(PublishError::Unknown(_)) => "unknown",
            Err(_) => "aborted",
        };
        self.deps.metrics.transactions.with_label_values(&[result]).inc();
        if let Err(error) = outcome {
            if claims.is_none() && !error.is_closed() {
                self.publisher = Some(publisher);
            }
            return self.not_published(error, claims.as_ref()).await;
        }
        match claims {
            Some(partition) => self.claimed(partition, publisher, log.records().next().is_some()),
            None => self.publisher = Some(publisher),
        }
        self.deps.metrics.transaction_duration.observe(took.as_secs_f64());
        for (partition, next) in offsets {
            if let Some(owned) = self.owned.get_mut(&partition) {
                if next > owned.next {
                    owned.rest.progressed();
                }
                owned.next = next;
            }
        }
        self.remember_passed(passed, &looked_again, wanted);
        tally.tell(&self.deps.metrics, (self.deps.now)());
        self.remember(log);
        for (parked, partition) in again {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.waiting.insert(parked);
            }
        }
        self.prepared = next;
        Ok(())
    }

    /// After a commit: what is parked and what is not follows the log records.
    fn remember(&mut self, log: UnappliedRecords) {
        for record in log.into_records() {
            let partition = &record.position.partition;
            let owned = self.owned.iter_mut().find(|(of, _)| of.partition == *partition).map(|(_, owned)| owned);
            if let Some(owned) = owned.filter(|_| record.status != ReplayStatus::Accepted) {
                owned.waiting.remove(&record.replay_id);
            }
            self.pending.insert(record);
        }
        // The view has the newest of most; what it has need not be kept twice.
        let view = &self.deps.planner.log;
        self.pending.retain(|record| view.get(&record.replay_id).is_none_or(|seen| *seen != *record));
    }

    /// Nothing is known to be visible. The requests are still in memory and come again with the next batch; what was
    /// committed after all is found in the log, which is read to its end first.
    async fn not_published(&mut self, error: PublishError, claims: Option<&TopicPartition>) -> Result<()> {
        if let (PublishError::Fenced(_), None) = (&error, claims) {
            let now = Instant::now();
            self.fenced.retain(|at| now.duration_since(*at) < FENCED_WINDOW);
            self.fenced.push_back(now);
            if self.fenced.len() > 2 {
                return Err(Error::bug(format!(
                    "fenced again and again: another process uses the transactional id {}; give each its own [kafka] instance",
                    self.deps.transactional_id
                )));
            }
            tokio::time::sleep(FENCED_PAUSE).await;
        }
        if let Some(partition) = claims {
            // As below; where that fails the log shows it later.
            drop(self.open_claimer(partition).await);
        }
        if self.publisher.is_none() {
            // Opening settles what was left open: committed or aborted, and visible in the log from then on.
            self.publisher = Some(self.open_publisher().await?);
        }
        self.writable.suspect();
        let partitions: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        let known = self.log_to_its_end(&partitions).await?;
        self.give_back(partitions.into_iter().filter(|of| !known.contains(&of.partition)).collect()).await?;
        // It may have been committed all the same: then what it parked or carried out is only known from the log.
        self.pending.clear();
        self.forget_ends();
        self.wait_for_log_catch_up();
        match error {
            PublishError::TooLarge => Err(Error::refused(RECORD_TOO_LARGE, error.to_string())),
            error => Err(Error::unavailable(format!("publish replays: {error}"))),
        }
    }

    /// Partitions of which nothing can be carried out now: they are assigned again later.
    pub(super) async fn give_back(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        tracing::warn!(partitions = partitions.len(), first = %partitions[0], "requests of these partitions wait");
        self.read.retain(|read| !partitions.contains(&read.records.partition));
        self.owned.retain(|partition, _| !partitions.contains(partition));
        self.given_back.extend(partitions);
        self.give_back_the_rest().await;
        Ok(())
    }

    /// What the intake was not told of yet: it reads on what nobody here takes, and only then assigns it again.
    pub(super) async fn give_back_the_rest(&mut self) {
        if self.given_back.is_empty() {
            return;
        }
        match self.intake.assign_later(self.given_back.clone()).await {
            Ok(()) => self.given_back.clear(),
            Err(reason) => tracing::debug!(%reason, "intake not told of partitions that wait, trying again"),
        }
    }
}

type Outcome = (Result<(), PublishError>, Duration);

/// Both at once; preparing is given up at once where nothing was committed, and else soon after.
async fn with_the_next(
    publish: impl Future<Output = Outcome>,
    prepare: impl Future<Output = Option<Prepared>>,
) -> (Outcome, Option<Prepared>) {
    let (mut publish, mut prepare) = (std::pin::pin!(publish), std::pin::pin!(prepare));
    tokio::select! {
        biased;
        outcome = &mut publish => match outcome.0 {
            Ok(()) => (outcome, tokio::time::timeout(PREPARE_ON, prepare).await.unwrap_or_default()),
            Err(_) => (outcome, None),
        },
        next = &mut prepare => (publish.await, next),
    }
}
