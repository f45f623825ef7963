//! `doctor`: looks at everything once and says what to fix. One file a thing that it looks at; [`check`] is a finding.

pub(super) mod chains;
mod check;
mod log_owner;
mod partitioner;
mod registry;
mod split_sagas;
mod stores;
mod topic_settings;

use crate::config::Config;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::partitioning::{newest_keys, partitioner_of};
use crate::schema_registry::SchemaRegistry;
use crate::serve::{self, installation, partition_counts};
use crate::wire::avro::Schemas;
use check::{ok, problem};

pub use check::{Check, Verdict};

/// Looks at brokers, topics and stores.
pub async fn doctor(config: &Config) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    let counts = match partition_counts(config).await {
        Ok(counts) => {
            checks.push(ok("broker", "answers"));
            checks.push(ok("topics", "all there; requests and log have equal partition counts"));
            Some(counts)
        }
        Err(error) => {
            let check = if error.is_unavailable() { "broker" } else { "topics" };
            checks.push(problem(check, &error));
            None
        }
    };
    if let Some(counts) = &counts {
        topic_settings::check(config, &mut checks).await;
        checks.push(log_owner::check(config, counts).await.unwrap_or_else(|error| problem("replay log", &error)));
    }
    if !config.registry.url.is_empty() {
        checks.push(registry::check(config).await.unwrap_or_else(|error| problem("registry", &error)));
    }
    let mine = match Ends::new(&config.kafka) {
        Ok(ends) if counts.is_some() => installation(config, &ends).await.ok(),
        _ => None,
    };
    stores::hot(config, mine.as_ref(), &mut checks).await;
    stores::cold(config, counts.as_deref(), mine.as_ref(), &mut checks).await;
    if let Some(counts) = &counts {
        match producers(config, counts).await {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(problem("partitioner", &error)),
        }
    }
    Ok(checks)
}

/// How producers spread keys, and sagas that they spread, too.
async fn producers(config: &Config, counts: &[(String, i32)]) -> Result<[Check; 2]> {
    let url = Some(config.registry.url.as_str()).filter(|url| !url.is_empty());
    let registry = url.map(SchemaRegistry::new).transpose()?;
    let schemas = Schemas::new(registry.is_some());
    let found = newest_keys(config, counts, &Ends::new(&config.kafka)?, registry.as_ref(), &schemas).await?;
    // Whatever is wrong with them stands there already.
    let stores = serve::open_read_only(config, counts).await.ok();
    let partitioner = partitioner_of(config.topics.partitioner, &found);
    let split = split_sagas::check(&found, partitioner, stores.as_ref()).await.unwrap_or_else(|error| problem("sagas", &error));
    Ok([partitioner::check(config.topics.partitioner, &found), split])
}
