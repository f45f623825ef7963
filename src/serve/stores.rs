//! Adapters and readers, from the configuration: what every role of a process shares.

use std::sync::Arc;
use std::time::Duration;

use super::clock::now;
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::{self, Owners};
use crate::cold::reader::ColdReader;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::{HotStore, check_owner};
use crate::kafka::ends::Ends;
use crate::partitioning::{Partitioning, configured, newest_keys, placement};
use crate::roles::fold_settings;
use crate::saga::installation::{Installation, OF_ANOTHER};
use crate::saga::position::Topic;
use crate::saga::stuck::StuckLimits;
use crate::schema_registry::SchemaRegistry;
use crate::wire::avro::Schemas;

/// Tries to claim an archive.
const CLAIMS: u32 = 4;
const CLAIM_PAUSE: Duration = Duration::from_millis(300);

pub struct Stores {
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
pub async fn installation(config: &Config, ends: &Ends) -> Result<Installation> {
    let cluster_id = ends.cluster_id().await?.unwrap_or_default();
    Ok(Installation { cluster_id, group_id: config.kafka.group_id.clone() })
}

/// Opens both stores and looks whether they answer, are fit for use and nobody else's.
pub async fn open(config: &Config, counts: &[(String, i32)]) -> Result<Stores> {
    let hot = crate::hot::open(&config.hot)?;
    let health = hot.health().await.map_err(|e| e.context("reach the hot store"))?;
    if let Some(problem) = health.problems.first() {
        return Err(Error::invalid("hot_store_unfit", format!("hot store: {problem}")));
    }
    let objects = crate::cold::open(&config.cold).await?;
    let mine = installation(config, &Ends::new(&config.kafka)?).await?;
    let owners = claim(&*objects, &mine).await.map_err(|e| e.context("reach the cold store"))?;
    check_owner(&hot.claim(&mine).await?, &mine)?;
    assemble(config, counts, (hot, objects), (mine, owners)).await
}

/// Several processes may start at once, and of conditional writes at the same time some are refused.
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
pub async fn open_read_only(config: &Config, counts: &[(String, i32)]) -> Result<Stores> {
    let objects = crate::cold::open(&config.cold).await?;
    let (installation, owners) = (Installation::default(), owner::owners(&*objects).await?);
    assemble(config, counts, (crate::hot::open(&config.hot)?, objects), (installation, owners)).await
}

/// As [`open`], on stores that are there already.
pub async fn assemble(
    config: &Config,
    counts: &[(String, i32)],
    (hot, objects): (Arc<dyn HotStore>, Arc<dyn ObjectStore>),
    (installation, owners): (Installation, Owners),
) -> Result<Stores> {
    let cold = Arc::new(ColdReader::new(objects.clone(), config.cold.cache_bytes).of(owners.clone()));
    let partitioning = Arc::new(Partitioning::new(configured(config.topics.partitioner)));
    let place = placement(partitioning.settled());
    let mut events = Vec::new();
    for topic in &config.topics.events {
        events.push(layout(&cold, topic, counts, place).await?);
    }
    let log = layout(&cold, &config.topics.log, counts, None).await?;
    let (chains, fold) = (Arc::new(Chains::new(events)), fold_settings(config).id());
    let history = History::new(hot.clone(), cold.clone(), chains.clone(), MAX_ENTRIES).with_clock(now).with_fold(fold);
    let history = history.with_stuck(stuck_limits(config));
    let log_chains = Arc::new(Chains::new(vec![log]));
    let log_history = History::new(hot.clone(), cold.clone(), log_chains.clone(), MAX_ENTRIES).with_clock(now).with_fold(fold);
    let log_history = log_history.without_index();
    Ok(Stores { hot, objects, chains, history, log_history, log_chains, partitioning, installation, owners })
}

fn stuck_limits(config: &Config) -> StuckLimits {
    let micros = |limit: &Duration| i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    let by_name = config.stuck.saga.iter().map(|(name, after)| (name.clone(), micros(after)));
    StuckLimits { after_micros: micros(&config.stuck.after), by_name: by_name.collect() }
}

impl Stores {
    /// Lets the newest keys tell which partitioner it is, before anything is looked for or written by a guess.
    pub async fn seed_partitioner(
        &self,
        config: &Config,
        ends: &Ends,
        registry: Option<&SchemaRegistry>,
        schemas: &Schemas,
    ) -> Result<()> {
        if configured(config.topics.partitioner).is_none() {
            let count = |topic: &String| (topic.clone(), self.chains.partitions_of(topic).unwrap_or(0));
            let counts: Vec<(String, i32)> = config.topics.events.iter().map(count).collect();
            for keys in newest_keys(config, &counts, ends, registry, schemas).await? {
                let of = keys.of;
                self.partitioning.see(keys.keys.iter().map(|key| key.as_str().as_bytes()), keys.partition.partition, of);
            }
        }
        self.apply_partitioner();
        Ok(())
    }

