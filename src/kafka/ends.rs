//! Ends of partitions (high watermarks) and partition counts, for those who read nothing. Shared by all roles of a process.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::client::{Logged, Purpose, client_config};
use super::failure::{self, TOPIC_MISSING};
use super::mock::is_mock;
use super::native::{End, list_offsets, topic_ids};
pub use super::observed::PartitionEnd;
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

impl ConsumerContext for Logged {}

/// Asks brokers for ends and partition counts. Cheap to clone.
#[derive(Clone)]
pub struct Ends {
    client: Arc<BaseConsumer<Logged>>,
    /// As configured, for messages.
    brokers: Arc<str>,
    timeout: Duration,
}

/// Longest wait for one question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most of librdkafka's log lines that are taken before a question.
const MAX_LINES: usize = 32;

impl Ends {
    pub fn new(kafka: &config::Kafka) -> Result<Self> {
        let client = BaseConsumer::from_config_and_context(&client_config(kafka, Purpose::Observer)?, Logged)
            .map_err(|e| failure::of("create client", &e))?;
        Ok(Self { client: Arc::new(client), brokers: kafka.brokers.as_str().into(), timeout: TIMEOUT })
    }

    /// High watermarks, asked of the leaders now; in the order of `partitions`.
    pub async fn ends(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>> {
        let ends = self.latest(partitions).await?;
        Ok(ends.into_iter().map(|end| (end.partition, end.end)).collect())
    }

    /// As [`Ends::ends`], with leader epochs.
    pub async fn latest(&self, partitions: &[TopicPartition]) -> Result<Vec<PartitionEnd>> {
        let partitions = partitions.to_vec();
        self.blocking(move |client, timeout| latest(client, &partitions, timeout)).await
    }

    /// The oldest offsets that are still there; in the order of `partitions`.
    pub async fn earliest(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>> {
        let partitions = partitions.to_vec();
        self.blocking(move |client, timeout| {
            let earliest = listed(client, &partitions, End::Earliest, timeout)?;
            Ok(earliest.into_iter().map(|end| (end.partition, end.end)).collect())
        })
        .await
    }

    /// Kafka's id of a topic (base64): another one means that it was deleted and created again. `None`: not told.
    pub async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let topics = [topic.to_owned()];
        self.blocking(move |client, timeout| {
            let found = ids_of(client, &topics, timeout).map_err(|code| failure::of_code("read topic id", code))?;
            Ok(found.into_iter().next().map(|(_, id)| id))
        })
        .await
    }

    /// `Invalid` [`TOPIC_MISSING`](super::TOPIC_MISSING): there is no such topic.
    pub async fn partitions_of(&self, topic: &str) -> Result<i32> {
        let topic = topic.to_owned();
        self.blocking(move |client, timeout| partitions_of(client, &topic, timeout)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Client<Logged>, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (consumer, brokers, timeout) = (Arc::clone(&self.client), Arc::clone(&self.brokers), self.timeout);
        tokio::task::spawn_blocking(move || {
            forward_log(&consumer);
            ask(consumer.client(), timeout).map_err(|error| {
                // Why the brokers cannot be reached stands in these lines.
                forward_log(&consumer);
                if error.is_unavailable() { error.context(format!("ask brokers {brokers}")) } else { error }
            })
        })
        .await
        .map_err(|e| Error::bug(format!("ask broker: {e}")))?
    }
}

/// Nobody else takes librdkafka's log lines out of the queue; one call takes one.
fn forward_log(consumer: &BaseConsumer<Logged>) {
    for _ in 0..MAX_LINES {
        let _ = consumer.poll(Duration::ZERO);
    }
}

/// Ids of the topics that have one. Blocks.
pub(super) fn ids_of<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<(String, String)>, RDKafkaErrorCode> {
    if is_mock(client, timeout) { Ok(Vec::new()) } else { topic_ids(client, topics, timeout) }
}

/// Blocks.
pub(super) fn latest<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<PartitionEnd>> {
    listed(client, partitions, End::Latest, timeout)
}

fn listed<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    end: End,
    timeout: Duration,
) -> Result<Vec<PartitionEnd>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let asked = partitions.iter().map(|p| (p.topic.to_string(), p.partition));
    let found = list_offsets(client, asked, end, timeout).map_err(|code| failure::of_code("read ends", code))?;
    partitions
        .iter()
        .map(|partition| {
            found
                .iter()
                .find(|(topic, p, ..)| **topic == *partition.topic && *p == partition.partition)
                .map(|(_, _, offset, epoch)| PartitionEnd {
                    partition: partition.clone(),
                    end: Offset(*offset),
                    leader_epoch: *epoch,
                })
                .ok_or_else(|| Error::unavailable(format!("read end of {partition}: the broker left it out")))
        })
        .collect()
}

/// Blocks.
pub(super) fn partitions_of<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<i32> {
    let metadata = client.fetch_metadata(Some(topic), timeout).map_err(|e| failure::of("read metadata", &e))?;
    let missing = || Error::invalid(TOPIC_MISSING, format!("topic {topic} does not exist"));
    let found = metadata.topics().iter().find(|t| t.name() == topic).ok_or_else(missing)?;
    if let Some(error) = found.error() {
        return Err(failure::of_code(&format!("read metadata of topic {topic}"), error.into()));
    }
    match i32::try_from(found.partitions().len()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_cannot_be_reached_is_named() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let kafka = config::Kafka { brokers: closed.clone(), ..config::Kafka::default() };
        let ends = Ends { timeout: Duration::from_millis(300), ..Ends::new(&kafka).unwrap() };
        let error = ends.partitions_of("t").await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains(&closed), "{error}");
    }
}
