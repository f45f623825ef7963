//! `topic plan|apply`: the topics of the configuration beside those that are there.

use serde::Serialize;

use crate::config::Config;
use crate::error::Result;
use crate::kafka::topics::{TopicDifference, Topics, WantedTopic, follow_sibling, plan, wanted};

/// A topic of the configuration, as `topic plan` and `topic apply` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicRow {
    pub topic: String,
    /// What is or was to do: `none`, `create`, `created`, `alter`, `altered`, or `differs` (left alone).
    pub action: String,
    pub partitions: Option<i32>,
    pub replication: Option<i32>,
    pub detail: Option<String>,
}

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
