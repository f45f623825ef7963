//! One partition of requests, its log and its archive, and the parts of the role that work on them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::super::batches::{Freezer, SagaSelection};
use super::super::catch_up::CatchUpBarrier;
use super::super::draft::{BatchDraft, DecidedBatch};
use super::super::outbox::ReplayTargets;
use super::super::planner::{ReplayPlanner, Rules};
use super::super::queue::RequestQueue;
use super::super::queue::reading::ReadingOrder;
use super::super::replay_records::ReplayRecords;
use super::super::runner::BatchRunner;
use super::super::settings::{Dependencies, Settings};
use crate::cold::batch_lists::BatchLists;
use crate::cold::chain::ChainWriter;
use crate::cold::directory::Directory;
use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put};
use crate::cold::reader::ColdReader;
use crate::cold::segment::{NewRow, NewSegment};
use crate::config;
use crate::error::{Error, Result};
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::memory::MemoryHot;
use crate::kafka::broker_clock::Stamp;
use crate::kafka::ends::Ends;
use crate::kafka::intake::{Intake, MemoryPermit};
use crate::kafka::mock::MockKafka;
use crate::kafka::publisher::Publisher;
use crate::kafka::record::{NewRecord, PartitionRecords, Record};
use crate::partitioning::Partitioning;
use crate::replay_log::ReplayLog;
use crate::replay_log::homes::Homes;
use crate::replay_log::owner::LogOwner;
use crate::saga::event::Kind;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::position::{ChainId, Offset, Position, SagaId, TopicPartition};
use crate::saga::request::{LogRecord, ReplayStatus};
use crate::saga::testing::{event, settings as fold_settings};
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro::Schemas;
use crate::wire::frame::encode_saga;
use crate::wire::log::decode_log_json;

pub const SAGAS: usize = 5;
pub const REQUESTS: usize = 40;
const EVENTS: &str = "events";
const GROUP: &str = "g";
const START: Micros = Micros(1_780_000_000_000_000);

thread_local! {
    /// Milliseconds since the script began.
    static ELAPSED: Cell<u64> = const { Cell::new(0) };
}

fn now() -> Micros {
    START.saturating_add(ELAPSED.get() as i64 * 1_000)
}

fn instant() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now) + Duration::from_millis(ELAPSED.get())
}

/// Numbers from a seed (xorshift).
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// An archive of which every read fails while it is away.
struct Archive {
    store: Directory,
    is_away: AtomicBool,
}

impl Archive {
    fn read(&self) -> Result<()> {
        if self.is_away.load(Ordering::Relaxed) { Err(Error::unavailable("the archive is away")) } else { Ok(()) }
    }
}

#[async_trait]
impl ObjectStore for Archive {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        self.store.create(key, body, metadata).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.read()?;
        self.store.head(key).await
    }
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.read()?;
        self.store.get_range(key, start, end).await
    }
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.read()?;
        self.store.get_suffix(key, len).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.read()?;
        self.store.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }
}

pub struct World {
    pub trace: Vec<String>,
    /// The committed restored sagas of each request id: their places among all.
    pub restored: BTreeMap<String, Vec<usize>>,
    runner: BatchRunner,
    partition: TopicPartition,
    requests: Vec<Record>,
    /// By saga: requests that may go at once, in their order.
    in_order: Vec<Vec<String>>,
    /// What the intake gives next, and the group's committed offset.
    position: usize,
    committed: Offset,
    /// What is in the log, and how much of it the view has.
    log: Vec<LogRecord>,
    shown: usize,
    archive: Arc<Archive>,
    kafka: config::KafkaConfig,
    chains: Arc<Chains>,
    ends: Ends,
    _cluster: MockKafka,
    _directory: tempfile::TempDir,
}

fn saga_id(saga: usize) -> SagaId {
    SagaId::from(format!("order-{saga}").as_str())
}

