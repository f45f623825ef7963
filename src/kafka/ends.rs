//! Ends of partitions (high watermarks) and partition counts, for those who read nothing. Shared by all roles of a process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::client::{LoggingContext, Purpose, client_config};
use super::failure::{self, TOPIC_MISSING};
use super::mock::is_mock;
use super::native::{End, list_offsets, topic_ids};
pub use super::observed::{Leaders, PartitionEnd};
use crate::config;
use crate::error::{Error, Result};
use crate::saga::position::{Offset, TopicPartition};

impl ConsumerContext for LoggingContext {}

/// Asks brokers for ends and partition counts. Cheap to clone.
#[derive(Clone)]
pub struct Ends {
    client: Arc<BaseConsumer<LoggingContext>>,
    /// As configured, for messages.
    brokers: Arc<str>,
    timeout: Duration,
    /// The last question for all at once failed: each leader is asked for itself.
    one_by_one: Arc<AtomicBool>,
}

/// What was told of each partition's end. `Err`: it has no leader that answers.
pub type EachEnd = Vec<(TopicPartition, Result<PartitionEnd>)>;
/// As [`EachEnd`]: the oldest offset and the end.
pub type EachRange = Vec<(TopicPartition, Result<(Offset, Offset)>)>;

/// Longest wait for one question.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer of all leaders together; then each is asked for itself.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Longest wait for one leader, while others wait for what it says.
const ONE_LEADER: Duration = Duration::from_secs(2);

/// Most of librdkafka's log lines that are taken before a question.
const MAX_LINES: usize = 32;

impl Ends {
    pub fn new(kafka: &config::KafkaConfig) -> Result<Self> {
        let config = client_config(kafka, Purpose::Observer)?;
        let client = BaseConsumer::from_config_and_context(&config, LoggingContext::new(&config))
            .map_err(|e| failure::of("create client", &e))?;
        Ok(Self {
            client: Arc::new(client),
            brokers: kafka.brokers.as_str().into(),
            timeout: TIMEOUT,
            one_by_one: Arc::default(),
        })
    }