    /// Are hot and cold still this installation's? `Invalid`: one of them is another's now. A hot store that was wiped is
    /// claimed again. Inside: whether each answers.
    pub async fn check_ownership(&self) -> Result<(Result<()>, Result<()>)> {
        let hot = match self.hot.claim(&self.installation).await {
            Ok(owner) => {
                check_owner(&owner, &self.installation)?;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let cold = match self.objects.head(&self.owners.next_key()).await {
            Ok(Some(_)) => {
                let own = &self.installation;
                let message = format!(
                    "cold store: the archive was handed over from this installation ({own}) to another one; \
                     `resaga store hand-over` gives it back once that one has stopped"
                );
                return Err(Error::invalid(OF_ANOTHER, message));
            }
            found => found.map(drop),
        };
        Ok((hot, cold))
    }

    /// Looks for sagas where the keys seen say they are; everywhere, until they say something.
    pub fn apply_partitioner(&self) {
        self.chains.prefer(placement(self.partitioning.partitioner()));
        self.chains.place_by(placement(self.partitioning.settled()));
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

#[cfg(test)]
mod tests {
    use super::super::testing::stores_for;
    use super::*;
    use crate::kafka::mock::MockKafka;
    use crate::kafka::publisher::Publisher;
    use crate::kafka::record::NewRecord;
    use crate::saga::partitioner::Partitioner;
    use crate::saga::position::SagaId;

    /// Events of twenty sagas, each where `partitioner` puts its key, and a record with a foreign key in partition 0.
    async fn events(kafka: &crate::config::KafkaConfig, topic: &str, partitioner: Partitioner) {
        let record = |key: String, partition: i32, saga: &str| NewRecord {
            topic: topic.to_owned(),
            partition: Some(partition),
            key: Some(key.into_bytes().into()),
            value: Some(
                format!(r#"{{"event_id":"e","saga_id":"{saga}","saga_name":"n","kind":"SAGA_STARTED"}}"#).into_bytes().into(),
            ),
            headers: Vec::new(),
            timestamp: None,
        };
        let saga = |n: i32| format!("order-{n}");
        let home = |n: i32| partitioner.partition(saga(n).as_bytes(), 12);
        let mut records: Vec<NewRecord> = (0..20).map(|n| record(saga(n), home(n), &saga(n))).collect();
        records.extend((0..20).map(|n| record(format!("not the saga {n}"), 0, "order-1")));
        Publisher::new(kafka).expect("producer").send(records).await.expect("sent");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_newest_keys_settle_the_partitioner_before_the_roles_start() {
        let cluster = MockKafka::start().expect("cluster");
        let mut config = Config::default();
        config.kafka.brokers = cluster.brokers();
        let topic = config.topics.events[0].clone();
        cluster.create_topic(&topic, 12).expect("topic");
        let (stores, _directory) = stores_for(&config, 12).await;
        let saga = SagaId::from("order-1");
        assert_eq!(stores.chains.newest_of(&saga).len(), 12, "nothing is known: a saga may be anywhere");

        let (ends, schemas) = (Ends::new(&config.kafka).expect("ends"), Schemas::new(false));
        stores.seed_partitioner(&config, &ends, None, &schemas).await.expect("nothing to read");
        assert_eq!((stores.partitioning.partitioner(), stores.partitioning.settled()), (Some(Partitioner::Murmur2), None));

        events(&config.kafka, &topic, Partitioner::Crc32).await;
        stores.seed_partitioner(&config, &ends, None, &schemas).await.expect("read");
        assert_eq!(stores.partitioning.settled(), Some(Partitioner::Crc32));
        let home: Vec<i32> = stores.chains.newest_of(&saga).into_iter().map(|chain| chain.partition).collect();
        assert_eq!(home, [Partitioner::Crc32.partition(b"order-1", 12)]);
    }
}
