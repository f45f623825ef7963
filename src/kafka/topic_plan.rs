//! Which topics resaga needs, and what is missing or different. Pure: [`topics`](super::topics) asks and creates.

use std::collections::BTreeMap;

use crate::config::Config;

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const RETENTION: &str = "retention.ms";
const CLEANUP: &str = "cleanup.policy";

/// What the records of Kafka's own framing, headers of a dead letter or an Avro prefix may add.
const MARGIN: u64 = 64 << 10;

/// A topic as `topic apply` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTopic {
    pub name: String,
    pub partitions: i32,
    /// -1: the broker's.
    pub replication: i32,
    /// Only those that matter to resaga.
    pub settings: BTreeMap<&'static str, String>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    pub name: String,
    pub partitions: i32,
    /// Kafka's topic settings by name; without those the broker keeps secret.
    pub settings: BTreeMap<String, String>,
}

impl FoundTopic {
    /// Whether the broker stamps records, so that recorded times cannot be wrong or go back.
    pub fn is_log_append_time(&self) -> bool {
        self.settings.get(TIMESTAMP_TYPE).is_some_and(|kind| kind == LOG_APPEND_TIME)
    }
}

/// How what is there differs from what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicDifference {
    /// `topic apply` creates it.
    Missing(WantedTopic),
    /// Left as it is: a count is never lowered, and raising it moves sagas.
    Partitions { topic: String, wanted: i32, found: i32 },
    /// Left as it is: changing it is the operator's call.
    Setting { topic: String, setting: &'static str, wanted: String, found: String },
}

/// The topics that this configuration uses (docs/INTERFACE.md, Topics).
pub fn wanted(config: &Config) -> Vec<WantedTopic> {
    let topics = &config.topics;
    let ours = config.limits.max_record.saturating_mul(4).saturating_add(MARGIN);
    // A dead letter holds a record that was too large, and its reasons beside it.
    let letters = ours.saturating_mul(2);
    let append = Some(LOG_APPEND_TIME);
    let mut wanted: Vec<WantedTopic> = Vec::new();
    let mut want = |name: &str, cleanup: &str, days: u64, stamp: Option<&str>, max_bytes: u64| {
        if wanted.iter().any(|topic| topic.name == name) {
            return;
        }
        let mut settings = BTreeMap::from([
            (CLEANUP, cleanup.to_owned()),
            (RETENTION, (days * 86_400_000).to_string()),
            (MAX_MESSAGE_BYTES, max_bytes.to_string()),
        ]);
        if let Some(stamp) = stamp {
            settings.insert(TIMESTAMP_TYPE, stamp.to_owned());
        }
        let (partitions, replication) = (topics.partitions, topics.replication);
        wanted.push(WantedTopic { name: name.to_owned(), partitions, replication, settings });
    };
    for events in &topics.events {
        want(events, "delete", 7, append, ours);
    }
    want(&topics.requests, "delete", 30, append, ours);
    want(&topics.restored, "delete", 14, None, ours);
    for allowed in &topics.restored_allowed {
        want(allowed, "delete", 14, None, ours);
    }
    want(&topics.log, "compact,delete", 400, None, ours);
    want(&topics.dead_letters, "delete", 30, None, letters);
    wanted
}

/// Requests and replay log need equal partition counts: one that is missing is made like the other that is there.
pub fn follow_sibling(wanted: &mut [WantedTopic], found: &[FoundTopic], requests: &str, log: &str) {
    let count = |topic: &str| found.iter().find(|is| is.name == topic).map(|is| is.partitions);
    for (missing, sibling) in [(log, requests), (requests, log)] {
        if let (None, Some(partitions)) = (count(missing), count(sibling)) {
            wanted.iter_mut().filter(|want| want.name == missing).for_each(|want| want.partitions = partitions);
        }
    }
}

/// What `topic plan` shows. A retention that is longer, or a size limit that is larger, than wanted is no difference.
pub fn plan(wanted: &[WantedTopic], found: &[FoundTopic]) -> Vec<TopicDifference> {
    let mut differences = Vec::new();
    for want in wanted {
        let Some(is) = found.iter().find(|topic| topic.name == want.name) else {
            differences.push(TopicDifference::Missing(want.clone()));
            continue;
        };
        if is.partitions != want.partitions {
            let (wanted, found) = (want.partitions, is.partitions);
            differences.push(TopicDifference::Partitions { topic: want.name.clone(), wanted, found });
        }
        for (setting, value) in &want.settings {
            let Some(found) = is.settings.get(*setting) else { continue };
            if !serves(setting, value, found) {
                let (topic, wanted, found) = (want.name.clone(), value.clone(), found.clone());
                differences.push(TopicDifference::Setting { topic, setting, wanted, found });
            }
        }
    }
    differences
}

