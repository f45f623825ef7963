//! The schemas of the topics that resaga writes: registered at the start, compared by `doctor`.

use std::time::Duration;

use crate::config;
use crate::error::{Error, Result};
use crate::retry::until_available;
use crate::roles::replay::Schemas;
use crate::schema_registry::SchemaRegistry;
use crate::wire::avro;

/// Longest wait for the registry at the start.
const WITHIN: Duration = Duration::from_secs(30);

/// Waits for a registry that does not answer yet.
pub async fn register(registry: &SchemaRegistry, topics: &config::TopicsConfig, schemas: &avro::Schemas) -> Result<Schemas> {
    let register = || register_once(registry, topics, schemas);
    tokio::time::timeout(WITHIN, until_available("register schemas", register))
        .await
        .map_err(|_| Error::unavailable("register schemas: the registry did not take them in time"))?
}

/// What is written with them can be read from then on, whether the registry answers or not.
async fn register_once(registry: &SchemaRegistry, topics: &config::TopicsConfig, schemas: &avro::Schemas) -> Result<Schemas> {
    let mut ids = Vec::new();
    for (topic, text) in schemas_of(topics) {
        let id = registry.register(topic, text).await?;
        schemas.insert(avro::SchemaRef::Id(id), text)?;
        ids.push(Some(id));
    }
    let [event, restored, log, request] = ids[..] else { return Err(Error::bug("register schemas: four topics have one")) };
    Ok(Schemas { event, restored, log, request })
}

/// The topics that resaga writes, with the schemas of their values.
pub fn schemas_of(topics: &config::TopicsConfig) -> [(&str, &'static str); 4] {
    [
        (&topics.events[0], avro::texts::STEP_EVENT),
        (&topics.restored, avro::texts::RESTORED_SAGA),
        (&topics.log, avro::texts::REPLAY_LOG_ENTRY),
        (&topics.requests, avro::texts::REPLAY_REQUEST),
    ]
}
