//! The role on a mock cluster, a memory hot store, and a directory whose answers can be held back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::{Dependencies, Materialize, Settings};
use crate::cold::chain::{Appended, ChainWriter};
use crate::cold::directory::Directory;
use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put};
use crate::cold::owner::Owners;
use crate::cold::reader::ColdReader;
use crate::cold::segment::{NewRow, NewSegment};
use crate::config;
use crate::error::{Error, Result};
use crate::history::answer::PointInTime;
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::HotStore;
use crate::hot::memory::MemoryHot;
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::kafka::intake::{Intake, IntakeEvent, IntakeLimits};
use crate::kafka::mock::MockKafka;
use crate::kafka::publisher::Publisher;
use crate::kafka::record::NewRecord;
use crate::partitioning::Partitioning;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::position::{ChainId, Offset, Position};
use crate::saga::testing::settings as fold_settings;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::frame::encode_saga;

pub const EVENTS: &str = "events";
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that the intake may hand out; some records behind each other are more.
pub const MAX_HELD_BYTES: u64 = 64 << 10;

pub fn now() -> Micros {
    Micros(1_800_000_000_000_000)
}

pub fn chain(partition: i32) -> ChainId {
    ChainId { topic: EVENTS.into(), incarnation: 0, partition }
}

/// A store whose answers about keys with a text in them wait while they are held.
struct HeldObjects {
    store: Directory,
    what: watch::Sender<Option<(&'static str, String)>>,
}

impl HeldObjects {
    async fn wait(&self, call: &str, key: &str) {
        let is_free = |held: &Option<(&str, String)>| held.as_ref().is_none_or(|(of, text)| *of != call || !key.contains(text));
        let _ = self.what.subscribe().wait_for(is_free).await;
    }
}

#[async_trait]
impl ObjectStore for HeldObjects {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        self.wait("create", key).await;
        self.store.create(key, body, metadata).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.wait("read", key).await;
        self.store.head(key).await
    }
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.wait("read", key).await;
        self.store.get_range(key, start, end).await
    }
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.wait("read", key).await;
        self.store.get_suffix(key, len).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.store.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }
}

pub fn empty_hot() -> Arc<dyn HotStore> {
    Arc::new(MemoryHot::new(Duration::from_secs(3_600), Box::new(|| Duration::ZERO)))
}

pub struct World {
    _cluster: MockKafka,
    kafka: config::KafkaConfig,
    publisher: Publisher,
    store: Arc<HeldObjects>,
    pub metrics: Arc<Metrics>,
    directory: tempfile::TempDir,
}

pub struct RunningRole {
    pub history: History,
    stop: watch::Sender<bool>,
    pub task: JoinHandle<Result<()>>,
}

impl World {
    pub fn new(partitions: i32) -> Self {
        let cluster = MockKafka::start().expect("a cluster");
        for topic in [EVENTS, "log", "requests", "dead"] {
            cluster.create_topic(topic, partitions).expect("a topic");
        }
        // The mock keeps a member that left until its session ends.
        let properties = [("session.timeout.ms".into(), "6000".into())].into();
        let kafka = config::KafkaConfig { brokers: cluster.brokers(), properties, ..config::KafkaConfig::default() };
        let directory = tempfile::tempdir().expect("a directory");
        let store = Directory::open(directory.path()).expect("a store");
        let store = Arc::new(HeldObjects { store, what: watch::Sender::new(None) });
        let publisher = Publisher::new(&kafka).expect("a publisher");
        Self { _cluster: cluster, kafka, publisher, store, metrics: Metrics::new(), directory }
    }

    /// With a hot store that is empty.
    pub fn start(&self, partitions: i32, flush_interval: Duration) -> RunningRole {
        self.start_with(partitions, flush_interval, empty_hot(), None)
    }

    /// `events`: instead of what the intake reads.
    pub fn start_with(
        &self,
        partitions: i32,
        flush_interval: Duration,
        hot: Arc<dyn HotStore>,
        events: Option<mpsc::Receiver<IntakeEvent>>,
    ) -> RunningRole {
        let layout = TopicLayout {
            topic: EVENTS.into(),
            incarnations: vec![0; partitions as usize],
            partition_counts: vec![partitions],
            partitioner: None,
        };
        let chains = Arc::new(Chains::new(vec![layout]));
        let cold = Arc::new(ColdReader::new(self.store.clone(), 1 << 20));
        let history =
            History::new(hot.clone(), cold, chains.clone(), MAX_ENTRIES).with_clock(now).with_fold(fold_settings().id());
        let schemas = Arc::new(Schemas::new(false));
        let deps = Dependencies {
            hot,
            objects: self.store.clone(),
            history: history.clone(),
            log_history: history.clone(),
            publisher: self.publisher.clone(),
            ends: Ends::new(&self.kafka).expect("ends"),
            registry: None,
            schemas,
            partitioning: Arc::new(Partitioning::new(None)),
            metrics: self.metrics.clone(),
            chains,
            clock: Arc::new(BrokerClock::new(std::time::Instant::now())),
            assigned: Arc::new(|_| {}),
            now,
        };
        let settings = Settings {
            owners: Owners::default(),
            log: "log".into(),
            requests: "requests".into(),
            request_schema: None,
            dead_letters: "dead".into(),
            max_record_bytes: 1 << 20,
            fold: fold_settings(),
            fold_text: "{}".into(),
            flush_interval,
            flush_bytes: 8 << 20,
            buffer_bytes: 32 << 20,
            max_cached_sagas: 10_000,
            index_ttl: Duration::from_secs(3_600),
        };
        let (stop, shutdown) = watch::channel(false);
        let task = match events {
            Some(events) => {
                let role = Materialize::new(deps, settings, Intake::unattended()).without_polls();
                tokio::spawn(role.run(events, shutdown))
            }
            None => {
                let limits = IntakeLimits { batch_bytes: 16 << 10, held_bytes: MAX_HELD_BYTES, ..IntakeLimits::default() };
                let (intake, events) = Intake::start(&self.kafka, "g", &[EVENTS.into()], limits).expect("an intake");
                tokio::spawn(Materialize::new(deps, settings, intake).run(events, shutdown))
            }
        };
        RunningRole { history, stop, task }
    }

