//! Adapters and readers, from the configuration: what every role of a process shares.

use std::sync::Arc;

use super::partitioner::{configured, place};
use super::serve::{fold_settings, now};
use crate::cold::chain::{ChainWriter, newest_incarnation};
use crate::cold::object_store::ObjectStore;
use crate::cold::reader::ColdReader;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::HotStore;
use crate::kafka::ends::Ends;
use crate::roles::materialize::{Log, disagreement};
use crate::roles::partitioning::Partitioning;
use crate::saga::position::{ChainId, Offset, Topic, TopicPartition};

pub(super) struct Stores {
    pub hot: Arc<dyn HotStore>,
    pub objects: Arc<dyn ObjectStore>,
    /// Of the step topics.
    pub chains: Arc<Chains>,
    pub history: History,
    /// The replay log's.
    pub log_history: History,
    pub log_chains: Arc<Chains>,
    pub partitioning: Arc<Partitioning>,
}

/// A partition that no broker leads now: nothing can be said of its chain.
pub(super) const NO_LEADER: &str = "no_leader";

/// Partitions whose log is not the one that their chain was made from: code and reason.
pub(super) async fn disagreements(
    config: &Config,
    counts: &[(String, i32)],
    objects: Arc<dyn ObjectStore>,
) -> Result<Vec<(TopicPartition, &'static str, String)>> {
    let ends = Ends::new(&config.kafka)?;
    let mut found = Vec::new();
    for topic in config.topics.events.iter().chain([&config.topics.log]) {
        let count = counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
        let partitions: Vec<TopicPartition> =
            (0..count).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect();
        let topic_id = ends.topic_id(topic).await?;
        for (partition, range) in ends.each_range(&partitions).await? {
            let (earliest, _) = match range {
                Ok(range) => range,
                Err(error) => {
                    found.push((partition, NO_LEADER, error.to_string()));
                    continue;
                }
            };
            let incarnation = newest_incarnation(&*objects, topic, partition.partition).await?;
            let chain = ChainId { topic: partition.topic.clone(), incarnation, partition: partition.partition };
            let writer = ChainWriter::open(objects.clone(), chain, None).await?;
            if writer.newest().is_none() {
                continue;
            }
            // After the chain, which an owner at work makes longer meanwhile: else it would seem to pass the end.
            let end = only(&ends.ends(std::slice::from_ref(&partition)).await?);
            let log = Log { earliest, end, topic_id: topic_id.clone() };
            if let Some((code, reason)) = disagreement(&log, writer.next(), writer.newest()) {
                found.push((partition, code, reason));
            }
        }
    }
    Ok(found)
}

/// The offset that was asked for of one partition.
pub(super) fn only(found: &[(TopicPartition, Offset)]) -> Offset {
    found.first().map(|(_, offset)| *offset).unwrap_or_default()
}

/// Opens both stores and looks whether they answer and are fit for use.
pub(super) async fn open(config: &Config, counts: &[(String, i32)]) -> Result<Stores> {
    let hot = crate::hot::open(&config.hot)?;
    let health = hot.health().await.map_err(|e| e.context("reach the hot store"))?;
    if let Some(problem) = health.problems.first() {
        return Err(Error::invalid("hot_store_unfit", format!("hot store: {problem}")));
    }
    let objects = crate::cold::open(&config.cold).await?;
    objects.head("catalog/none").await.map_err(|e| e.context("reach the cold store"))?;
    with(config, counts, hot, objects).await
}

/// As [`open`], on stores that are there already.
pub(super) async fn with(
    config: &Config,
    counts: &[(String, i32)],
    hot: Arc<dyn HotStore>,
    objects: Arc<dyn ObjectStore>,
) -> Result<Stores> {
    let cold = Arc::new(ColdReader::new(objects.clone(), config.cold.cache_bytes));
    let partitioning = Arc::new(Partitioning::new(configured(config.topics.partitioner)));
    let place = place(partitioning.settled());
    let mut events = Vec::new();
    for topic in &config.topics.events {
        events.push(layout(&cold, topic, counts, place).await?);
    }
    let log = layout(&cold, &config.topics.log, counts, None).await?;
    let (chains, fold) = (Arc::new(Chains::new(events)), fold_settings(config).id());
    let history = History::new(hot.clone(), cold.clone(), chains.clone(), MAX_ENTRIES).with_clock(now).with_fold(fold);
    let log_chains = Arc::new(Chains::new(vec![log]));
    let log_history = History::new(hot.clone(), cold.clone(), log_chains.clone(), MAX_ENTRIES).with_clock(now).with_fold(fold);
    Ok(Stores { hot, objects, chains, history, log_history, log_chains, partitioning })
}

impl Stores {
    /// Looks for sagas where the keys seen say they are; everywhere, until they say something.
    pub fn follow_partitioner(&self) {
        self.chains.place_by(place(self.partitioning.settled()));
    }
}

async fn layout(
    cold: &ColdReader,
    topic: &str,
    counts: &[(String, i32)],
    partitioner: Option<fn(&[u8], i32) -> i32>,
) -> Result<TopicLayout> {
    let count = counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
    let mut incarnations = Vec::new();
    for partition in 0..count {
        incarnations.push(cold.newest_incarnation(topic, partition).await?);
    }
    Ok(TopicLayout { topic: Topic::from(topic), incarnations, partition_counts: vec![count], partitioner })
}
