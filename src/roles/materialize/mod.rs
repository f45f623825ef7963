//! The role that folds: records of step topics (and of the replay log) become entries, hot and cold.
//!
//! decode -> load missing sagas -> fold -> hot entries, then marks -> cold chain -> commit. The loop waits for a value
//! and applies it; what takes time (hot writes, flushes, asking for ends) runs beside it, at most one hot write and one
//! flush per partition at once. Two owners of one partition are harmless: both write the same.

mod assign;
mod buffer;
mod cache;
mod cold_pipeline;
mod completeness;
mod facts;
mod flush;
mod hot_pipeline;
mod hot_writer;
mod intake;
mod load;
mod names;
mod packed;
mod partition;
mod publish;
mod refold;
mod revoke;
mod settle;
mod split;
mod stop;
mod suspended;
mod sweep;
mod taken;
pub mod task;

pub use assign::{Log, disagreement};

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::cold::chain::ChainWriter;
use crate::cold::object_store::ObjectStore;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::chains::Chains;
use crate::hot::{HotStore, Tokens};
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::{EachEnd, Ends};
use crate::kafka::intake::{Intake, IntakeEvent, MemoryPermit};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::PartitionRecords;
use crate::partitioning::Partitioning;
use crate::saga::fold_settings::FoldSettings;
use crate::saga::position::{Offset, Topic, TopicPartition};
use crate::saga::time::Micros;
use crate::schema_registry::SchemaRegistry;
use crate::telemetry::Metrics;
use crate::wire::avro::{SchemaId, Schemas};

use assign::Opening;
use flush::{Commit, Flushed};
use hot_writer::{Done, HotWork};
use load::LoadedSagas;
use partition::Partition;
use publish::Sends;
use refold::Refusals;
use settle::Behind;
use suspended::Waits;

use super::stopped;
use super::suspension::Suspension;
use crate::retry::Backoff;
use crate::schema_registry::lookups::SchemaLookups;

/// How often due work is looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often ends are asked for and marks are checked when nothing is read.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often the hot indexes are rid of old minutes.
const INDEX_SWEEP: Duration = Duration::from_secs(60);
/// Members in the write that waits while another runs; with more of them nothing is folded.
const MAX_NEXT_MEMBERS: usize = 10_000;
/// Bytes of them.
const MAX_NEXT_BYTES: usize = 64 << 20;

/// What the role works with.
pub struct Dependencies {
    pub hot: Arc<dyn HotStore>,
    pub objects: Arc<dyn ObjectStore>,
    /// Of the step topics.
    pub history: History,
    /// Of the replay log.
    pub log_history: History,
    pub publisher: Publisher,
    pub ends: Ends,
    pub registry: Option<Arc<SchemaRegistry>>,
    pub schemas: Arc<Schemas>,
    pub partitioning: Arc<Partitioning>,
    pub metrics: Arc<Metrics>,
    pub chains: Arc<Chains>,
    /// What time it is at the brokers.
    pub clock: Arc<BrokerClock>,
    /// Told when partitions were assigned for the first time.
    pub assigned: Arc<dyn Fn(bool) + Send + Sync>,
    /// What this machine takes for the time now; it can be wrong.
    pub now: fn() -> Micros,
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the archive.
    pub owners: crate::cold::owner::Owners,
    pub log: Topic,
    pub requests: String,
    /// Of the requests topic; `None`: JSON.
    pub request_schema: Option<SchemaId>,
    pub dead_letters: String,
    pub max_record_bytes: u64,
    pub fold: FoldSettings,
    /// The fold settings as each segment names them.
    pub fold_text: String,
    pub flush_interval: Duration,
    pub flush_bytes: u64,
    pub buffer_bytes: u64,
    pub max_cached_sagas: usize,
    /// How long index facts are kept in hot.
    pub index_ttl: Duration,
}

