//! What batches are made with: the parts of the role, each with a duty and fields of its own. What is done with them is in `batch`
//! (one batch), `commit`, `reading` (between batches) and `assignment`.

use std::sync::Arc;
use std::time::Instant;

use super::batches::BatchJobs;
use super::committer::Committer;
use super::draft::PreparedBatch;
use super::facts::FactLoader;
use super::history_alarms::HistoryAlarms;
use super::incoming::parked_again;
use super::log_alarms::LogAlarms;
use super::log_claims::LogClaims;
use super::log_end::LogEnd;
use super::log_overlay::UnappliedLog;
use super::oversized::OversizedRecords;
use super::queue::RequestQueue;
use super::reassign::Reassignment;
use super::schedules::ScheduleJobs;
use super::schedules::policy_scan::PolicyScanner;
use super::schema_waits::SchemaWaits;
use super::settings::{Dependencies, RecordPartitionCounts, Settings};
use super::writable::WritablePartitions;
use crate::kafka::ends::Ends;
use crate::kafka::intake::Intake;
use crate::saga::position::Shown;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro::Schemas;

pub struct BatchRunner {
    pub settings: Settings,
    pub queue: RequestQueue,
    pub batches: BatchJobs,
    pub schedules: ScheduleJobs,
    pub unapplied: UnappliedLog,
    pub facts: FactLoader,
    pub committer: Committer,
    pub claims: LogClaims,
    pub writable: WritablePartitions,
    pub oversized: OversizedRecords,
    pub schema_waits: SchemaWaits,
    pub log_end: LogEnd,
    pub alarms: LogAlarms,
    pub reassignment: Reassignment,
    /// The next batch, decided while the one before it was committed.
    pub prepared: Option<PreparedBatch>,
    /// Requests that wait and came back from history to the view of the log, so far.
    pub returned: u64,
    pub intake: Intake,
    pub ends: Ends,
    pub schemas: Arc<Schemas>,
    pub partition_counts: RecordPartitionCounts,
    pub metrics: Arc<Metrics>,
    pub now: fn() -> Micros,
    /// What pauses are counted by.
    pub instant: fn() -> Instant,
}

impl BatchRunner {
    pub fn new(deps: Dependencies, settings: Settings, intake: Intake) -> Self {
        let Dependencies { kafka, planner, catch_up, ends, partitioning, registry, schemas, metrics, freezer, .. } = deps;
        let alarms = LogAlarms::new(metrics.clone(), &settings.targets.log);
        let allowed = planner.rules.restored_allowed.clone();
        let (chains, targets) = (catch_up.chains.clone(), settings.targets.clone());
        Self {
            queue: RequestQueue::new(settings.max_parked_requests, settings.rate, Instant::now()),
            schedules: ScheduleJobs::new(PolicyScanner { selection: freezer.selection.clone() }, planner.records.log.clone()),
            batches: BatchJobs::new(freezer, planner.records.log.clone()),
            unapplied: UnappliedLog::default(),
            claims: LogClaims::new(kafka.clone(), settings.group.clone(), planner.records.log.clone(), alarms.clone()),
            writable: WritablePartitions::new(ends.clone(), chains, partitioning.clone(), targets, allowed),
            log_end: LogEnd { ends: ends.clone(), records: planner.records.clone(), log: settings.targets.log.clone() },
            facts: FactLoader {
                planner,
                catch_up,
                partitioning,
                metrics: metrics.clone(),
                alarms: HistoryAlarms::new(alarms.clone()),
                instant: Instant::now,
            },
            committer: Committer::new(kafka, deps.transactional_id),
            oversized: OversizedRecords::default(),
            schema_waits: SchemaWaits::new(registry, schemas.clone()),
            alarms,
            reassignment: Reassignment::new(intake.clone()),
            prepared: None,
            returned: 0,
            intake,
            ends,
            schemas,
            partition_counts: deps.partition_counts,
            metrics,
            now: deps.now,
            instant: Instant::now,
            settings,
        }
    }

    /// Are other partitions worked on?
    pub fn has_work_beside(&self) -> bool {
        self.queue.partitions().next().is_some()
    }

    /// Is there something parked that may go now?
    pub fn is_something_due(&mut self) -> bool {
        self.queue.is_anything_due((self.now)()) && self.queue.may_look_at_parked((self.instant)())
    }

    /// Are there requests of batches or schedules to write?
    pub fn is_batch_ready(&mut self) -> bool {
        self.batches.has_work(&self.unapplied, (self.instant)()) || self.has_schedule_work()
    }

    /// Has a schedule requests to make now?
    pub fn has_schedule_work(&self) -> bool {
        self.schedules.has_work((self.now)(), (self.instant)())
    }

    /// Takes what batches and schedules brought beside the loop. What waits for a policy that was stopped is looked at again now.
    pub async fn advance_jobs(&mut self) {
        let now = (self.instant)();
        self.batches.advance(now).await;
        for stopped in self.schedules.advance(now).await {
            self.queue.hasten(&stopped);
        }
    }

    /// Parks every request that the log says is waiting and that is not parked here, and goes on with its batches.
    pub fn park_waiting(&mut self) {
        self.schedules.look_again();
        for record in self.facts.planner.records.log.waiting() {
            let number = record.position.partition;
            if record.batch_progress.is_some() || record.schedule_progress.is_some() {
                if let Some(partition) = self.queue.partition_of_number(number) {
                    self.batches.adopt(partition.clone(), &record, (self.instant)());
                    self.schedules.adopt(partition, &record, (self.instant)());
                }
                continue;
            }
            if !self.queue.has_number(number) || self.queue.is_parked(number, &record.replay_id) {
                continue;
            }
            match parked_again(&record) {
                Ok(parked) => self.queue.park(parked),
                Err(reason) => {
                    tracing::error!(replay_id = %Shown(&record.replay_id), %reason, "waiting request cannot be read again");
                }
            }
        }
    }
}
