//! The batches that go on in the partitions that are ours, and what a transaction writes for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::freeze::Freezer;
use super::job::BatchJob;
use crate::error::{Error, Result};
use crate::kafka::record::NewRecord;
use crate::replay_log::ReplayLog;
use crate::roles::replay::draft::BatchDraft;
use crate::roles::replay::log_overlay::UnappliedLog;
use crate::roles::replay::log_record;
use crate::roles::replay::outbox::ReplayTargets;
use crate::saga::batch_counts::{Allowance, BatchCounts, allowance};
use crate::saga::batch_progress::{BatchLimits, BatchProgress, PauseReason};
use crate::saga::partitioner;
use crate::saga::position::{Offset, Shown, TopicPartition};
use crate::saga::request::{CommandName, LogRecord, ReplayStatus};
use crate::saga::schedule::member::ScheduleMember;
use crate::saga::time::Micros;
use crate::wire::request::batch::MemberRequests;

/// Requests of one batch that one transaction writes.
const MAX_REQUESTS: u64 = 500;
/// Their bytes.
const MAX_BYTES: usize = 1 << 20;

pub struct BatchJobs {
    freezer: Freezer,
    log: Arc<ReplayLog>,
    jobs: HashMap<String, BatchJob>,
}

/// What requests are written with.
pub struct ExpansionSurroundings<'a> {
    pub unapplied: &'a UnappliedLog,
    pub targets: &'a ReplayTargets,
    /// Of the requests topic.
    pub partitions: i32,
    /// When it is decided.
    pub now: Micros,
    pub instant: Instant,
}

fn is_of_batch(record: &LogRecord) -> bool {
    let is_job = matches!(record.command, CommandName::Batch | CommandName::BatchRetryFailed | CommandName::BatchUndo);
    is_job && record.batch_progress.is_some()
}

impl BatchJobs {
    pub fn new(freezer: Freezer, log: Arc<ReplayLog>) -> Self {
        Self { freezer, log, jobs: HashMap::new() }
    }

    /// A batch of one of our partitions that waits, by the log.
    pub fn adopt(&mut self, partition: TopicPartition, record: &Arc<LogRecord>, now: Instant) {
        if is_of_batch(record) && !self.jobs.contains_key(&record.replay_id) {
            self.jobs.insert(record.replay_id.clone(), BatchJob::new(partition, record.clone(), now));
        }
    }

    /// A record was committed.
    pub fn apply(&mut self, partition: Option<TopicPartition>, record: &Arc<LogRecord>, now: Instant) {
        if !is_of_batch(record) {
            return;
        }
        if record.status != ReplayStatus::Accepted {
            self.jobs.remove(&record.replay_id);
            return;
        }
        match (self.jobs.get_mut(&record.replay_id), partition) {
            (Some(job), _) => job.committed(record),
            (None, Some(partition)) => self.adopt(partition, record, now),
            (None, None) => {}
        }
    }

    pub fn remove(&mut self, partitions: &[TopicPartition]) {
        self.jobs.retain(|_, job| !partitions.contains(&job.partition));
    }

    /// What was committed is not known: they begin again with what the log has.
    pub fn clear(&mut self) {
        self.jobs.clear();
    }

    /// Is there such a command about the batch that is not done?
    pub fn has(&self, command: CommandName, batch_id: &str) -> bool {
        let of_batch = |job: &BatchJob| job.progress().is_some_and(|progress| progress.batch_id == batch_id);
        self.jobs.values().any(|job| job.record().command == command && of_batch(job))
    }

    /// Is there nothing at hand to be written?
    pub fn is_idle(&self) -> bool {
        let rests = |job: &BatchJob| job.ready() == 0 || job.progress().is_some_and(|progress| progress.paused.is_some());
        self.jobs.values().all(rests)
    }

    /// Takes what the tasks have brought, and starts more.
    pub async fn advance(&mut self, now: Instant) {
        for job in self.jobs.values_mut() {
            job.advance(&self.freezer, &self.log, now).await;
        }
    }

    /// Is there something to write now?
    pub fn has_work(&mut self, unapplied: &UnappliedLog, now: Instant) -> bool {
        let log = &self.log;
        self.jobs.values_mut().any(|job| {
            let Some(progress) = job.progress() else { return false };
            if job.refusal().is_some() || (job.list().is_some() && progress.list.is_none()) {
                return true;
            }
            if job.ready() == 0 || job.rate.allows(now) == 0 {
                return false;
            }
            let Some(batch) = batch_of(job.record(), log, unapplied) else { return false };
            let Some(progress) = &batch.batch_progress else { return false };
            if progress.is_cancelled && !job.is_undo() {
                return true;
            }
            allowed(job, progress, log) != Allowance::Requests(0)
        })
    }

    /// Writes the requests that may go now, with how far each batch is by that. `next`: of a partition of ours that may be written to, the
    /// next offset; `may_go`: the request's partition has a leader.
    pub fn expand(
        &mut self,
        draft: &mut BatchDraft,
        around: &ExpansionSurroundings<'_>,
        next: impl Fn(&TopicPartition) -> Option<Offset>,
        may_go: impl Fn(i32) -> bool,
    ) -> Result<()> {
        for job in self.jobs.values_mut() {
            let Some(offset) = next(&job.partition) else { continue };
            let overlay = around.unapplied.with(&draft.outbox.log);
            let own = overlay.get(&job.record().replay_id).unwrap_or(job.record()).clone();
            if own.status != ReplayStatus::Accepted {
                continue;
            }
            let batch = overlay.get(batch_id(&own)).cloned().or_else(|| batch_of(&own, &self.log, around.unapplied));
            let Some(batch) = batch else { continue };
            let records = expand_one(job, &own, &batch, &self.log, around, draft, &may_go)?;
            if !records.is_empty() {
                for record in records {
                    draft.outbox.log(around.targets, record, None)?;
                }
                draft.offsets.entry(job.partition.clone()).or_insert(offset);
            }
        }
        Ok(())
    }
}

