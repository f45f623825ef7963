//! `topic plan|apply`, and the look at topics before anything starts.

use std::time::Duration;

use tokio::time::Instant;

use super::TopicRow;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::topics::{TopicDifference, Topics, WantedTopic, follow_sibling, plan, wanted};

const COUNTS_DIFFER: &str = "partition_counts_differ";

/// What `topics_apply` would do.
pub async fn topics_plan(config: &Config) -> anyhow::Result<Vec<TopicRow>> {
    let topics = Topics::new(&config.kafka)?;
    Ok(rows(config, &topics, "create").await?.0)
}

/// Creates what is missing; never deletes or shrinks.
pub async fn topics_apply(config: &Config) -> anyhow::Result<Vec<TopicRow>> {
    let topics = Topics::new(&config.kafka)?;
    let (rows, wanted) = rows(config, &topics, "created").await?;
    let missing: Vec<_> = wanted.into_iter().filter(|topic| is_to_create(&rows, &topic.name)).collect();
    topics.create(&missing).await?;
    Ok(rows)
}

fn is_to_create(rows: &[TopicRow], topic: &str) -> bool {
    rows.iter().any(|row| row.topic == topic && row.action == "created")
}

/// Rows to show, and the topics as they are wanted beside those that are there.
async fn rows(config: &Config, topics: &Topics, create: &str) -> Result<(Vec<TopicRow>, Vec<WantedTopic>)> {
    let mut wanted = wanted(config);
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let found = topics.describe(&names).await?;
    follow_sibling(&mut wanted, &found, &config.topics.requests, &config.topics.log);
    let differences = plan(&wanted, &found);
    let mut rows = Vec::new();
    for want in &wanted {
        let row = |action: &str, detail: Option<String>| TopicRow {
            topic: want.name.clone(),
            action: action.to_owned(),
            partitions: Some(found.iter().find(|is| is.name == want.name).map_or(want.partitions, |is| is.partitions)),
            replication: (want.replication > 0).then_some(want.replication),
            detail,
        };
        let mut details = Vec::new();
        let mut missing = false;
        for difference in &differences {
            match difference {
                TopicDifference::Missing(topic) => missing |= topic.name == want.name,
                TopicDifference::Partitions { topic, wanted, found } if *topic == want.name => {
                    details.push(format!("{found} partitions, {wanted} configured"));
                }
                TopicDifference::Setting { topic, setting, wanted, found } if *topic == want.name => {
                    details.push(format!("{setting} is {found}, better {wanted}"));
                }
                _ => {}
            }
        }
        rows.push(match (missing, details.is_empty()) {
            (true, _) => row(create, None),
            (false, true) => row("none", None),
            (false, false) => row("differs", Some(details.join("; "))),
        });
    }
    Ok((rows, wanted))
}

/// Two topics cannot be raised at once, and a broker hears of a raise when it does: longest wait for counts to become equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Partition counts of every topic the roles work with. `Invalid`: one is missing, or requests and log differ for long.
pub(super) async fn partition_counts(config: &Config) -> Result<Vec<(String, i32)>> {
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
