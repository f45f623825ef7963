//! The role that replays: requests become restored saga, exactly once (DESIGN 6).
//!
//! One transaction for each batch of requests: restored sagas, their SAGA_RESTORED events, log records and the requests'
//! offsets, under the membership the batch was taken up with. States are loaded before it begins. Memory changes only
//! after the commit; whatever is not known to be committed is read again and found in the log, or not.

mod batch;
pub mod catch_up;
mod decide;
mod events;
mod gone;
mod keyed_locks;
mod known_log;
mod leaders;
pub mod log_overlay;
mod outbox;
pub mod owner;
mod parked;
pub mod planner;
mod publish;
mod rate;
mod read;
mod room;
mod seen;
mod skipped;
pub mod submit;
mod suspended;
mod take_up;
mod tally;
pub mod task;
mod too_large;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::intake::{AssignedPartition, Intake, IntakeEvent, MemoryPermit, StartAt};
use crate::kafka::record::PartitionRecords;
use crate::kafka::transaction::TransactionalPublisher;
use crate::saga::position::{Offset, SagaId, Shown, TopicPartition};
use crate::saga::time::Micros;
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro::{self, SchemaRef};

use super::stopped;
use super::suspension::Suspension;
use crate::partitioning::Partitioning;
use crate::retry::{Backoff, until_available};
use crate::schema_registry::lookups::SchemaLookups;
use batch::Prepared;
use catch_up::CatchUpBarrier;
use events::{next, revoked};
use known_log::LogNotKnown;
use leaders::WritablePartitions;
use log_overlay::UnappliedRecords;
use outbox::Targets;
use parked::ParkedRequests;
use planner::ReplayPlanner;
use rate::RateLimiter;
use read::ReadRecords;
use seen::UnreadableHistory;
use skipped::SkippedRequests;
use too_large::TooLarge;

pub use outbox::{Schemas, Targets as ReplayTargets};

const TICK: Duration = Duration::from_millis(50);
/// How long a partition lets the others go first after it could not go on.
const PARTITION_RESTS: Duration = Duration::from_millis(500);
/// Code of the refusal of a batch with a record that its topic does not take.
const RECORD_TOO_LARGE: &str = "record_too_large";
/// Longest wait for the view of the log, before anything is carried out and while other partitions are.
const LOG_WITHIN: Duration = Duration::from_secs(20);
const LOG_WITHIN_BESIDE_WORK: Duration = Duration::from_secs(1);
/// Most sagas that are kept as just restored; with more, ends are asked anew.
const MAX_JUST_RESTORED: usize = 10_000;

pub struct Dependencies {
    pub kafka: config::KafkaConfig,
    pub transactional_id: String,
    pub planner: ReplayPlanner,
    pub catch_up: CatchUpBarrier,
    pub ends: Ends,
    pub partitioning: Arc<Partitioning>,
    /// Told how many partitions the requests topic and the log have, before anything is carried out under that.
    pub partition_counts: RecordPartitionCounts,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<avro::Schemas>,
    pub metrics: Arc<Metrics>,
    /// Told when partitions were assigned for the first time.
    pub assigned: Arc<dyn Fn(bool) + Send + Sync>,
    pub now: fn() -> Micros,
}

/// Takes the partition counts of the requests topic and of the log; done once they are on record.
pub type RecordPartitionCounts = Arc<dyn Fn(i32, i32) -> BoxFuture<'static, Result<()>> + Send + Sync>;

#[derive(Debug, Clone)]
pub struct Settings {
    /// As which the log is written.
    pub group: String,
    pub targets: Targets,
    /// Partitions of the requests topic, and of the log.
    pub request_partitions: i32,
    pub max_batch_requests: usize,
    pub max_parked_requests: usize,
    /// Replays a second; `None`: no limit.
    pub rate: Option<f64>,
}

struct ReplayPartition {
    /// Below this every record was looked at once: it is done with, or passed over. Committed is this, or the first that was
    /// passed over.
    next: Offset,
    waiting: ParkedRequests,
    passed: SkippedRequests,
    /// Records from `next` on were read and dropped, for there was no room to pass over more.
    cut_off: bool,
    /// Its requests cannot be told from ones seen before: they wait, unread.
    log_not_known: Option<LogNotKnown>,
    /// The next record to read cannot be taken up: not looked at before this, nor what comes behind it.
    head_rests: Instant,
    /// It needs this schema, which is asked for: the record at this offset.
    waits_for: Option<(SchemaRef, Offset)>,
    /// The schema of the record at this offset was asked for, and is nowhere.
    given_up: Option<Offset>,
    rest: Suspension,
    /// A batch of this partition alone, to claim its log, is not tried before this.
    claim_rests: Instant,
}

