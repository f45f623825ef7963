//! Every partition's chain in the archive against what the log still has.

use std::sync::Arc;

use crate::cold::chain::{ChainWriter, newest_incarnation};
use crate::cold::object_store::ObjectStore;
use crate::cold::owner;
use crate::config::Config;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::roles::materialize::{LogBounds, chain_mismatch};
use crate::saga::position::{ChainId, Offset, TopicPartition};
use crate::serve::partitions_of;

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
        let partitions = partitions_of(topic, counts);
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
            let end = single_offset(&ends.ends(std::slice::from_ref(&partition)).await?);
            let log = LogBounds { earliest, end, topic_id: topic_id.clone() };
            if let Some((alarm, reason)) = chain_mismatch(&log, writer.next(), writer.newest(), &owners) {
                found.push((partition, alarm.code(), reason));
            }
        }
    }
    Ok(found)
}

/// The offset that was asked for of one partition.
pub(in crate::admin) fn single_offset(found: &[(TopicPartition, Offset)]) -> Offset {
    found.first().map(|(_, offset)| *offset).unwrap_or_default()
}