    /// High watermarks, asked of the leaders now; in the order of `partitions`. One that cannot be told fails all.
    pub async fn ends(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>> {
        whole(self.each(partitions, End::Latest).await?)
    }

    /// As [`Ends::ends`], of each partition for itself: one without a leader keeps nobody else's from being known.
    pub async fn each_end(&self, partitions: &[TopicPartition]) -> Result<EachEnd> {
        self.each(partitions, End::Latest).await
    }

    /// The oldest offsets that are still there; in the order of `partitions`. One that cannot be told fails all.
    pub async fn earliest(&self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>> {
        whole(self.each(partitions, End::Earliest).await?)
    }

    /// Where each of these partitions begins and ends now. `Err` of a partition: it has no leader that answers.
    pub async fn each_range(&self, partitions: &[TopicPartition]) -> Result<EachRange> {
        let earliest = self.each(partitions, End::Earliest).await?;
        let latest = self.each(partitions, End::Latest).await?;
        let range = |earliest: Result<PartitionEnd>, latest: Result<PartitionEnd>| Ok((earliest?.end, latest?.end));
        let both = earliest.into_iter().zip(latest);
        Ok(both.map(|((partition, earliest), (_, latest))| (partition, range(earliest, latest))).collect())
    }

    async fn each(&self, partitions: &[TopicPartition], end: End) -> Result<EachEnd> {
        let partitions = partitions.to_vec();
        let one_by_one = Arc::clone(&self.one_by_one);
        self.blocking(move |client, timeout| {
            let was = one_by_one.load(Ordering::Relaxed);
            // One question for all is the cheapest; where it failed each leader is asked for itself, until all answer again.
            if !was && let Some(all) = at_once(client, &partitions, end, timeout.min(AT_ONCE)) {
                return Ok(all);
            }
            let each = by_leader(client, &partitions, end, timeout)?;
            let troubled = each.iter().any(|(_, end)| end.is_err());
            one_by_one.store(troubled, Ordering::Relaxed);
            if troubled && !was {
                let failed: Vec<String> =
                    each.iter().filter_map(|(of, end)| Some(format!("{of}: {}", end.as_ref().err()?))).collect();
                tracing::warn!(
                    partitions = failed.len(),
                    first = failed.first(),
                    "partitions have no leader that answers, going on without them"
                );
            } else if was && !troubled {
                tracing::info!("every partition asked for has a leader that answers again");
            }
            Ok(each)
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

    /// How many members a consumer group has now.
    pub async fn members_of(&self, group: &str) -> Result<usize> {
        let group = group.to_owned();
        self.blocking(move |client, timeout| {
            let found =
                client.fetch_group_list(Some(group.as_str()), timeout).map_err(|e| failure::of("describe consumer group", &e))?;
            Ok(found.groups().iter().filter(|of| of.name() == group).map(|of| of.members().len()).sum())
        })
        .await
    }

    /// Kafka's id of the cluster; `None`: the brokers tell none.
    pub async fn cluster_id(&self) -> Result<Option<String>> {
        self.blocking(|client, timeout| {
            // The client tells "no answer in time" and "no id" alike. After an answer only the second is left.
            client.fetch_metadata(None, timeout).map_err(|e| failure::of("read the id of the cluster", &e))?;
            Ok(client.fetch_cluster_id(timeout))
        })
        .await
    }

    /// `Invalid` [`TOPIC_MISSING`](super::TOPIC_MISSING): there is no such topic.
    pub async fn partitions_of(&self, topic: &str) -> Result<i32> {
        let topic = topic.to_owned();
        self.blocking(move |client, timeout| partitions_of(client, &topic, timeout)).await
    }

    /// Whether the last question met a partition without a leader that answers.
    pub fn is_troubled(&self) -> bool {
        self.one_by_one.load(Ordering::Relaxed)
    }

    /// How many partitions each of these topics has, and which of them have no leader now. Topics that do not exist are
    /// left out.
    pub async fn leaders(&self, topics: Vec<String>) -> Result<Leaders> {
        self.blocking(move |client, timeout| {
            let mut leaders = Leaders::default();
            for topic in topics {
                let metadata = client.fetch_metadata(Some(&topic), timeout).map_err(|e| failure::of("read metadata", &e))?;
                let Some(found) = metadata.topics().iter().find(|of| of.name() == topic && of.error().is_none()) else {
                    continue;
                };
                let missing = found.partitions().iter().filter(|partition| partition.leader() < 0);
                leaders.missing.extend(missing.map(|partition| TopicPartition::new(topic.as_str(), partition.id())));
                leaders.counts.insert(topic, i32::try_from(found.partitions().len()).unwrap_or(i32::MAX));
            }
            Ok(leaders)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Client<LoggingContext>, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (consumer, brokers, timeout) = (Arc::clone(&self.client), Arc::clone(&self.brokers), self.timeout);
        tokio::task::spawn_blocking(move || {
            serve(&consumer);
            ask(consumer.client(), timeout).map_err(|error| {
                // Why the brokers cannot be reached stands in these lines.
                serve(&consumer);
                if error.is_unavailable() { error.context(format!("ask brokers {brokers}")) } else { error }
            })
        })
        .await
        .map_err(|e| Error::bug(format!("ask broker: {e}")))?
    }
}

/// Nobody else takes librdkafka's log lines and errors out of the queue; one call takes one.
fn serve(consumer: &BaseConsumer<LoggingContext>) {
    for _ in 0..MAX_LINES {
        let _ = consumer.poll(Duration::ZERO);
    }
    consumer.context().bootstrap.add_if_lost(consumer.client());
}

/// Ids of the topics that have one. Blocks.
pub(super) fn ids_of<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<(String, String)>, RDKafkaErrorCode> {
    if is_mock(client, timeout) { Ok(Vec::new()) } else { topic_ids(client, topics, timeout) }
}

/// High watermarks, each leader asked for itself. `Err`: brokers do not answer at all. Blocks.
pub(super) fn latest<C: ClientContext>(client: &Client<C>, partitions: &[TopicPartition], timeout: Duration) -> Result<EachEnd> {
    by_leader(client, partitions, End::Latest, timeout)
}

/// As [`latest`], the oldest offsets.
pub(super) fn earliest<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<EachEnd> {
    by_leader(client, partitions, End::Earliest, timeout)
}

/// What one question for all gives; `None`: it failed, for one of them or for all.
fn at_once<C: ClientContext>(client: &Client<C>, partitions: &[TopicPartition], end: End, timeout: Duration) -> Option<EachEnd> {
    let each = list_ends(client, partitions, end, timeout);
    each.iter().all(|(_, end)| end.is_ok()).then_some(each)
}

fn by_leader<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    end: End,
    timeout: Duration,
) -> Result<EachEnd> {
    let mut topics: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut leaders: HashMap<(&str, i32), i32> = HashMap::new();
    let mut missing: HashMap<&str, RDKafkaErrorCode> = HashMap::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), timeout).map_err(|e| failure::of("read metadata", &e))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { continue };
        missing.extend(found.error().map(|error| (topic, error.into())));
        leaders.extend(found.partitions().iter().map(|partition| ((topic, partition.id()), partition.leader())));
    }
    let mut of_leader: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        let leader = leaders.get(&(&*partition.topic, partition.partition)).copied().unwrap_or(-1);
        of_leader.entry(leader).or_default().push(partition.clone());
    }
    let mut ends_by_partition: HashMap<TopicPartition, Result<PartitionEnd>> = HashMap::new();
    for partition in of_leader.remove(&-1).unwrap_or_default() {
        let action = format!("read end of {partition}");
        let reason = match missing.get(&*partition.topic) {
            Some(code) => failure::of_code(&action, *code),
            None => Error::unavailable(format!("{action}: it has no leader now")),
        };
        ends_by_partition.insert(partition, Err(reason));
    }
    std::thread::scope(|scope| {
        let asked: Vec<_> = of_leader
            .values()
            .map(|partitions| scope.spawn(move || list_ends(client, partitions, end, timeout.min(ONE_LEADER))))
            .collect();
        // A thread that panicked told nothing of its partitions.
        asked.into_iter().for_each(|leader| ends_by_partition.extend(leader.join().unwrap_or_default()));
    });
    let nothing = |of: &TopicPartition| Err(Error::unavailable(format!("read end of {of}: its leader was not asked")));
    Ok(partitions.iter().map(|of| (of.clone(), ends_by_partition.get(of).cloned().unwrap_or_else(|| nothing(of)))).collect())
}

/// One question for all of these; where it fails, it fails for each.
fn list_ends<C: ClientContext>(client: &Client<C>, partitions: &[TopicPartition], end: End, timeout: Duration) -> EachEnd {
    if partitions.is_empty() {
        return Vec::new();
    }
    let asked = partitions.iter().map(|p| (p.topic.to_string(), p.partition));
    let found = list_offsets(client, asked, end, timeout);
    let of = |partition: &TopicPartition| {
        let failed = |code| failure::of_code(&format!("read end of {partition}"), code);
        let found = found.as_ref().map_err(|code| failed(*code))?;
        let (.., offset) = found
            .iter()
            .find(|(topic, p, _)| **topic == *partition.topic && *p == partition.partition)
            .ok_or_else(|| Error::unavailable(format!("read end of {partition}: the broker answered without it")))?;
        let (offset, leader_epoch) = offset.map_err(failed)?;
        Ok(PartitionEnd { partition: partition.clone(), end: Offset(offset), leader_epoch })
    };
    partitions.iter().map(|partition| (partition.clone(), of(partition))).collect()
}

/// All of them, or the first failure.
fn whole(each: EachEnd) -> Result<Vec<(TopicPartition, Offset)>> {
    each.into_iter().map(|(partition, end)| Ok((partition, end?.end))).collect()
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
        let kafka = config::KafkaConfig { brokers: closed.clone(), ..config::KafkaConfig::default() };
        let ends = Ends { timeout: Duration::from_millis(300), ..Ends::new(&kafka).unwrap() };
        let error = ends.partitions_of("t").await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains(&closed), "{error}");
    }
}