impl ReplayPartition {
    /// Is this record to be looked at now?
    fn wants(&self, offset: Offset) -> bool {
        self.passed.is_next(offset) || (offset >= self.next && !self.passed.is_full())
    }
}

pub struct Replay {
    deps: Dependencies,
    settings: Settings,
    intake: Intake,
    events: mpsc::Receiver<IntakeEvent>,
    /// Received already, and next.
    came: VecDeque<IntakeEvent>,
    /// To be assigned again, and the intake was not told of it yet.
    given_back: Vec<TopicPartition>,
    publisher: Option<TransactionalPublisher>,
    /// For the batches that claim partitions of the log that are nobody's yet.
    claimers: HashMap<TopicPartition, TransactionalPublisher>,
    owned: HashMap<TopicPartition, ReplayPartition>,
    /// Records read and not yet done with.
    read: VecDeque<ReadRecords>,
    /// Sagas that were restored since the ends were asked that records in `read` know.
    just_restored: HashSet<SagaId>,
    /// The next batch, decided while the one before it was committed.
    prepared: Option<Prepared>,
    /// Log records of the transaction that is being committed.
    publishing: UnappliedRecords,
    /// Committed by this process; the view of the log follows.
    pending: UnappliedRecords,
    not_before: Instant,
    backoff: Backoff,
    fenced: VecDeque<Instant>,
    rate: RateLimiter,
    writable: WritablePartitions,
    /// No look before this at what is parked, and the pause before that: nothing of it could go.
    look_again: (Instant, Duration),
    too_large: TooLarge,
    /// Sagas whose history could not be read last time: when to look again, and the pause before that.
    unreadable: HashMap<SagaId, (Instant, Duration)>,
    /// For whom something of the log in history could not be read.
    unread: UnreadableHistory,
    /// Those that wait and came back from history, so far.
    waiting_restored: u64,
    /// Questions for schemas.
    lookups: SchemaLookups,
    asking: Backoff,
    /// Of the last order to read a partition again.
    tickets: u64,
    /// So many batches of one request each: one of them holds what a topic did not take.
    alone: usize,
    /// Looks at parked requests so far.
    turn: usize,
    stopping: bool,
}

impl Replay {
    pub fn new(deps: Dependencies, settings: Settings, (intake, events): (Intake, mpsc::Receiver<IntakeEvent>)) -> Self {
        let now = Instant::now();
        let lookups = SchemaLookups::new(deps.registry.clone(), deps.schemas.clone());
        Self {
            deps,
            lookups,
            asking: Backoff::new("learn schema of a replay request"),
            tickets: 0,
            intake,
            events,
            came: VecDeque::new(),
            given_back: Vec::new(),
            publisher: None,
            claimers: HashMap::new(),
            owned: HashMap::new(),
            read: VecDeque::new(),
            just_restored: HashSet::new(),
            prepared: None,
            publishing: UnappliedRecords::default(),
            pending: UnappliedRecords::default(),
            not_before: now,
            backoff: Backoff::new("replay"),
            fenced: VecDeque::new(),
            rate: RateLimiter::new(settings.rate, now),
            writable: WritablePartitions::default(),
            look_again: (now, Duration::ZERO),
            settings,
            too_large: TooLarge::default(),
            unreadable: HashMap::new(),
            unread: UnreadableHistory::default(),
            waiting_restored: 0,
            alone: 0,
            turn: 0,
            stopping: false,
        }
    }