fn serves(setting: &str, wanted: &str, found: &str) -> bool {
    match setting {
        RETENTION | MAX_MESSAGE_BYTES => match (wanted.parse::<i64>(), found.parse::<i64>()) {
            // -1: without limit.
            (Ok(wanted), Ok(found)) => found < 0 || found >= wanted,
            _ => false,
        },
        CLEANUP => {
            let sorted = |policies: &str| {
                let mut policies: Vec<_> = policies.split(',').map(|p| p.trim().to_owned()).collect();
                policies.sort_unstable();
                policies
            };
            sorted(wanted) == sorted(found)
        }
        _ => wanted == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_wanted(want: &WantedTopic) -> FoundTopic {
        FoundTopic {
            name: want.name.clone(),
            partitions: want.partitions,
            settings: want.settings.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        }
    }

    #[test]
    fn every_topic_of_the_design_is_wanted_once() {
        let mut config = Config::default();
        config.topics.restored_allowed = vec![config.topics.restored.clone(), "other".into()];
        let names: Vec<_> = wanted(&config).into_iter().map(|topic| topic.name).collect();
        let expected = [
            "saga.events.v1",
            "saga.replay.requests.v1",
            "saga.restored.v1",
            "other",
            "saga.replay.log.v1",
            "saga.dead-letters.v1",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn events_and_requests_are_stamped_by_the_broker_and_hold_four_times_a_record() {
        let topics = wanted(&Config::default());
        for topic in &topics[..2] {
            assert_eq!(topic.settings[TIMESTAMP_TYPE], LOG_APPEND_TIME);
            assert!(topic.settings[MAX_MESSAGE_BYTES].parse::<u64>().unwrap() >= 4 << 20);
        }
        assert!(as_wanted(&topics[0]).is_log_append_time());
    }

    #[test]
    fn what_is_there_as_wanted_or_better_is_no_difference() {
        let wanted = wanted(&Config::default());
        let mut found: Vec<_> = wanted.iter().map(as_wanted).collect();
        assert_eq!(plan(&wanted, &found), []);
        found[0].settings.insert(RETENTION.into(), "-1".into());
        found[3].settings.insert(CLEANUP.into(), "delete,compact".into());
        assert_eq!(plan(&wanted, &found), []);
    }

    #[test]
    fn a_missing_log_is_made_with_as_many_partitions_as_the_requests_have_and_the_other_way_round() {
        let names = ("saga.replay.requests.v1", "saga.replay.log.v1");
        for (is, missing) in [names, (names.1, names.0)] {
            let mut wanted = wanted(&Config::default());
            let mut there = as_wanted(wanted.iter().find(|want| want.name == is).unwrap());
            there.partitions = 3;
            follow_sibling(&mut wanted, &[there], names.0, names.1);
            let counts: BTreeMap<_, _> = wanted.iter().map(|want| (want.name.as_str(), want.partitions)).collect();
            assert_eq!((counts[missing], counts["saga.events.v1"]), (3, 12));
        }
        let mut both_missing = wanted(&Config::default());
        follow_sibling(&mut both_missing, &[], names.0, names.1);
        assert_eq!(both_missing, wanted(&Config::default()));
    }

    #[test]
    fn missing_topics_counts_and_settings_are_told_apart() {
        let wanted = wanted(&Config::default());
        let mut found: Vec<_> = wanted.iter().map(as_wanted).collect();
        found[0].settings.insert(TIMESTAMP_TYPE.into(), "CreateTime".into());
        found[1].partitions = 3;
        let missing = found.pop().unwrap().name;
        let differences = plan(&wanted, &found);
        assert!(
            matches!(&differences[0], TopicDifference::Setting { setting, found, .. } if *setting == TIMESTAMP_TYPE && found == "CreateTime")
        );
        assert!(matches!(&differences[1], TopicDifference::Partitions { wanted: 12, found: 3, .. }));
        assert!(matches!(&differences[2], TopicDifference::Missing(topic) if topic.name == missing));
        assert_eq!(differences.len(), 3);
    }
}
