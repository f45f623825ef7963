//! Whose the replay log is: what `doctor` says of it, and `store take-over-log`, with which an operator hands it over.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::check::{Check, Verdict, ok};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::record::NewRecord;
use crate::kafka::transaction::{Transaction, TransactionalPublisher};
use crate::replay_log::newest_owners::{NewestOwner, of_other_groups};
use crate::replay_log::owner::{GROUP, GROUP_WHY, LogOwner};
use crate::roles::replay::owner::claim_id;
use crate::saga::position::TopicPartition;
use crate::serve::partition_counts;

fn partitions(config: &Config, counts: &[(String, i32)]) -> Vec<TopicPartition> {
    let log = &config.topics.log;
    let count = counts.iter().find(|(name, _)| name == log).map_or(0, |(_, count)| *count);
    (0..count).map(|partition| TopicPartition::new(log.as_str(), partition)).collect()
}

pub(super) async fn check(config: &Config, counts: &[(String, i32)]) -> Result<Check> {
    let anothers = of_other_groups(&config.kafka, &Ends::new(&config.kafka)?, partitions(config, counts)).await?;
    if anothers.is_empty() {
        return Ok(ok("replay log", "no other group has written to it"));
    }
    let groups: BTreeSet<&str> = anothers.iter().map(|newest| newest.owner.group.as_str()).collect();
    let groups = groups.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Check {
        check: "replay log".into(),
        verdict: Verdict::Problem,
        detail: format!(
            "{} partitions of {} belong to group {groups}: group {} carries out no replays from them",
            anothers.len(),
            config.topics.log,
            config.kafka.group_id
        ),
        remedy: Some("stop that group's role replay, then: resaga store take-over-log --reason ... --yes".into()),
        exit: None,
    })
}

/// Hands the log over to the configured group: the newest record of each partition is written again, as this group's.
/// Tells what was done.
pub async fn take_over_log(config: &Config, requested_by: &str, reason: &str) -> anyhow::Result<String> {
    let counts = partition_counts(config).await?;
    let ends = Ends::new(&config.kafka)?;
    let group = &config.kafka.group_id;
    let found = of_other_groups(&config.kafka, &ends, partitions(config, &counts)).await?;
    if found.is_empty() {
        let message = format!("no partition of {} belongs to another group than {group}", config.topics.log);
        return Err(Error::invalid("request_invalid", message).into());
    }
    let others: BTreeSet<&str> = found.iter().map(|newest| newest.owner.group.as_str()).collect();
    for other in others {
        let members = ends.members_of(&format!("{other}-replay")).await?;
        if members > 0 {
            let message = format!("group {other}-replay still has {members} members: stop that group's role replay first");
            return Err(Error::invalid("request_invalid", message).into());
        }
    }
    let why = serde_json::json!({"requested_by": requested_by, "reason": reason}).to_string();
    let mut taken = 0;
    for NewestOwner { partition, .. } in found {
        // From here on nobody else claims it; looked at again, as somebody may have done so meanwhile.
        let id = claim_id(&config.topics.log, partition.partition);
        let publisher = TransactionalPublisher::open(&config.kafka, &id).await?;
        let Some(newest) = of_other_groups(&config.kafka, &ends, vec![partition]).await?.pop() else { continue };
        let records = vec![again(newest, group, &why)];
        let transaction = Transaction { records, ..Transaction::default() };
        publisher.publish(transaction).await.map_err(|e| Error::unavailable(format!("hand over the replay log: {e}")))?;
        taken += 1;
    }
    Ok(format!("{taken} partitions of {} belong to group {group} now; restart its processes with role replay", config.topics.log))
}

/// The same record, of the next generation.
fn again(newest: NewestOwner, group: &str, why: &str) -> NewRecord {
    let NewestOwner { partition, record, owner } = newest;
    let mut headers = record.headers;
    headers.retain(|(name, _)| name != GROUP && name != GROUP_WHY);
    headers.push(LogOwner { group: group.to_owned(), generation: owner.generation + 1 }.header());
    headers.push((GROUP_WHY.to_owned(), Some(Bytes::from(why.to_owned()))));
    NewRecord {
        topic: partition.topic.to_string(),
        partition: Some(partition.partition),
        key: record.key,
        value: record.value,
        headers,
        timestamp: None,
    }
}