    /// Until the shutdown is signalled or the intake fails.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        self.publisher = Some(self.open_publisher().await?);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_work = !self.stopping && Instant::now() >= self.not_before && self.may_take_up();
            tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !self.stopping => self.stop(),
                event = next(&mut self.came, &mut self.events) => match event {
                    Some(event) => self.intake_event(event, &mut shutdown).await?,
                    None => return Ok(()),
                },
                Some(looked) = self.lookups.next(), if !self.lookups.is_idle() => self.looked_up(looked?)?,
                // Before the work: where there always is some, partitions that rest would never be read again.
                _ = tick.tick() => if !self.stopping {
                    self.wait_for_returned();
                    self.let_rest().await;
                    self.give_back_the_rest().await;
                    self.reread_skipped().await?;
                    if Instant::now() >= self.not_before && self.something_is_due() {
                        self.work().await?;
                    }
                },
                () = std::future::ready(()), if may_work => self.work().await?,
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        let intake = self.intake.clone();
        tokio::spawn(async move {
            if let Err(reason) = intake.stop().await {
                tracing::warn!(%reason, "intake did not stop cleanly");
            }
        });
    }

    async fn intake_event(&mut self, event: IntakeEvent, shutdown: &mut watch::Receiver<bool>) -> Result<()> {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                self.deps.metrics.consumer_rebalances.with_label_values(&["replay"]).inc();
                // It was decided under the membership before.
                self.prepared = None;
                self.given_back.retain(|given| partitions.iter().all(|assigned| assigned.partition != *given));
                let mut events = std::mem::replace(&mut self.events, mpsc::channel(1).1);
                let mut came = std::mem::take(&mut self.came);
                let starts = tokio::select! {
                    biased;
                    () = stopped(shutdown) => None,
                    () = revoked(&mut events, &mut came) => None,
                    starts = self.assigned(partitions) => Some(starts),
                };
                (self.events, self.came) = (events, came);
                // Else the intake gives again what is still ours.
                if let Some(starts) = starts {
                    let starts = starts?;
                    (self.deps.assigned)(true);
                    let _ = reply.send(starts);
                }
            }
            // Work runs to its end before the next event is looked at, so nothing of these partitions is open.
            IntakeEvent::Revoked { partitions, reply, .. } => {
                self.prepared = None;
                self.read.retain(|read| !partitions.contains(&read.records.partition));
                self.given_back.retain(|given| !partitions.contains(given));
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.claimers.remove(partition);
                    self.unread.forget(partition.partition);
                    self.clear_alarm(partition, seen::UNREADABLE);
                    self.clear_alarm(partition, known_log::NOT_KNOWN);
                    self.clear_alarm(partition, owner::ANOTHERS);
                }
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch } => self.records(batch),
            IntakeEvent::OffsetsGone { partition, position, reason } => self.offsets_gone(partition, position, &reason).await?,
            IntakeEvent::ReadsAgain { partition, ticket, outcome } => self.reads_again(&partition, ticket, outcome),
            IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read replay requests")),
        }
        let owned = self.owned.len() as i64;
        self.deps.metrics.consumer_assigned_partitions.with_label_values(&["replay"]).set(owned);
        Ok(())
    }

    fn records(&mut self, batch: Vec<(PartitionRecords, MemoryPermit)>) {
        if self.stopping {
            return;
        }
        for (mut records, held) in batch {
            // Of a partition that was given back, or is not read from where it stands, something may still be on its way, from
            // before where it will begin again.
            let Some(owned) = self.owned.get(&records.partition) else { continue };
            records.records.retain(|record| owned.follows(record.offset));
            if !records.records.is_empty() {
                read::put(&mut self.read, records, Arc::new(held));
            }
        }
    }

    /// Records that the intake read meanwhile, up to an event of another kind that is to be looked at.
    fn read_batch(&mut self) {
        while self.came.is_empty()
            && let Ok(event) = self.events.try_recv()
        {
            match event {
                IntakeEvent::Records { batch } => self.records(batch),
                IntakeEvent::ReadsAgain { partition, ticket, outcome } => self.reads_again(&partition, ticket, outcome),
                IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
                other => self.came.push_back(other),
            }
        }
    }

    /// Starts where the group committed; before that the log is read to its end, as it is after the offsets were fetched.
    /// A partition of which that cannot be done now comes again, the others need not wait for it.
    async fn assigned(&mut self, partitions: Vec<AssignedPartition>) -> Result<Vec<(TopicPartition, StartAt)>> {
        let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
        self.learn_partitions(&names).await?;
        self.settle_claims(&names).await?;
        let known = self.log_to_its_end(&names).await?;
        // The view has it all now; another owner may have written newer records since.
        self.pending.retain(|record| !known.contains(&record.position.partition));
        let mut starts = Vec::with_capacity(partitions.len());
        for assigned in partitions {
            let partition = assigned.partition;
            if !known.contains(&partition.partition) {
                starts.push((partition, StartAt::Later));
                continue;
            }
            if self.is_anothers(&partition) {
                starts.push((partition, StartAt::Stop));
                continue;
            }
            let committed = assigned.committed.map(|(offset, _)| offset);
            let next = committed.unwrap_or(assigned.earliest).max(assigned.earliest);
            self.report_missing_offsets(&partition, committed, assigned.earliest);
            let owned = ReplayPartition {
                next,
                waiting: ParkedRequests::default(),
                passed: SkippedRequests::default(),
                cut_off: false,
                log_not_known: None,
                head_rests: Instant::now(),
                waits_for: None,
                given_up: None,
                rest: Suspension::new(Instant::now()),
                claim_rests: Instant::now(),
            };
            self.owned.insert(partition.clone(), owned);
            starts.push((partition, StartAt::Offset(next)));
        }
        self.wait_for_log_catch_up();
        self.unreadable.clear();
        Ok(starts)
    }

    /// How many partitions there are now: keys go by that. An assignment follows when there are more, in every process.
    async fn learn_partitions(&mut self, assigned: &[TopicPartition]) -> Result<()> {
        let (ends, targets) = (&self.deps.ends, &self.settings.targets);
        let requests = until_available("ask for the requests topic", || ends.partitions_of(&targets.requests)).await?;
        let log = until_available("ask for the replay log", || ends.partitions_of(&targets.log)).await?;
        // A broker may not have heard of them that just gave us one.
        let requests = assigned.iter().map(|of| of.partition + 1).fold(requests, i32::max);
        if log < requests {
            return Err(Error::unavailable(format!(
                "topics {} and {} must have equal partition counts: they have {requests} and {log}; raise the smaller one",
                targets.requests, targets.log
            )));
        }
        if requests > self.settings.request_partitions {
            tracing::info!(before = self.settings.request_partitions, now = requests, "the requests topic has more partitions");
            self.settings.request_partitions = requests;
        }
        let told = || (self.deps.partition_counts)(self.settings.request_partitions, log);
        until_available("keep the partition count of the replay log", told).await
    }

    /// Parks every request that the log says is waiting and that is not parked here.
    fn wait_for_log_catch_up(&mut self) {
        for record in self.deps.planner.log.waiting() {
            let of = self.owned.iter_mut().find(|(partition, _)| partition.partition == record.position.partition);
            let Some((_, owned)) = of.filter(|(_, owned)| !owned.waiting.contains(&record.replay_id)) else { continue };
            match take_up::parked_again(&record) {
                Ok(again) => owned.waiting.insert(again),
                Err(reason) => {
                    tracing::error!(replay_id = %Shown(&record.replay_id), %reason, "waiting request cannot be read again")
                }
            }
        }
    }

    /// The log's topic had dropped it, and history has it.
    fn wait_for_returned(&mut self) {
        let restored = self.deps.planner.log.waiting_restored();
        if restored != std::mem::replace(&mut self.waiting_restored, restored) {
            self.wait_for_log_catch_up();
        }
    }

    /// Waits until the view of the log is where the log ends now, in each partition where requests of these may be recorded.
    /// Gives the numbers of those of which it is: what has no leader, or takes too long, comes later.
    async fn log_to_its_end(&self, requests: &[TopicPartition]) -> Result<HashSet<i32>> {
        let planner = &self.deps.planner;
        let homes: Vec<(i32, Vec<i32>)> =
            requests.iter().map(|of| (of.partition, planner.homes_of_partition(of.partition))).collect();
        let numbers: BTreeSet<i32> = homes.iter().flat_map(|(_, homes)| homes.iter().copied()).collect();
        let log: Vec<TopicPartition> =
            numbers.into_iter().map(|number| TopicPartition::new(self.settings.targets.log.as_str(), number)).collect();
        let ends = until_available("ask for the ends of the replay log", || self.deps.ends.each_end(&log)).await?;
        let patience = if self.owned.is_empty() { LOG_WITHIN } else { LOG_WITHIN_BESIDE_WORK };
        let deadline = tokio::time::Instant::now() + patience;
        let mut known = HashSet::new();
        for (partition, end) in ends {
            let end = match end {
                Ok(end) => end.end,
                Err(error) if error.is_unavailable() => continue,
                Err(error) => return Err(error),
            };
            let reached = self.deps.planner.log.reached(partition.partition, end);
            if tokio::time::timeout_at(deadline, reached).await.is_ok() {
                known.insert(partition.partition);
            }
        }
        let is_known = |homes: &[i32]| homes.iter().all(|home| known.contains(home));
        Ok(homes.into_iter().filter(|(_, homes)| is_known(homes)).map(|(partition, _)| partition).collect())
    }

    fn something_is_due(&mut self) -> bool {
        Instant::now() >= self.look_again.0 && self.is_anything_due() && self.rate.allows(Instant::now()) > 0
    }

    fn is_anything_due(&self) -> bool {
        let now = (self.deps.now)();
        self.owned.values().any(|owned| owned.waiting.is_due(now))
    }

    /// One batch, from take-up to commit. What does not succeed is there again afterwards.
    async fn work(&mut self) -> Result<()> {
        match self.batch().await {
            Ok(true) => self.backoff.succeeded(),
            // What was read and cannot be taken up now must not be looked at without a pause.
            Ok(false) => self.not_before = Instant::now() + if self.read.is_empty() { Duration::ZERO } else { TICK },
            // What is stored of one partition cannot be read: an operator can mend it while this process goes on.
            Err(Error::Unavailable(reason) | Error::Corrupt(reason)) => {
                self.not_before = Instant::now() + self.backoff.failed(&reason)
            }
            // Between memberships: the next assignment says what is ours.
            Err(Error::Refused { code, .. }) if code == crate::kafka::NOT_ASSIGNED => {
                self.not_before = Instant::now() + TICK;
            }
            Err(other) => return Err(other),
        }
        let parked = self.owned.values().map(|owned| owned.waiting.len() + owned.passed.len()).sum::<usize>();
        self.deps.metrics.replay_queue_records.set((parked + self.read.len()) as i64);
        Ok(())
    }
}
