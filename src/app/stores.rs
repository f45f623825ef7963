//! Adapters and readers, from the configuration: what every role of a process shares.

use std::sync::Arc;
use std::time::Duration;

use super::partitioner::{configured, place};
use super::serve::{fold_settings, now};
use crate::cold::chain::{ChainWriter, newest_incarnation};
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::{self, Owners};
use crate::cold::reader::ColdReader;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::{HotStore, check_owner};
use crate::kafka::ends::Ends;
use crate::roles::materialize::{LogBounds, chain_mismatch};
use crate::roles::partitioning::Partitioning;
use crate::saga::installation::{Installation, OF_ANOTHER};
use crate::saga::position::{ChainId, Offset, Topic, TopicPartition};

/// Tries to claim an archive.
const CLAIMS: u32 = 4;
const CLAIM_PAUSE: Duration = Duration::from_millis(300);

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
    pub installation: Installation,
    /// Of the archive.
    pub owners: Owners,
}

/// Which installation this process belongs to.
pub(super) async fn installation(config: &Config, ends: &Ends) -> Result<Installation> {
    let cluster_id = ends.cluster_id().await?.unwrap_or_default();
    Ok(Installation { cluster_id, group_id: config.kafka.group_id.clone() })
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
    let owners = owner::owners(&*objects).await?;
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
            let log = LogBounds { earliest, end, topic_id: topic_id.clone() };
            if let Some((code, reason)) = chain_mismatch(&log, writer.next(), writer.newest(), &owners) {
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

/// Opens both stores and looks whether they answer, are fit for use and nobody else's.
pub(super) async fn open(config: &Config, counts: &[(String, i32)]) -> Result<Stores> {
    let hot = crate::hot::open(&config.hot)?;
    let health = hot.health().await.map_err(|e| e.context("reach the hot store"))?;
    if let Some(problem) = health.problems.first() {
        return Err(Error::invalid("hot_store_unfit", format!("hot store: {problem}")));
    }
    let objects = crate::cold::open(&config.cold).await?;
    let mine = installation(config, &Ends::new(&config.kafka)?).await?;
    let owners = claim(&*objects, &mine).await.map_err(|e| e.context("reach the cold store"))?;
    check_owner(&hot.claim(&mine).await?, &mine)?;
    with(config, counts, (hot, objects), (mine, owners)).await
}

/// Several processes may start at once, and of conditional writes at the same time some are turned away.
async fn claim(objects: &dyn ObjectStore, mine: &Installation) -> Result<Owners> {
    for _ in 1..CLAIMS {
        match owner::claim(objects, mine).await {
            Err(error) if error.is_unavailable() => tokio::time::sleep(CLAIM_PAUSE).await,
            claimed => return claimed,
        }
    }
    owner::claim(objects, mine).await
}

/// As [`open`], to look at them only: claims nothing.
pub(super) async fn look(config: &Config, counts: &[(String, i32)]) -> Result<Stores> {
    let objects = crate::cold::open(&config.cold).await?;
    let (installation, owners) = (Installation::default(), owner::owners(&*objects).await?);
    with(config, counts, (crate::hot::open(&config.hot)?, objects), (installation, owners)).await
}

/// As [`open`], on stores that are there already.
pub(super) async fn with(
    config: &Config,
    counts: &[(String, i32)],
    (hot, objects): (Arc<dyn HotStore>, Arc<dyn ObjectStore>),
    (installation, owners): (Installation, Owners),
) -> Result<Stores> {
    let cold = Arc::new(ColdReader::new(objects.clone(), config.cold.cache_bytes).of(owners.clone()));
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
    let log_history = log_history.without_index();
    Ok(Stores { hot, objects, chains, history, log_history, log_chains, partitioning, installation, owners })
}

impl Stores {
    /// Are hot and cold still this installation's? `Invalid`: one of them is another's now. A hot store that was wiped is
    /// claimed again. Inside: whether each answers.
    pub async fn still_ours(&self) -> Result<(Result<()>, Result<()>)> {
        let hot = match self.hot.claim(&self.installation).await {
            Ok(owner) => {
                check_owner(&owner, &self.installation)?;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let cold = match self.objects.head(&self.owners.next_key()).await {
            Ok(Some(_)) => {
                return Err(Error::invalid(OF_ANOTHER, "cold store: the archive was handed over to another installation"));
            }
            found => found.map(drop),
        };
        Ok((hot, cold))
    }

    /// Looks for sagas where the keys seen say they are; everywhere, until they say something.
    pub fn follow_partitioner(&self) {
        self.chains.prefer(place(self.partitioning.partitioner()));
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
