//! The look at topics before anything starts.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::topics::{Topics, wanted};

const COUNTS_DIFFER: &str = "partition_counts_differ";

/// Two topics cannot be raised at once, and a broker hears of a raise when it does: longest wait for counts to become equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Partition counts of every topic the roles work with. `Invalid`: one is missing, or requests and log differ for long.
pub async fn partition_counts(config: &Config) -> Result<Vec<(String, i32)>> {
    let topics = Topics::new(&config.kafka)?;
    let deadline = Instant::now() + EQUAL_WITHIN;
    loop {
        match counts_now(config, &topics).await {
            Err(Error::Invalid { code, .. }) if code == COUNTS_DIFFER && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
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
            COUNTS_DIFFER,
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
