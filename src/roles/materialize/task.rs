//! The role as the process runs it: one task for the step topics, one for the replay log.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Dependencies, Materialize, Settings};
use crate::error::Result;
use crate::kafka::intake::Intake;
use crate::kafka::publisher::Publisher;
use crate::roles::{Assigned, Components, RoleTask, fold_settings};
use crate::saga::position::Topic;

struct MaterializeTask {
    name: &'static str,
    topics: Vec<Topic>,
    components: Components,
}

/// The log has a group of its own: the assignor evens out partitions over a group's topics together, and one process could
/// get the log's and another the events'.
pub fn tasks(components: &Components) -> Vec<Arc<dyn RoleTask>> {
    let topics = &components.config.topics;
    let events = topics.events.iter().map(|topic| Topic::from(topic.as_str())).collect();
    let log = vec![Topic::from(topics.log.as_str())];
    let task =
        |(name, topics)| -> Arc<dyn RoleTask> { Arc::new(MaterializeTask { name, topics, components: components.clone() }) };
    [("materialize", events), ("materialize-log", log)].map(task).into()
}

#[async_trait]
impl RoleTask for MaterializeTask {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, assigned: Assigned, shutdown: watch::Receiver<bool>) -> Result<()> {
        let parts = &self.components;
        let config = &parts.config;
        let group = format!("{}-{}", config.kafka.group_id, self.name);
        let (intake, events) = Intake::start(&config.kafka, &group, &self.topics, parts.intake_limits())?;
        let fold = fold_settings(config);
        let settings = Settings {
            owners: parts.owners.clone(),
            log: config.topics.log.as_str().into(),
            requests: config.topics.requests.clone(),
            request_schema: parts.targets.schemas.request,
            dead_letters: config.topics.dead_letters.clone(),
            max_record_bytes: config.limits.max_record,
            fold_text: fold.text(),
            fold,
            flush_interval: config.cold.flush_interval,
            flush_bytes: config.cold.flush_bytes,
            buffer_bytes: config.cold.buffer_bytes,
            max_cached_sagas: usize::try_from(config.limits.max_cached_sagas).unwrap_or(usize::MAX),
            index_ttl: config.hot.ttl,
        };
        let dependencies = Dependencies {
            hot: parts.hot.clone(),
            objects: parts.objects.clone(),
            chains: parts.chains.clone(),
            clock: parts.clock.clone(),
            history: parts.history.clone(),
            log_history: parts.log_history.clone(),
            publisher: Publisher::new(&config.kafka)?,
            ends: parts.ends.clone(),
            registry: parts.registry.clone(),
            schemas: parts.schemas.clone(),
            partitioning: parts.partitioning.clone(),
            metrics: parts.metrics.clone(),
            assigned,
            now: parts.now,
        };
        Materialize::new(dependencies, settings, intake).run(events, shutdown).await
    }
}
