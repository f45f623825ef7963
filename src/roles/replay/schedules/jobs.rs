//! The schedules of the partitions that are ours, and what a transaction writes for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::ScheduleJob;
use super::policy_scan::PolicyScanner;
use crate::error::{Error, Result};
use crate::kafka::record::NewRecord;
use crate::replay_log::ReplayLog;
use crate::roles::replay::batches::ExpansionSurroundings;
use crate::roles::replay::draft::BatchDraft;
use crate::saga::json::Json;
use crate::saga::partitioner;
use crate::saga::position::{Offset, Shown, TopicPartition};
use crate::saga::request::{LogRecord, ReplayStatus};
use crate::saga::schedule::policy::Policy;
use crate::saga::schedule::progress::{ScheduleProgress, StopReason};
use crate::saga::schedule::{ScheduledWork, Trigger};
use crate::saga::time::Micros;
use crate::wire::request::schedule::{ScheduleAuthor, ScheduledRequest, policy_request, run_of};

/// Requests of one policy that one transaction writes.
const MAX_REQUESTS: usize = 500;
/// Between two looks at which policies were stopped, and at breakers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub struct ScheduleJobs {
    scanner: PolicyScanner,
    log: Arc<ReplayLog>,
    jobs: HashMap<String, ScheduleJob>,
    /// Policies that are known to be stopped.
    stopped: HashSet<String>,
    next_look: Instant,
}

impl ScheduleJobs {
    pub fn new(scanner: PolicyScanner, log: Arc<ReplayLog>) -> Self {
        Self { scanner, log, jobs: HashMap::new(), stopped: HashSet::new(), next_look: Instant::now() }
    }

    /// A schedule of one of our partitions that is not over, by the log.
    pub fn adopt(&mut self, partition: TopicPartition, record: &Arc<LogRecord>, now: Instant) {
        if record.schedule_progress.is_none() || self.jobs.contains_key(&record.replay_id) {
            return;
        }
        match ScheduleJob::new(partition, record.clone(), now) {
            Ok(job) => drop(self.jobs.insert(record.replay_id.clone(), job)),
            Err(error) => {
                let schedule_id = Shown(&record.replay_id);
                tracing::error!(%schedule_id, %error, "a schedule does not run: its definition cannot be read by this version");
            }
        }
    }