/// Sagas that failed.
async fn archive_sagas(store: Directory) {
    let chain = ChainId { topic: EVENTS.into(), incarnation: 0, partition: 0 };
    let mut writer = ChainWriter::open(Arc::new(store), chain, Some(Offset(0))).await.expect("a chain");
    let mut rows = Vec::new();
    for saga in 0..SAGAS {
        let mut slot: Option<Saga> = None;
        for kind in [Kind::SagaStarted, Kind::SagaFailed] {
            let offset = rows.len() as i64;
            let event = crate::saga::event::StepEvent { saga_id: saga_id(saga), event_id: offset.to_string(), ..event(kind) };
            let meta = RecordMeta { position: Position::new(EVENTS, 0, offset), timestamp: Micros(offset) };
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, &fold_settings()) else {
                panic!("an entry")
            };
            let after = slot.as_ref().expect("a saga");
            let (status, context) = (after.state.status, Some(after.state.context.clone()));
            rows.push(NewRow { entry: Arc::from(entry), status, context, saga: Some(encode_saga(after).into()) });
        }
    }
    let end = Offset(rows.len() as i64 - 1);
    writer.append(&NewSegment { rows: Arc::new(rows), ..NewSegment::empty(Offset(0), end) }).await.expect("appended");
}

impl World {
    pub async fn new(draw: &mut Draw) -> Self {
        ELAPSED.set(0);
        let cluster = MockKafka::start().expect("a cluster");
        cluster.create_topic(EVENTS, 1).expect("a topic");
        let kafka = config::KafkaConfig { brokers: cluster.brokers(), ..config::KafkaConfig::default() };
        // As many as the archive has: the topic's end is what a replay must see.
        let events = (0..SAGAS * 2).map(|_| NewRecord {
            topic: EVENTS.into(),
            partition: Some(0),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        });
        Publisher::new(&kafka).expect("a publisher").send(events.collect()).await.expect("sent");
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Directory::open(directory.path()).expect("a store");
        archive_sagas(open()).await;
        let archive = Arc::new(Archive { store: open(), is_away: AtomicBool::new(false) });
        let layout = TopicLayout { topic: EVENTS.into(), incarnations: vec![0], partition_counts: vec![1], partitioner: None };
        let chains = Arc::new(Chains::new(vec![layout]));
        let history = history(&archive, &chains);
        let ends = Ends::new(&kafka).expect("ends");
        let partition = TopicPartition::new("requests", 0);
        let mut in_order = vec![Vec::new(); SAGAS];
        let requests = (0..REQUESTS).map(|number| request(number, draw, &mut in_order)).collect();
        let mut world = Self {
            trace: Vec::new(),
            restored: BTreeMap::new(),
            runner: runner(&kafka, (&archive, &history), &chains, &ends, Arc::new(ReplayLog::new(1_000))),
            partition,
            requests,
            in_order,
            position: 0,
            committed: Offset(0),
            log: Vec::new(),
            shown: 0,
            archive,
            kafka,
            chains,
            ends,
            _cluster: cluster,
            _directory: directory,
        };
        world.begin();
        world
    }

    /// The partition is assigned: the view of the log is at its end.
    fn begin(&mut self) {
        self.shown = 0;
        let view = self.view();
        view.owned_by(0, LogOwner { group: GROUP.into(), generation: 1 });
        view.set_initial_ends([(0, Offset(0))]);
        self.show_log(u64::MAX);
        self.runner.queue.assign(self.partition.clone(), self.committed, instant());
        self.runner.park_waiting();
        self.position = self.committed.0 as usize;
    }

    fn view(&self) -> Arc<ReplayLog> {
        self.runner.facts.planner.records.log.clone()
    }

    /// Another process, with nothing in memory.
    pub fn restart(&mut self) {
        self.trace.push(format!("restart at {}", self.committed));
        let (history, view) = (history(&self.archive, &self.chains), Arc::new(ReplayLog::new(1_000)));
        self.runner = runner(&self.kafka, (&self.archive, &history), &self.chains, &self.ends, view);
        self.begin();
    }

    pub fn pass_time(&mut self, millis: u64) {
        ELAPSED.set(ELAPSED.get() + millis);
    }