    pub async fn send(&self, partition: i32, saga: &str, values: &[String]) {
        let record = |value: &String| NewRecord {
            topic: EVENTS.into(),
            partition: Some(partition),
            key: Some(saga.to_owned().into()),
            value: Some(value.clone().into()),
            headers: Vec::new(),
            timestamp: None,
        };
        self.publisher.send(values.iter().map(record).collect()).await.expect("sent");
    }

    pub fn hold(&self, call: &'static str, partition: i32) {
        self.store.what.send_replace(Some((call, format!("l0/{EVENTS}/0/{partition}/"))));
    }

    pub fn release(&self) {
        self.store.what.send_replace(None);
    }

    /// Offsets with the sequences of their entries, as the chain has them, in its order.
    pub async fn durable(&self, partition: i32, saga: &str) -> Vec<(i64, u64)> {
        let cold = ColdReader::new(Arc::new(Directory::open(self.directory.path()).expect("a store")), 1 << 20);
        cold.follow(&chain(partition)).await.expect("a chain");
        let mut entries: HashMap<i64, u64> = HashMap::new();
        for segment in cold.segments_of(&chain(partition), &saga.into()).await.expect("segments") {
            for stored in cold.load(&segment, &saga.into()).await.expect("entries") {
                entries.insert(stored.entry.position.offset.0, stored.entry.sequence.0);
            }
        }
        let mut entries: Vec<(i64, u64)> = entries.into_iter().collect();
        entries.sort_unstable();
        entries
    }

    /// Another owner makes these records durable as it reads them: some it takes for no event.
    pub async fn append(&self, saga: &str, values: &[String], end: i64, reads: impl Fn(i64) -> bool) {
        let mut writer = ChainWriter::open(Arc::new(Directory::open(self.directory.path()).expect("a store")), chain(0), None)
            .await
            .expect("a chain");
        let mut slot: Option<Saga> = None;
        let mut rows = Vec::new();
        for (offset, value) in (0_i64..).zip(values).filter(|(offset, _)| *offset <= end && reads(*offset)) {
            let event = decode_event(Some(saga.as_bytes()), Some(value.as_bytes()), &Vec::new(), 1 << 20, &Schemas::new(false));
            let Ok(event) = event else { panic!("an event") };
            let meta = RecordMeta { position: Position::new(EVENTS, 0, offset), timestamp: Micros(offset) };
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, &fold_settings()) else {
                panic!("an entry")
            };
            let saga = slot.as_ref().expect("a saga");
            let first = rows.is_empty().then(|| encode_saga(saga).into());
            let (status, context) = (saga.state.status, Some(saga.state.context.clone()));
            rows.push(NewRow { entry: Arc::from(entry), status, context, saga: first });
        }
        let segment = NewSegment { rows: Arc::new(rows), ..NewSegment::empty(Offset(0), Offset(end)) };
        let appended = writer.append(&segment).await.expect("appended");
        assert!(matches!(appended, Appended::Created { .. }), "{appended:?}");
    }

    pub fn alarms(&self) -> String {
        let text = self.metrics.render().expect("metrics");
        text.lines().filter(|line| line.starts_with("resaga_partition_alarms{") && line.ends_with(" 1")).collect()
    }
}

impl RunningRole {
    pub async fn sequence(&self, saga: &str) -> Option<u64> {
        match self.history.state(&saga.into(), PointInTime::Newest).await {
            Ok(found) => Some(found.state.entry.sequence.0),
            Err(Error::Refused { .. } | Error::Unavailable(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it stops in time").expect("no panic").expect("no error");
    }
}

pub async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The events of a saga, the first with a context of this size.
pub fn story(saga: &str, count: usize, bytes: usize) -> Vec<String> {
    let event = |number: usize| {
        let kind = if number == 0 { "SAGA_STARTED" } else { "CONTEXT_UPDATED" };
        format!(
            r#"{{"event_id":"{saga}/{number}","saga_id":"{saga}","saga_name":"n","kind":"{kind}","context":{{"n":{number},"pad":"{}"}}}}"#,
            "x".repeat(bytes)
        )
    };
    (0..count).map(event).collect()
}
