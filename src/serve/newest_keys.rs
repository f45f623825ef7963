//! What the newest keys of the events topics say of the producers' partitioner: for the roles before they start, and
//! for `doctor`.

use std::time::Duration;

use super::stores::Stores;
use crate::config::{Config, PartitionerSetting};
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::kafka::registry::SchemaRegistry;
use crate::kafka::sample::Sample;
use crate::roles::schema::learn;
use crate::saga::partitioner::{Partitioner, PartitionerGuess};
use crate::saga::position::{SagaId, TopicPartition};
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::payload::NotDecoded;

/// Offsets looked at in each partition: a handful of keys tells partitioners apart.
const OFFSETS: i64 = 50;
/// Longest read; what was seen by then is what there is to go by.
const WITHIN: Duration = Duration::from_secs(5);

/// Keys found in a partition of a topic that has `of` partitions.
pub struct Keys {
    pub partition: TopicPartition,
    pub of: i32,
    pub keys: Vec<SagaId>,
}

pub fn configured(setting: PartitionerSetting) -> Option<Partitioner> {
    match setting {
        PartitionerSetting::Auto => None,
        PartitionerSetting::Murmur2 => Some(Partitioner::Murmur2),
        PartitionerSetting::Crc32 => Some(Partitioner::Crc32),
        PartitionerSetting::Fnv1a => Some(Partitioner::Fnv1a),
    }
}

/// How keys of step events are spread, as far as it is known.
pub fn place(partitioner: Option<Partitioner>) -> Option<fn(&[u8], i32) -> i32> {
    match partitioner? {
        Partitioner::Murmur2 => Some(|key, of| Partitioner::Murmur2.partition(key, of)),
        Partitioner::Crc32 => Some(|key, of| Partitioner::Crc32.partition(key, of)),
        Partitioner::Fnv1a => Some(|key, of| Partitioner::Fnv1a.partition(key, of)),
    }
}

/// The newest keys of every events partition, in the order of the partitions. `Unavailable`: brokers do not answer.
pub async fn newest_keys(
    config: &Config,
    counts: &[(String, i32)],
    ends: &Ends,
    registry: Option<&SchemaRegistry>,
    schemas: &Schemas,
) -> Result<Vec<Keys>> {
    let mut found = Vec::new();
    for topic in &config.topics.events {
        let of = counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
        found.extend((0..of).map(|n| Keys { partition: TopicPartition::new(topic.as_str(), n), of, keys: Vec::new() }));
    }
    let partitions: Vec<TopicPartition> = found.iter().map(|keys| keys.partition.clone()).collect();
    let mut sample = Sample::start(&config.kafka, ends, &partitions, OFFSETS, WITHIN).await?;
    while let Some(batch) = sample.next().await? {
        for records in batch {
            let Some(keys) = found.iter_mut().find(|keys| keys.partition == records.partition) else { continue };
            for record in records.records {
                // Only what becomes an entry counts: a record for the dead letters may have any key.
                let event = loop {
                    let (key, value) = (record.key.as_deref(), record.value.as_deref());
                    match decode_event(key, value, &record.headers, config.limits.max_record, schemas) {
                        Ok(event) => break Some(event),
                        // A registry that does not answer says nothing of keys, nor does a record that it would tell about.
                        Err(NotDecoded::NeedSchema(schema)) if matches!(learn(registry, schema, schemas).await, Ok(true)) => {}
                        Err(_) => break None,
                    }
                };
                keys.keys.extend(event.map(|event| event.saga_id));
            }
        }
    }
    Ok(found)
}

/// The partitioner that these keys, or the settings, tell of.
pub fn used(setting: PartitionerSetting, found: &[Keys]) -> Option<Partitioner> {
    let mut guess = PartitionerGuess::default();
    for keys in found {
        for key in &keys.keys {
            guess.see(key.as_str().as_bytes(), keys.partition.partition, keys.of);
        }
    }
    configured(setting).or_else(|| guess.partitioner())
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
        self.follow_partitioner();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::stores_for;
    use super::*;
    use crate::kafka::mock::MockKafka;
    use crate::kafka::publisher::Publisher;
    use crate::kafka::record::NewRecord;

    /// Events of twenty sagas, each where `partitioner` puts its key, and a record with a foreign key in partition 0.
    async fn events(kafka: &crate::config::Kafka, topic: &str, partitioner: Partitioner) {
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