    pub fn archive_is_away(&mut self, is_away: bool) {
        self.archive.is_away.store(is_away, Ordering::Relaxed);
    }

    /// The intake gives this many records.
    pub fn deliver(&mut self, count: u64) {
        let end = self.requests.len().min(self.position + count as usize);
        let records: Vec<Record> = self.requests[self.position..end].to_vec();
        if records.is_empty() {
            return;
        }
        self.position = end;
        let (partition, position) = (self.partition.clone(), Offset(end as i64));
        let records = PartitionRecords { partition, records, position, leader_epoch: None, stamp: Stamp::Producer };
        self.runner.queue.add(vec![(records, MemoryPermit::of_nothing())]);
    }

    /// The view of the log gets this many records more.
    pub fn show_log(&mut self, count: u64) {
        let end = self.log.len().min(self.shown.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)));
        let offsets = (self.shown as i64..).map(Offset);
        let records = offsets.zip(self.log[self.shown..end].iter().cloned()).collect();
        self.view().apply(0, records, Offset(end as i64));
        self.shown = end;
    }

    /// What the queue has the intake do.
    pub fn obey_queue(&mut self) {
        let now_instant = instant();
        let mut orders = self.runner.queue.suspension_orders(now_instant, |_| true, |_| false);
        orders.extend(self.runner.queue.skipped_to_read(now(), now_instant));
        for (partition, order) in orders {
            self.trace.push(format!("{order:?}"));
            self.runner.queue.intake_told(&partition, order, now_instant);
            match order {
                ReadingOrder::LetGo => {}
                ReadingOrder::Rewind { to } => self.position = to.0 as usize,
                ReadingOrder::ReadAgain { from, ticket } => {
                    self.position = from.0 as usize;
                    self.runner.queue.reads_again(&partition, ticket, Ok(()), now_instant);
                }
            }
        }
    }

    /// One batch. `fate`: 0: its transaction is aborted; 1: its outcome is not known, and it was committed; else it is committed.
    pub async fn batch(&mut self, fate: u64) {
        let decided = match self.runner.decide_batch(now(), None, None).await {
            Ok(decided) => decided,
            Err(Error::Unavailable(_) | Error::Corrupt(_)) => return self.trace.push("not decided".into()),
            Err(other) => panic!("{other}"),
        };
        let Some(DecidedBatch { draft, .. }) = decided else { return };
        let BatchDraft { outbox, offsets, changes, parked, .. } = draft;
        let to_commit = self.runner.queue.offsets_to_commit(&offsets, &changes);
        let records = outbox.records.iter().filter(|record| record.topic == "log");
        let records: Vec<LogRecord> =
            records.map(|record| decode_log_json(record.value.as_deref().expect("a value")).expect("a log record")).collect();
        let short: Vec<String> =
            records.iter().map(|record| format!("{} {}", record.request_id, record.status.as_str())).collect();
        let fate_name = ["aborted", "unknown"].get(fate as usize).unwrap_or(&"committed");
        self.trace.push(format!("{fate_name} {short:?}, to {:?}", to_commit.first().map(|(_, offset)| offset.0)));
        self.runner.committing(outbox.log);
        if fate > 0 {
            assert_eq!(outbox.restored.len(), records.iter().filter(|record| record.status == ReplayStatus::Published).count());
            for record in records.iter().filter(|record| record.status == ReplayStatus::Published) {
                let place = self.restored.values().map(Vec::len).sum();
                self.restored.entry(record.request_id.clone()).or_default().push(place);
            }
            self.log.extend(records);
            to_commit.iter().for_each(|(_, offset)| self.committed = *offset);
        }
        if fate > 1 {
            self.runner.committed(offsets, changes, parked);
            self.runner.queue.drop_done();
        } else {
            self.show_log(u64::MAX);
            self.runner.forget_unapplied();
        }
    }

    /// Is every request done with?
    pub fn is_done(&self) -> bool {
        self.committed.0 as usize == self.requests.len() && self.runner.queue.waiting() == 0
    }

    /// What became of each replay in the end.
    pub fn statuses(&self) -> impl Iterator<Item = ReplayStatus> {
        let newest: BTreeMap<&str, ReplayStatus> =
            self.log.iter().map(|record| (record.replay_id.as_str(), record.status)).collect();
        newest.into_values()
    }

    pub fn requests_of(&self, saga: usize) -> impl Iterator<Item = &String> {
        self.in_order[saga].iter()
    }
}

