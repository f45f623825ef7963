//! The settings of the topics, beside those that are wanted.

use super::check::{Check, problem, warning};
use crate::config::Config;
use crate::kafka::topics::{TopicDifference, Topics, plan, wanted};

pub async fn check(config: &Config, checks: &mut Vec<Check>) {
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

fn stamps_matter(config: &Config, topic: &str) -> bool {
    topic == config.topics.requests || config.topics.events.iter().any(|events| events == topic)
}
