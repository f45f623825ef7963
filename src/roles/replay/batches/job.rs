//! One batch, or a retry of one, whose requests are not all written: its list is frozen and read by tasks of its own, a page ahead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::freeze::Freezer;
use crate::cold::batch_lists::Manifest;
use crate::error::{Error, Result};
use crate::replay_log::ReplayLog;
use crate::roles::replay::queue::RateLimiter;
use crate::saga::batch::BatchRow;
use crate::saga::batch_progress::BatchProgress;
use crate::saga::position::{Shown, TopicPartition};
use crate::saga::request::{CommandName, LogRecord, Refusal};
use crate::wire::request::decode_json;

/// Between two tries to freeze or to read a list.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Rows at hand below which more are read.
const READ_BELOW: usize = 1_000;

pub struct BatchJob {
    pub partition: TopicPartition,
    /// As committed last.
    record: Arc<LogRecord>,
    pub rate: RateLimiter,
    list: Option<Arc<Manifest>>,
    /// Of the list, without a hole: those that are not requested by a committed record yet.
    rows: VecDeque<BatchRow>,
    /// The number of the first of them.
    first: u64,
    task: Task,
    pause: Duration,
}

enum Task {
    None,
    Opening(JoinHandle<Result<Manifest>>),
    Reading(JoinHandle<Result<VecDeque<BatchRow>>>),
    /// It failed: not before this.
    Rests(Instant),
    /// It cannot go on.
    Refused(Refusal),
}

impl BatchJob {
    pub fn new(partition: TopicPartition, record: Arc<LogRecord>, now: Instant) -> Self {
        let rate = record.batch_progress.as_ref().and_then(|progress| progress.limits.rate_per_second);
        let (rows, pause) = (VecDeque::new(), FIRST_PAUSE);
        let rate = RateLimiter::new(rate, now);
        Self { partition, record, rate, list: None, rows, first: 0, task: Task::None, pause }
    }

    pub fn record(&self) -> &Arc<LogRecord> {
        &self.record
    }

    /// A record was committed: the rows that it says are requested are done with.
    pub fn committed(&mut self, record: &Arc<LogRecord>) {
        self.record = record.clone();
        let expanded = self.progress().map_or(0, |progress| progress.expanded);
        while self.first < expanded && self.rows.pop_front().is_some() {
            self.first += 1;
        }
    }

    pub fn progress(&self) -> Option<&BatchProgress> {
        self.record.batch_progress.as_deref()
    }

    pub fn list(&self) -> Option<&Arc<Manifest>> {
        self.list.as_ref()
    }

    pub fn is_undo(&self) -> bool {
        self.record.command == CommandName::BatchUndo
    }

    /// Why it can never go on.
    pub fn refusal(&self) -> Option<&Refusal> {
        if let Task::Refused(refusal) = &self.task { Some(refusal) } else { None }
    }

    /// Rows at hand.
    pub fn ready(&self) -> usize {
        self.rows.len()
    }