/// A request of one of the sagas, for now or for later; a few come twice.
fn request(number: usize, draw: &mut Draw, in_order: &mut [Vec<String>]) -> Record {
    let saga = draw.below(SAGAS as u64) as usize;
    let id = format!("r-{number}");
    let not_before = match draw.below(5) {
        0 => format!(r#","not_before":"{}""#, START.saturating_add(draw.below(20_000) as i64 * 1_000)),
        _ => {
            in_order[saga].push(id.clone());
            String::new()
        }
    };
    let key = saga_id(saga);
    let text = format!(
        r#"{{"request_id":"{id}","command":"REPLAY","saga_id":"{key}","from":{{"start":true}},"allow_repeat":true,"requested_by":"ops","reason":"x"{not_before}}}"#
    );
    Record {
        offset: Offset(number as i64),
        timestamp: START.saturating_add(number as i64),
        by_broker: false,
        key: Some(key.as_str().to_owned().into()),
        value: Some(text.into()),
        headers: Vec::new(),
    }
}

/// A reader that knows nothing of the archive yet.
fn history(archive: &Arc<Archive>, chains: &Arc<Chains>) -> History {
    let hot = Arc::new(MemoryHot::new(Duration::from_secs(1 << 40), Box::new(|| Duration::ZERO)));
    let cold = Arc::new(ColdReader::new(archive.clone(), 1));
    History::new(hot, cold, chains.clone(), MAX_ENTRIES).with_clock(now)
}

fn runner(
    kafka: &config::KafkaConfig,
    (archive, history): (&Arc<Archive>, &History),
    chains: &Arc<Chains>,
    ends: &Ends,
    log: Arc<ReplayLog>,
) -> BatchRunner {
    let rules = Rules {
        max_depth: 10,
        max_replays: None,
        restored_allowed: Vec::new(),
        max_restored_bytes: 1 << 20,
        max_event_bytes: 1 << 20,
    };
    let planner = ReplayPlanner {
        history: history.clone(),
        records: ReplayRecords { log_history: history.clone(), log, homes: watch::channel(Homes::new(1, &[1], true, 1)).1 },
        rules,
        expressions: crate::expression::Evaluator::new(crate::expression::Bounds {
            time: Duration::from_secs(1),
            max_bytes: 4 << 20,
        }),
    };
    let selection = SagaSelection { history: history.clone(), records: planner.records.clone() };
    let freezer = Freezer { lists: BatchLists::new(archive.clone()), selection, max_request_bytes: 1 << 20 };
    let deps = Dependencies {
        kafka: kafka.clone(),
        transactional_id: "t".into(),
        freezer,
        planner,
        catch_up: CatchUpBarrier { ends: ends.clone(), history: history.clone(), chains: chains.clone() },
        ends: ends.clone(),
        partitioning: Arc::new(Partitioning::new(None)),
        partition_counts: Arc::new(|_, _| Box::pin(async { Ok(()) })),
        registry: None,
        schemas: Arc::new(Schemas::new(false)),
        metrics: Metrics::new(),
        assigned: Arc::new(|_| {}),
        now,
    };
    let targets =
        ReplayTargets { restored: "restored".into(), log: "log".into(), requests: "requests".into(), ..ReplayTargets::default() };
    let settings = Settings {
        group: GROUP.into(),
        targets,
        request_partitions: 1,
        max_batch_requests: 5,
        max_parked_requests: 3,
        rate: None,
    };
    let queue = RequestQueue::new(settings.max_parked_requests, settings.rate, instant());
    let mut runner = BatchRunner::new(deps, settings, Intake::unattended());
    (runner.queue, runner.instant, runner.facts.instant) = (queue, instant, instant);
    runner
}
