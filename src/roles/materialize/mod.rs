//! The role that folds: records of step topics (and of the replay log) become entries, hot and cold.
//!
//! decode -> load missing sagas -> fold -> hot entries, then marks -> cold chain -> commit. The loop waits for a value
//! and applies it; what takes time (hot writes, flushes, asking for ends) runs beside it, at most one hot write and one
//! flush per partition at once. Two owners of one partition are harmless: both write the same.

mod assign;
mod buffer;
mod cache;
mod facts;
mod flush;
mod hot_pipeline;
mod hot_writer;
mod intake;
mod names;
mod packed;
mod partition;
mod publish;
mod settle;
mod split;
mod stop;
mod sweep;
mod taken;
mod through;

pub use assign::{Log, disagreement};

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::cold::chain::{Appended, ChainWriter};
use crate::cold::object_store::ObjectStore;
use crate::cold::segment::NewSegment;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::chains::Chains;
use crate::hot::{HotStore, Tokens};
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::{EachEnd, Ends};
use crate::kafka::intake::{Held, Intake, IntakeEvent};
use crate::kafka::publisher::Publisher;
use crate::kafka::record::PartitionRecords;
use crate::kafka::registry::SchemaRegistry;
use crate::roles::partitioning::Partitioning;
use crate::saga::fold::FoldSettings;
use crate::saga::position::{Offset, Topic, TopicPartition};
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro::{SchemaId, Schemas};

use assign::Opening;
use flush::{Commit, Flush, Flushed};
use hot_writer::{Done, HotWork};
use partition::Partition;
use publish::Sends;
use settle::Behind;

use super::retry::Backoff;
use super::stopped;

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
pub struct Parts {
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
struct Owned {
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
    /// When a sequence that was taken was last told of.
    told_taken: Option<Instant>,
}

pub struct Materialize {
    parts: Parts,
    settings: Settings,
    intake: Intake,
    owned: HashMap<TopicPartition, Owned>,
    generation: u64,
    /// Partitions that were assigned and are being opened.
    opens: JoinSet<Result<Opening>>,
    /// Records read and not yet folded; the intake bounds their bytes.
    waiting: VecDeque<(PartitionRecords, Arc<Held>)>,
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
    pub fn new(parts: Parts, settings: Settings, intake: Intake) -> Self {
        let now = Instant::now();
        Self {
            parts,
            settings,
            intake,
            owned: HashMap::new(),
            generation: 0,
            opens: JoinSet::new(),
            waiting: VecDeque::new(),
            load_together: intake::FEW_TOGETHER,
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
                Some(done) = self.opens.join_next(), if !self.opens.is_empty() => self.opened(joined(done)??)?,
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

    fn may_fold(&self) -> bool {
        self.next_to_fold().is_some()
            && self.next.as_ref().is_none_or(|next| next.len() < MAX_NEXT_MEMBERS && next.bytes() < MAX_NEXT_BYTES)
            && self.backlog_bytes() < self.settings.buffer_bytes.saturating_mul(2)
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
            self.commit_what_is_durable();
            self.settle_behind();
        }
        self.flush_due(now);
        self.start_hot();
        if now.duration_since(self.swept) >= INDEX_SWEEP {
            self.swept = now;
            self.sweep_indexes();
        }
        self.observe();
    }

    fn ask_ends(&mut self, now: Instant) {
        self.ends_asked = Some(now);
        let ends = self.parts.ends.clone();
        // Before asking: what is appended while the answer is on its way may be missing from it.
        let at = self.broker_time();
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        self.ends.spawn(async move { (at, ends.each_end(&partitions).await) });
    }

    /// A time that is past at the brokers; `None`: nothing tells.
    fn broker_time(&self) -> Option<Micros> {
        self.parts.clock.at(Instant::now(), (self.parts.now)())
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
                self.parts.metrics.consumer_lag_records.with_label_values(&labels).set(lag);
            }
        }
    }

    // Cold.

    fn flush_due(&mut self, now: Instant) {
        let mut due: Vec<TopicPartition> = Vec::new();
        for (partition, owned) in &self.owned {
            let active = &owned.partition.active;
            let old = active.oldest().is_some_and(|at| now.duration_since(at) >= self.settings.flush_interval);
            if old || active.bytes() >= self.settings.flush_bytes {
                due.push(partition.clone());
            }
        }
        if self.backlog_bytes() >= self.settings.buffer_bytes {
            // Memory is short: the largest first.
            let largest = self.owned.iter().filter(|(_, owned)| owned.writer.is_some());
            due.extend(largest.max_by_key(|(_, owned)| owned.partition.active.held()).map(|(partition, _)| partition.clone()));
        }
        for partition in due {
            self.start_flush(&partition);
        }
    }

