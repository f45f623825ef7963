//! The look at topics before anything starts.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::topics::{Topics, wanted};
use crate::saga::position::TopicPartition;

const PARTITION_COUNTS_DIFFER: &str = "partition_counts_differ";

/// Two topics cannot be raised at once, and a broker hears of a raise when it does: longest wait for counts to become equal.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Between two looks.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Partition counts of every topic the roles work with. `Invalid`: one is missing, or requests and log differ for long.
pub async fn partition_counts(config: &Config) -> Result<Vec<(String, i32)>> {
    let topics = Topics::new(&config.kafka)?;
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        match counts_now(config, &topics).await {
            Err(Error::Invalid { code, .. }) if code == PARTITION_COUNTS_DIFFER && Instant::now() < deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            counts => return counts,
        }
    }
}

async fn counts_now(config: &Config, topics: &Topics) -> Result<Vec<(String, i32)>> {
    let mut counts = Vec::new();
    for want in wanted(config) {
        let count = topics.partitions_of(&want.name).await.map_err(|error| match error {
            Error::Invalid { code, .. } if code == crate::kafka::TOPIC_MISSING => {
                Error::invalid(code, format!("topic {} does not exist: `resaga topic apply` creates it", want.name))
            }
            other => other.context(format!("ask for topic {}", want.name)),
        })?;
        counts.push((want.name, count));
    }
    let count_of = |topic: &str| counts.iter().find(|(name, _)| name == topic).map(|(_, count)| *count);
    let (requests, log) = (count_of(&config.topics.requests), count_of(&config.topics.log));
    if requests != log {
        return Err(Error::invalid(
            PARTITION_COUNTS_DIFFER,
            format!(
                "topics {} and {} must have equal partition counts: they have {} and {}; raise the smaller one",
                config.topics.requests,
                config.topics.log,
                requests.unwrap_or_default(),
                log.unwrap_or_default()
            ),
        ));
    }
    Ok(counts)
}

/// The partitions of a topic, of those that were counted.
pub fn partitions_of(topic: &str, counts: &[(String, i32)]) -> Vec<TopicPartition> {
    let count = counts.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count);
    (0..count).map(|partition| TopicPartition::new(topic, partition)).collect()
}