fn batch_id(record: &LogRecord) -> &str {
    record.batch_progress.as_ref().map_or(record.replay_id.as_str(), |progress| &progress.batch_id)
}

/// The newest record of the batch that a job is of.
fn batch_of(own: &Arc<LogRecord>, log: &ReplayLog, unapplied: &UnappliedLog) -> Option<Arc<LogRecord>> {
    let id = batch_id(own);
    if id == own.replay_id {
        return Some(own.clone());
    }
    unapplied.overlay().get(id).cloned().or_else(|| log.get(id))
}

/// Requests that are written, and not yet seen in the log.
fn unseen(job: &BatchJob, log: &ReplayLog) -> u64 {
    let expanded = job.progress().map_or(0, |progress| progress.expanded);
    expanded.saturating_sub(log.batch_seen(batch_id(job.record()), &job.record().request_id))
}

/// An undo goes on whatever its batch does, and only its rate limits it.
fn allowed(job: &BatchJob, of_batch: &BatchProgress, log: &ReplayLog) -> Allowance {
    if job.is_undo() {
        let own = BatchProgress::new(&of_batch.batch_id, None, BatchLimits::default());
        return allowance(&own, &BatchCounts::default(), unseen(job, log));
    }
    allowance(of_batch, &log.batch_counts(&of_batch.batch_id), unseen(job, log))
}

/// Gives the log records that change by it.
fn expand_one(
    job: &mut BatchJob,
    own: &Arc<LogRecord>,
    batch: &Arc<LogRecord>,
    log: &ReplayLog,
    around: &ExpansionSurroundings<'_>,
    draft: &mut BatchDraft,
    may_go: &impl Fn(i32) -> bool,
) -> Result<Vec<LogRecord>> {
    let Some(progress) = own.batch_progress.as_deref() else { return Ok(Vec::new()) };
    if let Some(refusal) = job.refusal() {
        let stopped = BatchProgress { is_cancelled: true, ..progress.clone() };
        let refused = log_record::refused((**own).clone(), refusal);
        return Ok(vec![LogRecord { batch_progress: Some(Box::new(stopped)), ..refused }]);
    }
    let Some(list) = job.list().cloned() else { return Ok(Vec::new()) };
    let mut changed = progress.clone();
    if changed.list.is_none() {
        changed.list = Some(list.list_ref());
        changed.name = changed.name.or_else(|| list.name.clone());
        changed.limits = list.limits_for(changed.limits)?;
        // From now on the list has all that the request said.
        job.rate.set(changed.limits.rate_per_second, around.instant);
    }
    let Some(of_batch) = batch.batch_progress.as_deref() else { return Ok(Vec::new()) };
    let of_batch = if batch.replay_id == own.replay_id || job.is_undo() { &changed } else { of_batch };
    if of_batch.is_cancelled {
        // A retry of a batch that was cancelled.
        return Ok(vec![LogRecord { status: ReplayStatus::Cancelled, request: None, ..(**own).clone() }]);
    }
    let allowed = match allowed(job, of_batch, log) {
        Allowance::Requests(allowed) => allowed.min(MAX_REQUESTS),
        Allowance::Pause => {
            tracing::warn!(batch_id = %Shown(&of_batch.batch_id), "too many replays of a batch failed: it pauses");
            let paused = BatchProgress { paused: Some(PauseReason::MaxFailures), ..of_batch.clone() };
            return Ok(vec![LogRecord { batch_progress: Some(Box::new(paused)), ..(**batch).clone() }]);
        }
    };
    let (template, batch_id) = (list.template(), of_batch.batch_id.clone());
    let schedule = own.schedule_id.clone().map(|schedule_id| ScheduleMember { schedule_id, due: own.accepted_at });
    let requests = MemberRequests {
        request_id: &own.request_id,
        requested_by: &own.requested_by,
        reason: &own.reason,
        batch_id: &batch_id,
        accepted_at: own.accepted_at,
        template: &template,
        needs_override: list.needs_override,
        schedule: schedule.as_ref(),
    };
    let (mut written, mut bytes) = (0, 0);
    while written < allowed && bytes < MAX_BYTES && job.rate.allows(around.instant) > 0 {
        let Some(row) = job.row(progress.expanded + written) else { break };
        let home = partitioner::partition(row.saga_id.as_str().as_bytes(), around.partitions);
        if !may_go(home) {
            break;
        }
        let value = requests.of(row).map_err(|e| Error::bug(format!("write request of a batch: {e}")))?;
        bytes += value.len();
        draft.outbox.records.push(NewRecord {
            topic: around.targets.requests.clone(),
            partition: Some(home),
            key: Some(row.saga_id.as_str().as_bytes().to_vec().into()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: None,
        });
        job.rate.take(around.instant);
        written += 1;
    }
    changed.expanded += written;
    if changed == *progress {
        return Ok(Vec::new());
    }
    let mut record = LogRecord { request: None, ..(**own).clone() };
    if changed.is_expanded() {
        (record.status, record.published_at) = (ReplayStatus::Published, Some(around.now));
    }
    record.batch_progress = Some(Box::new(changed));
    Ok(vec![record])
}
