//! Describing and creating topics. Never deletes, shrinks or changes one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::client::{LoggingContext, Purpose, client_config};
use super::ends::Ends;
use super::failure;
pub use super::topic_plan::{FoundTopic, TopicDifference, WantedTopic, follow_sibling, plan, wanted};
use crate::config;
use crate::error::Result;

/// Topic administration. Cheap to clone.
#[derive(Clone)]
pub struct Topics {
    admin: Arc<AdminClient<LoggingContext>>,
    /// An admin client counts as a producer, whose questions for metadata may create the topic asked for.
    ends: Ends,
}

/// Longest wait for one question or command.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait until a new topic shows its partitions to everyone.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);

impl Topics {
    pub fn new(kafka: &config::KafkaConfig) -> Result<Self> {
        let config = client_config(kafka, Purpose::Admin)?;
        let admin = AdminClient::from_config_and_context(&config, LoggingContext::new(&config))
            .map_err(|e| failure::of("create admin client", &e))?;
        Ok(Self { admin: Arc::new(admin), ends: Ends::new(kafka)? })
    }

    /// Those of `names` that exist. `Unavailable`: the broker does not answer, or does not allow it.
    pub async fn describe(&self, names: &[String]) -> Result<Vec<FoundTopic>> {
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match self.partitions_of(name).await {
                Ok(partitions) => found.push(FoundTopic { name: name.clone(), partitions, settings: BTreeMap::new() }),
                Err(error) if error.code() == failure::TOPIC_MISSING => {}
                Err(error) => return Err(error),
            }
        }
        let specifiers: Vec<_> = found.iter().map(|topic| topic.name.clone()).collect();
        let specifiers: Vec<_> = specifiers.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if specifiers.is_empty() {
            return Ok(found);
        }
        let described =
            self.admin.describe_configs(&specifiers, &options()).await.map_err(|e| failure::of("describe topics", &e))?;
        for (topic, described) in found.iter_mut().zip(described) {
            let described = described.map_err(|code| failure::of_code(&format!("describe topic {}", topic.name), code))?;
            topic.settings = described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
        }
        Ok(found)
    }

    /// Creates topics and waits until they show their partitions. One that exists already is left as it is.
    pub async fn create(&self, wanted: &[WantedTopic]) -> Result<()> {
        let new: Vec<NewTopic<'_>> = wanted
            .iter()
            .map(|topic| {
                let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
                topic.settings.iter().fold(new, |new, (setting, value)| new.set(setting, value))
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let results = self.admin.create_topics(&new, &options()).await.map_err(|e| failure::of("create topics", &e))?;
        for result in results {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(failure::of_code(&format!("create topic {topic}"), code)),
            }
        }
        for topic in wanted {
            self.wait_until_visible(&topic.name).await?;
        }
        Ok(())
    }

    /// `Invalid` [`TOPIC_MISSING`](super::TOPIC_MISSING): there is no such topic.
    pub async fn partitions_of(&self, topic: &str) -> Result<i32> {
        self.ends.partitions_of(topic).await
    }

    /// Metadata lags behind creation for a moment.
    async fn wait_until_visible(&self, topic: &str) -> Result<()> {
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        loop {
            match self.partitions_of(topic).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}
