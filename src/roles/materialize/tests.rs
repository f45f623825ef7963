//! The role on a mock cluster, memory and a directory whose answers can be held back: what one partition meets must not keep the
//! others, nor itself for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{Dependencies, Materialize, Settings};
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
use crate::hot::memory::MemoryHot;
use crate::kafka::broker_clock::BrokerClock;
use crate::kafka::ends::Ends;
use crate::kafka::intake::{AssignedPartition, Intake, IntakeEvent, IntakeLimits};
use crate::kafka::mock::MockKafka;
use crate::kafka::publisher::Publisher;
use crate::kafka::record::NewRecord;
use crate::partitioning::Partitioning;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::position::{ChainId, Offset, Position, TopicPartition};
use crate::saga::testing::settings as fold_settings;
use crate::saga::time::Micros;
use crate::telemetry::Metrics;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::frame::encode_saga;

const EVENTS: &str = "events";
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that the intake may hand out; some records behind each other are more.
const HELD: u64 = 64 << 10;

fn now() -> Micros {
    Micros(1_800_000_000_000_000)
}

fn chain(partition: i32) -> ChainId {
    ChainId { topic: EVENTS.into(), incarnation: 0, partition }
}

/// A store whose answers about keys with a text in them wait while they are held.
struct Held {
    store: Directory,
    what: watch::Sender<Option<(&'static str, String)>>,
}

impl Held {
    async fn wait(&self, call: &str, key: &str) {
        let is_free = |held: &Option<(&str, String)>| held.as_ref().is_none_or(|(of, text)| *of != call || !key.contains(text));
        let _ = self.what.subscribe().wait_for(is_free).await;
    }
}

#[async_trait]
impl ObjectStore for Held {
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

struct World {
    _cluster: MockKafka,
    kafka: config::KafkaConfig,
    publisher: Publisher,
    store: Arc<Held>,
    metrics: Arc<Metrics>,
    directory: tempfile::TempDir,
}

struct Role {
    history: History,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl World {
    fn new(partitions: i32) -> Self {
        let cluster = MockKafka::start().expect("a cluster");
        for topic in [EVENTS, "log", "requests", "dead"] {
            cluster.create_topic(topic, partitions).expect("a topic");
        }
        // The mock keeps a member that left until its session ends.
        let properties = [("session.timeout.ms".into(), "6000".into())].into();
        let kafka = config::KafkaConfig { brokers: cluster.brokers(), properties, ..config::KafkaConfig::default() };
        let directory = tempfile::tempdir().expect("a directory");
        let store = Directory::open(directory.path()).expect("a store");
        let store = Arc::new(Held { store, what: watch::Sender::new(None) });
        let publisher = Publisher::new(&kafka).expect("a publisher");
        Self { _cluster: cluster, kafka, publisher, store, metrics: Metrics::new(), directory }
    }

    /// With a hot store that is empty.
    fn start(&self, partitions: i32, flush_interval: Duration) -> Role {
        self.start_with(partitions, flush_interval, None)
    }

    /// `events`: instead of what the intake tells.
    fn start_with(&self, partitions: i32, flush_interval: Duration, events: Option<mpsc::Receiver<IntakeEvent>>) -> Role {
        let layout = TopicLayout {
            topic: EVENTS.into(),
            incarnations: vec![0; partitions as usize],
            partition_counts: vec![partitions],
            partitioner: None,
        };
        let chains = Arc::new(Chains::new(vec![layout]));
        let hot = Arc::new(MemoryHot::new(Duration::from_secs(3_600), Box::new(|| Duration::ZERO)));
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
        let limits = IntakeLimits { batch_bytes: 16 << 10, held_bytes: HELD, ..IntakeLimits::default() };
        let (intake, of_intake) = Intake::start(&self.kafka, "g", &[EVENTS.into()], limits).expect("an intake");
        let events = events.unwrap_or(of_intake);
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(Materialize::new(deps, settings, intake).run(events, shutdown));
        Role { history, stop, task }
    }

    async fn send(&self, partition: i32, saga: &str, values: &[String]) {
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

    fn hold(&self, call: &'static str, partition: i32) {
        self.store.what.send_replace(Some((call, format!("l0/{EVENTS}/0/{partition}/"))));
    }

    fn release(&self) {
        self.store.what.send_replace(None);
    }

    /// Offsets with the sequences of their entries, as the chain has them, in its order.
    async fn durable(&self, partition: i32, saga: &str) -> Vec<(i64, u64)> {
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
    async fn append(&self, saga: &str, values: &[String], end: i64, reads: impl Fn(i64) -> bool) {
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

    fn alarms(&self) -> String {
        let text = self.metrics.render().expect("metrics");
        text.lines().filter(|line| line.starts_with("resaga_partition_alarms{") && line.ends_with(" 1")).collect()
    }
}

impl Role {
    async fn sequence(&self, saga: &str) -> Option<u64> {
        match self.history.state(&saga.into(), PointInTime::Newest).await {
            Ok(found) => Some(found.state.entry.sequence.0),
            Err(Error::Refused { .. } | Error::Unavailable(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }

    async fn stop(self) {
        let _ = self.stop.send(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it stops in time").expect("no panic").expect("no error");
    }
}

async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !is().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The events of a saga, the first with a context of this size.
fn story(saga: &str, count: usize, bytes: usize) -> Vec<String> {
    let event = |number: usize| {
        let kind = if number == 0 { "SAGA_STARTED" } else { "CONTEXT_UPDATED" };
        format!(
            r#"{{"event_id":"{saga}/{number}","saga_id":"{saga}","saga_name":"n","kind":"{kind}","context":{{"n":{number},"pad":"{}"}}}}"#,
            "x".repeat(bytes)
        )
    };
    (0..count).map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_states_cannot_be_loaded_takes_no_room_from_others_and_goes_on_where_it_stood() {
    let world = World::new(2);
    let stay = story("stays", 200, 2_000);
    let role = world.start(2, Duration::from_millis(50));
    world.send(0, "stays", &stay[..3]).await;
    until("durable", || async { world.durable(0, "stays").await.len() == 3 }).await;
    role.stop().await;

    // Nothing of it is in memory or in hot.
    let role = world.start(2, Duration::from_millis(50));
    world.send(1, "goes", &story("goes", 1, 10)).await;
    until("both are assigned", || async { role.sequence("goes").await == Some(1) }).await;
    world.hold("read", 0);
    world.send(0, "stays", &stay[3..]).await;
    let goes = story("goes", 200, 2_000);
    world.send(1, "goes", &goes[1..]).await;
    until("the other partition is folded to its end", || async {
        world.durable(1, "goes").await.last().is_some_and(|(_, sequence)| *sequence == 200)
    })
    .await;
    assert_eq!(world.durable(0, "stays").await.len(), 3);
    world.release();
    until("then the first is", || async { world.durable(0, "stays").await.last().is_some_and(|(offset, _)| *offset == 199) })
        .await;
    let whole: Vec<(i64, u64)> = (0..200).map(|offset| (offset, offset as u64 + 1)).collect();
    assert_eq!(world.durable(0, "stays").await.into_iter().filter(|(offset, _)| *offset >= 3).collect::<Vec<_>>(), whole[3..]);
    assert_eq!(world.alarms(), "");
    role.stop().await;
}

/// Events 0 to 2, the last ones; another owner reads only those that it `reads` up to `end`; then event 3.
async fn another_owner_reads_otherwise(
    mut values: Vec<String>,
    theirs: &[String],
    end: i64,
    reads: fn(i64) -> bool,
) -> Vec<(i64, u64)> {
    let world = World::new(1);
    let last = values.pop().expect("four");
    let role = world.start(1, Duration::from_millis(50));
    world.hold("create", 0);
    world.send(0, "s", &values).await;
    until("folded", || async { role.sequence("s").await.is_some_and(|sequence| sequence >= 2) }).await;
    world.append("s", theirs, end, reads).await;
    world.release();
    world.send(0, "s", &[last]).await;
    until("all is durable", || async { world.durable(0, "s").await.last().is_some_and(|(offset, _)| *offset == 3) }).await;
    let durable = world.durable(0, "s").await;
    until("and hot says the same", || async { role.sequence("s").await == durable.last().map(|(_, sequence)| *sequence) }).await;
    assert_eq!(world.alarms(), "");
    assert_eq!(world.metrics.partitions_refolded.get(), 1);
    role.stop().await;
    durable
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_owner_took_a_record_for_no_event_the_chain_counts_and_the_partition_goes_on() {
    let values = story("s", 4, 10);
    for end in [2, 1] {
        let durable = another_owner_reads_otherwise(values.clone(), &values, end, |offset| offset != 1).await;
        assert_eq!(durable, [(0, 1), (2, 2), (3, 3)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_owner_read_an_event_that_was_none_here_the_chain_counts_and_the_partition_goes_on() {
    let theirs = story("s", 4, 10);
    let mut values = theirs.clone();
    values[1] = "no event".into();
    let durable = another_owner_reads_otherwise(values, &theirs, 2, |_| true).await;
    assert_eq!(durable, [(0, 1), (1, 2), (2, 3), (3, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_being_opened_are_let_go_of_at_once() {
    let world = World::new(2);
    let (events, received) = mpsc::channel(8);
    let role = world.start_with(2, Duration::from_millis(50), Some(received));
    world.hold("read", 0);
    let [first, second] = [0, 1].map(|number| TopicPartition::new(EVENTS, number));
    let assigned = |partition: &TopicPartition| AssignedPartition {
        partition: partition.clone(),
        committed: None,
        earliest: Offset(0),
        end: Offset(0),
        leader_epoch: None,
        topic_id: None,
    };
    let (reply, started) = oneshot::channel();
    let partitions = vec![assigned(&first), assigned(&second)];
    events.send(IntakeEvent::Assigned { partitions, reply }).await.expect("the role runs");
    let (reply, revoked) = oneshot::channel();
    let began = tokio::time::Instant::now();
    events.send(IntakeEvent::Revoked { partitions: vec![first], lost: false, reply }).await.expect("the role runs");
    revoked.await.expect("an answer");
    assert!(started.await.is_err(), "the intake asks again for what is left");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (reply, started) = oneshot::channel();
    events.send(IntakeEvent::Assigned { partitions: vec![assigned(&second)], reply }).await.expect("the role runs");
    assert_eq!(started.await.expect("an answer").len(), 1);
    role.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_opened_does_not_keep_those_that_were_assigned_with_it() {
    let world = World::new(2);
    world.hold("read", 0);
    world.send(0, "stays", &story("stays", 1, 10)).await;
    world.send(1, "goes", &story("goes", 1, 10)).await;
    let role = world.start(2, Duration::from_millis(50));
    until("one goes on", || async { !world.durable(1, "goes").await.is_empty() }).await;
    world.release();
    until("then the other", || async { !world.durable(0, "stays").await.is_empty() }).await;
    role.stop().await;
}
