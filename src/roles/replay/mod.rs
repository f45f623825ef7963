//! The role that replays: requests become restored saga, exactly once (DESIGN 6).
//!
//! One transaction for each batch of requests: restored sagas, their SAGA_RESTORED events, log records and the requests'
//! offsets, under the membership the batch was taken up with. States are loaded before it begins. Memory changes only
//! after the commit; whatever is not known to be committed is read again and found in the log, or not.

mod ahead;
mod carry;
mod decide;
pub mod desk;
mod draft;
pub mod fresh;
mod parked;
pub mod submit;
mod take_up;
pub mod unseen;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::intake::{AssignedPartition, GroupMetadata, Held, Intake, IntakeEvent, StartAt};
use crate::kafka::record::PartitionRecords;
use crate::kafka::registry::SchemaRegistry;
use crate::kafka::transaction::{PublishError, Transaction, TransactionalPublisher};
use crate::saga::position::{Offset, SagaId, TopicPartition};
use crate::saga::request::{CommandName, ReplayStatus};
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro;

use super::partitioning::Partitioning;
use super::retry::{Backoff, until_available};
use super::stopped;
use ahead::Ahead;
use desk::Desk;
use draft::{Draft, Targets};
use fresh::{EndsThen, Freshness};
use parked::Waiting;
use unseen::Pending;

pub use draft::{Schemas, Targets as ReplayTargets};

const TICK: Duration = Duration::from_millis(50);
/// Code of the refusal of a batch with a record that its topic does not take.
const RECORD_TOO_LARGE: &str = "record_too_large";
/// Most sagas that are kept as just restored; with more, ends are asked anew.
const MAX_JUST_RESTORED: usize = 10_000;
/// Pause after being fenced: another instance of the same name may be starting or going.
const FENCED_PAUSE: Duration = Duration::from_secs(1);
const FENCED_WINDOW: Duration = Duration::from_secs(60);
/// How long a look at the next batch's histories may go on after the transaction.
const LOOK_ON: Duration = Duration::from_millis(50);

pub struct Parts {
    pub kafka: config::Kafka,
    pub transactional_id: String,
    pub desk: Desk,
    pub freshness: Freshness,
    pub ends: Ends,
    pub partitioning: Arc<Partitioning>,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<avro::Schemas>,
    pub metrics: Arc<Metrics>,
    /// Told when partitions were assigned for the first time.
    pub assigned: Arc<dyn Fn(bool) + Send + Sync>,
    pub now: fn() -> Micros,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub targets: Targets,
    /// Partitions of the requests topic, and of the log.
    pub request_partitions: i32,
    pub max_batch_requests: usize,
    pub max_parked_requests: usize,
    /// Replays a second; `None`: no limit.
    pub rate: Option<f64>,
}

struct Owned {
    /// The next offset to read that is committed.
    next: Offset,
    waiting: Waiting,
    paused: bool,
}

/// Records of the requests topic, and the ends of the events topics at a moment after they were read.
struct Read {
    records: PartitionRecords,
    /// `None`: not asked yet.
    ends: Option<EndsThen>,
    _held: Arc<Held>,
}

pub struct Replay {
    parts: Parts,
    settings: Settings,
    intake: Intake,
    events: mpsc::Receiver<IntakeEvent>,
    /// Received already, and next.
    next_event: Option<IntakeEvent>,
    publisher: Option<TransactionalPublisher>,
    owned: HashMap<TopicPartition, Owned>,
    /// Records read and not yet done with.
    read: VecDeque<Read>,
    /// Sagas that were restored since the ends were asked that records in `read` know.
    just_restored: HashSet<SagaId>,
    /// Of the next batch.
    ahead: Ahead,
    /// Committed by this process; the view of the log follows.
    pending: Pending,
    not_before: Instant,
    backoff: Backoff,
    fenced: VecDeque<Instant>,
    /// Replays that the rate allows now, and when that was reckoned.
    allowance: (f64, Instant),
    /// Requests whose records a topic did not take: they are refused when they come again.
    too_large: HashSet<String>,
    /// Sagas whose history could not be read last time: when to look again, and the pause before that.
    unreadable: HashMap<SagaId, (Instant, Duration)>,
    /// So many batches of one request each: one of them holds what a topic did not take.
    alone: usize,
    stopping: bool,
}