    /// The row of this number, if it is at hand. It stays until a record that counts it is committed.
    pub fn row(&self, number: u64) -> Option<&BatchRow> {
        self.rows.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn read_to(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// Takes what its task has brought, and begins the next one.
    pub async fn advance(&mut self, freezer: &Freezer, log: &ReplayLog, now: Instant) {
        match std::mem::replace(&mut self.task, Task::None) {
            Task::Opening(task) if task.is_finished() => match joined(task).await {
                Ok(list) => self.opened(list),
                Err(error) => self.failed(error, now),
            },
            Task::Reading(task) if task.is_finished() => match joined(task).await {
                Ok(rows) => {
                    self.rows.extend(rows);
                    self.pause = FIRST_PAUSE;
                }
                Err(error) => self.failed(error, now),
            },
            Task::Rests(until) if until <= now => {}
            other => self.task = other,
        }
        if matches!(self.task, Task::None) {
            self.task = self.next_task(freezer, log);
        }
    }

    fn opened(&mut self, list: Manifest) {
        self.pause = FIRST_PAUSE;
        let progress = self.progress();
        let is_another = progress.and_then(|progress| progress.list.as_ref()).is_some_and(|known| known.digest != list.digest);
        if is_another {
            let refusal = Refusal::new("request_invalid", "the list of the batch is another one than it began with");
            self.task = Task::Refused(refusal);
            return;
        }
        self.first = progress.map_or(0, |progress| progress.expanded);
        self.list = Some(Arc::new(list));
    }

    fn failed(&mut self, error: Error, now: Instant) {
        match error {
            Error::Refused { code: "behind", .. } | Error::Unavailable(_) => {
                tracing::warn!(batch_id = %Shown(&self.record.replay_id), %error, "list of a batch not read yet, trying again");
                self.task = Task::Rests(now + self.pause);
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
            Error::Refused { code, message } => self.task = Task::Refused(Refusal { code, message }),
            other => {
                tracing::error!(batch_id = %Shown(&self.record.replay_id), error = %other, "list of a batch cannot be read: the batch stops");
                self.task =
                    Task::Refused(Refusal::new("request_invalid", format!("the list of the batch cannot be read: {other}")));
            }
        }
    }

    fn next_task(&self, freezer: &Freezer, log: &ReplayLog) -> Task {
        let freezer = freezer.clone();
        let Some(list) = &self.list else {
            let record = self.record.clone();
            let known = self.progress().and_then(|progress| progress.list.clone());
            let sagas = match (self.progress().filter(|_| known.is_none()), self.record.command) {
                (Some(progress), CommandName::BatchRetryFailed) => log.batch_failed(&progress.batch_id),
                (Some(progress), CommandName::BatchUndo) => log.batch_published(&progress.batch_id),
                _ => Vec::new(),
            };
            return Task::Opening(tokio::spawn(async move {
                if let Some(known) = known {
                    return freezer.frozen(&known.list_id, Some(&known.digest)).await;
                }
                let request = record.request.as_ref().ok_or_else(|| {
                    Error::corrupt(format!("read batch {}: its log record has neither a request nor a list", record.replay_id))
                })?;
                let request = decode_json(request.as_str().as_bytes())?;
                freezer.list_of(&record, &request, sagas).await
            }));
        };
        if self.rows.len() < READ_BELOW && self.read_to() < list.total {
            let (list, from) = (list.clone(), self.read_to());
            return Task::Reading(tokio::spawn(async move {
                let rows = freezer.lists.rows(&list, from).await?;
                let missing = || Error::corrupt(format!("read list of a batch {}: row {from} is missing", list.list_id));
                if rows.is_empty() { Err(missing()) } else { Ok(rows) }
            }));
        }
        Task::None
    }
}

impl Drop for BatchJob {
    fn drop(&mut self) {
        match &self.task {
            Task::Opening(task) => task.abort(),
            Task::Reading(task) => task.abort(),
            Task::None | Task::Rests(_) | Task::Refused(_) => {}
        }
    }
}

async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|e| Err(Error::bug(format!("read list of a batch: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::batch_progress::BatchLimits;
    use crate::saga::request::ReplayStatus;
    use crate::saga::testing::log_record;

    fn record(expanded: u64) -> Arc<LogRecord> {
        let progress = BatchProgress { expanded, ..BatchProgress::new("b", None, BatchLimits::default()) };
        let record = log_record("b", "order-1", 1, ReplayStatus::Accepted);
        Arc::new(LogRecord { command: CommandName::Batch, batch_progress: Some(Box::new(progress)), ..record })
    }

    #[test]
    fn a_row_stays_until_the_record_that_counts_it_is_committed() {
        let mut job = BatchJob::new(TopicPartition::new("requests", 0), record(3), Instant::now());
        let row = |n: u64| BatchRow::of(format!("order-{n}").as_str().into());
        (job.first, job.rows) = (3, (3..8).map(row).collect());
        let at = |job: &BatchJob, number| job.row(number).map(|row| row.saga_id.as_str().to_owned());
        for _ in 0..2 {
            assert_eq!((at(&job, 3), at(&job, 7), at(&job, 8)), (Some("order-3".into()), Some("order-7".into()), None));
        }
        assert_eq!(at(&job, 2), None, "done with");
        job.committed(&record(5));
        assert_eq!((at(&job, 4), at(&job, 5), job.ready(), job.read_to()), (None, Some("order-5".into()), 3, 8));
        // A pause is a record, too, and takes no row.
        job.committed(&record(5));
        assert_eq!((job.ready(), job.read_to()), (3, 8));
        job.committed(&record(8));
        assert_eq!((job.ready(), job.read_to()), (0, 8));
    }
}