    /// A record was committed.
    pub fn apply(&mut self, partition: Option<TopicPartition>, record: &Arc<LogRecord>, now: Instant) {
        if record.schedule_progress.is_none() {
            return;
        }
        if record.status != ReplayStatus::Accepted {
            self.jobs.remove(&record.replay_id);
            return;
        }
        match (self.jobs.get_mut(&record.replay_id), partition) {
            (Some(job), _) => job.committed(record, now),
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

    /// Requests that are parked from now on are looked at, too: whether their policies are stopped.
    pub fn look_again(&mut self) {
        self.stopped.clear();
    }

    /// Takes what looks have found, and starts more. Gives the policies that were stopped since the last call.
    pub async fn advance(&mut self, now: Instant) -> Vec<String> {
        for job in self.jobs.values_mut() {
            job.advance(&self.scanner, &self.log, now).await;
        }
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOK_EVERY;
        self.look_at_breakers();
        let schedules = self.log.schedules();
        let stopped: HashSet<String> =
            schedules.iter().filter(|record| record.is_stopped_policy()).map(|record| record.replay_id.clone()).collect();
        let new = stopped.difference(&self.stopped).cloned().collect();
        self.stopped = stopped;
        new
    }

    fn look_at_breakers(&mut self) {
        for (schedule_id, job) in &mut self.jobs {
            let Trigger::Policy(policy) = &job.order.trigger else { continue };
            let since = job.progress().filter(|progress| progress.enabled).map(|progress| progress.since);
            let (Some(rule), Some(since)) = (policy.stop, since) else { continue };
            job.is_tripped = rule.is_met(self.log.schedule_tally(schedule_id).ended_since(since));
        }
    }

    /// Is there something to write now? `wall`: the time now.
    pub fn has_work(&self, wall: Micros, now: Instant) -> bool {
        self.jobs.values().any(|job| {
            let Some(progress) = job.progress().filter(|progress| progress.enabled) else { return false };
            let keeps = || job.scanned_to_keep(0, now).is_some_and(|scanned| *scanned != progress.scanned);
            job.is_tripped || !job.found.is_empty() || job.is_due(wall) || keeps()
        })
    }

    /// Writes the requests that are due, with how far each schedule is by that. `next`: of a partition of ours that may be written to,
    /// the next offset; `may_go`: the request's partition has a leader.
    pub fn make_requests(
        &mut self,
        draft: &mut BatchDraft,
        around: &ExpansionSurroundings<'_>,
        next: impl Fn(&TopicPartition) -> Option<Offset>,
        may_go: impl Fn(i32) -> bool,
    ) -> Result<()> {
        for (schedule_id, job) in &self.jobs {
            let Some(offset) = next(&job.partition) else { continue };
            let overlay = around.unapplied.with(&draft.outbox.log);
            let own = overlay.get(schedule_id).unwrap_or(job.record()).clone();
            let is_as_known = own.schedule_progress == job.record().schedule_progress;
            let Some(progress) = own.schedule_progress.as_deref().filter(|progress| progress.enabled && is_as_known) else {
                continue;
            };
            let changed = if job.is_tripped {
                tracing::warn!(
                    schedule_id = %Shown(schedule_id),
                    "a policy stops itself: more of its replays than stop_ratio did not complete"
                );
                Some((progress.stopped(StopReason::StopRatio), ReplayStatus::Accepted))
            } else {
                let author = ScheduleAuthor { schedule_id, requested_by: &own.requested_by, reason: &own.reason };
                requests_of(job, progress, author, around, draft, &may_go)?
            };
            if let Some((progress, status)) = changed {
                let mut record = LogRecord { status, schedule_progress: Some(Box::new(progress)), ..(*own).clone() };
                if status == ReplayStatus::Published {
                    (record.request, record.published_at) = (None, Some(around.now));
                }
                draft.outbox.log(around.targets, record, None)?;
                draft.offsets.entry(job.partition.clone()).or_insert(offset);
            }
        }
        Ok(())
    }
}

/// How far the schedule is with what this writes; `None`: nothing is to be written.
fn requests_of(
    job: &ScheduleJob,
    progress: &ScheduleProgress,
    author: ScheduleAuthor<'_>,
    around: &ExpansionSurroundings<'_>,
    draft: &mut BatchDraft,
    may_go: &impl Fn(i32) -> bool,
) -> Result<Option<(ScheduleProgress, ReplayStatus)>> {
    if let (Trigger::Policy(policy), ScheduledWork::Replay { members, .. }) = (&job.order.trigger, &job.order.work) {
        let changed = policy_requests(job, (policy, members), progress, author, around, draft, may_go)?;
        return Ok(changed.map(|changed| (changed, ReplayStatus::Accepted)));
    }
    let Some(due) = job.order.due(progress, around.now) else { return Ok(None) };
    let mut changed = ScheduleProgress { last_due: Some(due.at), ..progress.clone() };
    if !due.is_skipped {
        let request =
            run_of(&job.order.work, author, due.at).map_err(|e| Error::bug(format!("write request of a schedule: {e}")))?;
        if !put(request, around, draft, may_go) {
            return Ok(None);
        }
        changed.runs += 1;
    }
    let is_over = matches!(job.order.trigger, Trigger::At(_));
    Ok(Some((changed, if is_over { ReplayStatus::Published } else { ReplayStatus::Accepted })))
}

fn policy_requests(
    job: &ScheduleJob,
    (policy, members): (&Policy, &Json),
    progress: &ScheduleProgress,
    author: ScheduleAuthor<'_>,
    around: &ExpansionSurroundings<'_>,
    draft: &mut BatchDraft,
    may_go: &impl Fn(i32) -> bool,
) -> Result<Option<ScheduleProgress>> {
    let mut requested = 0;
    for found in job.found.iter().take(MAX_REQUESTS) {
        if let Some(not_before) = policy.due(found) {
            let request = policy_request(members, author, found, not_before, policy.on.stuck)
                .map_err(|e| Error::bug(format!("write request of a policy: {e}")))?;
            if !put(request, around, draft, may_go) {
                break;
            }
        }
        requested += 1;
    }
    let mut changed = ScheduleProgress { runs: progress.runs + requested as u64, ..progress.clone() };
    if let Some(scanned) = job.scanned_to_keep(requested, around.instant) {
        changed.scanned.clone_from(scanned);
    }
    Ok((changed != *progress).then_some(changed))
}

/// `false`: its partition has no leader now.
fn put(
    request: ScheduledRequest,
    around: &ExpansionSurroundings<'_>,
    draft: &mut BatchDraft,
    may_go: &impl Fn(i32) -> bool,
) -> bool {
    let ScheduledRequest { key, value } = request;
    let home = partitioner::partition(key.as_bytes(), around.partitions);
    if !may_go(home) {
        return false;
    }
    draft.outbox.records.push(NewRecord {
        topic: around.targets.requests.clone(),
        partition: Some(home),
        key: Some(key.into_bytes().into()),
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    });
    true
}