    /// Seals what a partition has and appends it to the chain, unless a flush runs or there is nothing.
    fn start_flush(&mut self, partition: &TopicPartition) {
        let Some(owned) = self.owned.get_mut(partition) else { return };
        if owned.partition.active.is_empty() || owned.partition.position <= owned.partition.durable {
            return;
        }
        let Some(writer) = owned.writer.take() else { return };
        let sealed = Arc::new(std::mem::take(&mut owned.partition.active));
        owned.partition.sealed = Some(sealed.clone());
        let position = owned.partition.position;
        let segment = NewSegment {
            start: owned.partition.durable,
            end: Offset(position.0 - 1),
            rows: Arc::new(sealed.segment_rows()),
            complete_through: through::carried(None, owned.partition.through.at(position), (self.parts.now)()),
            leader_epoch: owned.leader_epoch,
            topic_id: owned.topic_id.clone(),
            clock: owned.partition.clock,
            installation: self.settings.owners.now().cloned().unwrap_or_default(),
            fold_settings: self.settings.fold_text.clone(),
            gap: false,
        };
        let flush = Flush {
            partition: partition.clone(),
            generation: owned.generation,
            writer,
            segment,
            history: self.parts.history_of(owned.partition.content).clone(),
            sends: std::mem::take(&mut owned.sends),
        };
        owned.flush = Some(self.flushes.spawn(flush::flush(flush)));
    }

    fn flush_ended(&mut self, done: std::result::Result<Flushed, JoinError>) -> Result<()> {
        match done {
            // Of a partition that was disowned.
            Err(error) if error.is_cancelled() => Ok(()),
            done => self.flushed(joined(done)?),
        }
    }

    fn flushed(&mut self, done: Flushed) -> Result<()> {
        let Some(owned) = self.owned.get_mut(&done.partition).filter(|owned| owned.generation == done.generation) else {
            return Ok(());
        };
        if owned.partition.disowned {
            return Ok(());
        }
        let appended = match done.appended {
            Err(Error::Corrupt(reason)) => return self.flush_refused(&done.partition, &reason),
            other => other?,
        };
        let durable = done.writer.next();
        let clock = done.writer.newest().map(|newest| newest.clock).unwrap_or_default();
        (owned.writer, owned.flush) = (Some(done.writer), None);
        owned.uncommitted = true;
        let sealed = owned.partition.sealed.take();
        let begins_anew = durable > owned.partition.position;
        let long = sealed.iter().flat_map(|sealed| settle::long_sagas(sealed, durable)).collect();
        if let Appended::Exists { stored, same_end, same_entries } = &appended {
            self.settings.owners.check_segment(stored)?;
            tracing::warn!(
                chain = %owned.partition.chain, start = stored.start.0, end = stored.end.0, same_end, same_entries,
                "another owner's segment is stored"
            );
            if *same_end && !same_entries {
                self.parts.metrics.integrity_failures.with_label_values(&["cold"]).inc();
                tracing::error!(
                    chain = %owned.partition.chain, start = stored.start.0,
                    "the stored segment has other entries for the same offsets: another version or other fold settings wrote it"
                );
            }
            owned.partition.yield_to(sealed, durable, clock, Instant::now());
        } else if let Some(oldest) = sealed.as_ref().and_then(|sealed| sealed.rows().first()) {
            let delay = (self.parts.now)().0 - oldest.entry.recorded_time.0;
            self.parts.metrics.snapshot_durability_delay.observe(delay.max(0) as f64 / 1e6);
        }
        let start = std::mem::replace(&mut owned.partition.durable, durable);
        split::look(&self.parts, &owned.partition.chain, std::mem::take(&mut owned.partition.suspects));
        let at_rest = owned.partition.cache.unpin_through(Offset(durable.0 - 1));
        owned.partition.cache.trim();
        if !begins_anew {
            self.settle_flushed(&done.partition, start, long, at_rest);
        }
        self.commit_what_is_durable();
        Ok(())
    }

    /// Commits where the chains of these partitions end, if the group's offset is elsewhere.
    fn due_commits(&self) -> Vec<Commit> {
        let due = self.owned.iter().filter(|(_, owned)| owned.uncommitted);
        due.filter_map(|(partition, owned)| Some(flush::commit_of(partition, owned.writer.as_ref()?))).collect()
    }

    /// One try at a time; what is refused is tried again with the next heartbeat.
    fn commit_what_is_durable(&mut self) {
        let due = self.due_commits();
        if self.commits.is_empty() && !due.is_empty() {
            let intake = self.intake.clone();
            self.commits.spawn(async move { (due.clone(), flush::commit(&intake, due).await) });
        }
    }

    fn committed(&mut self, (commits, committed): (Vec<Commit>, bool)) {
        if !committed {
            return;
        }
        for (partition, next, _) in commits {
            if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.partition.durable == next) {
                owned.uncommitted = false;
            }
        }
        // Of flushes that ended meanwhile.
        self.commit_what_is_durable();
    }

    fn observe(&self) {
        let metrics = &self.parts.metrics;
        metrics.snapshot_backlog_bytes.set(i64::try_from(self.backlog_bytes()).unwrap_or(i64::MAX));
        let rows = |owned: &Owned| {
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
