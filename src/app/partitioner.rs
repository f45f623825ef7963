//! What the newest keys of the events topics say of the producers' partitioner: for the roles before they start, and
//! for `doctor`.

use std::time::Duration;

use super::check::{ok, warning};
use super::stores::Stores;
use super::{Check, Verdict};
use crate::config::{Config, PartitionerSetting};
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::kafka::sample::Sample;
use crate::roles::schema::learn;
use crate::saga::partitioner::{Partitioner, PartitionerGuess};
use crate::saga::position::{SagaId, TopicPartition};
use crate::schema_registry::SchemaRegistry;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;
use crate::wire::payload::NotDecoded;

/// Offsets looked at in each partition: a handful of keys tells partitioners apart.
const OFFSETS: i64 = 50;
/// Longest read; what was seen by then is what there is to go by.
const WITHIN: Duration = Duration::from_secs(5);

/// Keys found in a partition of a topic that has `of` partitions.
pub(super) struct Keys {
    pub partition: TopicPartition,
    pub of: i32,
    pub keys: Vec<SagaId>,
}

pub(super) fn configured(setting: PartitionerSetting) -> Option<Partitioner> {
    match setting {
        PartitionerSetting::Auto => None,
        PartitionerSetting::Murmur2 => Some(Partitioner::Murmur2),
        PartitionerSetting::Crc32 => Some(Partitioner::Crc32),
        PartitionerSetting::Fnv1a => Some(Partitioner::Fnv1a),
    }
}

/// How keys of step events are spread, as far as it is known.
pub(super) fn place(partitioner: Option<Partitioner>) -> Option<fn(&[u8], i32) -> i32> {
    match partitioner? {
        Partitioner::Murmur2 => Some(|key, of| Partitioner::Murmur2.partition(key, of)),
        Partitioner::Crc32 => Some(|key, of| Partitioner::Crc32.partition(key, of)),
        Partitioner::Fnv1a => Some(|key, of| Partitioner::Fnv1a.partition(key, of)),
    }
}

/// The newest keys of every events partition, in the order of the partitions. `Unavailable`: brokers do not answer.
pub(super) async fn newest_keys(
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
pub(super) fn used(setting: PartitionerSetting, found: &[Keys]) -> Option<Partitioner> {
    let mut guess = PartitionerGuess::default();
    for keys in found {
        for key in &keys.keys {
            guess.see(key.as_str().as_bytes(), keys.partition.partition, keys.of);
        }
    }
    configured(setting).or_else(|| guess.partitioner())
}

/// What `doctor` says of these keys. Names partitions, never keys.
pub(super) fn check(setting: PartitionerSetting, found: &[Keys]) -> Check {
    const CHECK: &str = "partitioner";
    let explains = |partitioner: Partitioner, keys: &Keys| {
        keys.keys.iter().all(|key| partitioner.partition(key.as_str().as_bytes(), keys.of) == keys.partition.partition)
    };
    let strange = |partitioner| -> Vec<String> {
        found.iter().filter(|keys| !explains(partitioner, keys)).map(|keys| keys.partition.to_string()).collect()
    };
    if let Some(fixed) = configured(setting) {
        let strange = strange(fixed);
        let name = fixed.as_str();
        return match strange.as_slice() {
            [] => ok(CHECK, &format!("{name}, as configured, explains the newest keys")),
            strange => warning(
                CHECK,
                format!("{name}, as configured, does not explain newest keys of {}", strange.join(", ")),
                "set topics.partitioner to what the producers use; auto finds it out",
            ),
        };
    }
    let mut guess = PartitionerGuess::default();
    for keys in found {
        for key in &keys.keys {
            guess.see(key.as_str().as_bytes(), keys.partition.partition, keys.of);
        }
    }
    match (guess.only(), guess.partitioner()) {
        (Some(only), _) => match strange(only).as_slice() {
            [] => ok(CHECK, &format!("{} explains the newest keys", only.as_str())),
            strange => warning(
                CHECK,
                format!("{} explains the newest keys but for a few of {}", only.as_str(), strange.join(", ")),
                "let the producers of those use the same partitioner; the log names records: step event in another partition",
            ),
        },
        (_, Some(first)) => ok(CHECK, &format!("{} until a key tells it apart from the others", first.as_str())),
        (_, None) => {
            let fewest = Partitioner::ALL.map(|partitioner| (strange(partitioner), partitioner));
            let fewest = fewest.into_iter().min_by_key(|(strange, _)| strange.len());
            let but = fewest.map(|(strange, best)| format!("; {} all but those of {}", best.as_str(), strange.join(", ")));
            Check {
                check: CHECK.into(),
                verdict: Verdict::Problem,
                detail: format!("none explains the newest keys, replays stop{}", but.unwrap_or_default()),
                remedy: Some("let all producers of step events use one partitioner, and set topics.partitioner to it".into()),
                exit: None,
            }
        }
    }
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

    /// Forty keys where `partitioner` of them puts them.
    fn found(partitioner: impl Fn(usize) -> Partitioner) -> Vec<Keys> {
        let keys = |n| Keys { partition: TopicPartition::new("t", n), of: 3, keys: Vec::new() };
        let mut found: Vec<Keys> = (0..3).map(keys).collect();
        for n in 0..40 {
            let key = format!("order-{n}");
            found[partitioner(n).partition(key.as_bytes(), 3) as usize].keys.push(key.as_str().into());
        }
        found
    }

    #[test]
    fn doctor_says_which_partitioner_explains_the_keys_and_where_none_does() {
        use PartitionerSetting::{Auto, Crc32, Murmur2};
        let verdict = |setting, found: &[Keys]| {
            let check = check(setting, found);
            (check.verdict, check.detail)
        };
        let crc32 = found(|_| Partitioner::Crc32);
        assert_eq!(verdict(Auto, &crc32), (Verdict::Ok, "crc32 explains the newest keys".into()));
        assert_eq!(verdict(Crc32, &crc32).0, Verdict::Ok);
        let (configured, detail) = verdict(Murmur2, &crc32);
        assert!(configured == Verdict::Warning && detail.contains("t[0]"), "{detail}");
        assert_eq!(verdict(Auto, &[]), (Verdict::Ok, "murmur2 until a key tells it apart from the others".into()));

        let mut mixed = found(|_| Partitioner::Murmur2);
        let stray = (0..).map(|n| SagaId::new(format!("stray-{n}")));
        let elsewhere = |key: &SagaId| Partitioner::ALL.iter().all(|of| of.partition(key.as_str().as_bytes(), 3) != 1);
        let mut strays = stray.filter(elsewhere);
        mixed[1].keys.extend(strays.next());
        let (one, detail) = verdict(Auto, &mixed);
        assert_eq!((one, &*detail), (Verdict::Warning, "murmur2 explains the newest keys but for a few of t[1]"));
        mixed[1].keys.extend(strays.take(20));
        let (none, detail) = verdict(Auto, &mixed);
        assert_eq!(none, Verdict::Problem);
        assert!(detail.ends_with("murmur2 all but those of t[1]"), "{detail}");
        assert!(!detail.contains("stray"), "no keys: {detail}");
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