/// A partition and what runs for it.
struct OwnedPartition {
    partition: Partition,
    /// `None` while a flush has it.
    writer: Option<ChainWriter>,
    /// Of the flush that runs.
    flush: Option<AbortHandle>,
    generation: u64,
    topic_id: Option<String>,
    leader_epoch: Option<i32>,
    /// The group's offset is not where the chain ends, and no flush is about to commit it.
    uncommitted: bool,
    /// Dead letters and outcomes on their way.
    sends: Sends,
    /// Folded no further: what is stored of it cannot be read.
    stopped: bool,
    /// When marks were last moved or checked.
    checked: Instant,
    /// No look for what may be let go of before this: its chain could not be read.
    settle_not_before: Instant,
    /// No folding before this: a store or the schema registry did not answer for its records.
    not_before: Instant,
    loading: Backoff,
    /// No folding until this is there.
    waits: Option<Waits>,
    /// The schema of the record at this offset was asked for, and is nowhere.
    given_up: Option<Offset>,
    rest: Suspension,
    /// When a sequence that was taken was last told of.
    slow_report_at: Option<Instant>,
}

pub struct Materialize {
    deps: Dependencies,
    settings: Settings,
    intake: Intake,
    owned: HashMap<TopicPartition, OwnedPartition>,
    generation: u64,
    /// Partitions that were assigned and are being opened.
    opens: JoinSet<Result<Opening>>,
    opening: HashMap<u64, (AbortHandle, Vec<TopicPartition>)>,
    /// Records read and not yet folded; the intake bounds their bytes.
    waiting: VecDeque<(PartitionRecords, MemoryPermit)>,
    /// Questions for schemas.
    lookups: SchemaLookups,
    /// Loads of sagas that take long.
    loads: JoinSet<LoadedSagas>,
    /// The last number of an opening, or of an order to read a partition again.
    tickets: u64,
    refusals: Refusals,
    /// Partitions, with the generation of the ownership, that are to be assigned once more.
    anew: Vec<(TopicPartition, u64)>,
    /// Sagas that are loaded in one round trip.
    load_together: usize,
    hot: JoinSet<Result<Done>>,
    tokens: Arc<Tokens>,
    /// Folded while the write before it runs.
    next: Option<HotWork>,
    flushes: JoinSet<Flushed>,
    /// Reads from cold what was made durable and not let go of in hot.
    settling: JoinSet<Behind>,
    commits: JoinSet<(Vec<Commit>, bool)>,
    ends: JoinSet<(Option<Micros>, Result<EachEnd>)>,
    /// `None`: to be asked with the next look.
    ends_asked: Option<Instant>,
    swept: Instant,
    /// The sweep of the indexes that was begun last.
    sweep: Option<tokio::task::JoinHandle<()>>,
    stopping: bool,
}

impl Materialize {
    pub fn new(deps: Dependencies, settings: Settings, intake: Intake) -> Self {
        let now = Instant::now();
        let lookups = SchemaLookups::new(deps.registry.clone(), deps.schemas.clone());
        Self {
            deps,
            settings,
            intake,
            owned: HashMap::new(),
            generation: 0,
            opens: JoinSet::new(),
            opening: HashMap::new(),
            waiting: VecDeque::new(),
            lookups,
            loads: JoinSet::new(),
            tickets: 0,
            refusals: Refusals::default(),
            anew: Vec::new(),
            load_together: load::FEW_TOGETHER,
            hot: JoinSet::new(),
            tokens: Arc::default(),
            next: None,
            flushes: JoinSet::new(),
            settling: JoinSet::new(),
            commits: JoinSet::new(),
            ends: JoinSet::new(),
            ends_asked: None,
            swept: now,
            sweep: None,
            stopping: false,
        }
    }

