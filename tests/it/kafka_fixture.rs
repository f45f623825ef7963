//! What the Kafka tests share: brokers, topics of their own, records, and a role that does what a test says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use resaga::config;
use resaga::kafka::intake::{AssignedPartition, Intake, IntakeEvent, IntakeLimits, StartAt};
use resaga::kafka::record::NewRecord;
use resaga::kafka::topics::{Topics, WantedTopic};
use resaga::saga::position::{Offset, Topic, TopicPartition};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(60);

/// The real broker of `tests/run`.
pub fn real() -> config::KafkaConfig {
    let brokers = std::env::var("RESAGA_TEST_KAFKA").expect("RESAGA_TEST_KAFKA is set by tests/run");
    config::KafkaConfig { brokers, ..config::KafkaConfig::default() }
}

pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// A topic of the test's own on the real broker.
pub async fn topic(kafka: &config::KafkaConfig, name: &str, partitions: i32, settings: &[(&'static str, &str)]) -> Topic {
    let name = unique(name);
    let settings: BTreeMap<_, _> = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let wanted = WantedTopic { name: name.clone(), partitions, replication: -1, settings };
    Topics::new(kafka).unwrap().create(&[wanted]).await.unwrap();
    name.into()
}

pub fn record(topic: &str, partition: i32, value: &str) -> NewRecord {
    NewRecord {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![("h".into(), Some(Bytes::from_static(b"v"))), ("null".into(), None)],
        timestamp: None,
    }
}

pub fn records(topic: &str, partition: i32, count: usize) -> Vec<NewRecord> {
    (0..count).map(|n| record(topic, partition, &format!("{partition}:{n}"))).collect()
}

/// The next event; statistics are passed over.
pub async fn next(events: &mut Receiver<IntakeEvent>) -> IntakeEvent {
    loop {
        match timeout(DEADLINE, events.recv()).await.expect("an event in time").expect("the intake runs") {
            IntakeEvent::Stats(_) => {}
            event => return event,
        }
    }
}

/// What a member of a group saw.
pub struct Member {
    pub intake: Intake,
    pub events: Receiver<IntakeEvent>,
    pub assigned: Vec<AssignedPartition>,
    /// Values by partition, as they came.
    pub values: BTreeMap<TopicPartition, Vec<String>>,
    pub positions: BTreeMap<TopicPartition, Offset>,
    /// Positions at which an end was reached.
    pub ends: BTreeMap<TopicPartition, Offset>,
    pub gone: Vec<TopicPartition>,
}

impl Member {
    pub fn join(kafka: &config::KafkaConfig, group: &str, topic: &Topic) -> Self {
        Self::join_with(kafka, group, topic, IntakeLimits::default())
    }

    pub fn join_with(kafka: &config::KafkaConfig, group: &str, topic: &Topic, limits: IntakeLimits) -> Self {
        let (intake, events) = Intake::start(kafka, group, std::slice::from_ref(topic), limits).unwrap();
        Self {
            intake,
            events,
            assigned: Vec::new(),
            values: BTreeMap::new(),
            positions: BTreeMap::new(),
            ends: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    /// Handles one event: starts where the group committed, else at the earliest; commits what it read before it lets go.
    pub async fn step(&mut self) {
        let event = next(&mut self.events).await;
        self.handle(event).await;
    }

    pub async fn handle(&mut self, event: IntakeEvent) {
        match event {
            IntakeEvent::Assigned { partitions, reply } => {
                let starts = partitions
                    .iter()
                    .map(|p| (p.partition.clone(), StartAt::Offset(p.committed.as_ref().map_or(p.earliest, |(o, _)| *o))))
                    .collect();
                self.assigned.extend(partitions);
                reply.send(starts).unwrap();
            }
            IntakeEvent::Revoked { partitions, lost, reply } => {
                if !lost {
                    let commits: Vec<_> = partitions
                        .iter()
                        .filter_map(|p| Some((p.clone(), *self.positions.get(p)?, "drained".to_owned())))
                        .collect();
                    self.intake.commit(commits).await.unwrap();
                }
                self.assigned.retain(|a| !partitions.contains(&a.partition));
                reply.send(()).unwrap();
            }
            IntakeEvent::Records { batch } => {
                for (part, held) in batch {
                    assert!(held.bytes() > 0);
                    let values = self.values.entry(part.partition.clone()).or_default();
                    for record in &part.records {
                        values.push(String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec()).unwrap());
                    }
                    self.positions.insert(part.partition, part.position);
                }
            }
            IntakeEvent::ReachedEnd { partition, position } => {
                self.positions.insert(partition.clone(), position);
                self.ends.insert(partition, position);
            }
            IntakeEvent::OffsetsGone { partition, .. } => self.gone.push(partition),
            IntakeEvent::Stats(_) | IntakeEvent::ReadsAgain { .. } => {}
            IntakeEvent::Failed(error) => panic!("intake failed: {error}"),
        }
    }

    /// Handles events until `done` says so.
    pub async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let run = async {
            while !done(self) {
                self.step().await;
            }
        };
        timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("in time: {what}"));
    }

    pub fn count(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }
}