impl Replay {
    pub fn new(parts: Parts, settings: Settings, (intake, events): (Intake, mpsc::Receiver<IntakeEvent>)) -> Self {
        let now = Instant::now();
        Self {
            parts,
            intake,
            events,
            next_event: None,
            publisher: None,
            owned: HashMap::new(),
            read: VecDeque::new(),
            just_restored: HashSet::new(),
            ahead: Ahead::default(),
            pending: Pending::default(),
            not_before: now,
            backoff: Backoff::new("replay"),
            fenced: VecDeque::new(),
            allowance: (settings.rate.unwrap_or_default().max(1.0), now),
            settings,
            too_large: HashSet::new(),
            unreadable: HashMap::new(),
            alone: 0,
            stopping: false,
        }
    }

    /// Until the shutdown is signalled or the intake fails.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        self.publisher = Some(self.open_publisher().await?);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_work = !self.stopping && !self.read.is_empty() && Instant::now() >= self.not_before;
            tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !self.stopping => self.stop(),
                event = next(&mut self.next_event, &mut self.events) => match event {
                    Some(event) => self.intake_event(event).await?,
                    None => return Ok(()),
                },
                () = std::future::ready(()), if may_work => self.work().await?,
                _ = tick.tick() => if !self.stopping && Instant::now() >= self.not_before && self.something_is_due() {
                    self.work().await?;
                },
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