    /// Until the shutdown is signalled and everything read is durable and committed, or the intake fails.
    pub async fn run(mut self, mut events: mpsc::Receiver<IntakeEvent>, mut shutdown: watch::Receiver<bool>) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_fold = self.may_fold();
            tokio::select! {
                biased;
                () = stopped(&mut shutdown), if !self.stopping => self.stop(),
                Some(done) = self.flushes.join_next(), if !self.flushes.is_empty() => self.flush_ended(done)?,
                Some(done) = self.hot.join_next(), if !self.hot.is_empty() => self.hot_written(joined(done)??)?,
                Some(done) = self.commits.join_next(), if !self.commits.is_empty() => self.committed(joined(done)?),
                Some(done) = self.ends.join_next(), if !self.ends.is_empty() => self.learn_ends(joined(done)?),
                Some(done) = self.settling.join_next(), if !self.settling.is_empty() => self.settled(joined(done)?),
                Some(done) = self.opens.join_next(), if !self.opens.is_empty() => self.opens_ended(done)?,
                Some(looked) = self.lookups.next(), if !self.lookups.is_idle() => self.looked_up(looked?)?,
                Some(done) = self.loads.join_next(), if !self.loads.is_empty() => self.loaded(joined(done)?)?,
                event = events.recv() => match event {
                    Some(event) => self.intake_event(event).await?,
                    None => return Ok(()),
                },
                _ = tick.tick() => self.tick(),
                () = std::future::ready(()), if may_fold => self.fold_next().await?,
            }
        }
    }

    /// Stops reading; the intake takes the partitions away, which drains them, and then closes the channel.
    fn stop(&mut self) {
        self.stopping = true;
        self.waiting.clear();
        let intake = self.intake.clone();
        tokio::spawn(async move {
            if let Err(reason) = intake.stop().await {
                tracing::warn!(%reason, "intake did not stop cleanly");
            }
        });
    }

    fn backlog_bytes(&self) -> u64 {
        self.owned.values().map(|owned| owned.partition.backlog_bytes()).sum()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.owned.values_mut().for_each(|owned| owned.sends.settle());
        let ask = self.ends_asked.is_none_or(|asked| now.duration_since(asked) >= HEARTBEAT);
        if ask && self.ends.is_empty() && !self.owned.is_empty() {
            self.ask_ends(now);
            self.commit_durable_offsets();
            self.settle_behind();
        }
        self.flush_due(now);
        self.start_hot();
        self.let_rest(now);
        self.reassign(Vec::new());
        if now.duration_since(self.swept) >= INDEX_SWEEP {
            self.swept = now;
            self.sweep_indexes();
        }
        self.observe();
    }

    fn ask_ends(&mut self, now: Instant) {
        self.ends_asked = Some(now);
        let ends = self.deps.ends.clone();
        // Before asking: what is appended while the answer is on its way may be missing from it.
        let at = self.broker_time();
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        self.ends.spawn(async move { (at, ends.each_end(&partitions).await) });
    }

    /// A time that is past at the brokers; `None`: nothing tells.
    fn broker_time(&self) -> Option<Micros> {
        self.deps.clock.at(Instant::now(), (self.deps.now)())
    }

    fn learn_ends(&mut self, (at, ends): (Option<Micros>, Result<EachEnd>)) {
        let ends = match ends {
            Ok(ends) => ends,
            Err(reason) => return tracing::debug!(%reason, "ends not known"),
        };
        // One that has no leader keeps its time; the others go on.
        for end in ends.into_iter().filter_map(|(_, end)| end.ok()) {
            if let Some(owned) = self.owned.get_mut(&end.partition) {
                if let Some(at) = at {
                    owned.partition.through.asked(end.end, at);
                }
                owned.leader_epoch = end.leader_epoch.or(owned.leader_epoch);
                let lag = (end.end.0 - owned.partition.position.0).max(0);
                let labels = [&*end.partition.topic, &end.partition.partition.to_string()];
                self.deps.metrics.consumer_lag_records.with_label_values(&labels).set(lag);
            }
        }
    }

    fn observe(&self) {
        let metrics = &self.deps.metrics;
        metrics.snapshot_backlog_bytes.set(i64::try_from(self.backlog_bytes()).unwrap_or(i64::MAX));
        let rows = |owned: &OwnedPartition| {
            let sealed = owned.partition.sealed.as_ref().map_or(0, |sealed| sealed.rows().len());
            owned.partition.active.rows().len() + sealed
        };
        metrics.snapshot_backlog_records.set(self.owned.values().map(rows).sum::<usize>() as i64);
        metrics.cached_sagas.set(self.owned.values().map(|owned| owned.partition.cache.len()).sum::<usize>() as i64);
    }
}

fn joined<T>(done: std::result::Result<T, JoinError>) -> Result<T> {
    done.map_err(|e| Error::bug(format!("a task of materialize ended: {e}")))
}

#[cfg(test)]
mod tests;
