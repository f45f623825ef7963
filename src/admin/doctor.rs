//! `doctor`: looks at everything once and says what to fix.

use super::check::{Check, Verdict, ok, problem, warning};
use super::{chains, conflicts, partitioner, take_over_log};
use crate::cold::owner;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hot::check_owner;
use crate::kafka::ends::Ends;
use crate::kafka::topics::{TopicDifference, Topics, plan, wanted};
use crate::partitioning::{newest_keys, used};
use crate::saga::installation::Installation;
use crate::schema_registry::SchemaRegistry;
use crate::serve::{self, installation, partition_counts, schemas_of};
use crate::wire::avro::Schemas;

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
        topic_settings(config, &mut checks).await;
        checks.push(take_over_log::check(config, counts).await.unwrap_or_else(|error| problem("replay log", &error)));
    }
    if !config.registry.url.is_empty() {
        checks.push(registry(config).await.unwrap_or_else(|error| problem("registry", &error)));
    }
    let mine = match Ends::new(&config.kafka) {
        Ok(ends) if counts.is_some() => installation(config, &ends).await.ok(),
        _ => None,
    };
    hot(config, mine.as_ref(), &mut checks).await;
    cold(config, counts.as_deref(), mine.as_ref(), &mut checks).await;
    if let Some(counts) = &counts {
        match producers(config, counts).await {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(problem("partitioner", &error)),
        }
    }
    Ok(checks)
}

async fn topic_settings(config: &Config, checks: &mut Vec<Check>) {
    let wanted = wanted(config);
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let found = match Topics::new(&config.kafka) {
        Ok(topics) => topics.describe(&names).await,
        Err(error) => Err(error),
    };
    match found {
        Err(error) => checks.push(problem("topic settings", &error)),
        Ok(found) => {
            for topic in found.iter().filter(|topic| stamps_matter(config, &topic.name) && !topic.is_log_append_time()) {
                checks.push(warning(
                    "topic settings",
                    format!("topic {} has CreateTime: recorded times are only as good as the producers' clocks", topic.name),
                    "set message.timestamp.type=LogAppendTime",
                ));
            }
            for difference in plan(&wanted, &found) {
                if let TopicDifference::Setting { topic, setting, wanted, found } = difference
                    && setting != "message.timestamp.type"
                {
                    checks.push(warning(
                        "topic settings",
                        format!("topic {topic} has {setting}={found}"),
                        &format!("set {setting}={wanted}"),
                    ));
                }
            }
        }
    }
}

/// How producers spread keys, and sagas that they spread, too.
async fn producers(config: &Config, counts: &[(String, i32)]) -> Result<[Check; 2]> {
    let url = Some(config.registry.url.as_str()).filter(|url| !url.is_empty());
    let registry = url.map(SchemaRegistry::new).transpose()?;
    let schemas = Schemas::new(registry.is_some());
    let found = newest_keys(config, counts, &Ends::new(&config.kafka)?, registry.as_ref(), &schemas).await?;
    // Whatever is wrong with them stands there already.
    let stores = serve::look(config, counts).await.ok();
    let used = used(config.topics.partitioner, &found);
    let conflicts = conflicts::check(&found, used, stores.as_ref()).await.unwrap_or_else(|error| problem("sagas", &error));
    Ok([partitioner::check(config.topics.partitioner, &found), conflicts])
}

/// Does the registry answer, and does it hold our topics to schemas that ours can be exchanged with?
async fn registry(config: &Config) -> Result<Check> {
    let registry = SchemaRegistry::new(&config.registry.url)?;
    for (topic, schema) in schemas_of(&config.topics) {
        if !registry.would_take(topic, schema).await? {
            return Ok(Check {
                check: "registry".into(),
                verdict: Verdict::Problem,
                detail: format!("subject {topic}-value holds the topic to a schema that resaga's cannot be exchanged with"),
                remedy: Some("remove the foreign schema from the subject, or use another topic".into()),
                exit: Some(2),
            });
        }
    }
    Ok(ok("registry", "answers; takes the schemas of resaga's topics"))
}

fn stamps_matter(config: &Config, topic: &str) -> bool {
    topic == config.topics.requests || config.topics.events.iter().any(|events| events == topic)
}

async fn hot(config: &Config, mine: Option<&Installation>, checks: &mut Vec<Check>) {
    let look = async {
        let hot = crate::hot::open(&config.hot)?;
        let (health, owner) = (hot.health().await?, hot.owner().await?);
        hot.takes_writes().await?;
        Ok::<_, Error>((health, owner))
    };
    match look.await {
        Err(error) => checks.push(problem("hot store", &error)),
        Ok((health, owner)) => {
            if let (Some(owner), Some(mine)) = (owner, mine)
                && let Err(error) = check_owner(&owner, mine)
            {
                checks.push(problem("hot store", &error));
            }
            checks.push(ok("hot store", "answers and takes writes"));
            for text in health.problems {
                checks.push(problem("hot store", &Error::invalid("hot_store_unfit", text)));
            }
            for hint in health.hints {
                checks.push(warning("hot store", hint, "see docs/operations.md, Redis"));
            }
        }
    }
}

/// Every partition's chain against what the log still has.
async fn cold(config: &Config, counts: Option<&[(String, i32)]>, mine: Option<&Installation>, checks: &mut Vec<Check>) {
    let objects = match crate::cold::open(&config.cold).await {
        Ok(objects) => objects,
        Err(error) => return checks.push(problem("cold store", &error)),
    };
    let looked = owner::look(&*objects).await.and_then(|owners| mine.map_or(Ok(()), |mine| owners.check(mine)));
    if let Err(error) = looked {
        return checks.push(problem("cold store", &error));
    }
    checks.push(ok("cold store", "answers, and never writes over an object that is there"));
    let Some(counts) = counts else { return };
    match chains::disagreements(config, counts, objects).await {
        Err(error) => checks.push(problem("chains", &error)),
        Ok(found) if found.is_empty() => checks.push(ok("chains", "every chain ends inside its partition's log")),
        Ok(found) => {
            for (partition, code, reason) in found {
                if code == chains::NO_LEADER {
                    checks.push(Check {
                        remedy: Some("bring back the broker that has it; the other partitions go on meanwhile".into()),
                        ..problem("chains", &Error::unavailable(format!("{partition} is not led by any broker: {reason}")))
                    });
                    continue;
                }
                checks.push(Check {
                    check: "chains".into(),
                    verdict: Verdict::Problem,
                    detail: format!("{partition} is stopped ({code}): {reason}"),
                    remedy: Some(format!(
                        "if the offsets cannot be brought back: resaga store accept-gap {} {} --reason ... --yes",
                        partition.topic, partition.partition
                    )),
                    exit: None,
                });
            }
        }
    }
}