    async fn intake_event(&mut self, event: IntakeEvent) -> Result<()> {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                self.parts.metrics.consumer_rebalances.with_label_values(&["replay"]).inc();
                let starts = self.assigned(partitions).await?;
                (self.parts.assigned)(true);
                // The intake has given up if nobody listens; it says so itself.
                let _ = reply.send(starts);
            }
            // Work runs to its end before the next event is looked at, so nothing of these partitions is open.
            IntakeEvent::Revoked { partitions, reply, .. } => {
                self.ahead = Ahead::default();
                self.read.retain(|read| !partitions.contains(&read.records.partition));
                for partition in &partitions {
                    self.owned.remove(partition);
                }
                let _ = reply.send(());
            }
            IntakeEvent::Records { batch, held } => self.records(batch, held),
            IntakeEvent::OffsetsGone { partition, position, reason } => {
                let labels = [&*partition.topic, &partition.partition.to_string(), "offsets_gone"];
                self.parts.metrics.partition_alarms.with_label_values(&labels).set(1);
                tracing::error!(%partition, position = position.0, reason, "replay requests are gone from the topic");
            }
            IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
            IntakeEvent::Failed(error) if self.stopping => tracing::debug!(%error, "intake closed"),
            IntakeEvent::Failed(error) => return Err(error.context("read replay requests")),
        }
        let owned = self.owned.len() as i64;
        self.parts.metrics.consumer_assigned_partitions.with_label_values(&["replay"]).set(owned);
        Ok(())
    }

    fn records(&mut self, batch: Vec<PartitionRecords>, held: Held) {
        let held = Arc::new(held);
        if !self.stopping {
            self.read.extend(batch.into_iter().map(|records| Read { records, ends: None, _held: held.clone() }));
        }
    }

    /// Records that the intake read meanwhile, up to an event of another kind that is to be looked at.
    fn read_what_came(&mut self) {
        while self.next_event.is_none()
            && let Ok(event) = self.events.try_recv()
        {
            match event {
                IntakeEvent::Records { batch, held } => self.records(batch, held),
                IntakeEvent::ReachedEnd { .. } | IntakeEvent::Stats(_) => {}
                other => self.next_event = Some(other),
            }
        }
    }

    /// Starts where the group committed; before that the log is read to its end, as it is after the offsets were fetched.
    async fn assigned(&mut self, partitions: Vec<AssignedPartition>) -> Result<Vec<(TopicPartition, StartAt)>> {
        let names: Vec<TopicPartition> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
        self.log_to_its_end(&names).await?;
        // The view has it all now; another owner may have written newer records since.
        self.pending.retain(|record| !names.iter().any(|name| name.partition == record.position.partition));
        let mut starts = Vec::with_capacity(partitions.len());
        for assigned in partitions {
            let partition = assigned.partition;
            let committed = assigned.committed.map(|(offset, _)| offset);
            let next = committed.unwrap_or(assigned.earliest).max(assigned.earliest);
            self.owned.insert(partition.clone(), Owned { next, waiting: Waiting::default(), paused: false });
            starts.push((partition, StartAt::Offset(next)));
        }
        self.wait_for_what_the_log_says();
        self.unreadable.clear();
        Ok(starts)
    }

    /// Parks every request that the log says is waiting and that is not parked here.
    fn wait_for_what_the_log_says(&mut self) {
        for record in self.parts.desk.log.waiting() {
            let of = self.owned.iter_mut().find(|(partition, _)| partition.partition == record.position.partition);
            let Some((_, owned)) = of.filter(|(_, owned)| !owned.waiting.contains(&record.replay_id)) else { continue };
            match take_up::parked_again(&record) {
                Ok(again) => owned.waiting.insert(again),
                Err(reason) => tracing::error!(replay_id = record.replay_id, %reason, "waiting request cannot be read again"),
            }
        }
    }

    /// Waits until the view of the log is where these partitions of the log end now.
    async fn log_to_its_end(&self, requests: &[TopicPartition]) -> Result<()> {
        let log: Vec<TopicPartition> = requests
            .iter()
            .map(|of| TopicPartition { topic: self.settings.targets.log.as_str().into(), partition: of.partition })
            .collect();
        let ends = until_available("ask for the ends of the replay log", || self.parts.ends.ends(&log)).await?;
        for (partition, end) in ends {
            self.parts.desk.log.reached(partition.partition, end).await;
        }
        Ok(())
    }

    fn something_is_due(&self) -> bool {
        let now = (self.parts.now)();
        self.owned.values().any(|owned| owned.waiting.is_due(now))
    }

    /// One batch, from take-up to commit. What does not succeed is there again afterwards.
    async fn work(&mut self) -> Result<()> {
        match self.batch().await {
            Ok(true) => self.backoff.succeeded(),
            Ok(false) => {}
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
        let parked = self.owned.values().map(|owned| owned.waiting.len()).sum::<usize>();
        self.parts.metrics.replay_queue_records.set((parked + self.read.len()) as i64);
        Ok(())
    }

    // Publishing.

    async fn open_publisher(&self) -> Result<TransactionalPublisher> {
        let open = || TransactionalPublisher::open(&self.parts.kafka, &self.parts.transactional_id);
        until_available("open transactional producer", open).await
    }

    /// Commits a draft and these next offsets. `Unavailable`: it is not known to be committed, try again. `Refused`
    /// [`RECORD_TOO_LARGE`]: a topic does not take one of the records; nothing is visible. `look_at`: sagas of the next
    /// batch, to be loaded meanwhile.
    async fn publish(
        &mut self,
        draft: Draft,
        offsets: Vec<(TopicPartition, Offset)>,
        group: GroupMetadata,
        look_at: Option<(EndsThen, Vec<SagaId>)>,
    ) -> Result<()> {
        let Draft { records, restored, log } = draft;
        let started = Instant::now();
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None => self.open_publisher().await?,
        };
        let transaction = Transaction { records, last: restored, offsets: offsets.clone(), group: Some(group) };
        let (desk, freshness) = (&self.parts.desk, &self.parts.freshness);
        let look = async {
            match look_at {
                Some((ends, sagas)) => Ahead::look(desk, freshness, ends, sagas).await,
                None => Ahead::default(),
            }
        };
        let publish = publisher.publish(transaction).map(|outcome| (outcome, started.elapsed()));
        let ((outcome, took), ahead) = with_a_look(publish, look).await;
        self.ahead = ahead;
        let result = match &outcome {
            Ok(()) => "committed",
            Err(PublishError::Fenced(_)) => "fenced",
            Err(PublishError::Unknown(_)) => "unknown",
            Err(_) => "aborted",
        };
        self.parts.metrics.transactions.with_label_values(&[result]).inc();
        match outcome {
            Ok(()) => {
                self.publisher = Some(publisher);
                self.parts.metrics.transaction_duration.observe(took.as_secs_f64());
                for (partition, next) in offsets {
                    if let Some(owned) = self.owned.get_mut(&partition) {
                        owned.next = next;
                    }
                }
                self.remember(log);
                Ok(())
            }
            Err(error) => {
                if !error.is_closed() {
                    self.publisher = Some(publisher);
                }
                self.not_published(error).await
            }
        }
    }

    /// After a commit: what is parked and what is not follows the log records.
    fn remember(&mut self, log: Pending) {
        for record in log.into_records() {
            if record.status == ReplayStatus::Published && record.command == CommandName::Replay {
                self.just_restored.extend(record.new_saga_id.clone());
            }
            let partition = &record.position.partition;
            let owned = self.owned.iter_mut().find(|(of, _)| of.partition == *partition).map(|(_, owned)| owned);
            if let Some(owned) = owned.filter(|_| record.status != ReplayStatus::Accepted) {
                owned.waiting.remove(&record.replay_id);
            }
            self.pending.insert(record);
        }
        // The view has the newest of most; what it has need not be kept twice.
        let view = &self.parts.desk.log;
        self.pending.retain(|record| view.get(&record.replay_id).is_none_or(|seen| *seen != *record));
    }

    /// Nothing is known to be visible. The requests are still in memory and come again with the next batch; what was
    /// committed after all is found in the log, which is read to its end first.
    async fn not_published(&mut self, error: PublishError) -> Result<()> {
        if let PublishError::Fenced(_) = &error {
            let now = Instant::now();
            self.fenced.retain(|at| now.duration_since(*at) < FENCED_WINDOW);
            self.fenced.push_back(now);
            if self.fenced.len() > 2 {
                return Err(Error::bug(format!(
                    "fenced again and again: another process uses the transactional id {}; give each its own [kafka] instance",
                    self.parts.transactional_id
                )));
            }
            tokio::time::sleep(FENCED_PAUSE).await;
        }
        if self.publisher.is_none() {
            // Opening settles what was left open: committed or aborted, and visible in the log from then on.
            self.publisher = Some(self.open_publisher().await?);
        }
        let partitions: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        self.log_to_its_end(&partitions).await?;
        // It may have been committed all the same: then what it parked or carried out is only known from the log.
        self.pending.clear();
        self.forget_ends();
        self.wait_for_what_the_log_says();
        match error {
            PublishError::TooLarge => Err(Error::refused(RECORD_TOO_LARGE, error.to_string())),
            error => Err(Error::unavailable(format!("publish replays: {error}"))),
        }
    }
}

async fn next(received: &mut Option<IntakeEvent>, events: &mut mpsc::Receiver<IntakeEvent>) -> Option<IntakeEvent> {
    match received.take() {
        Some(event) => Some(event),
        None => events.recv().await,
    }
}

/// Both at once; the look is given up soon after the publishing is done.
async fn with_a_look<T>(publish: impl Future<Output = T>, look: impl Future<Output = Ahead>) -> (T, Ahead) {
    let (mut publish, mut look) = (std::pin::pin!(publish), std::pin::pin!(look));
    tokio::select! {
        published = &mut publish => (published, tokio::time::timeout(LOOK_ON, look).await.unwrap_or_default()),
        ahead = &mut look => (publish.await, ahead),
    }
}
