//! The newest keys of the events topics, which tell of the producers' partitioner: for the roles before they start, and for `doctor`.

use std::time::Duration;

use crate::config::Config;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::kafka::sample::Sample;
use crate::saga::position::{SagaId, TopicPartition};
use crate::schema_registry::SchemaRegistry;
use crate::schema_registry::lookups::learn;
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
