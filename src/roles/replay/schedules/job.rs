//! One schedule whose requests are ours to make: when it is due, and what a policy's last look found.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::policy_scan::{PolicyScan, PolicyScanner};
use crate::error::{Error, Result};
use crate::replay_log::ReplayLog;
use crate::saga::ids;
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId, Shown, TopicPartition};
use crate::saga::request::LogRecord;
use crate::saga::schedule::policy::PolicyMatch;
use crate::saga::schedule::progress::ScheduleProgress;
use crate::saga::schedule::{ScheduleOrder, Trigger};
use crate::saga::time::Micros;
use crate::wire::request::schedule::read_definition;

/// Between two looks of a policy.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks for stuck sagas: a search each.
const STUCK_EVERY: Duration = Duration::from_secs(5);
/// After this time how far it looked is written down even if nothing was found.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Stuck sagas that are remembered as asked for; with more, the log tells.
const MAX_REMEMBERED: usize = 100_000;

pub struct ScheduleJob {
    pub partition: TopicPartition,
    record: Arc<LogRecord>,
    pub order: ScheduleOrder,
    /// Found and not requested by a committed record yet.
    pub found: VecDeque<PolicyMatch>,
    /// How far the look went that found them.
    scanned: Option<Vec<(ChainId, Offset)>>,
    asked: HashSet<(SagaId, EntrySequence)>,
    task: Option<JoinHandle<Result<PolicyScan>>>,
    next_look: Instant,
    kept_at: Instant,
    /// The breaker is open by what ended since the policy was enabled. Of this record: the next one is looked at anew.
    pub is_tripped: bool,
    /// By the record; computing it takes a while.
    next_due: Option<Micros>,
}

impl ScheduleJob {
    pub fn new(partition: TopicPartition, record: Arc<LogRecord>, now: Instant) -> Result<Self> {
        let progress = record.schedule_progress.as_ref();
        let progress = progress.ok_or_else(|| Error::bug("a schedule without its progress"))?;
        let order = read_definition(&progress.definition)
            .map_err(|e| Error::corrupt(format!("read schedule {}: {e}", record.replay_id)))?;
        let (found, asked, next_due) = (VecDeque::new(), HashSet::new(), order.next_due(progress));
        let (scanned, task, is_tripped) = (None, None, false);
        Ok(Self { partition, record, order, found, scanned, asked, task, next_look: now, kept_at: now, is_tripped, next_due })
    }

    pub fn record(&self) -> &Arc<LogRecord> {
        &self.record
    }

    pub fn progress(&self) -> Option<&ScheduleProgress> {
        self.record.schedule_progress.as_deref()
    }

    /// A record of it was committed: as many of those found are requested as it counts more.
    pub fn committed(&mut self, record: &Arc<LogRecord>, now: Instant) {
        let runs = |record: &LogRecord| record.schedule_progress.as_ref().map_or(0, |progress| progress.runs);
        let requested = runs(record).saturating_sub(runs(&self.record));
        for found in self.found.drain(..self.found.len().min(requested as usize)) {
            if self.asked.len() < MAX_REMEMBERED {
                self.asked.insert((found.saga_id, found.sequence));
            }
        }
        let (before, after) = (self.progress().map(|progress| progress.since), record.schedule_progress.as_ref());
        if before != after.map(|progress| progress.since) || after.is_some_and(|progress| !progress.enabled) {
            self.found.clear();
            self.scanned = None;
            self.asked.clear();
            self.stop_looking();
        }
        if self.scanned.as_ref().is_some_and(|scanned| after.is_some_and(|after| after.scanned == *scanned)) {
            (self.scanned, self.kept_at) = (None, now);
        }
        self.record = record.clone();
        self.is_tripped = false;
        self.next_due = self.progress().and_then(|progress| self.order.next_due(progress));
    }

    pub fn is_due(&self, now: Micros) -> bool {
        self.next_due.is_some_and(|at| at <= now)
    }

    /// How far it looked, where that is to be written down now: all that it found there is requested, or is with this.
    pub fn scanned_to_keep(&self, requested: usize, now: Instant) -> Option<&Vec<(ChainId, Offset)>> {
        let scanned = self.scanned.as_ref().filter(|_| requested >= self.found.len())?;
        let is_worth_it = requested > 0 || now.duration_since(self.kept_at) >= KEEP_EVERY;
        is_worth_it.then_some(scanned)
    }

    /// Takes what a look found, and begins the next one.
    pub async fn advance(&mut self, scanner: &PolicyScanner, log: &ReplayLog, now: Instant) {
        let Trigger::Policy(policy) = &self.order.trigger else { return };
        if let Some(task) = self.task.take_if(|task| task.is_finished()) {
            let pause = if policy.on.stuck { STUCK_EVERY } else { LOOK_EVERY };
            self.next_look = now + pause;
            match task.await.unwrap_or_else(|e| Err(Error::bug(format!("look for a policy: {e}")))) {
                Ok(scan) => {
                    let (asked, schedule_id) = (&self.asked, &self.record.replay_id);
                    let is_new = |found: &PolicyMatch| {
                        policy.due(found).is_some()
                            && !asked.contains(&(found.saga_id.clone(), found.sequence))
                            && !is_requested(log, schedule_id, found)
                    };
                    self.found.extend(scan.matches.into_iter().filter(is_new));
                    self.scanned = Some(scan.scanned).filter(|scanned| !scanned.is_empty());
                }
                Err(error) => {
                    let schedule_id = Shown(&self.record.replay_id);
                    tracing::warn!(%schedule_id, %error, "a policy cannot look for failed sagas now, trying again");
                }
            }
        }
        let is_enabled = self.progress().is_some_and(|progress| progress.enabled);
        if is_enabled && self.task.is_none() && self.found.is_empty() && now >= self.next_look {
            let (scanner, policy) = (scanner.clone(), policy.clone());
            let Some(progress) = self.progress() else { return };
            let since = progress.since;
            let scanned = self.scanned.clone().unwrap_or_else(|| progress.scanned.clone());
            self.task = Some(tokio::spawn(async move {
                if policy.on.stuck {
                    return Ok(PolicyScan { matches: scanner.stuck(&policy).await?, scanned: Vec::new() });
                }
                scanner.failed(&policy, since, &scanned).await
            }));
        }
    }

    fn stop_looking(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Is it in the log already, as far as that is in memory? What is not is told by its request id once it is requested again.
fn is_requested(log: &ReplayLog, schedule_id: &str, found: &PolicyMatch) -> bool {
    let request_id = ids::policy_request_id(schedule_id, &found.saga_id, found.sequence).to_string();
    log.get(&ids::replay_id(&request_id, &found.saga_id).to_string()).is_some()
}

impl Drop for ScheduleJob {
    fn drop(&mut self) {
        self.stop_looking();
    }
}
